"""A cached split gives the pixels of the source, decodes each image once, and survives damage."""

import multiprocessing
import os
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tests.data.sources.packing import CLASSES, content_of, pack, png, tree
from vitreous.data.augmentation import Augmentation
from vitreous.data.cache import build, store
from vitreous.data.cache.build import CachedLoader, Fitted, Whole, cached
from vitreous.data.decoding import images
from vitreous.data.decoding.images import BadImage, decode_image
from vitreous.data.loading.batches import batches
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.open import open_data
from vitreous.data.sources.trees.folders import FileLoader
from vitreous.support.errors import InputError

SMALL = Preprocessing((4, 6), resize="crop", crop_fraction=0.8, interpolation="bicubic")
FITTED, WHOLE = Fitted(SMALL), Whole(SMALL, 8)


@pytest.fixture
def source(tmp_path):
    return open_data(tree(tmp_path / "photos"))


@pytest.fixture
def decoded(monkeypatch):
    """Counts the images that are decoded from files."""
    counts = Counter()
    for method in ("__call__", "decode"):
        load = getattr(FileLoader, method)

        def counting(self, index, *content, load=load):
            counts[self.names[index]] += 1
            return load(self, index, *content)

        monkeypatch.setattr(FileLoader, method, counting)
    return counts


def quiet(done, total):
    assert 0 < done <= total


def values(split):
    return [np.asarray(split.load(index)) for index in range(len(split))]


def pixels(split, **options):
    parts = [batch.images for batch in batches(split, SMALL, batch_size=3, shuffle=False, **options)]
    return np.concatenate([part.numpy() for part in parts])


def files(root, ending):
    return sorted(root.glob(f"*/*{ending}"))


@pytest.mark.parametrize("preprocessing", [SMALL, replace(SMALL, trim=(1, 2)), SMALL.adapted((5, 5), 1)])
def test_evaluation_sees_the_same_bits(source, tmp_path, preprocessing):
    split = cached(source.validation, Fitted(preprocessing), tmp_path / "cache", quiet)
    for index in range(len(split)):
        expected = preprocessing.pixels(source.validation.load(index))
        assert split.load.view(index, preprocessing).equal(expected)


def test_training_sees_the_same_bits_where_nothing_is_reduced(source, tmp_path):
    whole = Whole(SMALL, 10)
    split = cached(source.train, whole, tmp_path / "cache", quiet)
    views = {"augmentation": Augmentation(crop_scale=(0.3, 1.0)), "seed": 3}
    assert (pixels(split, **views) == pixels(source.train, **views)).all()


def test_large_images_are_reduced_to_the_side_and_keep_their_shape(tmp_path):
    source = open_data(tree(tmp_path / "photos"))
    path = tmp_path / "photos" / source.train.names[0]
    path.write_bytes(png(5, (400, 200)))
    split = cached(source.train, Whole(SMALL, 50), tmp_path / "cache", quiet)
    assert split.load(0).size == (100, 50)
    expected = Image.open(path).resize((100, 50), Image.Resampling.BICUBIC)
    assert (np.asarray(split.load(0)) == np.asarray(expected)).all()
    assert split.load(1).size == (10, 6), "small ones keep their size"
    assert split.load.size(0) == (200, 400), "of the file"


def test_an_image_is_decoded_once(source, tmp_path, decoded):
    for _ in range(2):
        split = cached(source.train, WHOLE, tmp_path / "cache", quiet)
        values(split)
        values(split)
    assert set(decoded) == set(source.train.names)
    assert set(decoded.values()) == {1}


def test_a_file_is_read_once_while_the_cache_is_built(source, tmp_path, monkeypatch):
    read, original = Counter(), images._read
    monkeypatch.setattr(images, "_read", lambda path, most: read.update([path.name]) or original(path, most))
    monkeypatch.setattr(build, "check_space", lambda *arguments: None)  # reads the headers of a few
    before = Counter(name.rpartition("/")[2] for name in source.train.names)
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    assert read == before


@pytest.mark.parametrize("ending", [b"", b"\0", b"\0\0\0"])
def test_a_digest_is_found_whatever_it_ends_in(tmp_path, ending):
    digests = [bytes([number]) * (16 - len(ending)) + ending for number in (7, 3, 200)]
    stored = store.Store(tmp_path)
    assert not stored.has(digests[0])
    assert stored.find(np.array(digests, store.KEY)).tolist() == [-1, -1, -1]
    stored.append((digest, Image.new("RGB", (2, 1), (number,) * 3)) for number, digest in enumerate(digests))
    stored.remember(np.array([9, 4, 2**64 - 1], np.uint64), np.array(digests, store.KEY))
    stored.write_stamps()
    for known in (stored, store.Store.open(tmp_path)):
        assert all(known.has(digest) for digest in digests)
        assert not known.has(b"\x08" * (16 - len(ending)) + ending)
        places = known.find(np.array([*digests, b"\x08" * 16], store.KEY)).tolist()
        assert places == [1, 0, 2, -1]
        read = [store.Place(known.paths[known.files[at]], known.rows[at].item()).read() for at in places[:3]]
        assert [image.getpixel((0, 0)) for image in read] == [(0,) * 3, (1,) * 3, (2,) * 3]
        stamps = np.array([4, 5, 2**64 - 1], np.uint64)
        assert known.known(stamps).tolist() == [digests[1].rstrip(b"\0"), b"", digests[2].rstrip(b"\0")]


def test_caches_that_nobody_uses_are_removed_when_another_one_is_made(source, tmp_path):
    root = tmp_path / "cache"
    cached(source.train, FITTED, root, quiet)
    (folder,) = root.iterdir()
    (root / "notes").mkdir()

    def age(days):
        then = time.time() - days * 24 * 3600
        for path in (*folder.iterdir(), folder, root / "notes"):
            os.utime(path, (then, then))

    age(build.UNUSED_DAYS - 1)
    cached(source.validation, WHOLE, root, quiet)
    assert folder.exists()
    age(build.UNUSED_DAYS + 1)
    cached(source.train, FITTED, root, quiet)
    cached(source.train, Whole(SMALL, 20), root, quiet)
    assert folder.exists(), "it has just been used"
    age(build.UNUSED_DAYS + 1)
    cached(source.train, Whole(SMALL, 30), root, quiet)
    assert not folder.exists()
    assert (root / "notes").exists(), "not a cache"


def test_what_is_stored_depends_on_the_preprocessing_and_the_decoding(source, tmp_path, decoded):
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    cached(source.train, replace(FITTED, preprocessing=SMALL.adapted((5, 5), 3)), tmp_path / "cache", quiet)
    assert set(decoded.values()) == {2}
    brighter = replace(source.train.load, decoding=replace(source.decoding, max_value=255))
    cached(replace(source.train, load=brighter), FITTED, tmp_path / "cache", quiet)
    assert set(decoded.values()) == {3}


def test_content_decides_not_names(source, tmp_path, decoded):
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    (tmp_path / "photos").rename(tmp_path / "renamed")
    again = open_data(tmp_path / "renamed")
    split = cached(again.train, FITTED, tmp_path / "cache", quiet)
    assert set(decoded.values()) == {1}
    changed = tmp_path / "renamed" / again.train.names[3]
    changed.write_bytes(content_of("something else"))
    split = cached(again.train, FITTED, tmp_path / "cache", quiet)
    assert decoded.pop(again.train.names[3]) == 2
    assert set(decoded.values()) == {1}
    assert split.load.view(3, SMALL).equal(SMALL.pixels(decode_image(changed)))


def test_new_images_are_added_and_the_others_kept(tmp_path, decoded):
    source = open_data(tree(tmp_path / "photos"))
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    tree(tmp_path / "photos", [f"ant/new{number}.png" for number in range(5)])
    source = open_data(tmp_path / "photos")
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    assert set(decoded.values()) == {1}
    assert len(files(tmp_path / "cache", store.PIXELS)) == 2


def test_an_archive_uses_the_cache_of_its_folder(source, tmp_path, decoded):
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    archive = open_data(pack(tmp_path / "a.zip"))
    for _ in range(2):
        split = cached(archive.train, FITTED, tmp_path / "cache", quiet)
    assert len(files(tmp_path / "cache", store.PIXELS)) == 1
    assert split.load.view(2, SMALL).equal(SMALL.pixels(source.train.load(2)))


def test_broken_images_stay_broken_and_cost_nothing_else(tmp_path):
    source = open_data(tree(tmp_path / "photos"))
    (tmp_path / "photos" / source.train.names[1]).write_bytes(b"not an image")
    (tmp_path / "photos" / source.train.names[2]).unlink()
    split = cached(source.train, FITTED, tmp_path / "cache", quiet)
    for index in (1, 2):
        with pytest.raises(BadImage):
            split.load(index)
    assert split.load.view(3, SMALL).equal(SMALL.pixels(source.train.load(3)))


@pytest.mark.parametrize("damage", ["flipped", "shortened", "longer", "removed"])
@pytest.mark.parametrize("ending", [store.PIXELS, store.INDEX])
def test_a_damaged_cache_gives_the_right_pixels(source, tmp_path, damage, ending, decoded):
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    store._mapped.cache_clear()
    for path in files(tmp_path / "cache", ending):
        content = bytearray(path.read_bytes())
        if damage == "removed":
            path.unlink()
        elif damage == "flipped":
            content[len(content) // 3] ^= 4
            path.write_bytes(content)
        else:
            path.write_bytes(content[:-7] if damage == "shortened" else content + b"1234567")
    split = cached(source.train, FITTED, tmp_path / "cache", quiet)
    for index in range(len(split)):
        assert split.load.view(index, SMALL).equal(SMALL.pixels(source.train.load(index)))


def test_every_flipped_bit_of_the_pixels_is_noticed(source, tmp_path, decoded):
    split = cached(source.train, FITTED, tmp_path / "cache", quiet)
    (path,) = files(tmp_path / "cache", store.PIXELS)
    whole = path.read_bytes()
    size = len(whole) // len(split)
    generator = np.random.default_rng(0)
    for _ in range(50):
        place, bit = int(generator.integers(len(whole))), int(generator.integers(8))
        content = bytearray(whole)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        store._mapped.cache_clear()
        before = decoded.total()
        split.load(place // size)
        assert decoded.total() == before + 1, "decoded again"


def test_an_interrupted_build_keeps_the_finished_segments(source, tmp_path, monkeypatch, decoded):
    monkeypatch.setattr(build, "SEGMENT", 3 * 4 * 6 * 3)  # three images
    monkeypatch.setattr(build, "usable_cores", lambda: 1)
    seen = []

    def stop(done, total):
        seen.append(done)
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(source.train, FITTED, tmp_path / "cache", stop)
    assert len(files(tmp_path / "cache", store.PIXELS)) == len(files(tmp_path / "cache", store.INDEX)) - 1 == 2
    decoded.clear()
    split = cached(source.train, FITTED, tmp_path / "cache", quiet)
    assert len(decoded) == len(source.train) - 6, "the last segment had no index"
    assert len(values(split)) == len(source.train)


def test_progress_reaches_the_end(source, tmp_path):
    seen = []
    cached(source.train, FITTED, tmp_path / "cache", lambda done, total: seen.append((done, total)))
    assert seen == [(done, len(source.train)) for done in range(1, len(source.train) + 1)]


def test_a_cache_that_another_process_writes_is_waited_for_with_a_line(source, tmp_path):
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    (folder,) = (tmp_path / "cache").iterdir()
    lock, lines = FileLock(folder / ".lock", is_singleton=False, thread_local=False), []

    def notify(line):
        lines.append(line)
        lock.release()  # the other process is done

    cached(source.train, FITTED, tmp_path / "cache", quiet, notify)
    assert lines == []
    lock.acquire()
    cached(source.train, FITTED, tmp_path / "cache", quiet, notify)
    assert lines == ["another process writes to this cache; waiting until it is done"]


def test_threads_and_processes_share_one_build(source, tmp_path):
    results = []

    def work():
        results.append(cached(source.train, FITTED, tmp_path / "cache", quiet))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(files(tmp_path / "cache", store.PIXELS)) == 1
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(pixels, (results[0],)).tolist() == pixels(source.train).tolist()


def test_too_little_space_is_one_line_before_anything_is_written(source, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 700})
    monkeypatch.setattr(build.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match="the cache needs about") as error:
        cached(source.train, FITTED, tmp_path / "cache", quiet)
    assert "cache=false" in error.value.hint
    assert not files(tmp_path / "cache", store.PIXELS)


def test_a_full_disk_is_one_line_and_leaves_no_segment(source, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        cached(source.train, FITTED, tmp_path / "cache", quiet)
    assert not files(tmp_path / "cache", store.PIXELS)
    assert not files(tmp_path / "cache", store.INDEX)


def test_a_folder_that_cannot_be_made_is_one_line(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make"):
        cached(source.train, FITTED, tmp_path / "file" / "cache", quiet)


def test_the_same_image_twice_is_stored_once(tmp_path):
    source = open_data(tree(tmp_path / "photos", CLASSES))
    for name in source.train.names:
        (tmp_path / "photos" / name).write_bytes(png(1))
    split = cached(source.train, FITTED, tmp_path / "cache", quiet)
    (path,) = files(tmp_path / "cache", store.PIXELS)
    assert path.stat().st_size == 4 * 6 * 3
    assert isinstance(split.load, CachedLoader)


def test_a_file_rewritten_with_the_same_size_and_time_is_decoded_again(source, tmp_path):
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    changed = tmp_path / "photos" / source.train.names[3]
    before = changed.stat()
    changed.write_bytes(png(9).ljust(before.st_size, b"\0")[: before.st_size])
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = changed.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    split = cached(source.train, FITTED, tmp_path / "cache", quiet)
    assert split.load.view(3, SMALL).equal(SMALL.pixels(decode_image(changed)))


def test_a_damaged_segment_is_made_anew_by_the_next_build(source, tmp_path, decoded):
    split = cached(source.train, FITTED, tmp_path / "cache", quiet)
    (damaged,) = files(tmp_path / "cache", store.PIXELS)
    content = bytearray(damaged.read_bytes())
    content[0] ^= 4
    damaged.write_bytes(content)
    store._mapped.cache_clear()
    for _ in range(2):
        decoded.clear()
        values(split)
        assert decoded == {source.train.names[0]: 1}, "the others are still read from it"
    again = cached(source.train, FITTED, tmp_path / "cache", quiet)
    (whole,) = files(tmp_path / "cache", store.PIXELS)
    assert whole != damaged
    decoded.clear()
    assert len(values(again)) == len(source.train)
    assert not decoded


def test_what_a_killed_build_left_is_removed_by_the_next(source, tmp_path):
    split = cached(source.train, FITTED, tmp_path / "cache", quiet)
    (pixels_of_all,) = files(tmp_path / "cache", store.PIXELS)
    left = pixels_of_all.with_name(f"0123{store.PIXELS}")
    left.write_bytes(b"half of a segment")
    cached(source.train, FITTED, tmp_path / "cache", quiet)
    assert files(tmp_path / "cache", store.PIXELS) == [pixels_of_all]
    assert len(split) == len(source.train)


@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_a_cache_that_vanishes_during_a_run_costs_time_alone(source, tmp_path, how):
    split = cached(source.train, FITTED, tmp_path / "cache", quiet)
    store._mapped.cache_clear()
    for path in files(tmp_path / "cache", store.PIXELS):
        path.unlink() if how == "removed" else path.write_bytes(b"")
    for index in range(len(split)):
        assert split.load.view(index, SMALL).equal(SMALL.pixels(source.train.load(index)))


def test_a_read_only_cache_is_one_line(source, tmp_path, monkeypatch):
    def refuse(lock, timeout=None):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(build.FileLock, "acquire", refuse)
    with pytest.raises(InputError, match=r"cannot write the cache .* Permission denied") as error:
        cached(source.train, FITTED, tmp_path / "cache", quiet)
    assert "cache=false" in error.value.hint
