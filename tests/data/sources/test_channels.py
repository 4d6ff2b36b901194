"""Images of five bands from every kind of source that stores files or arrays."""

import csv
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tifffile
from pyarrow import parquet

from tests.data.satellites import satellite_folder, tiff
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions

SPLITS = {"train": 8, "val": 4}
CLASSES = ("field", "water")


def rows(folder):
    """The path, class and split of each image."""
    return [
        (path, path.parent.name, path.parent.parent.name)
        for path in sorted(folder.rglob("*.tif"), key=lambda p: str(p))
    ]


def in_folder(folder):
    return folder


def in_zip(folder):
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for path, *_ in rows(folder):
            archive.write(path, path.relative_to(folder.parent))
    return target


def in_tar(folder):
    target = folder.with_suffix(".tar.gz")
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, folder.name)
    return target


def in_table(folder):
    target = folder.parent / "images.csv"
    with target.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "label", "split"])
        lines.writerows((path.relative_to(folder.parent), *rest) for path, *rest in rows(folder))
    return target


def in_parquet(folder):
    target = folder.parent / "images.parquet"
    paths, labels, splits = zip(*rows(folder), strict=True)
    columns = {"image": [path.read_bytes() for path in paths], "label": labels, "split": splits}
    parquet.write_table(pa.table(columns), target)
    return target


def arrays(folder):
    """The images of the folder as arrays, in the same order."""
    return [tifffile.imread(path) for path, *_ in rows(folder)]


def in_frame(folder):
    _, labels, splits = zip(*rows(folder), strict=True)
    return pd.DataFrame({"image": arrays(folder), "label": labels, "split": splits})


def in_dataset(folder):
    _, labels, splits = zip(*rows(folder), strict=True)
    samples = [*zip(arrays(folder), map(CLASSES.index, labels), splits, strict=True)]
    by_split = {split: [(image, label) for image, label, where in samples if where == split] for split in SPLITS}
    return by_split["train"], by_split["val"]


@pytest.mark.parametrize("pack", [in_folder, in_zip, in_tar, in_table, in_parquet, in_frame, in_dataset])
def test_five_bands_from_any_source(pack, tmp_path):
    folder = satellite_folder(tmp_path)
    expected = open_data(folder).train
    pixels = {expected.load(index).tobytes() for index in range(len(expected))}
    data = open_data(pack(folder))
    assert (data.channels, data.decoding.max_value, data.native_size) == (5, 4095, (24, 24))
    assert {split.name: len(split) for split in data.splits} == {"train": 16, "validation": 8}
    assert {data.train.load(index).tobytes() for index in range(len(data.train))} == pixels
    assert any("images of 5 channels" in note for note in data.notes)


def test_an_image_of_three_bands_among_others_of_five_is_bad(tmp_path):
    folder = satellite_folder(tmp_path)
    (folder / "train/field/0.tif").write_bytes(tiff(np.zeros((24, 24, 3), np.uint8)))
    data = open_data(in_table(folder))
    assert data.channels == 5
    bad = []
    for index, name in enumerate(data.train.names):
        try:
            data.train.load(index)
        except ValueError as error:
            bad.append((name, str(error)))
    [(name, reason)] = bad
    assert name.endswith("train/field/0.tif")
    assert "has 3 channels, not 5" in reason


def test_a_fourth_channel_of_arrays_is_named():
    """It may be near infrared, which as transparency would turn bright where it is low."""
    generator = np.random.default_rng(0)
    arrays = [(generator.integers(0, 256, (8, 8, 4), dtype=np.uint8), number % 2) for number in range(12)]
    note = "arrays of 4 channels are read as RGB and transparency (10 of 10 training images); set channels=4 to use all"
    assert note in open_data(arrays).notes
    data = open_data(arrays, DataOptions(channels=4))
    assert data.channels == 4
    assert note not in data.notes
    assert len(data.train.load(0).getbands()) == 4


@pytest.mark.parametrize("channels", [3, 5])
def test_tiff_files_that_begin_with_a_thumbnail_are_noted(tmp_path, channels):
    for kind in CLASSES:
        (tmp_path / kind).mkdir()
        for number in range(4):
            pixels = np.full((64, 64, channels), 40 * number + 9, np.uint8)
            with tifffile.TiffWriter(tmp_path / kind / f"{number}.tif") as file:
                options = {"photometric": "rgb" if channels == 3 else "minisblack", "planarconfig": "contig"}
                small = number == 0
                file.write(pixels[::8, ::8] if small else pixels, subfiletype=int(small), **options)
                file.write(pixels if small else pixels[::8, ::8], subfiletype=int(not small), **options)
    (note,) = [note for note in open_data(tmp_path).notes if "thumbnail" in note]
    assert note.startswith("only a thumbnail is read, the first page of TIFF files (2 of ")
