"""Reads and writes transformers' preprocessor_config.json."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vitreous.checkpoints.families.huggingface.config import vision_part
from vitreous.checkpoints.families.huggingface.kinds import KINDS, kind_for
from vitreous.checkpoints.families.shared.family import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from vitreous.checkpoints.files.layout import PREPROCESSOR
from vitreous.data.preprocessing import INTERPOLATIONS, Preprocessing
from vitreous.model.config import ViTConfig, is_integer
from vitreous.support.errors import InputError

HALF = [0.5, 0.5, 0.5]
IMAGENET = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
OPENAI = {"image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD)}
HALVES = {"image_mean": HALF, "image_std": HALF}
CROP = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224}
# Defaults of the image processors, whose names are without "ImageProcessor".
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {"size": 224, "resample": 2} | HALVES,
    "DeiT": {"size": 256, "do_center_crop": True, "crop_size": 224, "resample": 3} | HALVES,
    "Beit": {"size": 224, "crop_size": 224, "resample": 3} | HALVES,
    "Bit": CROP | {"resample": 3} | OPENAI,
    "CLIP": CROP | {"resample": 3} | OPENAI,
    "ChineseCLIP": CROP | {"resample": 3} | OPENAI,
    "Siglip": {"size": {"height": 224, "width": 224}, "resample": 3} | HALVES,
    "Siglip2": {"max_num_patches": 256, "patch_size": 16, "resample": 2} | HALVES,
    "DINOv3ViT": {"size": {"height": 224, "width": 224}, "resample": 2} | IMAGENET,
    "GotOcr2": {"size": {"height": 384, "width": 384}, "resample": 3} | OPENAI,
}
BY_EDGE = ("Bit", "CLIP", "ChineseCLIP", "Siglip")  # a size of one number is the shorter side; for others, a square
BILINEAR = 2


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
    model, _ = vision_part(config_json)
    if kind and kind not in PROCESSORS:
        hint = "remove it to use the default, or convert it to a ViTImageProcessor"
        raise InputError(f"{PREPROCESSOR} is of a {kind}ImageProcessor, which vitreous does not support", hint)
    kind = kind or (KINDS[model].processor if model in KINDS else "ViT")
    values = PROCESSORS[kind] | {name: value for name, value in preprocessor_json.items() if value is not None}
    try:
        _check(kind, values)
        if kind == "Siglip2":  # the size that it gives square images
            values["size"] = math.isqrt(values["max_num_patches"]) * values["patch_size"]
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


def _check(kind: str, values: Mapping[str, Any]) -> None:
    """Raises ValueError for a step that vitreous does not have."""
    if "crop_pct" in values:
        raise ValueError("crop_pct is not supported")
    if values.get("do_flip_channel_order"):
        raise ValueError("it turns RGB into BGR")
    if values.get("crop_to_patches"):
        raise ValueError("it cuts an image into several")
    if values.get("do_pad"):
        raise ValueError("it pads images")
    if kind == "DINOv3ViT" and values["resample"] != BILINEAR:
        raise ValueError("it resizes unrounded values, which can leave the range of pixels unless resample is 2")


def default_preprocessing(c: ViTConfig) -> Preprocessing:
    """The preprocessing of transformers' published models of a kind."""
    size, processor = c.image_size, KINDS[kind_for(c)].processor
    if processor == "DeiT":  # transformers squashes to 256 × 256, then crops to 224 × 224
        squash = Preprocessing(size, "squash", 0.875, "bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return replace(squash, crop_rounding="down")
    if processor == "Bit":  # as published for DINOv2
        crop = Preprocessing(size, "crop", 0.875, "bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return replace(crop, crop_rounding="down")
    if processor == "CLIP":
        return Preprocessing(size, "crop", 1.0, "bicubic", mean=CLIP_MEAN, std=CLIP_STD, crop_rounding="down")
    if processor in ("DINOv3ViT", "GotOcr2"):
        interpolation = "bilinear" if processor == "DINOv3ViT" else "bicubic"
        return Preprocessing(size, interpolation=interpolation, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return Preprocessing(size, interpolation="bicubic" if processor in ("Siglip", "Beit") else "bilinear")


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
    squashing = "DeiT" if is_cropped else "Siglip" if KINDS[kind_for(c)].processor == "Siglip" else "ViT"
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
