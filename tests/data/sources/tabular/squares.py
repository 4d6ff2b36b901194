"""A map-style dataset for tests."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from vitreous.data.sources.open import open_data
from vitreous.support.errors import InputError


class Squares(Dataset):
    """Squares of random pixels. `form` makes the sample of an image and its label; `decoded` lists what was read."""

    def __init__(self, count=12, classes=2, form=lambda image, label: (image, label), **attributes):
        self.pixels = np.random.default_rng(count).integers(0, 256, (count, 8, 6, 3), dtype=np.uint8)
        self.numbers = [number % classes for number in range(count)]
        self.form = form
        self.decoded = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        self.decoded.append(index)
        return self.form(Image.fromarray(self.pixels[index]), self.numbers[index])


def rows_of(data, source="train"):
    """The pixels and the class name of each sample, by its number in a split of the source."""
    return {
        int(name.rpartition("/")[2]): (np.asarray(split.load(at)), data.class_names[split.labels[at]])
        for split in data.splits
        for at, name in enumerate(split.names)
        if name.startswith(f"{source}/")
    }


def check(data, squares, name_of=str, source="train"):
    """Asserts that all samples of a split have their own pixels and label."""
    rows = rows_of(data, source)
    assert sorted(rows) == list(range(len(squares)))
    for number, (pixels, class_name) in rows.items():
        assert np.array_equal(pixels, squares.pixels[number])
        assert class_name == name_of(squares.numbers[number])


def error(source, options=None):
    with pytest.raises(InputError) as raised:
        open_data(source, options)
    assert str(raised.value).isprintable()
    assert raised.value.hint
    return str(raised.value)


def tensor_of(image):
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
