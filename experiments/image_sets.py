"""The images of an experiment: in the folder of the image sets, or made from it."""

import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from experiments.subset import subset
from vitreous.data.sources.digits import DIGITS
from vitreous.data.sources.open import open_data
from vitreous.support.errors import InputError

MADE_IN = Path("runs", "results", "data")  # below the repository


def photos_225(data: Path, target: Path) -> None:
    """75 photos of each of three dishes, and the whole test split."""
    subset(data / "pizza_steak_sushi", target, each=75)


def cifar10(data: Path, target: Path) -> None:
    """CIFAR-10 in folders that every program can read: train/, validation/ as held out by vitreous, and test/."""
    for split in ("train", "test"):
        with zipfile.ZipFile(data / f"cifar10_{split}.zip") as archive:
            archive.extractall(target / split)
    for name in open_data(target).validation.names:  # train/CLASS/IMAGE
        moved = target / "validation" / Path(name).relative_to("train")
        moved.parent.mkdir(parents=True, exist_ok=True)
        (target / name).rename(moved)


# name: the function that makes it, and its sources
MADE: Mapping[str, tuple[Callable[[Path, Path], None], tuple[str, ...]]] = MappingProxyType(
    {
        "pizza_steak_sushi_225": (photos_225, ("pizza_steak_sushi",)),
        "cifar10": (cifar10, ("cifar10_train.zip", "cifar10_test.zip")),
    }
)


def shown(name: str) -> str:
    """An image set as the document's commands name it: in the folder of the image sets, or below the repository."""
    return (MADE_IN / name).as_posix() if name in MADE else name


def find(name: str, data: Path | None, root: Path) -> str:
    """An image set as a command takes it; it is made if necessary.

    Args:
        name: of the set.
        data: the folder of the image sets.
        root: of the repository.

    Raises:
        InputError: there is no such folder, or it lacks the set.
    """
    if name == DIGITS:
        return name
    make, sources = MADE.get(name, (None, (name,)))
    target = root / MADE_IN / name
    if make is not None and target.exists():
        return (MADE_IN / name).as_posix()
    missing = [source for source in sources if data is None or not (data / source).exists()]
    if data is None or missing:
        cause = f"there is no folder with the image sets {', '.join(missing)}"
        raise InputError(cause, "pass it as --data, or in the environment variable VITREOUS_DATA")
    if make is None:
        return str(data / name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as temporary:
        make(data, Path(temporary) / name)
        shutil.move(Path(temporary) / name, target)  # complete, or absent
    return (MADE_IN / name).as_posix()
