"""The check of all images before a run."""

import pickle
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data import precheck
from vitreous.data.decoding.images import BadImage
from vitreous.data.loading.shares import Share
from vitreous.data.precheck import checked_count, choose_check, find_broken
from vitreous.data.sources.chosen import without
from vitreous.data.sources.open import open_data
from vitreous.data.sources.splits import ImageData, Loader, Split


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures in three splits; of train one has no header, of validation one ends early, of test one is empty."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4), ("test", 3)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 256, (20, 20 + number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "photos/train/dog/2.png").write_bytes(b"no image")
    whole = (tmp_path / "photos/val/cat/3.png").read_bytes()
    (tmp_path / "photos/val/cat/3.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos/test/cat/0.png").write_bytes(b"")
    return tmp_path / "photos"


def places_of(broken: precheck.Broken) -> dict[str, list[int]]:
    return {split: [index for index, _ in images] for split, images in broken.items()}


def names_of(data: ImageData, broken: precheck.Broken) -> dict[str, list[str]]:
    return {split.name: [split.names[index] for index, _ in broken.get(split.name, [])] for split in data.splits}


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("all", [["train/dog/2.png"], ["val/cat/3.png"], ["test/cat/0.png"]]),
        ("headers", [["train/dog/2.png"], [], ["test/cat/0.png"]]),
        ("sample", [["train/dog/2.png"], [], ["test/cat/0.png"]]),
        ("none", [[], [], []]),
    ],
)
def test_each_check_finds_what_it_looks_at(how, found, photos):
    data, seen = open_data(photos), []
    broken = find_broken(data, how, seen.append).broken
    assert [*names_of(data, broken).values()] == found
    assert checked_count(data, how) == (0 if how == "none" else 26)
    assert seen == sorted(seen)
    assert seen[-1:] == ([] if how == "none" else [26])
    if how == "all":
        assert broken["test"][0][1] == "is empty"


def test_ranks_look_at_each_image_once(photos):
    data, seen = open_data(photos), [[], [], []]
    parts = [find_broken(data, "all", seen[rank].append, Share(rank, 3), cores=1).broken for rank in range(3)]
    together = {split.name: sorted(bad for part in parts for bad in part[split.name]) for split in data.splits}
    assert together == find_broken(data, "all", print).broken
    assert sum(done[-1] for done in seen) == 26
    assert all(done[-1] < 26 for done in seen)


def test_without_the_broken_ones_the_rest_is_the_same(photos):
    data = open_data(photos)
    left = without(data, places_of(find_broken(data, "all", print).broken))
    kept = pickle.loads(pickle.dumps(left.train))
    places = [index for index, name in enumerate(data.train.names) if name != "train/dog/2.png"]
    assert kept.names == tuple(data.train.names[place] for place in places)
    assert kept.labels.tolist() == data.train.labels[places].tolist()
    for index, place in enumerate(places):
        assert (np.asarray(kept.load(index)) == np.asarray(data.train.load(place))).all()
        assert kept.load.size(index) == data.train.load.size(place)
        assert kept.load.content(index) == data.train.load.content(place)
    assert not kept.load.in_memory
    assert find_broken(left, "all", print).broken == {
        "train": [],
        "validation": [],
        "test": [],
    }


def test_data_without_broken_images_is_left_alone(photos):
    data = open_data(photos)
    same = without(data, {"train": []})
    assert (same.train, same.validation, same.test) == (data.train, data.validation, data.test)
    assert same.class_names == data.class_names


@dataclass(frozen=True, eq=False)
class Slow(Loader):
    """Images that take a while; every one whose number ends in 7 is broken."""

    decoding: float
    header: float
    seen: list[int]

    def __call__(self, index: int) -> Image.Image:
        time.sleep(self.decoding)
        return self._image(index)

    def size(self, index: int) -> tuple[int, int]:
        time.sleep(self.header)
        return self._image(index).size

    def content(self, index: int) -> bytes:
        return b""

    def _image(self, index: int) -> Image.Image:
        self.seen.append(index)
        if index % 10 == 7:
            raise BadImage(f"{index}", "is broken")
        return Image.new("RGB", (2, 2))


def slow_data(count: int, decoding: float, header: float) -> ImageData:
    def split(name: str, images: int) -> Split:
        return Split(name, ("x",) * images, np.zeros(images, np.int64), Slow(decoding, header, []))

    made = {"train": split("train", count - 10), "validation": split("validation", 10), "test": None}
    return replace(open_data("digits"), **made)


@pytest.mark.parametrize(
    ("count", "decoding", "header", "how"),
    [
        (30, 0.001, 0.0, "all"),
        (200_000, 0.001, 1e-6, "headers"),
        (3_000_000, 0.01, 0.005, "sample"),
    ],
)
def test_the_check_suits_the_time_it_takes(count, decoding, header, how, monkeypatch):
    monkeypatch.setattr(precheck, "usable_cores", lambda: 2)
    data = slow_data(count, decoding, header)
    started = time.perf_counter()
    estimate = choose_check(data)
    assert estimate.how == how
    assert estimate.decoding_seconds >= count * decoding / 2 * 0.9
    assert time.perf_counter() - started < 20


def test_images_in_memory_need_no_check():
    data = open_data("digits")
    assert choose_check(data).how == "none"
    assert checked_count(data, "all") == 0
    assert find_broken(data, "all", pytest.fail) == ({}, 0)


def test_a_sample_is_spread_over_the_splits():
    data = slow_data(1_000_000, 0.0, 0.0)
    broken = find_broken(data, "sample", lambda done: None).broken
    seen = data.train.load.seen
    assert len(seen) == pytest.approx(precheck.SAMPLE, rel=0.01)
    assert min(seen) == 0
    assert max(seen) == 999_989
    assert {len(part) for part in np.array_split(seen, 10)} <= {999, 1000}
    assert [index for index, _ in broken["train"]] == sorted(index for index in seen if index % 10 == 7)
    assert len(data.validation.load.seen) == 1
    assert checked_count(data, "sample") == len(seen) + 1
