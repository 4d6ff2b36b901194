"""A member loads as its own bytes or as a bad image, in any process and within bounds."""

import io
import multiprocessing
import pickle
import struct
import threading
import tracemalloc
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.sources.packing import CLASSES, pack, png, splits_of, tree
from vitreous.data.augmentation import Augmentation
from vitreous.data.decoding import images
from vitreous.data.decoding.images import BadImage
from vitreous.data.loading.batches import batches
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.open import open_data
from vitreous.support.errors import InputError


@pytest.fixture
def one(tmp_path, monkeypatch):
    """Loads one member of an archive after changing the archive's bytes."""

    def load(content, change=lambda archive: archive, method=zipfile.ZIP_DEFLATED, max_bytes=images.MAX_BYTES):
        path = pack(tmp_path / "a.zip", method=method, **{"ant/x.png": content})
        path.write_bytes(change(path.read_bytes()))
        data = open_data(path)
        split = next(split for split in splits_of(data) if "ant/x.png" in split.names)
        monkeypatch.setattr(images, "MAX_BYTES", max_bytes)
        return split.load(split.names.index("ant/x.png"))

    return load


def contents_entry(archive, name=b"ant/x.png"):
    """The offset of a member's entry in the table of contents."""
    return archive.rindex(name) - 46


def patched(at, form, *values):
    """Overwrites fields of a member's entry."""

    def change(archive):
        changed = bytearray(archive)
        struct.pack_into(form, changed, contents_entry(archive) + at, *values)
        return bytes(changed)

    return change


CHECKSUM, STORED, SIZE, OFFSET = 16, 20, 24, 42


def test_a_member_loads_as_its_image(one):
    assert one(png(5)).tobytes() == Image.open(io.BytesIO(png(5))).tobytes()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (CHECKSUM, "<L", 1),
        (STORED, "<L", 20),
        (SIZE, "<L", 0),
        (SIZE, "<L", 20),
        (SIZE, "<L", 2**20),
        (OFFSET, "<L", 0),
        (OFFSET, "<L", 7),
        (OFFSET, "<L", 2**32 - 2),
    ],
)
def test_a_broken_member_is_a_bad_image(one, method, at, form, value):
    with pytest.raises(BadImage, match=r"'ant/x\.png' is (broken in the archive|empty)"):
        one(png(), patched(at, form, value), method)


def test_a_member_whose_bytes_are_broken_is_a_bad_image(one):
    def corrupt(archive):
        at = archive.index(b"ant/x.png") + 40
        return archive[:at] + bytes(30) + archive[at + 30 :]

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with pytest.raises(BadImage, match="is broken in the archive"):
            one(png(), corrupt, method)


def test_a_member_that_is_not_an_image_is_named(one):
    with pytest.raises(BadImage, match=r"'ant/x\.png' is not a JPEG"):
        one(b"text")
    with pytest.raises(BadImage, match=r"'ant/x\.png' is empty"):
        one(b"")


def test_a_zip_bomb_is_not_decompressed(one):
    bomb = bytes(20 * 2**20)  # some 20 kB in the archive
    with pytest.raises(BadImage, match="has more than 1,000,000 bytes"):
        one(bomb, max_bytes=10**6)
    tracemalloc.start()
    with pytest.raises(BadImage, match="is broken in the archive"):
        one(bomb, patched(SIZE, "<L", 10**6), max_bytes=10**6)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * 2**20
    with pytest.raises(BadImage, match="has more than 64 bytes"):
        one(png(), patched(SIZE, "<L", 1), max_bytes=64)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_corrupted_archive_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "spoiled.zip"
    content = bytearray(pack(path, CLASSES[::4], method=zipfile.ZIP_DEFLATED).read_bytes())
    start = data.draw(st.sampled_from([0, content.index(b"PK\1\2")]))  # the whole file, or the table of contents
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(start, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(InputError):
        opened = open_data(path)
        for split in splits_of(opened):
            for place in range(len(split)):
                with suppress(BadImage):
                    split.load(place)


def bits(loader):
    return [(b.images.tolist(), b.labels.tolist(), b.indices.tolist(), b.bad) for b in loader]


def test_workers_read_the_same_bits_as_from_a_folder(tmp_path):
    names = [f"{split}/{name}/{number}.png" for split in ("train", "val") for name in "ab" for number in range(40)]
    path = pack(tmp_path / "photos.zip", names, **{"train/a/broken.png": b"broken"})
    tree(tmp_path / "photos", names)
    (tmp_path / "photos" / "train" / "a" / "broken.png").write_bytes(b"broken")

    def epoch(source, workers):
        split = open_data(source).train
        loader = batches(
            split, Preprocessing((8, 8)), batch_size=4, shuffle=True, augmentation=Augmentation(), workers=workers
        )
        return bits(loader)

    expected = epoch(tmp_path / "photos", 0)
    assert [bad for batch in expected for bad in batch[3]] == [
        ("train/a/broken.png", "is not a JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC image")
    ]
    assert epoch(path, 0) == expected
    assert epoch(path, 2) == expected


def read_all(load, expected, result):
    """Reads all members repeatedly, in a process of its own or a thread."""
    result.put(all(load(i).tobytes() == e for _ in range(30) for i, e in enumerate(expected)))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_processes_and_threads_do_not_share_a_position(tmp_path, method):
    large = {name: png(place, (80, 60)) for place, name in enumerate(CLASSES)}  # larger than a file's buffer
    split = open_data(pack(tmp_path / "a.zip", [], method=method, **large)).train
    expected = [split.load(i).tobytes() for i in range(len(split))]
    fork = multiprocessing.get_context("fork")
    result = fork.Queue()
    processes = [fork.Process(target=read_all, args=(split.load, expected, result)) for _ in range(2)]
    for process in processes:
        process.start()
    threads = [threading.Thread(target=read_all, args=(split.load, expected, result)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for runner in (*processes, *threads):
        runner.join(60)
    assert [result.get(timeout=10) for _ in range(4)] == [True] * 4


def test_a_changed_or_deleted_archive_is_detected(tmp_path):
    path = pack(tmp_path / "a.zip")
    split = open_data(path).train
    fresh = pickle.loads(pickle.dumps(split.load))
    pack(path, CLASSES[1:])
    for _ in range(2):
        with pytest.raises(BadImage, match="the archive has changed"):
            fresh(0)
    path.unlink()
    with pytest.raises(BadImage, match="cannot be read: No such file"):
        fresh(0)
