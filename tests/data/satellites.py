"""TIFF files of several bands, for tests."""

import io

import numpy as np
import tifffile


def tiff(values, planar=False, **options):
    file = io.BytesIO()
    values = values.transpose(2, 0, 1) if planar else values
    config = "separate" if planar else "contig"
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig=config, **options)
    return file.getvalue()


def values_of(dtype, seed=0, shape=(40, 37, 5)):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def satellite_folder(tmp_path):
    """Two classes of 12-bit images with five bands, which differ in brightness."""
    folder = tmp_path / "satellite"
    for split, count in (("train", 8), ("val", 4)):
        for place, name in enumerate(("field", "water")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                values = np.random.default_rng(number).integers(0, 2000, (24, 24, 5)) + 2000 * place
                (folder / split / name / f"{number}.tif").write_bytes(tiff(values.astype("u2")))
    return folder
