"""The families, and which of them a file's keys match."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from vitreous.checkpoints.families.dinov3 import DINOv3
from vitreous.checkpoints.families.huggingface.family import HuggingFace
from vitreous.checkpoints.families.jax import BigVision, Google, SigLIP
from vitreous.checkpoints.families.meta import DINO, MAE, DeiT, DINOv2
from vitreous.checkpoints.families.openai import CLIP
from vitreous.checkpoints.families.shared.family import Family
from vitreous.checkpoints.families.shared.reading import Shapes
from vitreous.checkpoints.families.timm.family import TimmModules
from vitreous.checkpoints.families.torchvision import Torchvision
from vitreous.support.errors import InputError, unknown
from vitreous.support.text import listed

# In the order in which they are tried: the more specific first.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(SigLIP(), BigVision(), Google(), DINOv3(), DINOv2(), DINO(), MAE(), DeiT(), TimmModules()),
        *(HuggingFace(), Torchvision(), CLIP()),
    )
}
OURS = "vitreous"
UNREADABLE = {  # what the keys of models that no family can hold show
    r"(^|[./])to_patch_embedding\.\d": "a vit-pytorch checkpoint, whose ViT has other norms and no biases of q, k, v",
    r"(^|[./])lambda_q1$": "a ViT with differential attention",
    r"(^|[./])blocks\.0\.in_proj\.weight$": "a ViT whose attention and MLP are parallel",
    r"(^|[./])blocks\.0\.attns\.0\.": "a ViT with parallel attentions and MLPs in each block",
    r"(^|[./])rel_pos_h$": "SAM's image encoder, whose attention is in windows",
    r"(^|[./_])rel_pos\.mlp\.": "a ViT whose relative positions are made by an MLP",
    r"(^|[./])embeds\.(proj|pos_embed)": "timm's NaFlexVit, which packs patches of images of any shape",
    r"(^|[./])patch_embed\.backbone\.(0\.|.*running_mean$)": "a hybrid whose convolutions are not the paper's ResNet",
}


def family_named(name: str) -> Family:
    """The family of that name. Raises InputError if there is none."""
    if name not in FAMILIES:
        raise unknown("family", name, FAMILIES)
    return FAMILIES[name]


def recognize(shapes: Shapes, source: str, config_json: Callable[[], Mapping[str, Any]] = dict) -> Family:
    """The family whose keys a file has.

    Args:
        shapes: of its tensors.
        source: its name, for errors.
        config_json: reads the `config.json` next to it, which may name a model that is not supported.

    Raises:
        InputError: no family matches; it names the nearest one and the keys that this one would need.
    """
    for pattern, what in UNREADABLE.items():
        if any(re.search(pattern, key) for key in shapes):
            _check_config(config_json())
            hint = "vitreous cannot compute the same function; convert from another family"
            raise InputError(f"{source} is {what}", hint)
    for family in FAMILIES.values():
        if family.claims(shapes):
            return family
    if not shapes:
        raise InputError(f"{source} has no tensors", "give a weights file")
    _check_config(config_json())
    missing = {family: family.missing_keys(shapes) for family in FAMILIES.values()}
    nearest = min(missing, key=lambda family: len(missing[family]) / len(family.required_keys))
    raise InputError(
        f"{source} matches no known family (tried {', '.join(FAMILIES)}); its keys include {listed(sorted(shapes), 4)}",
        f"the nearest is {nearest.name}, which needs {listed(missing[nearest])}",
    )


def _check_config(config_json: Mapping[str, Any]) -> None:
    """Raises InputError for a `config.json` that names a model of a family which no file of it can hold."""
    for family in FAMILIES.values():
        family.check_config(config_json)
