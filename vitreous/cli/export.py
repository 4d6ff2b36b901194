"""`vitreous export`."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vitreous.cli.app import read_settings
from vitreous.support.errors import InputError
from vitreous.support.text import printable, toml_value

Target = Literal[
    "vitreous", "google", "big_vision", "timm", "huggingface", "torchvision",
    "deit", "dino", "dinov2", "mae", "clip", "siglip",
]  # fmt: skip
Type = Literal["float32", "float16", "bfloat16"]
Ways = Literal[
    "bilinear_aligned", "bilinear", "bilinear_antialias",
    "bicubic_aligned", "bicubic", "bicubic_antialias", "bicubic_offset",
]  # fmt: skip

MOST_CLASSES, MOST_CHANNELS = 10**6, 1024  # far above any data set's, far below what fills the memory


def command(
    model: Annotated[str, typer.Argument(help="A run's folder, a weights file of any family, or a name of a hub.")],
    to: Annotated[Target, typer.Option(help="The family whose format to write; vitreous is our own one file.")],
    out: Annotated[
        Path,
        typer.Option(
            help="A file, whose suffix tells its kind; or a folder, which also gets the JSON files that belong to it."
        ),
    ],
    family: Annotated[str | None, typer.Option(help="Whose file MODEL is, where its keys fit several.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="What MODEL does not say of itself, such as num_heads=3; repeatable."
        ),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Adapt to images of this size: positions are resampled.")
    ] = None,
    patch_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Adapt to patches of this size, as FlexiViT does.")
    ] = None,
    resampling: Annotated[Ways | None, typer.Option(help="How; by default as MODEL's family does.")] = None,
    classes: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_CLASSES, help="Put a new head for so many classes, all zero; 0 for no head."),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, max=MOST_CHANNELS, help="Adapt to images of so many channels.")
    ] = None,
    dtype: Annotated[Type, typer.Option(help="Of the numbers that are written.")] = "float32",
    plain: Annotated[
        bool, typer.Option("--plain", help="Spell the keys as the family usually does, not as MODEL's file did.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what OUT is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write a model in the format of any family, from the format of any other."""
    import torch

    from vitreous.classifier import load

    told = {key: toml_value(value) for key, value in read_settings(settings or []).items()}
    classifier = load(model, "cpu", family=family, **told)
    wishes: dict[str, Any] = {
        "image_size": size(image_size),
        "patch_size": size(patch_size),
        "resampling": resampling,
        "num_classes": classes,
        "channels": channels,
    }
    classifier = classifier.adapt(**wishes)
    written = classifier.export(out, to, plain=plain, dtype=getattr(torch, dtype), overwrite=force)
    if as_json:
        read = None if classifier.report is None else classifier.report.to_dict()
        print(json.dumps({"read": read, "adapted": classifier.changes, "written": written.to_dict()}, indent=2))
        return
    read = f"read {model} (vitreous)" if classifier.report is None else str(classifier.report)
    for text in (read, *(f"adapted: {change}" for change in classifier.changes), str(written)):
        for line in text.split("\n"):
            print(printable(line))


def size(text: str | None) -> int | tuple[int, int] | None:
    """Reads 384 or 384x512, height first. Raises InputError for anything else."""
    from vitreous.data.preprocessing import MAX_SIDE

    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(re.fullmatch("0*[1-9][0-9]{0,3}", side) and int(side) <= MAX_SIDE for side in sides):
        raise InputError(f"{text!r} is no size", f"write 384, or 384x512 for height and width; at most {MAX_SIDE} each")
    height, width = int(sides[0]), int(sides[-1])
    return height if len(sides) == 1 else (height, width)
