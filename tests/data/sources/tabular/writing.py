"""Tables for tests."""

import pytest

from tests.data.sources.packing import CLASSES, splits_of, tree
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.support.errors import InputError

ROWS = [(name, name.partition("/")[0]) for name in CLASSES]


def write(path, rows=ROWS, header=("path", "label"), separator=",", encoding="utf-8", end="\n", before="", after=""):
    """Writes a table."""
    lines = [separator.join(map(str, row)) for row in ([header] if header else []) + list(rows)]
    path.write_bytes((before + end.join(lines) + end + after).encode(encoding))
    return path


def labels_of(data):
    """The class name of each sample of all splits."""
    return {
        name: data.class_names[label]
        for split in splits_of(data)
        for name, label in zip(split.names, split.labels.tolist(), strict=True)
    }


def error(source, **options):
    with pytest.raises(InputError) as raised:
        open_data(source, DataOptions(**options))
    assert str(raised.value).isprintable()
    assert raised.value.hint
    return str(raised.value)


def flat(folder, count=8):
    """A folder of images without classes, and the rows of their table."""
    names = [f"{number:03}.png" for number in range(count)]
    tree(folder, names)
    return [(name, "even" if number % 2 == 0 else "odd") for number, name in enumerate(names)]
