"""`vitreous export`."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vitreous.cli.app import FamilyOption, PartOption, SettingsOption, load_with_options
from vitreous.support.errors import InputError
from vitreous.support.text import printable

if TYPE_CHECKING:
    from vitreous.checkpoints.report import ExportReport
    from vitreous.classifier import Classifier

Target = Literal[
    "vitreous", "google", "big_vision", "timm", "huggingface", "torchvision",
    "deit", "dino", "dinov2", "dinov3", "mae", "clip", "siglip",
]  # fmt: skip
DType = Literal["float32", "float16", "bfloat16"]
ResamplingChoice = Literal[
    "bilinear_aligned", "bilinear", "bilinear_antialias",
    "bicubic_aligned", "bicubic", "bicubic_antialias", "bicubic_offset",
]  # fmt: skip
ChannelChoice = Literal["average", "repeat"]

OUT = "A file, whose suffix selects the format; or a folder, which also gets the family's JSON files."


def command(
    model: Annotated[str, typer.Argument(help="A run's folder, a weights file of any family, or a hub name.")],
    to: Annotated[Target, typer.Option(help="The family whose format to write, or vitreous.")],
    out: Annotated[Path, typer.Option(help=OUT)],
    family: FamilyOption = None,
    part: PartOption = None,
    settings: SettingsOption = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Adapt to images of this size by resampling positions.")
    ] = None,
    patch_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Adapt to patches of this size, as FlexiViT does.")
    ] = None,
    resampling: Annotated[
        ResamplingChoice | None, typer.Option(help="How to resample; by default as MODEL's family does.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Add a new head for this many classes, all zero; 0 for no head.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Adapt to images with this many channels.")] = None,
    channel_method: Annotated[
        ChannelChoice, typer.Option(help="Give new channels the mean of the old ones, or the old ones in turn.")
    ] = "average",
    dtype: Annotated[DType | None, typer.Option(help="Dtype of the stored weights; float32 by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write a model in the format of any family, from the format of any other."""
    import torch

    classifier = load_with_options(model, family, part, settings, "cpu").adapt(
        image_size=size(image_size),
        patch_size=size(patch_size),
        num_classes=classes,
        channels=channels,
        resampling=resampling,
        channel_method=channel_method,
    )
    report = classifier.export(out, to, dtype=getattr(torch, dtype or "float32"), overwrite=force)
    show(model, classifier, report, as_json)


def show(model: str, classifier: "Classifier", written: "ExportReport", as_json: bool) -> None:
    """Prints what was read, adapted and written."""
    report = classifier.report
    if as_json:
        read = None if report is None else report.to_dict()
        print(json.dumps({"read": read, "adapted": classifier.changes, "written": written.to_dict()}, indent=2))
        return
    read = f"read {model} (vitreous)" if report is None else str(report)
    for text in (read, *(f"adapted: {change}" for change in classifier.changes), str(written)):
        for line in text.split("\n"):
            print(printable(line))


def size(text: str | None) -> int | tuple[int, int] | None:
    """Parses 384 or 384x512, height first. Raises InputError for anything else."""
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(re.fullmatch("0*[1-9][0-9]{0,8}", side) for side in sides):
        raise InputError(f"{text!r} is not a size", "write 384, or 384x512 for height and width")
    height, width = int(sides[0]), int(sides[-1])
    return height if len(sides) == 1 else (height, width)
