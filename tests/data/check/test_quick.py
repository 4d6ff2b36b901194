"""The quick check: what a run can find before it starts, without decoding an image."""

import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.check.faults import copy, encoded, make_photos, picture
from vitreous.data.check import quick
from vitreous.data.check.findings import COLUMNS, Finding
from vitreous.data.check.quick import check_lines, quick_check
from vitreous.data.sources.open import open_data
from vitreous.data.sources.trees.folders import FileLoader


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


def only(findings: list[Finding], kind: str) -> Finding:
    """The single finding of a kind; its rows fit the columns of the kind."""
    [found] = [finding for finding in findings if finding.kind == kind]
    assert {len(row) for row in found.items} <= {len(COLUMNS[kind])}
    return found


def test_good_photos_have_no_findings(photos):
    assert quick_check(open_data(photos)) == []
    assert quick_check(open_data("digits")) == []


def test_a_leak_from_test_into_train_is_named(photos):
    copy(photos, "test/ant/0.jpg", "train/ant/other-name.jpg")
    copy(photos, "test/bee/3.jpg", "train/bee/x.jpg")
    copy(photos, "test/bee/3.jpg", "train/bee/y.jpg")
    findings = quick_check(open_data(photos))
    leak = only(findings, "leak")
    assert leak.severity == "fix"
    assert leak.text == "2 of 24 test images are also in train"
    assert leak.items == (
        (1, "train", "ant", "train/ant/other-name.jpg"),
        (1, "test", "ant", "test/ant/0.jpg"),
        (2, "train", "bee", "train/bee/x.jpg"),
        (2, "train", "bee", "train/bee/y.jpg"),
        (2, "test", "bee", "test/bee/3.jpg"),
    )
    assert only(findings, "duplicate").text == "1 copy of other images of the same split and class"


def test_a_run_names_the_first_copies(photos):
    copy(photos, "test/bee/3.jpg", "train/bee/x.jpg")
    copy(photos, "test/bee/3.jpg", "train/bee/y.jpg")
    data = open_data(photos)
    (leak,) = (line for line in check_lines(data) if "also in" in line)
    assert leak.startswith(
        "warning: 1 of 24 test images is also in train, such as 'train/bee/x.jpg' and 'test/bee/3.jpg'; remove"
    )
    assert leak.endswith(f"; vitreous check {data.name} lists them")
    copy(photos, "train/bee/1.jpg", "train/ant/z.jpg")
    (conflict,) = (line for line in check_lines(open_data(photos)) if "different classes" in line)
    assert "1 group of copies, such as 'train/ant/z.jpg' and 'train/bee/1.jpg'; keep one copy of each" in conflict


def test_of_objects_no_command_is_named():
    """Their names, such as "list", mean nothing to a command."""
    train = [(picture(number), number % 2) for number in range(8)]
    (leak,) = (line for line in check_lines(open_data((train, [*train[:2], (picture(99), 0)]))) if "also in" in line)
    assert leak.endswith("; vt.check(…) lists them")


def test_each_pair_of_splits_is_looked_at(photos):
    copy(photos, "val/ant/0.jpg", "train/ant/a.jpg")
    copy(photos, "test/ant/0.jpg", "val/ant/b.jpg")
    texts = [finding.text for finding in quick_check(open_data(photos))]
    assert texts == ["1 of 25 validation images is also in train", "1 of 24 test images is also in validation"]


def test_a_leak_into_a_held_out_part_is_found(tmp_path):
    """Validation is held out of train, so a photo saved twice may be in both."""
    folder = make_photos(tmp_path, splits=("",), count=20)
    data = open_data(folder)
    held_out = data.validation.names[0]
    kept = data.train.names[0]
    shutil.copy(folder / held_out, folder / kept)
    assert only(quick_check(open_data(folder)), "leak").text == "1 of 4 validation images is also in train"


def test_one_image_in_two_classes_is_found(photos):
    copy(photos, "train/ant/0.jpg", "train/bee/copy.jpg")
    conflict = only(quick_check(open_data(photos)), "conflict")
    assert conflict.severity == "fix"
    assert conflict.text == "the same image in different classes: 2 images in 1 group of copies"
    assert [row[2:] for row in conflict.items] == [("ant", "train/ant/0.jpg"), ("bee", "train/bee/copy.jpg")]


def test_copies_in_a_zip_of_any_size_are_found(photos, tmp_path, monkeypatch):
    copy(photos, "test/ant/0.jpg", "train/ant/copy.jpg")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*.jpg")):
            archive.write(path, path.relative_to(photos))
    expected = quick_check(open_data(photos))
    monkeypatch.setattr(quick, "MOST_FILES", 10)
    assert quick_check(open_data(tmp_path / "photos.zip")) == expected != []


def test_only_files_of_equal_size_are_read(photos, monkeypatch):
    (photos / "train/ant/0.jpg").write_bytes(b"\0" * 99)
    (photos / "test/ant/0.jpg").write_bytes(b"\1" * 99)
    data = open_data(photos)
    sizes = [path.stat().st_size for path in photos.rglob("*.jpg")]
    expected = sum(sizes.count(size) > 1 for size in sizes)
    assert expected < len(sizes)
    read, content = [], FileLoader.content
    monkeypatch.setattr(FileLoader, "content", lambda self, index: read.append(index) or content(self, index))
    assert quick_check(data) == []
    assert len(read) == expected


def test_no_image_is_decoded(photos, monkeypatch):
    data = open_data(photos)
    monkeypatch.setattr(FileLoader, "__call__", lambda self, index: pytest.fail("decoded"))
    assert quick_check(data) == []


def test_a_file_that_is_gone_is_left_to_the_loading(photos):
    copy(photos, "test/ant/0.jpg", "train/ant/copy.jpg")
    data = open_data(photos)
    (photos / "train/bee/0.jpg").unlink()
    assert kinds(quick_check(data)) == ["leak"]


def test_what_was_not_compared_is_named(photos, monkeypatch):
    data = open_data(photos)
    monkeypatch.setattr(quick, "MOST_FILES", 10)
    found = only(quick_check(data), "not_compared")
    assert found.text == "copies were not looked for among 72 of 72 images"
    assert found.hint == f"vitreous check {photos} compares all of them"
    monkeypatch.setattr(quick, "MOST_FILES", 100)
    copy(photos, "test/ant/0.jpg", "train/ant/copy.jpg")
    assert kinds(quick_check(open_data(photos), seconds=0.0)) == ["not_compared"]


def test_a_small_class_is_named(photos):
    for number in range(2, 12):
        (photos / f"train/bee/{number}.jpg").unlink()
    findings = quick_check(open_data(photos))
    assert kinds(findings) == ["tiny_class", "lopsided"]
    assert findings[0].text == "1 class with fewer than 10 training images, 'bee' 2"
    assert findings[0].items == (("bee", 2),)
    assert findings[1].text == "12 training images of 'ant', but 2 of 'bee' (6:1)"
    assert {finding.severity for finding in findings} == {"notice"}


def test_a_class_that_a_split_lacks_is_named(tmp_path):
    folder = make_photos(tmp_path, classes=("ant", "bee", "cow", "dog"))
    for place in ("val/dog", "test/cow", "test/dog"):
        shutil.rmtree(folder / place)
    validation, test = quick_check(open_data(folder))
    assert validation.text == "validation has no images of 'dog'"
    assert test.text == "test has no images of 'cow', 'dog'"
    assert test.items == (("test", "cow"), ("test", "dog"))
    assert validation.severity == "notice"


@pytest.mark.parametrize("other", ["Ant", "ant ", "a_nt", "a-nt"])
def test_names_that_are_probably_one_class_are_named(other, tmp_path):
    folder = make_photos(tmp_path, classes=("ant", other, "bee"))
    found = only(quick_check(open_data(folder)), "similar_names")
    assert found.severity == "fix"
    assert sorted(found.items[0]) == sorted(["ant", other])


def test_serious_findings_come_first(photos):
    for number in range(2, 12):
        (photos / f"train/bee/{number}.jpg").unlink()
    copy(photos, "test/ant/0.jpg", "train/ant/copy.jpg")
    assert kinds(quick_check(open_data(photos))) == ["leak", "tiny_class", "lopsided"]


def test_many_copies_are_listed_within_bounds(tmp_path):
    folder = make_photos(tmp_path, splits=("train", "val"))
    black = encoded(picture(1, (8, 8)).convert("L").point(lambda _: 0), "PNG")
    for number in range(3000):
        (folder / f"train/ant/black{number}.png").write_bytes(black)
    for number in range(100):
        (folder / f"val/bee/black{number}.png").write_bytes(black)
    findings = quick_check(open_data(folder))
    leak = only(findings, "leak")
    assert leak.text == "100 of 124 validation images are also in train"
    assert len(leak.items) == 8
    assert leak.left_out == 3100 - 8
    assert only(findings, "duplicate").text.startswith("3,098 copies of other images")


def test_findings_can_be_sent_to_other_processes(photos):
    copy(photos, "test/ant/0.jpg", "train/ant/copy.jpg")
    findings = quick_check(open_data(photos))
    assert pickle.loads(pickle.dumps(findings)) == findings
    assert not [
        value for finding in findings for row in finding.items for value in row if isinstance(value, np.generic)
    ]


def test_real_photos(data_folder: Path):
    findings = quick_check(open_data(data_folder / "pizza_steak_sushi"))
    assert not [finding for finding in findings if finding.severity == "fix"]


def test_the_command_for_the_rest_can_be_typed_as_it_is():
    named = replace(open_data("digits"), name="my photos")
    assert quick.not_compared(3, 5, named).hint == "vitreous check 'my photos' compares all of them"
