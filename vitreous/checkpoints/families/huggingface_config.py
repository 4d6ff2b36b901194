"""The JSON files of transformers beside the weights: config.json and preprocessor_config.json, read and written."""

from collections.abc import Mapping, Sequence
from typing import Any

from vitreous.checkpoints.families.family import CLIP_MEAN, CLIP_STD
from vitreous.data.preprocessing import INTERPOLATIONS, Preprocessing
from vitreous.model.config import ViTConfig, is_integer
from vitreous.support.errors import InputError

VIT, DEIT, CLIP, SIGLIP = "vit", "deit", "clip_vision_model", "siglip_vision_model"
TOWERS = {"clip": CLIP, "siglip": SIGLIP}  # models of images and texts, and the part that sees the images

GELUS = {"gelu": "exact", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "quick_gelu": "quick"}
# What a config that leaves a field away means.
DEFAULTS: dict[str, dict[str, Any]] = {
    VIT: {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "num_attention_heads": 12, "image_size": 224},
    DEIT: {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "num_attention_heads": 12, "image_size": 224},
    CLIP: {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_attention_heads": 12, "image_size": 224},
    SIGLIP: {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_attention_heads": 12, "image_size": 224},
}

HALF = [0.5, 0.5, 0.5]
# What an image processor does where its file leaves a field away; the name is without "ImageProcessor".
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {"size": 224, "resample": 2, "image_mean": HALF, "image_std": HALF},
    "DeiT": {
        **{"size": 256, "do_center_crop": True, "crop_size": 224},
        **{"resample": 3, "image_mean": HALF, "image_std": HALF},
    },
    "CLIP": {
        **{"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224},
        **{"resample": 3, "image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD)},
    },
    "Siglip": {"size": {"height": 224, "width": 224}, "resample": 3, "image_mean": HALF, "image_std": HALF},
}
PROCESSOR_OF = {VIT: "ViT", DEIT: "DeiT", CLIP: "CLIP", SIGLIP: "Siglip"}
BY_EDGE = ("CLIP", "Siglip")  # take a size of one number for the shorter side, where others take it for a square
PREPROCESSOR = "preprocessor_config.json"


def model_of(c: ViTConfig) -> str:
    """The model_type of transformers whose table a config needs."""
    if c.pre_norm:
        return CLIP
    if c.pooling == "attention" or not c.class_token:
        return SIGLIP
    return DEIT if c.distillation_token or c.registers else VIT


def seeing(belongings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The part of a config.json that is about images, and its model_type."""
    kind = str(belongings.get("model_type", ""))
    told = dict(belongings)
    if isinstance(belongings.get("vision_config"), dict):
        told = dict(belongings["vision_config"])
        older = belongings.get("vision_config_dict")  # goes before the other, where there are both
        told |= older if isinstance(older, dict) else {}
        kind = str(told.get("model_type", TOWERS.get(kind, kind)))
    return kind, told


def fields_of(belongings: Mapping[str, Any]) -> dict[str, Any]:
    """The config fields that a config.json holds and the keys of the weights do not.

    Raises:
        InputError: the model computes something that ours cannot.
    """
    kind, told = seeing(belongings)
    told = DEFAULTS.get(kind, {}) | {name: value for name, value in told.items() if value is not None}
    act = told.get("hidden_act")
    if act is not None and str(act) not in GELUS:
        raise InputError(f"config.json says hidden_act {act!r}", f"those that can be read are {', '.join(GELUS)}")
    if told.get("pooler_act", "tanh") != "tanh":
        raise InputError(f"config.json says pooler_act {told['pooler_act']!r}", "only tanh can be read")
    if told.get("qkv_bias", True) is not True:
        raise InputError(
            "config.json says that query, key and value have no biases", "only models that have them can be read"
        )
    fields: dict[str, Any] = {"gelu": GELUS[str(act)]} if act is not None else {}
    for theirs, ours in (("layer_norm_eps", "norm_eps"), ("num_attention_heads", "num_heads")):
        fields |= {ours: told[theirs]} if theirs in told else {}
    size = told.get("image_size")
    if size is not None:
        fields["image_size"] = (size, size) if is_integer(size) else tuple(size) if isinstance(size, list) else size
    return fields


def class_names_of(belongings: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names in the order of their ids; None for transformers' placeholders, or where ids are missing."""
    labels = belongings.get("id2label")
    if not isinstance(labels, dict):
        return None
    named = {str(i): str(name) for i, name in labels.items()}
    if any(str(i) not in named for i in range(len(named))):
        return None
    names = tuple(named[str(i)] for i in range(len(named)))
    return None if names == placeholders(len(names)) else names


def placeholders(count: int) -> tuple[str, ...]:
    """What transformers calls classes without names."""
    return tuple(f"LABEL_{i}" for i in range(count))


def preprocessing_of(belongings: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Preprocessing | None:
    """What a preprocessor_config.json does; None where there is none.

    Raises:
        InputError: it does something that ours cannot say.
    """
    if not preprocessor:
        return None
    kind = str(preprocessor.get("image_processor_type") or preprocessor.get("feature_extractor_type") or "")
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    if kind not in PROCESSORS:
        kind = PROCESSOR_OF.get(seeing(belongings)[0], "ViT")
    told = PROCESSORS[kind] | {name: value for name, value in preprocessor.items() if value is not None}
    try:
        if "crop_pct" in told:
            raise ValueError("crop_pct is not known")
        if told.get("do_flip_channel_order"):
            raise ValueError("it turns RGB into BGR")
        size, resize, fraction = geometry(told, by_edge=kind in BY_EDGE)
        # (x · factor - mean) / std, in values from 0 to 1
        scale = 255 * told.get("rescale_factor", 1 / 255) if told.get("do_rescale", True) else 255.0
        channels = len(told["image_mean"])
        plain = told.get("do_normalize", True)
        mean, std = (told["image_mean"], told["image_std"]) if plain else ([0.0] * channels, [1.0] * channels)
        return Preprocessing(
            size,
            resize,
            fraction,
            {int(method): name for name, method in INTERPOLATIONS.items()}[told["resample"]],
            mean=tuple(value / scale for value in mean),
            std=tuple(value / scale for value in std),
            channels=channels,
            crop_rounding="down" if resize == "crop" or fraction < 1 else "even",
        )
    except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
        cause = f"{PREPROCESSOR} says what our preprocessing cannot do: {error}"
        raise InputError(cause, "fix it, or take it away") from error


def geometry(told: Mapping[str, Any], *, by_edge: bool) -> tuple[tuple[int, int], Any, float]:
    """Image size, resize and crop fraction.

    Raises:
        ValueError: images would keep their shape, be padded, or be stretched beside the crop.
    """
    size = told["size"]
    edge = size if is_integer(size) and by_edge else size.get("shortest_edge") if isinstance(size, dict) else None
    crop = sides(told["crop_size"]) if told.get("do_center_crop", False) else None
    resized = told.get("do_resize", True)
    if crop is not None and not resized:
        raise ValueError("it crops the middle of images that are not resized")
    if edge is not None:
        if crop is None or crop[0] != crop[1]:
            raise ValueError(f"it resizes the shorter side to {edge} and cuts out no square")
        if isinstance(size, dict) and size.get("longest_edge"):
            raise ValueError(f"its size has a longest edge of {size['longest_edge']}")
        return crop, "crop", fraction_of(crop[0], sides(edge)[0])
    height, width = sides(size)
    if crop is None:  # without resizing, images of this size are the only ones that the model takes
        return (height, width), "squash", 1.0
    if crop[0] * width != crop[1] * height:
        raise ValueError(f"its crop of {crop} has another shape than its size of {(height, width)}")
    return crop, "squash", fraction_of(crop[0], height)


def sides(size: Any) -> tuple[int, int]:
    """(height, width) of a size in a preprocessor_config.json. Raises ValueError where it is none."""
    pair = [size.get("height"), size.get("width")] if isinstance(size, dict) else [size, size]
    whole = [side for side in pair if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(whole) < len(pair):
        raise ValueError(f"{size!r} is no size")
    return whole[0], whole[1]


def fraction_of(crop: int, whole: int) -> float:
    """The share of a side that a crop keeps. Raises ValueError where the crop would have to pad."""
    if crop > whole:
        raise ValueError(f"its crop of {crop} is larger than its size of {whole}")
    return crop / whole


def config_json(c: ViTConfig, p: Preprocessing, class_names: Sequence[str] | None) -> dict[str, Any]:
    """The config.json of a model that transformers can hold."""
    model = model_of(c)
    size = [side + cut for side, cut in zip(c.image_size, p.trim, strict=True)]
    square = size[0] == size[1] and c.patch_size[0] == c.patch_size[1]
    seen: dict[str, Any] = {
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.num_heads,
        "intermediate_size": c.mlp_dim,
        "hidden_act": {gelu: name for name, gelu in reversed(GELUS.items())}[c.gelu],
        "layer_norm_eps": c.norm_eps,
        "image_size": size[0] if square else size,
        "patch_size": c.patch_size[0] if square else list(c.patch_size),
        "num_channels": c.channels,
    }
    if model == SIGLIP and c.num_classes:  # the mean of all tokens, and a classifier behind it
        seen |= {"model_type": SIGLIP, "vision_use_head": False}
        whole = {"architectures": ["SiglipForImageClassification"], "model_type": "siglip", "vision_config": seen}
        return whole | labels(c, class_names)
    if model == SIGLIP:
        return {"architectures": ["SiglipVisionModel"], "model_type": SIGLIP, "vision_use_head": True} | seen
    if model == CLIP:
        name = "CLIPVisionModelWithProjection" if c.num_classes else "CLIPVisionModel"
        seen |= {"projection_dim": c.num_classes} if c.num_classes else {}
        return {"architectures": [name], "model_type": CLIP} | seen
    name = "DeiT" if model == DEIT else "ViT"
    task = "ForImageClassification" if c.num_classes else "Model"
    teacher = "WithTeacher" if c.num_classes and c.distillation_token else ""
    seen |= {"architectures": [name + task + teacher], "model_type": model, "qkv_bias": True}
    seen |= {"pooler_output_size": c.hidden_dim, "pooler_act": "tanh"} if c.hidden_dim is not None else {}
    return seen | (labels(c, class_names) if c.num_classes else {})


def labels(c: ViTConfig, class_names: Sequence[str] | None) -> dict[str, Any]:
    """The class names as a config.json keeps them, which is also what tells their number."""
    names = class_names if class_names is not None else placeholders(c.num_classes)
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def preprocessor_json(c: ViTConfig, p: Preprocessing) -> dict[str, Any]:
    """The preprocessor_config.json of a preprocessing.

    Raises:
        InputError: no image processor of transformers does that.
    """
    height, width = p.cover_size
    cut = p.cover_size != p.whole_size
    if p.resize == "crop" and p.whole_size[0] != p.whole_size[1]:
        what = f"a crop of {p.whole_size[0]}×{p.whole_size[1]} that keeps the shape"
    elif not p.antialias and p.interpolation != "nearest":
        what = f"{p.interpolation} interpolation without antialias"
    else:
        what = ""
    if what:
        hint = "export to a file, model.safetensors, which says nothing of the preprocessing"
        raise InputError(f"no image processor of transformers does {what}", hint)
    squashing = "DeiT" if cut else "Siglip" if model_of(c) == SIGLIP else "ViT"
    cropping = {"do_center_crop": True, "crop_size": dict(zip(("height", "width"), p.whole_size, strict=True))}
    return {
        "image_processor_type": f"{'CLIP' if p.resize == 'crop' else squashing}ImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": height} if p.resize == "crop" else {"height": height, "width": width},
        "resample": int(INTERPOLATIONS[p.interpolation]),
        **(cropping if cut or p.resize == "crop" else {"do_center_crop": False}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(p.mean),
        "image_std": list(p.std),
        "do_convert_rgb": p.channels == 3,
    }
