"""Reads and writes transformers' config.json and preprocessor_config.json."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vitreous.checkpoints.families.shared.family import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from vitreous.checkpoints.files.layout import PREPROCESSOR
from vitreous.data.preprocessing import INTERPOLATIONS, Preprocessing
from vitreous.model.config import ViTConfig, is_integer
from vitreous.support.errors import InputError

VIT, DEIT, CLIP, SIGLIP = "vit", "deit", "clip_vision_model", "siglip_vision_model"
TOWERS = {"clip": CLIP, "siglip": SIGLIP}  # image-text models, and their image tower

GELUS = {"gelu": "exact", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "quick_gelu": "quick"}
# transformers' defaults for fields that a config.json leaves out.
DEFAULTS: dict[str, dict[str, Any]] = {
    VIT: {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "num_attention_heads": 12, "image_size": 224},
    DEIT: {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "num_attention_heads": 12, "image_size": 224},
    CLIP: {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_attention_heads": 12, "image_size": 224},
    SIGLIP: {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_attention_heads": 12, "image_size": 224},
}

HALF = [0.5, 0.5, 0.5]
# Defaults of the image processors, whose names are without "ImageProcessor".
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
BY_EDGE = ("CLIP", "Siglip")  # a size of one number is the shorter side; for the others, a square


def model_of(c: ViTConfig) -> str:
    """The model_type of transformers that can hold a config."""
    if c.pre_norm:
        return CLIP
    if c.pooling == "attention" or not c.class_token:
        return SIGLIP
    return DEIT if c.distillation_token or c.registers else VIT


def vision_part(config_json: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The model_type and the fields of a config.json's image model."""
    model = str(config_json.get("model_type", ""))
    config = dict(config_json)
    if isinstance(config_json.get("vision_config"), dict):
        config = dict(config_json["vision_config"])
        older = config_json.get("vision_config_dict")  # overrides the other
        config |= older if isinstance(older, dict) else {}
        model = str(config.get("model_type", TOWERS.get(model, model)))
    return model, config


def fields_of(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ViTConfig that a config.json records and the keys of the weights do not.

    Raises:
        InputError: the model computes something that vitreous does not support.
    """
    model, config = vision_part(config_json)
    config = DEFAULTS.get(model, {}) | {name: value for name, value in config.items() if value is not None}
    act = config.get("hidden_act")
    if act is not None and str(act) not in GELUS:
        raise InputError(f"config.json has hidden_act {act!r}", f"supported are {', '.join(GELUS)}")
    if config.get("pooler_act", "tanh") != "tanh":
        raise InputError(f"config.json has pooler_act {config['pooler_act']!r}", "only tanh is supported")
    if config.get("qkv_bias", True) is not True:
        raise InputError("config.json has qkv_bias false", "only models with query, key and value biases can be read")
    fields: dict[str, Any] = {"gelu": GELUS[str(act)]} if act is not None else {}
    for theirs, ours in (("layer_norm_eps", "norm_eps"), ("num_attention_heads", "num_heads")):
        fields |= {ours: config[theirs]} if theirs in config else {}
    size = config.get("image_size")
    if size is not None:
        fields["image_size"] = (size, size) if is_integer(size) else tuple(size) if isinstance(size, list) else size
    return fields


def class_names_of(config_json: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names in the order of their ids; None for transformers' placeholders, or if ids are missing."""
    labels = config_json.get("id2label")
    if not isinstance(labels, dict):
        return None
    named = {str(i): str(name) for i, name in labels.items()}
    if any(str(i) not in named for i in range(len(named))):
        return None
    names = tuple(named[str(i)] for i in range(len(named)))
    return None if names == placeholders(len(names)) else names


def placeholders(count: int) -> tuple[str, ...]:
    """Transformers' names of unnamed classes."""
    return tuple(f"LABEL_{i}" for i in range(count))


def preprocessing_of(config_json: Mapping[str, Any], preprocessor_json: Mapping[str, Any]) -> Preprocessing | None:
    """The preprocessing of a preprocessor_config.json; None if it is empty.

    Raises:
        InputError: it does something that vitreous does not support.
    """
    if not preprocessor_json:
        return None
    kind = str(preprocessor_json.get("image_processor_type") or preprocessor_json.get("feature_extractor_type") or "")
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    if kind not in PROCESSORS:
        kind = PROCESSOR_OF.get(vision_part(config_json)[0], "ViT")
    values = PROCESSORS[kind] | {name: value for name, value in preprocessor_json.items() if value is not None}
    try:
        if "crop_pct" in values:
            raise ValueError("crop_pct is not supported")
        if values.get("do_flip_channel_order"):
            raise ValueError("it turns RGB into BGR")
        size, resize, fraction = geometry(values, by_edge=kind in BY_EDGE)
        # (x · factor - mean) / std, in values from 0 to 1
        scale = 255 * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 255.0
        channels = len(values["image_mean"])
        mean, std = [0.0] * channels, [1.0] * channels
        if values.get("do_normalize", True):
            mean, std = values["image_mean"], values["image_std"]
        return Preprocessing(
            size,
            resize,
            fraction,
            {int(method): name for name, method in INTERPOLATIONS.items()}[values["resample"]],
            mean=tuple(value / scale for value in mean),
            std=tuple(value / scale for value in std),
            channels=channels,
            crop_rounding="down" if resize == "crop" or fraction < 1 else "even",
        )
    except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
        cause = f"{PREPROCESSOR} has a preprocessing that is not supported: {error}"
        raise InputError(cause, "correct it, or remove it to use the default") from error


def default_preprocessing(c: ViTConfig) -> Preprocessing:
    """The preprocessing of transformers' published models of a kind."""
    size, model = c.image_size, model_of(c)
    if model == DEIT:  # transformers squashes to 256 × 256, then crops to 224 × 224
        squash = Preprocessing(size, "squash", 0.875, "bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return replace(squash, crop_rounding="down")
    if model == CLIP:
        return Preprocessing(size, "crop", 1.0, "bicubic", mean=CLIP_MEAN, std=CLIP_STD, crop_rounding="down")
    return Preprocessing(size, interpolation="bicubic") if model == SIGLIP else Preprocessing(size)


def geometry(values: Mapping[str, Any], *, by_edge: bool) -> tuple[tuple[int, int], Any, float]:
    """Image size, resize and crop fraction.

    Raises:
        ValueError: images would keep their shape, be padded, or be stretched and cropped.
    """
    size = values["size"]
    edge = size if is_integer(size) and by_edge else size.get("shortest_edge") if isinstance(size, dict) else None
    crop = sides(values["crop_size"]) if values.get("do_center_crop", False) else None
    resized = values.get("do_resize", True)
    if crop is not None and not resized:
        raise ValueError("it crops images without resizing them")
    if edge is not None:
        if crop is None or crop[0] != crop[1]:
            raise ValueError(f"it resizes the shorter side to {edge} without cropping a square")
        if isinstance(size, dict) and size.get("longest_edge"):
            raise ValueError(f"its size has a longest edge of {size['longest_edge']}")
        return crop, "crop", fraction_of(crop[0], sides(edge)[0])
    height, width = sides(size)
    if crop is None:  # if images are not resized, the model takes this size only
        return (height, width), "squash", 1.0
    if crop[0] * width != crop[1] * height:
        raise ValueError(f"its crop of {crop} has another shape than its size of {(height, width)}")
    return crop, "squash", fraction_of(crop[0], height)


def sides(size: Any) -> tuple[int, int]:
    """(height, width) of a size in a preprocessor_config.json. Raises ValueError if it is not one."""
    pair = [size.get("height"), size.get("width")] if isinstance(size, dict) else [size, size]
    whole = [side for side in pair if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(whole) < len(pair):
        raise ValueError(f"{size!r} is not a size")
    return whole[0], whole[1]


def fraction_of(crop: int, whole: int) -> float:
    """The fraction of a side that a crop keeps. Raises ValueError if the crop would have to pad."""
    if crop > whole:
        raise ValueError(f"its crop of {crop} is larger than its size of {whole}")
    return crop / whole


def config_json(c: ViTConfig, p: Preprocessing, class_names: Sequence[str] | None) -> dict[str, Any]:
    """The config.json of a model that transformers can hold."""
    model = model_of(c)
    size = [side + cut for side, cut in zip(c.image_size, p.trim, strict=True)]
    square = size[0] == size[1] and c.patch_size[0] == c.patch_size[1]
    vision: dict[str, Any] = {
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
    if model == SIGLIP and c.num_classes:  # mean pooling and a classifier
        vision |= {"model_type": SIGLIP, "vision_use_head": False}
        outer = {"architectures": ["SiglipForImageClassification"], "model_type": "siglip", "vision_config": vision}
        return outer | labels(c, class_names)
    if model == SIGLIP:
        return {"architectures": ["SiglipVisionModel"], "model_type": SIGLIP, "vision_use_head": True} | vision
    if model == CLIP:
        name = "CLIPVisionModelWithProjection" if c.num_classes else "CLIPVisionModel"
        vision |= {"projection_dim": c.num_classes} if c.num_classes else {}
        return {"architectures": [name], "model_type": CLIP} | vision
    name = "DeiT" if model == DEIT else "ViT"
    task = "ForImageClassification" if c.num_classes else "Model"
    teacher = "WithTeacher" if c.num_classes and c.distillation_token else ""
    vision |= {"architectures": [name + task + teacher], "model_type": model, "qkv_bias": True}
    vision |= {"pooler_output_size": c.hidden_dim, "pooler_act": "tanh"} if c.hidden_dim is not None else {}
    return vision | (labels(c, class_names) if c.num_classes else {})


def labels(c: ViTConfig, class_names: Sequence[str] | None) -> dict[str, Any]:
    """The class names as in a config.json, which also sets the number of classes."""
    names = class_names if class_names is not None else placeholders(c.num_classes)
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def preprocessor_json(c: ViTConfig, p: Preprocessing) -> dict[str, Any]:
    """The preprocessor_config.json of a preprocessing.

    Raises:
        InputError: no image processor of transformers can do it.
    """
    height, width = p.cover_size
    is_cropped = p.cover_size != p.whole_size
    unsupported = ""
    if p.resize == "crop" and p.whole_size[0] != p.whole_size[1]:
        unsupported = f"a crop of {p.whole_size[0]}×{p.whole_size[1]} that keeps the aspect ratio"
    elif not p.antialias and p.interpolation != "nearest":
        unsupported = f"{p.interpolation} interpolation without antialias"
    if unsupported:
        hint = "export to a file such as model.safetensors, which does not include the preprocessing"
        raise InputError(f"no image processor of transformers does {unsupported}", hint)
    squashing = "DeiT" if is_cropped else "Siglip" if model_of(c) == SIGLIP else "ViT"
    cropping = {"do_center_crop": True, "crop_size": dict(zip(("height", "width"), p.whole_size, strict=True))}
    return {
        "image_processor_type": f"{'CLIP' if p.resize == 'crop' else squashing}ImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": height} if p.resize == "crop" else {"height": height, "width": width},
        "resample": int(INTERPOLATIONS[p.interpolation]),
        **(cropping if is_cropped or p.resize == "crop" else {"do_center_crop": False}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(p.mean),
        "image_std": list(p.std),
        "do_convert_rgb": p.channels == 3,
    }
