"""What is printed of a data set before anything is made of it: its images, classes and splits."""

from collections.abc import Iterator
from textwrap import wrap

import numpy as np
from jaxtyping import Int64

from vitreous.data.sources.splits import ImageData, Split
from vitreous.support.text import counted, shortened, tallied

COLUMNS, LINES = 100, 2  # of the list of classes
MOST_SHOWN = 40  # classes in it; two lines have no room for more
SHORT_NAMES = {"train": "train", "validation": "val", "test": "test"}


def data_lines(data: ImageData) -> Iterator[str]:
    """The lines on the data: its images, classes and splits as they were read, and what was not."""
    test = f", {len(data.test):,} to test" if data.test else ""
    yield (
        f"{data.name}: {len(data.class_names)} classes, {counted(len(data.train), 'image')} to train, "
        f"{len(data.validation):,} to validate{test}"
    )
    yield from class_lines(data)
    if data.ignored:
        yield f"left out: {tallied(data.ignored)}"
    yield from (f"note: {note}" for note in data.notes)


def class_lines(data: ImageData) -> list[str]:
    """The classes with their images in each split, on two lines at most: of many, the first and last few."""
    counts = np.stack([class_counts(split, data) for split in data.splits], axis=1).tolist()
    items = [
        f"{shortened(name)} {'+'.join(f'{count:,}' for count in row)}"
        for name, row in zip(data.class_names, counts, strict=True)
    ]
    head = f"classes ({'+'.join(SHORT_NAMES[split.name] for split in data.splits)}):"

    def lines(shown: int) -> list[str]:
        parts = items
        if shown < len(items):
            middle = f"… {len(items) - shown:,} more …"
            parts = [*items[: shown - shown // 2], middle, *items[len(items) - shown // 2 :]]
        unbroken = [part.replace(" ", "\xa0") for part in parts]
        text = f"{head} {', '.join(unbroken)}"
        wrapped = wrap(text, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        return [line.replace("\xa0", " ") for line in wrapped]

    most = min(len(items), MOST_SHOWN)
    return lines(next((shown for shown in range(most, 2, -1) if len(lines(shown)) <= LINES), 2))


def class_counts(split: Split, data: ImageData) -> Int64[np.ndarray, " classes"]:
    """How many images of each class a split has."""
    return np.bincount(split.labels, minlength=len(data.class_names))
