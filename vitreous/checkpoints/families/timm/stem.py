"""The ResNet of the paper's hybrids in timm's files (`vit_*_r*_s*`)."""

import re
from collections.abc import Iterator
from typing import Any

from vitreous.checkpoints.families.shared.family import shape_of
from vitreous.checkpoints.families.shared.key_map import Rule, both, rule
from vitreous.checkpoints.families.shared.reading import Shapes
from vitreous.model.config import ViTConfig, stem_stride

BACKBONE = "patch_embed.backbone."
ROOT = {True: f"{BACKBONE}stem.", False: BACKBONE}  # by whether stages follow
UNIT = BACKBONE + "stages.{}.blocks.{}."
HYBRIDS: dict[tuple[int, ...], str] = {  # architectures by the units of their stages
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}
WIDTH = 64  # features of their root


def stem_fields(inner: Shapes) -> dict[str, Any]:
    """The config fields of a file's stem; {} if it has none."""
    roots = [with_stages for with_stages, root in ROOT.items() if f"{root}conv.weight" in inner]
    if not roots:
        return {}
    units = {match.groups() for key in inner if (match := re.match(UNIT.format(r"(\d+)", r"(\d+)"), key))}
    stages = [int(stage) for stage, _ in units]
    width, channels, *_ = shape_of(inner, f"{ROOT[roots[0]]}conv.weight", 4)
    return {
        "stem_blocks": tuple(stages.count(stage) for stage in range(max(stages, default=-1) + 1)),
        "stem_width": width,
        "stem_eps": "timm",
        "channels": channels,
    }


def stride_of(fields: dict[str, Any]) -> tuple[int, int]:
    """Image pixels per patch token, (height, width)."""
    blocks = fields.get("stem_blocks")
    stride = 1 if blocks is None else stem_stride(len(blocks))
    return fields["patch_size"][0] * stride, fields["patch_size"][1] * stride


def stem_rules(c: ViTConfig) -> Iterator[Rule]:
    """The rules of the stem."""
    if c.stem_blocks is None:
        return
    root = ROOT[bool(c.stem_blocks)]
    yield rule("stem.conv.weight", f"{root}conv.weight")
    yield from both("stem.norm", f"{root}norm")
    for stage, units in enumerate(c.stem_blocks):
        for unit in range(units):
            ours, theirs = f"stem.stages.{stage}.{unit}.", UNIT.format(stage, unit)
            for i in (1, 2, 3):
                yield rule(f"{ours}conv{i}.weight", f"{theirs}conv{i}.weight")
                yield from both(f"{ours}norm{i}", f"{theirs}norm{i}")
            if unit == 0:
                yield rule(f"{ours}shortcut.conv.weight", f"{theirs}downsample.conv.weight")
                yield from both(f"{ours}shortcut.norm", f"{theirs}downsample.norm")


def unsupported_stem(c: ViTConfig) -> list[str]:
    """Names the parts of a stem that no architecture of timm has."""
    if c.stem_blocks is None or (c.stem_blocks in HYBRIDS and c.stem_width == WIDTH):
        return []
    units = ", ".join(map(str, c.stem_blocks)) or "no"
    return [f"a ResNet stem of width {c.stem_width} with {units} units"]
