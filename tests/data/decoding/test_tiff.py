"""TIFF files of many channels as other programs write them: compressions, pages, types of values."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.satellites import compressed_tiff, paged_tiff, rgb_tiff, satellite_folder, tiff, values_of
from vitreous.data.decoding.formats import MOST_TAGS, tiff_pages
from vitreous.data.decoding.images import BadImage, Decoding, remarks
from vitreous.data.decoding.picture import decode_picture, picture_maximum, picture_size, stored_channels
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.support.errors import InputError

FIVE = Decoding(channels=5)


def decoded(content, decoding=FIVE):
    return decode_picture(content, "x", decoding).array()


# ---- compressions


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("name", ["tiff_lzw", "packbits", "lzma", "zstd"])
def test_compressions_need_no_other_library(name, predictor, planar):
    code = {"tiff_lzw": 5, "packbits": 32773, "lzma": 34925, "zstd": 50000}[name]
    values = values_of("u1") // 64  # which compress
    assert (decoded(compressed_tiff(values, name, code, planar, predictor)) == values).all()


@pytest.mark.parametrize("name", ["tiff_lzw", "zlib"])
@pytest.mark.parametrize("predictor", [1, 3])
def test_floats_with_their_predictor_are_exact(predictor, name):
    values = np.random.default_rng(0).random((40, 37, 5), dtype=np.float32)
    content = compressed_tiff(values, name, 5 if name == "tiff_lzw" else 8, predictor=predictor)
    assert (decoded(content) == np.rint(values * 255)).all()


@pytest.mark.parametrize("with_tables", [False, True])
def test_bands_stored_as_jpeg(with_tables):
    values = np.add.outer(np.arange(40), np.arange(37)).astype(np.uint8)[..., None] + np.arange(5, dtype=np.uint8)
    files = []

    def jpeg(rows, compression):
        file = io.BytesIO()
        Image.fromarray(rows).save(file, "JPEG")
        files.append(file.getvalue())
        return b"\xff\xd8" + files[-1][files[-1].index(b"\xff\xc0") :] if with_tables else files[-1]

    strips = compressed_tiff(values, "jpeg", 7, planar=True, rows=40, encode=jpeg)
    if with_tables:  # those of quantization; Pillow writes those of Huffman after the size
        tables = files[0][: files[0].index(b"\xff\xc0")] + b"\xff\xd9"
        strips = compressed_tiff(values, "jpeg", 7, planar=True, rows=40, encode=jpeg, tables=tables)
    expected = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files[-5:]], axis=-1)
    assert (decoded(strips) == expected).all()
    assert np.abs(expected.astype(int) - values).max() < 8


def test_samples_of_five_channels_in_one_jpeg_are_a_bad_image():
    content = compressed_tiff(values_of("u1"), "packbits", 7)
    with pytest.raises(BadImage, match="compression, number 7, is not supported with so many channels"):
        decoded(content)


def test_a_broken_strip_is_a_bad_image():
    content = bytearray(compressed_tiff(values_of("u1") // 64, "tiff_lzw", 5))
    content[-300:] = bytes(300)
    with pytest.raises(BadImage, match="is broken"):
        decoded(bytes(content))


# ---- pages


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"bigtiff": True}, {"compression": "zlib"}], ids=str)
def test_pages_are_channels_where_their_number_is_set(options):
    values = values_of("u2")
    content = paged_tiff(values, **options)
    stored = stored_channels(content, "x")
    assert (stored.channels, stored.pages) == (1, 5)
    assert (decoded(content) == (values.astype(np.uint32) * 255 + 32767) // 65535).all()
    assert picture_size(content, "x", FIVE) == (40, 37)
    assert picture_maximum(content, "x", FIVE) == values.max()
    with pytest.raises(BadImage, match="has 1 channel, not 4"):
        decoded(content, Decoding(channels=4))


def test_pages_of_different_sizes_are_no_channels():
    first, second = (paged_tiff(values_of("u1", shape=(size, 30, 1)), metadata=None) for size in (40, 20))
    file = io.BytesIO()
    pages = [Image.open(io.BytesIO(content)) for content in (first, second)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    assert stored_channels(file.getvalue(), "x").pages == 1


def paged_folder(tmp_path, write=paged_tiff, shape=(24, 24, 5)):
    for split, count in (("train", 3), ("val", 2)):
        for place, name in enumerate(("field", "water")):
            (tmp_path / "paged" / split / name).mkdir(parents=True)
            for number in range(count):
                content = write(values_of("u1", number + 10 * place, shape))
                (tmp_path / "paged" / split / name / f"{number}.tif").write_bytes(content)
    return tmp_path / "paged"


def test_a_set_of_pages_says_how_to_read_them(tmp_path):
    folder = paged_folder(tmp_path)
    data = open_data(folder)
    note = "the first of 5 pages is read (6 of 6 training images); set channels=5 if the pages are channels"
    assert data.channels == 3
    assert note in data.notes
    assert open_data(folder, DataOptions(channels=5)).train.load(0).getbands() == ("0", "1", "2", "3", "4")
    with pytest.raises(InputError, match="have 5 channels, not 4"):
        open_data(folder, DataOptions(channels=4))


def test_a_fourth_channel_beside_red_green_and_blue_is_named(tmp_path):
    data = open_data(paged_folder(tmp_path, rgb_tiff, (24, 24, 4)))
    assert data.channels == 3
    assert "TIFF images of 4 channels are read as RGB (6 of 6 training images); set channels=4 to use all" in data.notes


def deep_png(values):
    """A PNG of 16 bits "height width colors", which Pillow cannot write."""
    height, width, colors = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[colors], 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    sums = [struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    parts = [struct.pack(">I", len(body)) + kind + body + end for (kind, body), end in zip(chunks, sums, strict=True)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("write", "colors", "is_cut"),
    [(deep_png, 3, True), (deep_png, 4, True), (deep_png, 2, True), (rgb_tiff, 4, False), (rgb_tiff, 3, False)],
)
def test_colors_of_16_bits_that_are_cut_off_are_named(tmp_path, write, colors, is_cut):
    folder = paged_folder(tmp_path, lambda values: write(values.astype("u2")), (24, 24, colors))
    if write is deep_png:
        for path in folder.rglob("*.tif"):
            path.rename(path.with_suffix(".png"))
    for options in (DataOptions(), DataOptions(channels=3)):
        data = open_data(folder, options)
        notes = [note for note in data.notes if "only the upper 8 of 16 bits are read of color images (6 of 6" in note]
        assert len(notes) == is_cut
        assert (np.unique(np.asarray(data.train.load(0))).size == 1) == is_cut  # the values are below 256


def test_pages_in_a_circle_end():
    content = bytearray(paged_tiff(values_of("u1")))
    [first] = np.frombuffer(content[4:8], "<u4")
    count = int.from_bytes(content[first : first + 2], "little")
    at = first + 2 + 12 * count
    content[at : at + 4] = content[4:8]
    with pytest.raises(ValueError, match=f"more than {MOST_TAGS:,} tags"):
        [*tiff_pages(bytes(content))]
    with pytest.raises(BadImage):
        decoded(bytes(content))


# ---- values


def test_nodata_of_gdal_and_nan_are_zero():
    values = np.random.default_rng(0).random((8, 9, 5), dtype=np.float32)
    values[0] = -9999
    content = tiff(values, extratags=[(42113, 2, 0, "-9999", True)])
    assert (decoded(content)[0] == 0).all()
    assert picture_maximum(content, "x", FIVE) <= 1
    values[0] = np.nan
    picture = decode_picture(tiff(values), "x", FIVE)
    assert (picture.array()[0] == 0).all()
    assert remarks(picture) == ("values that are NaN are read as 0",)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((4, 4, 5), -1, np.int8), "has values of type int8"),
        (np.full((4, 4, 5), -1, np.int16), "has values from -1 to 0, outside 0 to 65,535"),
        (np.full((4, 4, 5), 2**32 - 1, np.uint32), "outside 0 to 65,535"),
        (np.full((4, 4, 5), 2**40, np.uint64), "has values of type uint64"),
        (np.full((4, 4, 5), -0.5, np.float32), "has values from -0.5 to 0, outside 0 to 1"),
        (np.full((4, 4, 5), 1e9, np.float32), "outside 0 to 65,535"),
        (np.full((4, 4, 5), 1j, np.complex64), "has values of type complex64"),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else "",
)
def test_values_that_no_byte_stands_for_are_named(values, reason):
    with pytest.raises(BadImage, match=reason) as caught:
        decoded(tiff(values))
    assert "\n" not in str(caught.value)
    assert "8 or 16 bits" in caught.value.hint


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (np.int8, "has values of type int8"),
        *((dtype, "type of values or layout is not read") for dtype in (np.uint64, np.float64, np.complex64)),
    ],
)
def test_one_channel_of_values_that_are_not_read(dtype, reason):
    content = paged_tiff(np.full((4, 4, 1), -1, np.int8).astype(dtype))
    for read in (decode_picture, picture_size):
        with pytest.raises(BadImage, match=reason) as caught:
            read(content, "x", Decoding())
        assert caught.value.hint.startswith("save it with 8 or 16 bits")


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("planar", [False, True])
def test_color_of_more_than_8_bits_keeps_its_range(dtype, planar, tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (24, 20, 3))
    file = io.BytesIO()
    stored = (values / 4095 if dtype == np.float32 else values).astype(dtype)
    stored = np.moveaxis(stored, 2, 0) if planar else stored
    tifffile.imwrite(file, stored, photometric="rgb", planarconfig="separate" if planar else "contig")
    content, white = file.getvalue(), Decoding(max_value=1 if dtype == np.float32 else 4095)
    (tmp_path / "x.tif").write_bytes(content)
    for source in (content, tmp_path / "x.tif"):
        picture = decode_picture(source, "x", white)
        assert picture.mode == "RGB"
        assert np.abs(np.asarray(picture) - values * 255 / 4095).max() <= 0.5 + 1e-3
        assert picture_size(source, "x", white) == (24, 20)
        assert picture_maximum(source, "x", white) == stored.max()


@pytest.mark.parametrize("extra", ["unspecified", "unassalpha", "assocalpha"])
def test_a_fourth_channel_does_not_cut_the_others(extra):
    """Near infrared is left out, and transparency is white, whatever its values."""
    generator = np.random.default_rng(0)
    values, opaque = generator.integers(0, 2048, (24, 20, 3)).astype(np.uint16), generator.random((24, 20, 1))
    if extra == "assocalpha":
        values = (values * opaque).astype(np.uint16)
    fourth = np.rint(opaque * 65535).astype(np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, np.concatenate([values, fourth], 2), photometric="rgb", extrasamples=[extra])
    content, white = file.getvalue(), Decoding(max_value=2047)
    expected = values / 2047 * 255
    if extra != "unspecified":
        expected = expected * (opaque if extra == "unassalpha" else 1) + 255 * (1 - opaque)
    picture = decode_picture(content, "x", white)
    assert picture.mode == "RGB"
    assert not remarks(picture)
    assert np.abs(np.asarray(picture) - expected).max() <= 1 + 1e-3
    assert picture_size(content, "x", white) == (24, 20)
    assert picture_maximum(content, "x", white) == values.max()


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_two_channels_are_two_unless_one_is_transparency(dtype):
    for extra, is_photo in (("unspecified", False), ("unassalpha", dtype == "u1")):
        file = io.BytesIO()
        tifffile.imwrite(
            file, values_of(dtype, shape=(24, 24, 2)), photometric="minisblack", planarconfig="contig",
            extrasamples=[extra],
        )  # fmt: skip
        assert stored_channels(file.getvalue())[:2] == (2, is_photo)


def test_three_bands_called_gray_are_color():
    values = values_of("u1", shape=(24, 24, 3))
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig")
    assert (np.asarray(decode_picture(file.getvalue())) == values).all()


@pytest.mark.parametrize("scale", [1, 257])
def test_colors_of_a_palette_have_8_or_16_bits(scale):
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colors = np.random.default_rng(0).integers(0, 256, (3, 256))
    file = io.BytesIO()
    tifffile.imwrite(file, indices, photometric="palette", colormap=(colors * scale).astype(np.uint16))
    assert (np.asarray(decode_picture(file.getvalue())) == colors.T[indices]).all()


def test_a_set_of_floats_is_called_so(tmp_path):
    folder = satellite_folder(tmp_path)
    for path in folder.rglob("*.tif"):
        path.write_bytes(tiff(np.random.default_rng(0).random((24, 24, 5), dtype=np.float32)))
    assert any(note.startswith("floating-point images: values 0..1 become 0..255") for note in open_data(folder).notes)


def test_a_value_beyond_the_file_hides_no_tag():
    whole = tiff(values_of("u1"))
    [page] = tiff_pages(whole)
    [first] = np.frombuffer(whole[4:8], "<u4")
    bits = int(first) + 2 + 12 * [tag.number for tag in page].index(258)
    for place in (len(whole) - 1, len(whole), 2**32 - 1):
        content = bytearray(whole)
        content[bits + 8 : bits + 12] = place.to_bytes(4, "little")
        [tags] = tiff_pages(bytes(content))
        assert [tag.number for tag in tags] == [tag.number for tag in page]
