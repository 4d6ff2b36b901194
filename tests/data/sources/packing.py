"""Folders and zip archives of images for tests."""

import io
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from vitreous.data.sources.open import open_data
from vitreous.support.errors import InputError

CLASSES = [f"{name}/{number}.png" for name in ("ant", "bee") for number in range(8)]
SPLITS = [f"{split}/{name}" for split in ("train", "val", "test") for name in CLASSES]


def png(seed=0, size=(10, 6)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def content_of(name):
    """The image of a name, different for each name."""
    return png(zlib.crc32(name.encode()))


def tree(folder, names=CLASSES):
    """Writes the images to a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content_of(name))
    return folder


def pack(path, names=CLASSES, top="", method=zipfile.ZIP_STORED, **contents):
    """Writes the images to an archive, perhaps inside a top folder; `contents` are members with other bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(top + name, content_of(name))
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def add(path, info, content=b""):
    """Adds one member to an archive."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, content or content_of("more"))


def special(name, mode):
    """A member with a Unix file mode."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def splits_of(data):
    return [split for split in (data.train, data.validation, data.test) if split is not None]


def all_names(data):
    return {name for split in splits_of(data) for name in split.names}


def same(data, folder, top=""):
    """Asserts that two sources have the same samples; the first may have them in a top folder."""
    assert data.class_names == folder.class_names
    for field in ("native_size", "channels", "flip_ok", "ignored"):
        assert getattr(data, field) == getattr(folder, field)
    seen = set()
    for split, other in zip(splits_of(data), splits_of(folder), strict=True):
        assert (split.name, split.names) == (other.name, tuple(f"{top}{name}" for name in other.names))
        assert split.labels.tolist() == other.labels.tolist()
        for place in range(len(split)):
            pixels = split.load(place).tobytes()
            assert pixels == other.load(place).tobytes()
            seen.add(pixels)
    assert len(seen) == sum(map(len, splits_of(data))), "the images differ"


def line(source):
    with pytest.raises(InputError) as error:
        open_data(source)
    assert str(error.value).isprintable()
    assert error.value.hint
    return str(error.value)
