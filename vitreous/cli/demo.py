"""`vitreous demo`."""

import json
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitreous.support.errors import InputError
from vitreous.support.text import printable

if TYPE_CHECKING:
    from vitreous.data.sources.splits import Split
    from vitreous.evaluation.metrics import Outcome

OUT = Path("runs/demo")
MANIFEST = "demo.json"  # lists the demo's files; a folder with any other file is not replaced
IMAGES = "held_out"
REPORT = "report.html"
TARGET = 0.97  # test accuracy; a demo below it has failed
FAILED = 1
SHOWN, TOP = 5, 3  # held-out images that are predicted, and classes for each
SETTINGS: dict[str, Any] = {}  # that differ from the recipe


def command(
    out: Annotated[Path, typer.Option(help="The run's folder; only an earlier demo's is replaced.")] = OUT,
) -> None:
    """Train a small model on handwritten digits, and leave a report to look at."""
    with replacing(out):
        accuracy = demonstrate(out)
    images = sorted((out / IMAGES).iterdir())
    print(f"\nreport: {printable(str(out / REPORT))}\nnext:")
    for words in (("predict", out, out / IMAGES), ("inspect", out, "--image", images[0])):
        print(printable(f"  vitreous {shlex.join(map(str, words))}"))
    print("For your own photos, make a folder with a subfolder per class; vitreous train takes its name.")
    if accuracy < TARGET:
        print(f"error: the test accuracy is below {TARGET:.0%}", file=sys.stderr)
        raise typer.Exit(FAILED)


def demonstrate(out: Path) -> float:
    """Trains, evaluates and writes the report in a new folder; returns the test accuracy."""
    from vitreous.classifier import load
    from vitreous.data.sources.digits import DIGITS
    from vitreous.data.sources.open import SET
    from vitreous.pages.report import write_report
    from vitreous.training.run import run_training

    print("A small Vision Transformer learns to read handwritten digits from scratch, on this machine.\n")
    run = run_training(f"{SET}{DIGITS}", recipe=DIGITS, out=out, settings=SETTINGS)
    data, outcome = run.data, run.outcome
    assert data.test is not None, "the digits have a test split"
    assert outcome is not None, "the recipe learns classes"
    print("\nTest images by digit (rows) and prediction (columns)\n")
    print(confusion_table(outcome, data.class_names))
    images = save_images(data.test, data.class_names, out / IMAGES)
    print("\nSome predictions (the file name begins with the digit)\n")
    classifier = load(out)
    for prediction in classifier(images[:: len(images) // SHOWN]):
        others = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.top[1:TOP])
        print(f"  {Path(prediction.image).name}  {prediction.class_name}  {prediction.probability:6.1%}  ({others})")
    write_report(out, classifier, data, outcome)
    return outcome.accuracy


def confusion_table(outcome: "Outcome", class_names: Sequence[str]) -> str:
    """The confusion matrix as aligned text; a dot stands for none."""
    from vitreous.evaluation.metrics import confusion_matrix

    matrix = confusion_matrix(outcome.labels, outcome.predictions, len(class_names))
    rows = [["", *class_names]]
    rows += [[name, *(f"{count or '·'}" for count in counts)] for name, counts in zip(class_names, matrix, strict=True)]
    return "\n".join("".join(f"{cell:>5}" for cell in row) for row in rows)


def save_images(split: "Split", class_names: Sequence[str], folder: Path) -> list[Path]:
    """Writes the first image of each class as a PNG, to try the model on."""
    from PIL import Image

    folder.mkdir()
    files = []
    for label, name in enumerate(class_names):
        place = split.labels.tolist().index(label)
        files.append(folder / f"{name}-{Path(split.names[place]).name}.png")
        image = split.load(place)
        assert isinstance(image, Image.Image), "the digits have one channel"
        image.save(files[-1])
    return files


# ---- the folder


@contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """Replaces an earlier demo's folder: it is removed when the block ends, or restored if the block fails.

    Raises:
        InputError: the folder has files that no demo wrote, or is the current one.
    """
    from vitreous.support.files import write_json

    before, was_empty = None, folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    if not was_empty and (folder.exists() or folder.is_symlink()):
        check_is_demo(folder)
        if Path.cwd().is_relative_to(folder.resolve()):  # the shell would be left in a removed folder
            cause = f"the folder of the earlier demo, {str(folder)!r}, is the current folder"
            raise InputError(cause, "cd to another folder, or choose another with --out")
        before = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        folder.rename(before)
    try:
        yield
        write_json(folder / MANIFEST, {"files": files_below(folder)})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # the block made everything in it
        if before is not None:
            before.rename(folder)
        elif was_empty:
            folder.mkdir(exist_ok=True)
        raise
    if before is not None:
        shutil.rmtree(before)


def check_is_demo(folder: Path) -> None:
    """Raises InputError unless a demo wrote everything in the folder."""
    refusal = InputError(
        f"{str(folder)!r} is not the folder of an earlier demo",
        "choose another with --out; if a stopped demo left it, remove it",
    )
    if folder.is_symlink() or not (folder / MANIFEST).is_file():
        raise refusal
    try:
        written = {MANIFEST, *json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise refusal from error
    others = [name for name in files_below(folder) if name not in written]
    if others:
        cause = f"the folder of the earlier demo, {str(folder)!r}, also contains {others[0]!r}"
        raise InputError(cause, "move that elsewhere, or choose another folder with --out")


def files_below(folder: Path) -> list[str]:
    """The files below a folder, relative to it."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    )
