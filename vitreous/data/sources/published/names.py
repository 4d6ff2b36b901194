"""Sources that are names, not paths: which of them a name means."""

from pathlib import Path

from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.published.torchvision_sets import BY_NAME, suggested
from vitreous.data.sources.splits import ImageData
from vitreous.support.errors import InputError

WEIGHTS = ("timm:", "torchvision:", "google:", "meta:")


def is_published(source: str | Path) -> bool:
    """Whether a source names a published set, such as cifar10; "./cifar10" and a Path are folders."""
    return isinstance(source, str) and source in BY_NAME


def open_named(source: str | Path, options: DataOptions) -> ImageData | None:
    """A published set, or one of the hub; None if the source is a path.

    Raises:
        InputError: it names weights, or the set cannot be opened.
    """
    if is_published(source):
        from vitreous.data.sources.published.opening import open_published

        return open_published(str(source), options)
    if str(source).startswith(WEIGHTS):
        raise InputError(f"{str(source)!r} names weights, not images", f"give images as DATA, and --model {source}")
    return None


def hint_for_missing(source: str) -> str:
    """What to type instead of a source that does not exist."""
    name = suggested(source)
    if name is not None:
        return f"did you mean {name!r}? For all sets: vitreous list sources"
    return "check the path, or choose from: vitreous list sources"
