"""From named samples with their classes and splits to `ImageData`, for every kind of source."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from itertools import chain, compress
from statistics import median_low

import numpy as np

from vitreous.data.decoding.depth import MAX_VALUE, range_of
from vitreous.data.decoding.images import BadImage, Decoding
from vitreous.data.sources.channels import choose_channels
from vitreous.data.sources.names import simplified
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData, Loader, Split, hold_out
from vitreous.support.errors import InputError
from vitreous.support.text import counted, listed, natural_key

MIXED = 50  # times the largest value of one image is that of another, if they are scaled differently
Samples = Mapping[str, Mapping[str, Sequence[str]]]


def assemble(
    source: str,
    samples: Samples,
    loader: Callable[[tuple[str, ...], Decoding], Loader],
    options: DataOptions,
    *,
    ignored: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
    channels: int = 3,
    flip_ok: bool = True,
    key: Callable[[str, str], str] = lambda class_name, name: name,
    class_names: Sequence[str] | None = None,
) -> ImageData:
    """The samples in splits; a part of train is held out if there is no validation split.

    Args:
        source: as the user named it.
        samples: the names of the samples by split ("train", "validation", "test") and class.
        loader: makes the loader of some samples.
        options: how to read the source.
        ignored: other files and folders, counted by kind.
        notes: for the user, a sentence each.
        channels: of the images, unless the user or the images say otherwise.
        flip_ok: whether an image flipped left to right still has its class.
        key: of a class and a sample's name, what its hash for holding out is taken of.
        class_names: in the order of the labels; natural order of the names by default.

    Raises:
        InputError: there is no training split, one class, a class without training images, or nothing to validate on.
    """
    if "train" not in samples or not any(samples["train"].values()):
        present = ", ".join(samples) or "no images"
        raise InputError(f"{source!r} has {present}, but nothing to train on", "add a train split")
    by_split = {split: {name: list(names) for name, names in classes.items()} for split, classes in samples.items()}
    names = sorted(by_split["train"], key=natural_key) if class_names is None else list(class_names)
    notes = [*notes, *class_notes(source, by_split, names)]
    if "validation" not in by_split:
        by_split["validation"] = hold_out_each(source, by_split["train"], options.validation_fraction, key)

    @cache
    def split(name: str, decoding: Decoding) -> Split:
        return _split(name, [by_split[name].get(each, []) for each in names], lambda kept: loader(kept, decoding))

    decoding, about = choose_decoding(source, partial(split, "train"), channels, options)
    train = split("train", decoding)
    return ImageData(
        name=source,
        class_names=tuple(names),
        train=train,
        validation=split("validation", decoding),
        test=split("test", decoding) if "test" in by_split else None,
        native_size=native_size(source, train),
        channels=decoding.channels,
        flip_ok=flip_ok,
        ignored=dict(sorted((ignored or {}).items())),
        notes=(*notes, *about),
        decoding=decoding,
    )


def choose_decoding(
    source: str, train: Callable[[Decoding], Split], channels: int, options: DataOptions
) -> tuple[Decoding, list[str]]:
    """How the images are decoded, as far as some training images decide it, and notes on that.

    Args:
        source: as the user named it.
        train: makes the split to train on.
        channels: of the images, unless the user or the images say otherwise.
        options: how to read the source.
    """
    decoding = Decoding(options.max_pixels, options.max_value or MAX_VALUE)
    channels, notes = choose_channels(source, train(decoding), channels, options.channels)
    decoding = replace(decoding, channels=channels)
    if options.max_value is not None:
        return decoding, notes
    max_value, about = value_range(train(decoding))
    return replace(decoding, max_value=max_value), [*notes, *about]


def class_notes(source: str, by_split: Mapping[str, Mapping[str, Sequence[str]]], names: Sequence[str]) -> list[str]:
    """Notes on classes that a split lacks.

    Raises:
        InputError: there are fewer than two classes, or a split has classes that train lacks.
    """
    if len(names) < 2:
        raise InputError(f"{source!r} has one class, {names[0]!r}, but needs at least two classes", "add a class")
    notes: list[str] = []
    known = set(names)
    alike = {simplified(name): name for name in names}
    for split, classes in by_split.items():
        more = [name for name in classes if name not in known]
        for name in more:
            if simplified(name) in alike:
                cause = f"{source!r} has {name!r} in {split}, but {alike[simplified(name)]!r} in train"
                raise InputError(f"{cause}: they differ only in case or spaces", "give the class one name")
        if more:
            cause = f"{source!r} has {listed([repr(name) for name in sorted(more, key=natural_key)])} in {split}"
            raise InputError(f"{cause} but not in train", "give train the same classes, or remove them")
        fewer = [name for name in names if not classes.get(name)]
        if fewer and split != "train":
            notes.append(f"{split} has no images of {listed([repr(name) for name in fewer])}")
    return notes


def hold_out_each(
    source: str, train: dict[str, list[str]], fraction: float, key: Callable[[str, str], str]
) -> dict[str, list[str]]:
    """Moves the part to validate on out of each class of train, and returns it. Raises InputError if it is empty."""
    validation = {}
    for class_name, names in train.items():
        mask = hold_out([key(class_name, name) for name in names], fraction)
        train[class_name], validation[class_name] = [*compress(names, ~mask)], [*compress(names, mask)]
    if not any(validation.values()):
        hint = "add images, or a val/ folder next to train/"
        raise InputError(f"every class of {source!r} has one image, so none is left for validation", hint)
    return validation


def _split(name: str, classes: Sequence[Sequence[str]], loader: Callable[[tuple[str, ...]], Loader]) -> Split:
    """The split of these samples, listed by class."""
    names = tuple(chain.from_iterable(classes))
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(samples) for samples in classes])
    return Split(name, names, labels, loader(names))


def value_range(split: Split) -> tuple[int, list[str]]:
    """The largest value that a few images of more than 8 bits have room for, and a note on it if there are any."""
    maxima = {}
    for index in split.sampled():
        with suppress(BadImage):  # skipped and listed when it is loaded
            maxima[index] = split.load.maximum(index)
    deep = [value for value in maxima.values() if value is not None]
    if not deep:
        return MAX_VALUE, []
    most, images = range_of(deep), counted(len(deep), "training image")
    depth = "floating-point" if any(isinstance(value, float) for value in deep) else "16-bit"
    note = f"{depth} images: values 0..{most} become 0..255 (from {images}; set max_value to change it)"
    return most, [note, *mixed_ranges(split, maxima)]


def mixed_ranges(split: Split, maxima: Mapping[int, int | float | None]) -> list[str]:
    """A note if some images have floats up to 1 and others far larger ones, such as up to 255.

    Args:
        split: of the images.
        maxima: the largest value of some of them, by index.
    """
    floats = {index: value for index, value in maxima.items() if isinstance(value, float) and value > 0}
    least, most = min(floats, key=floats.__getitem__, default=None), max(floats, key=floats.__getitem__, default=None)
    if least is None or most is None or floats[most] <= max(1, MIXED * floats[least]):
        return []
    parts = [f"{floats[index]:,.4g} in {split.names[index]!r}" for index in (least, most)]
    return [f"the largest value is {' but '.join(parts)}: scale all images alike, or the dark ones are nearly black"]


def native_size(source: str, split: Split) -> tuple[int, int]:
    """The median (height, width) of a few images, spread evenly over the split; from headers alone if possible.

    Raises:
        InputError: none of these images can be read.
    """
    sizes, error = [], None
    indices = split.sampled()
    for index in indices:
        try:
            sizes.append(split.load.size(index))
        except BadImage as bad:  # skipped and listed when it is loaded
            error = bad
    if not sizes:
        assert error is not None, "a split has images"
        cause = f"none of {counted(len(indices), 'image')} of {source!r} could be read; the last: {error.cause}"
        raise InputError(cause, error.hint)
    heights, widths = zip(*sizes, strict=True)
    return median_low(heights), median_low(widths)
