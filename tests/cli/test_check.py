"""`vitreous check`."""

import csv
import json
from pathlib import Path

import pytest

from tests.data.check.faults import copy, encoded, make_photos, picture
from tests.data.satellites import satellite_folder
from vitreous.cli.app import run
from vitreous.cli.check import classes_text


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_photos(tmp_path / "photos")


def test_good_photos(photos, capsys):
    assert run(["check", "photos"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "photos: 72 images of 2 classes",
        "  train              24  ant 12, bee 12",
        "  validation         24  ant 12, bee 12",
        "  test               24  ant 12, bee 12",
        "  height×width: 60×80, all of them",
        "  modes: 72 RGB",
        "",
        "nothing to fix before training",
    ]
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_a_leak_exits_1_and_is_named(photos, capsys):
    copy(photos, "test/ant/0.jpg", "train/ant/copy.jpg")
    assert run(["check", "photos"]) == 1
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index("fix: 1 of 24 test images is also in train")
    assert lines[begin + 1] == "  train/ant/copy.jpg = test/ant/0.jpg"
    assert lines[begin + 2].startswith("  hint: ")
    assert lines[-2:] == ["1 to fix before training", "all of it, with pictures: vitreous check photos --out check"]


def test_a_notice_exits_0(photos, capsys):
    copy(photos, "train/ant/0.jpg", "train/ant/copy.jpg")
    (photos / "train/ant/tiny.png").write_bytes(encoded(picture(1001, (10, 12)), "PNG"))
    (photos / "train/ant/notes.txt").write_text("x")
    assert run(["check", "photos"]) == 0
    out = capsys.readouterr().out
    assert "  left out: 1 × txt file\n" in out
    assert "  height×width: median 60×80, from 10×12 (train/ant/tiny.png) to 60×80 (" in out
    assert "notice: 1 copy of other images" in out
    assert "  train/ant/tiny.png: 10×12\n" in out


def test_copies_in_a_held_out_split_have_their_split(tmp_path, capsys):
    folder = make_photos(tmp_path, splits=("train", "test"))
    for number in range(1, 6):
        copy(folder, "train/ant/0.jpg", f"train/ant/copy{number}.jpg")
    for number in range(1, 12):
        copy(folder, "train/ant/1.jpg", f"train/ant/other{number}.jpg")
    run(["check", str(folder)])
    out = capsys.readouterr().out
    assert "(validation)" in out
    assert "(train) = " in out


def test_many_rows_are_cut_and_it_says_so(photos, capsys):
    for number in range(8):
        (photos / f"val/ant/{number}.jpg").write_bytes(b"not an image")
    assert run(["check", "photos"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("  val/ant/") for line in lines) == 5
    assert "  … --json lists more" in lines


def test_json(photos, capsys):
    copy(photos, "test/ant/0.jpg", "train/ant/copy.jpg")
    assert run(["check", "photos", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert list(result) == [
        "data", "wise", "classes", "splits", "sizes", "modes", "transparent", "readable", "decoded", "ignored", "notes",
        "findings",
    ]  # fmt: skip
    [finding] = result["findings"]
    assert list(finding) == ["kind", "severity", "text", "hint", "items", "left_out"]
    assert (result["wise"], finding["kind"], finding["severity"]) == (False, "leak", "fix")


def test_the_folder_of_a_check(photos, capsys):
    copy(photos, "test/ant/0.jpg", "train/ant/=copy.jpg")
    assert run(["check", "photos", "--out", "look"]) == 1
    assert capsys.readouterr().out.endswith(
        "written to look: check.html, contact_sheet.png, check.json, findings.csv\n"
    )
    assert {path.name for path in Path("look").iterdir()} == {
        "check.html", "contact_sheet.png", "check.json", "findings.csv",
    }  # fmt: skip
    rows = list(csv.DictReader(Path("look/findings.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == {
        "kind": "leak", "severity": "fix", "group": "1", "split": "train", "class": "ant",
        "image": "train/ant/=copy.jpg",
    }  # fmt: skip
    assert json.loads(Path("look/check.json").read_text(encoding="utf-8"))["wise"] is False


@pytest.mark.parametrize("out", ["photos", "photos/check", "photos/train/../check"])
def test_nothing_is_written_inside_the_data(out, photos, capsys):
    before = sorted(photos.rglob("*"))
    assert run(["check", "photos", "--out", out]) == 2
    assert capsys.readouterr().err.splitlines()[0] == f"error: --out '{out}' is inside the data"
    assert sorted(photos.rglob("*")) == before


def test_a_link_into_the_data_is_inside_too(photos, capsys):
    Path("elsewhere").symlink_to(photos / "train")
    assert run(["check", "photos", "--out", "elsewhere/look"]) == 2
    assert "is inside the data" in capsys.readouterr().err


def test_a_used_folder_is_refused(photos, capsys):
    Path("look").mkdir()
    Path("look/mine").write_text("x")
    assert run(["check", "photos", "--out", "look"]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_settings_of_the_data(photos, capsys):
    for number in range(3):
        (photos / f"train/ant/large{number}.png").write_bytes(encoded(picture(1000 + number, (120, 90)), "PNG"))
    assert run(["check", "photos", "--set", "max_pixels=10_000"]) == 1
    assert "fix: 3 of 75 images are too large" in capsys.readouterr().out
    assert run(["check", "photos", "--set", "max_pixels=10_000", "--set", "max_bad_fraction=0.2"]) == 0


@pytest.mark.parametrize(
    ("setting", "cause"),
    [
        ("lr=1", "'lr' is not a setting of the data"),
        ("max_pixel=1", "max_pixel"),
        ("max_pixels=-1", "max_pixels"),
    ],
)
def test_other_settings_exit_2(setting, cause, photos, capsys):
    assert run(["check", "photos", "--set", setting]) == 2
    error = capsys.readouterr().err.splitlines()
    assert cause in error[0]
    assert error[1].startswith("hint: ")


def test_quick_and_most(photos, capsys):
    assert run(["check", "photos", "--quick", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decoded"] == 0
    assert run(["check", "photos", "--quick"]) == 0
    assert "notice: no image was decoded, so files broken after their header, near copies" in capsys.readouterr().out
    assert run(["check", "photos", "--most", "10"]) == 0
    assert "notice: 10 of 72 images were decoded, spread evenly" in capsys.readouterr().out
    assert run(["check", "photos", "--most", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decoded"] == 72


def test_bad_input_exits_2(tmp_path, capsys):
    assert run(["check", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_classes_that_only_one_split_has_are_named(photos, capsys):
    make_photos(Path("more"), classes=("cow",), splits=("test",))
    Path("more/test/cow").rename(photos / "test/cow")
    assert run(["check", "photos"]) != 0
    assert "'cow'" in "".join(capsys.readouterr())


def test_names_cannot_control_the_terminal(tmp_path, capsys):
    make_photos(tmp_path, classes=("\x1b[31mred", "b\nee"))
    assert run(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[31mred 12" in out


def test_arrays_have_no_modes_before_they_are_decoded(capsys):
    assert run(["check", "digits", "--quick"]) == 0
    assert "modes" not in capsys.readouterr().out


def test_digits(capsys):
    assert run(["check", "digits"]) == 0
    assert "digits: 1,797 images of 10 classes" in capsys.readouterr().out


@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_images_of_many_channels_have_no_mode(quick, tmp_path, capsys):
    folder = satellite_folder(tmp_path)
    assert run(["check", str(folder), *quick]) == 1  # its validation images are also in train
    assert "  modes: 24 of 5 channels\n" in capsys.readouterr().out


def test_of_many_classes_the_largest_and_smallest_are_printed():
    names = [f"c{i}" for i in range(20)]
    assert classes_text(names, list(range(1, 21))) == "c19 20, c18 19, c17 18, c16 17 … c3 4, c2 3, c1 2, c0 1"
    assert classes_text(["a", "b"], [1, 2000]) == "a 1, b 2,000"
