"""`vt.check` finds exact and near copies: leaks, conflicting labels, and copies within a class."""

import pytest
from PIL import Image

from tests.data.check.faults import copy, encoded, images_of, only
from vitreous.data.check.check import check


def test_an_exact_leak(photos):
    copy(photos, "test/ant/0.jpg", "train/ant/other.jpg")
    found = only(check(photos), "leak", "fix")
    assert found.text == "1 of 24 test images is also in train"
    assert images_of(found) == ["train/ant/other.jpg", "test/ant/0.jpg"]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: encoded(image, quality=40),
        lambda image: encoded(image, "PNG"),
        lambda image: encoded(image.resize((50, 38)), quality=80),
        lambda image: encoded(image.convert("L"), quality=80),
        lambda image: encoded(image.point(lambda value: min(255, round(1.1 * value))), "WEBP"),
    ],
    ids=["lower quality", "another format", "smaller", "gray", "brighter"],
)
def test_a_leak_of_a_changed_image(change, photos):
    image = Image.open(photos / "test/ant/5.jpg").convert("RGB")
    (photos / "train/ant/changed").with_suffix(".jpg").write_bytes(change(image))
    found = only(check(photos), "near_leak", "fix")
    assert found.text == "1 of 24 test images is almost identical to an image in train"
    assert images_of(found) == ["train/ant/changed.jpg", "test/ant/5.jpg"]


def test_a_turned_copy_is_found_by_its_exif(photos):
    """One file stores the pixels upright, the other sideways with an orientation."""
    image = Image.open(photos / "test/ant/5.jpg").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    (photos / "train/ant/turned.jpg").write_bytes(encoded(image.rotate(90, expand=True), quality=90, exif=exif))
    result = check(photos)
    assert images_of(only(result, "near_leak", "fix")) == ["train/ant/turned.jpg", "test/ant/5.jpg"]
    assert {(row["height"], row["width"]) for row in result.scan.rows} == {(60, 80)}


def test_near_copies_do_not_repeat_what_exact_ones_say(photos):
    """Two test images are in train, one as it is and the other changed; a third one in both ways."""
    copy(photos, "test/ant/0.jpg", "train/ant/same.jpg")
    copy(photos, "test/ant/1.jpg", "train/ant/same-too.jpg")
    for number in (1, 2):
        image = Image.open(photos / f"test/ant/{number}.jpg").convert("RGB")
        (photos / f"train/ant/changed{number}.jpg").write_bytes(encoded(image, quality=40))
    exact, near, copies = check(photos).findings
    assert exact.text == "2 of 24 test images are also in train"
    assert near.text == "1 of 24 test images is almost identical to an image in train"
    assert images_of(near) == ["train/ant/changed2.jpg", "test/ant/2.jpg"]
    assert images_of(copies) == ["train/ant/changed1.jpg", "train/ant/same-too.jpg", "test/ant/1.jpg"]


def test_near_copies_do_not_repeat_a_conflict(photos):
    copy(photos, "train/ant/0.jpg", "train/bee/copy.jpg")
    image = Image.open(photos / "train/ant/0.jpg").convert("RGB")
    (photos / "train/bee/near.jpg").write_bytes(encoded(image, quality=40))
    assert [finding.kind for finding in check(photos).findings] == ["conflict", "near_duplicate"]


def test_a_few_near_leaks_in_a_large_split_are_a_notice(photos, monkeypatch):
    image = Image.open(photos / "test/ant/5.jpg").convert("RGB")
    (photos / "train/ant/changed.jpg").write_bytes(encoded(image, quality=40))
    monkeypatch.setattr("vitreous.data.check.duplicates.NEAR_LEAK", 0.05)
    only(check(photos), "near_leak", "notice")


def test_one_image_with_two_labels(photos):
    copy(photos, "train/ant/0.jpg", "train/bee/copy.jpg")
    found = only(check(photos), "conflict", "fix")
    assert [row[2:] for row in found.items] == [("ant", "train/ant/0.jpg"), ("bee", "train/bee/copy.jpg")]


def test_almost_the_same_image_with_two_labels(photos):
    image = Image.open(photos / "train/ant/0.jpg").convert("RGB")
    (photos / "train/bee/copy.jpg").write_bytes(encoded(image, quality=40))
    assert images_of(only(check(photos), "near_conflict", "notice")) == ["train/ant/0.jpg", "train/bee/copy.jpg"]


def test_copies_within_a_class(photos):
    copy(photos, "train/ant/0.jpg", "train/ant/copy.jpg")
    assert images_of(only(check(photos), "duplicate", "notice")) == ["train/ant/0.jpg", "train/ant/copy.jpg"]


def test_near_copies_within_a_class(photos):
    copy(photos, "train/ant/0.jpg", "train/ant/copy.jpg")
    image = Image.open(photos / "train/ant/0.jpg").convert("RGB")
    (photos / "train/ant/near.jpg").write_bytes(encoded(image, quality=40))
    exact, near = check(photos).findings
    assert exact.text == "1 copy of other images of the same split and class"
    assert near.text == "1 near copy of other images of the same split and class"
    assert images_of(near) == ["train/ant/0.jpg", "train/ant/copy.jpg", "train/ant/near.jpg"]
