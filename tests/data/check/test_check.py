"""`vt.check` finds every fault on data made to have it."""

import json
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pillow_heif import from_pillow

import vitreous as vt
from tests.data.check.faults import copy, encoded, images_of, make_photos, only, picture
from vitreous.data.check import check as module
from vitreous.data.check.check import check
from vitreous.data.decoding.images import BadImage
from vitreous.data.sources.names import skeleton
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.trees.folders import FileLoader
from vitreous.support.errors import InputError


def test_a_sign_is_not_a_hyphen():
    names = ["-1", "1", "class-1", "Class 1", "a - 1", "a1"]
    assert [skeleton(name) for name in names] == ["-1", "1", "class1", "class1", "a1", "a1"]


def test_good_photos_have_no_findings(photos):
    result = vt.check(photos)
    assert result.findings == ()
    assert result.wise
    assert result.scan.rows["decoded"].all()
    assert check("digits").findings == ()


def test_broken_files(photos):
    whole = (photos / "train/ant/0.jpg").read_bytes()
    (photos / "train/ant/0.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "train/bee/1.jpg").write_bytes(b"not an image")
    (photos / "train/bee/2.jpg").write_bytes(b"")
    found = only(check(photos), "broken", "fix")
    assert found.text == "3 of 72 images cannot be read"
    reasons = {row[2]: row[3] for row in found.items}
    assert "truncated" in reasons["train/ant/0.jpg"]
    assert reasons["train/bee/2.jpg"] == "is empty"
    assert "is not a" in reasons["train/bee/1.jpg"]


def test_files_that_need_an_extra_are_not_to_be_removed_only(photos, monkeypatch):
    from_pillow(Image.open(photos / "train/ant/0.jpg")).save(photos / "train/ant/0.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    found = only(check(photos), "broken", "notice")
    assert "pip install" in found.items[0][3]
    assert found.hint == "install what they need, or replace or remove them"


def test_a_few_broken_files_are_a_notice_as_they_do_not_stop_a_run(photos):
    (photos / "val/bee/1.jpg").write_bytes(b"not an image")
    only(check(photos), "broken", "notice")
    only(check(photos, max_bad_fraction=0.0), "broken", "fix")
    for number in (2, 3):
        (photos / f"val/bee/{number}.jpg").write_bytes(b"not an image")
    only(check(photos), "broken", "fix")
    only(check(photos, max_bad_fraction=0.5), "broken", "notice")


def test_a_truncated_file_is_not_found_in_a_quick_check(photos):
    """Its header is good."""
    whole = (photos / "train/ant/0.jpg").read_bytes()
    (photos / "train/ant/0.jpg").write_bytes(whole[: len(whole) // 2])
    result = check(photos, quick=True)
    only(result, "not_decoded", "notice")
    assert not result.scan.rows["decoded"].any()


def test_oversized_files(photos):
    (photos / "train/ant/large.png").write_bytes(encoded(picture(1000, (120, 90)), "PNG"))
    found = only(check(photos, options=DataOptions(max_pixels=10_000)), "oversized", "notice")
    assert found.text == "1 of 73 images is too large"
    assert "90 x 120 pixels, 10,000 pixels" in str(found.items[0][3])


def test_settings_are_named_as_on_the_command_line(photos):
    (photos / "train/ant/large.png").write_bytes(encoded(picture(1000, (120, 90)), "PNG"))
    for settings in ({"max_pixels": 1e4}, {"data.max_pixels": 10_000, "max_value": "auto"}):
        assert only(check(photos, settings=settings), "oversized", "notice").text == "1 of 73 images is too large"
    assert check(photos, settings={"channels": 1}, options=DataOptions(max_pixels=10_000)).data.channels == 1
    for path in sorted((photos / "train/ant").iterdir())[:8]:
        path.write_bytes(b"not an image")
    assert not check(photos).wise
    assert check(photos, settings={"max_bad_fraction": 0.9}).wise


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"chanels": 1}, "there is no data setting 'chanels'; did you mean 'channels'"),
        ({"channels": "4"}, "channels is '4'"),
        ({"follow_links": 1}, "follow_links is 1"),
        ({"max_pixels": True}, "max_pixels is True"),
        ({"validation_fraction": 2.0}, "validation_fraction is 2"),
        ({"validation_fraction": 1.5}, "the validation fraction is 1.5"),
    ],
)
def test_settings_that_are_not_valid(photos, settings, cause):
    with pytest.raises(InputError) as error:
        check(photos, settings=settings)
    assert str(error.value).startswith(cause)
    assert error.value.hint


def test_settings_of_open_data_are_refused(photos):
    with pytest.raises(InputError, match="open already"):
        check(open_data(photos), settings={"channels": 1})


def test_a_class_whose_images_are_all_broken(photos):
    for path in (photos / "train/bee").iterdir():
        path.write_bytes(b"not an image")
    first, second, *more = check(photos).findings
    assert (first.kind, first.severity, second.kind, more) == ("no_images", "fix", "broken", [])
    assert first.text == "1 class without a usable training image: 'bee'"
    assert first.items == (("bee", 0),)


def test_a_split_whose_images_are_all_broken(photos):
    for path in (photos / "test").rglob("*.jpg"):
        path.write_bytes(b"not an image")
    result = check(photos)
    assert {finding.kind for finding in result.findings} == {"broken", "missing_class"}
    assert not result.wise


def test_class_names_that_are_probably_one_class(tmp_path):
    only(check(make_photos(tmp_path, classes=("ant", "Ant", "bee"))), "similar_names", "fix")


def test_small_and_lopsided_classes(photos):
    for number in range(3, 12):
        (photos / f"train/bee/{number}.jpg").unlink()
    assert [finding.kind for finding in check(photos).findings] == ["tiny_class", "lopsided"]


def test_a_class_that_a_split_lacks(tmp_path):
    folder = make_photos(tmp_path, classes=("ant", "bee", "cow"))
    shutil.rmtree(folder / "val/cow")
    assert only(check(folder), "missing_class", "notice").items == (("validation", "cow"),)


def test_blank_images(photos):
    (photos / "train/ant/blank.png").write_bytes(encoded(Image.new("RGB", (60, 80), (9, 90, 9)), "PNG"))
    (photos / "test/bee/other.png").write_bytes(encoded(Image.new("RGB", (60, 80), (200, 0, 9)), "PNG"))
    assert images_of(only(check(photos), "flat", "notice")) == ["train/ant/blank.png", "test/bee/other.png"]


def test_much_smaller_images(photos):
    (photos / "train/ant/tiny.png").write_bytes(encoded(picture(1001, (10, 12)), "PNG"))
    found = only(check(photos), "small", "notice")
    assert found.items == (("train", "ant", "train/ant/tiny.png", 10, 12),)
    assert found.text == "1 image at least 4 times smaller than most: a side under 15 pixels, where the median has 60"


def test_elongated_images(photos):
    (photos / "train/ant/long.png").write_bytes(encoded(picture(1002, (60, 300)), "PNG"))
    assert only(check(photos), "elongated", "notice").items == (("train", "ant", "train/ant/long.png", 60, 300),)


def test_images_that_are_all_elongated_are_fine(tmp_path):
    for number, name in enumerate(["ant"] * 12 + ["bee"] * 12):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{number}.png").write_bytes(encoded(picture(number, (40, 200)), "PNG"))
    assert check(tmp_path).findings == ()


def test_16_bits_among_8(photos):
    values = np.asarray(picture(1003, mode="L"), np.uint16) * 256
    (photos / "train/ant/deep.png").write_bytes(encoded(Image.fromarray(values), "PNG"))
    found = only(check(photos), "mixed_depth", "notice")
    assert found.text == "1 image with more than 8 bits, 72 with 8"
    assert found.items == (("RGB", 72), ("I;16", 1))


def test_a_class_that_is_gray_throughout(photos):
    for path in (photos / "train/bee").iterdir():
        path.write_bytes(encoded(Image.open(path).convert("L")))
    found = only(check(photos), "shortcut", "notice")
    assert found.text == "classes that the kind of file gives away: 'ant' (color), 'bee' (gray)"


def test_a_class_with_a_size_of_its_own(photos):
    for number, path in enumerate((photos / "train/bee").iterdir()):
        path.write_bytes(encoded(picture(2000 + number, (64, 64))))
    assert only(check(photos), "shortcut", "notice").items == (("ant", "60×80", 12), ("bee", "64×64", 12))


def test_repaired_images(photos, monkeypatch):
    def decode(self, index, content):
        name = self.names[index]
        image = Image.new("RGB", (60, 80)) if name == "val/ant/3.jpg" else picture(len(content))
        image.info["remarks"] = ("its end was missing",) if name == "val/ant/3.jpg" else ()
        return image

    monkeypatch.setattr(FileLoader, "decode", decode)
    found = next(finding for finding in check(photos).findings if finding.kind == "repaired")
    assert found.items == (("validation", "ant", "val/ant/3.jpg", "its end was missing"),)
    assert found.text == "1 image repaired or clipped while decoding"


def test_other_files_are_counted(photos):
    (photos / "train/ant/notes.txt").write_text("x")
    assert check(photos).to_dict()["ignored"] == {"txt file": 1}


def test_links_out_of_the_folder(photos, tmp_path):
    (tmp_path / "other.jpg").write_bytes(encoded(picture(999)))
    (photos / "train/ant/link.jpg").symlink_to(tmp_path / "other.jpg")
    [(kind, count)] = check(photos).data.ignored.items()
    assert (count, kind.startswith("link out of the folder")) == (1, True)


def test_a_zip_has_the_same_findings(photos, tmp_path):
    copy(photos, "test/ant/0.jpg", "train/ant/other.jpg")
    (photos / "val/bee/1.jpg").write_bytes(b"not an image")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*.jpg")):
            archive.write(path, path.relative_to(photos))
    assert check(tmp_path / "photos.zip").findings == check(photos).findings
    assert len(check(photos).findings) == 2


def test_of_very_many_images_some_are_decoded_and_it_says_so(photos):
    copy(photos, "test/ant/0.jpg", "train/ant/other.jpg")
    result = check(photos, most_decoded=20)
    leak, sampled = result.findings
    assert leak.kind == "leak", "exact copies are found in any case"
    assert sampled.text == ("20 of 73 images were decoded, spread evenly; of the others only the header was read")
    assert sampled.items == ((53,),)
    splits = result.samples.splits[result.scan.rows["decoded"]]
    assert np.bincount(splits).min() >= 6


def test_many_equal_images_take_no_time(photos):
    """A square number of comparisons would take minutes."""
    black = encoded(Image.new("L", (30, 30)), "PNG")
    for number in range(6000):
        (photos / f"train/ant/black{number}.png").write_bytes(black)
    result = check(photos)
    found = {finding.kind: finding for finding in result.findings}
    assert found["duplicate"].text.startswith("5,999 copies")
    assert len(found["duplicate"].items) + found["duplicate"].left_out == 6000
    assert len(found["flat"].items) + found["flat"].left_out == 6000


def test_it_says_everything_as_json(photos):
    copy(photos, "test/ant/0.jpg", "train/ant/other.jpg")
    result = check(photos).to_dict()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert {key: result[key] for key in ("wise", "classes", "modes", "readable", "decoded", "transparent")} == {
        "wise": False, "classes": ["ant", "bee"], "modes": {"RGB": 73}, "readable": 73, "decoded": 73, "transparent": 0,
    }  # fmt: skip
    assert result["splits"]["train"] == {"images": 25, "classes": {"ant": 13, "bee": 12}}
    assert result["sizes"]["median"] == [60, 80]
    assert result["findings"][0]["items"][0] == {
        "group": 1, "split": "train", "class": "ant", "image": "train/ant/other.jpg",
    }  # fmt: skip


def test_a_notebook_shows_the_findings_escaped(tmp_path):
    folder = make_photos(tmp_path, classes=("<b>", "<B>", "c"))
    html = check(folder)._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert repr(check(folder)) == f"Check({str(folder)!r}, 1 to fix, 0 notices)"


def test_progress_reaches_the_end(photos):
    seen: list[int] = []
    check(photos, show=seen.append)
    assert seen == [64, 72]


def test_an_interruption_ends_the_scan(tmp_path, monkeypatch):
    """What has not begun is not looked at."""
    folder = make_photos(tmp_path, splits=("train", "val"), count=320)
    seen, content = [], FileLoader.content

    def read(self, index):
        seen.append(index)
        time.sleep(0.002)
        return content(self, index)

    def interrupt(done):
        raise KeyboardInterrupt

    monkeypatch.setattr(FileLoader, "content", read)
    with pytest.raises(KeyboardInterrupt):
        check(folder, show=interrupt)
    assert len(seen) <= 64 * 4 < 1280


def test_a_source_that_was_opened_is_checked(photos):
    assert check(open_data(photos)).findings == ()


def test_files_are_read_once(photos, monkeypatch):
    read, content = [], FileLoader.content
    monkeypatch.setattr(
        FileLoader, "content", lambda self, index: read.append(self.names[index]) or content(self, index)
    )
    monkeypatch.setattr(FileLoader, "__call__", lambda self, index: pytest.fail("read a second time"))
    data = open_data(photos)
    check(data)
    assert sorted(read) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))


def test_an_unreadable_file_is_a_finding(photos, monkeypatch):
    def content(self, index):
        raise BadImage(self.names[index], "cannot be read: Permission denied")

    monkeypatch.setattr(FileLoader, "content", content)
    result = check(photos)
    assert {finding.kind for finding in result.findings} == {"no_images", "broken"}
    assert result.to_dict()["sizes"] is None


def test_real_photos(data_folder: Path):
    result = check(data_folder / "ants_bees")
    assert result.findings == ()
    near = next(finding for finding in check(data_folder / "pizza_steak_sushi").findings)
    assert (near.kind, near.severity) == ("near_leak", "notice")
    assert module.MOST_DECODED >= 100_000
