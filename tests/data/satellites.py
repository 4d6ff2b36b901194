"""TIFF files of several bands, for tests."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image


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


def paged_tiff(values, **options):
    """A file whose bands are pages."""
    file = io.BytesIO()
    tifffile.imwrite(file, values.transpose(2, 0, 1), photometric="minisblack", **options)
    return file.getvalue()


def rgb_tiff(values):
    """A file of red, green, blue and a fourth channel."""
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="rgb", extrasamples=["unspecified"])
    return file.getvalue()


def compressed_tiff(values, compression, code, planar=False, predictor=1, rows=16, tables=None, encode=None):
    """A file in strips, compressed by Pillow's libtiff; tifffile needs imagecodecs to write one."""
    height, width, samples = values.shape
    planes = np.moveaxis(values, 2, 0)[..., None] if planar else values[None]
    strips = [
        (encode or with_libtiff)(differences(plane[top : top + rows], predictor), compression)
        for plane in planes
        for top in range(0, height, rows)
    ]
    bits, kind = values.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {
        **{256: ("L", [width]), 257: ("L", [height]), 258: ("H", [bits] * samples), 259: ("H", [code])},
        **{262: ("H", [1]), 277: ("H", [samples]), 278: ("L", [rows]), 284: ("H", [2 if planar else 1])},
        **{317: ("H", [predictor]), 339: ("H", [kind] * samples), 279: ("L", [len(strip) for strip in strips])},
    }
    return with_tags(tags | ({} if tables is None else {347: ("B", list(tables))}), strips)


def with_tags(tags, strips):
    """A TIFF file of one page."""
    tags = dict(sorted((tags | {273: ("L", [0] * len(strips))}).items()))
    at = 8 + 2 + 12 * len(tags) + 4
    at += sum(size for kind, values in tags.values() if (size := struct.calcsize(f"<{len(values)}{kind}")) > 4)
    tags[273] = ("L", [at + sum(map(len, strips[:number])) for number in range(len(strips))])
    entries, outside, place = b"", b"", 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in tags.items():
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        inside = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<L", place + len(outside))
        entries += struct.pack("<HHL", tag, {"B": 1, "H": 3, "L": 4}[kind], len(values)) + inside
        outside += packed if len(packed) > 4 else b""
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4) + outside + b"".join(strips)


def differences(values, predictor):
    """What a predictor stores of values "rows columns samples", as bytes "rows numbers"."""
    rows = len(values)
    if predictor == 3:
        split = values.astype(values.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, -1, values.dtype.itemsize)
        values = split.swapaxes(1, 2).reshape(rows, -1, values.shape[2])
    if predictor > 1:
        values = np.diff(values, axis=1, prepend=np.zeros_like(values[:, :1]))
    return np.ascontiguousarray(values).view(np.uint8).reshape(rows, -1)


def with_libtiff(rows, compression):
    """The bytes of rows, compressed."""
    if compression == "zlib":
        return zlib.compress(rows.tobytes())
    file = io.BytesIO()
    Image.fromarray(rows).save(file, "TIFF", compression=compression)
    [page] = tifffile.TiffFile(io.BytesIO(file.getvalue())).pages
    [at], [length] = page.dataoffsets, page.databytecounts
    return file.getvalue()[at : at + length]
