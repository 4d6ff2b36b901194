"""`vitreous predict`."""

import csv
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.classifiers import CLASSES, small_classifier
from vitreous.classifier import load
from vitreous.cli.app import run
from vitreous.cli.predict import find_images


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a model, and new/ with photos: 1.png 2.png 10.png and deeper/3.png."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "run").mkdir()
    small_classifier().save(tmp_path / "run/model.safetensors")
    (tmp_path / "new/deeper").mkdir(parents=True)
    for place, name in enumerate(("10.png", "2.png", "1.png", "deeper/3.png")):
        photo(place).save(tmp_path / "new" / name)
    return tmp_path


def photo(seed: int, size: tuple[int, int] = (12, 20)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


IN_ORDER = ["new/1.png", "new/2.png", "new/10.png", "new/deeper/3.png"]


def names_in_json(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [row["image"] for row in json.loads(capsys.readouterr().out)]


# ---- how predictions are shown


def test_a_table_names_the_classes(here, capsys):
    assert run(["predict", "run", "new"]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    expected = load("run")(IN_ORDER)
    for line, prediction in zip(out.splitlines(), expected, strict=True):
        image, name, probability, *others = line.split()
        assert (image, name, probability) == (
            prediction.image, prediction.class_name, f"{prediction.probability:.1%}",
        )  # fmt: skip
        assert others[0] == prediction.top[1][0]
    assert len({line.index("%") for line in out.splitlines()}) == 1, "the columns are aligned"
    assert "\x1b" not in out


def test_json_has_all_of_it(here, capsys):
    assert run(["predict", "run", "new", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == [prediction.to_dict() | {"unsure": False} for prediction in load("run")(IN_ORDER)]
    assert len(out.splitlines()) == 2 + len(IN_ORDER), "an element on each line"


def test_csv_has_a_header(here, capsys):
    assert run(["predict", "run", "new", "--csv"]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["image", "class_name", "probability", "unsure", "second_class_name", "second_probability"]
    for row, prediction in zip(rows, load("run")(IN_ORDER), strict=True):
        (best, p), (second, q) = prediction.top[:2]
        assert row == [prediction.image, best, str(p), "", second, str(q)]


def test_less_sure_ones_are_marked(here, capsys):
    sure = {p.image: p.probability for p in load("run")(IN_ORDER)}
    threshold = sorted(sure.values())[2]  # two are below
    assert run(["predict", "run", "new", "--min-confidence", str(threshold), "--json"]) == 0
    told = {row["image"]: row["unsure"] for row in json.loads(capsys.readouterr().out)}
    assert told == {image: probability < threshold for image, probability in sure.items()}
    assert sorted(told.values()) == [False, False, True, True]

    assert run(["predict", "run", "new", "--min-confidence", str(threshold), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["image"]: row["unsure"] == "unsure" for row in rows} == told
    assert {row["class_name"] for row in rows} <= {*CLASSES}

    assert run(["predict", "run", "new", "--min-confidence", str(threshold)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {words[0]: words[1] == "unsure" for words in shown} == told
    assert all(words[3] in CLASSES for words in shown), "the table still tells what an unsure one may be"


def test_names_do_nothing_where_they_are_shown(here, capsys):
    evil = "=cmd|\x1b[31m.png"
    photo(0).save(here / evil)
    small_classifier(("=1+1", "\x1b]0;title\x07", "fox")).save(here / "evil.safetensors")
    for style in ("--csv", "--json", "--min-confidence=0"):
        assert run(["predict", "evil.safetensors", evil, style]) == 0
        out = capsys.readouterr().out
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out)
        if style == "--json":
            assert json.loads(out)[0]["image"] == evil
        if style == "--csv":
            cells = list(csv.reader(io.StringIO(out)))[1]
            assert not any(cell.startswith("=") for cell in cells)


def test_one_class_has_no_second(here, capsys):
    small_classifier(("cat",)).save(here / "cat.safetensors")
    assert run(["predict", "cat.safetensors", "new/1.png", "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "new/1.png,cat,1.0,,,"


def test_wide_characters_are_aligned(here, capsys):
    for name in ("猫猫猫.png", "cat-cat.png"):
        photo(0).save(here / name)
    assert run(["predict", "run", "猫猫猫.png", "cat-cat.png"]) == 0
    wide, narrow = capsys.readouterr().out.splitlines()
    assert narrow.index("%") - wide.index("%") == 3, "each takes two columns of the terminal"


# ---- which images


def test_files_folders_and_patterns_keep_their_order(here, capsys):
    assert find_images(["new/2.png", "new", "new/*.png"]) == ["new/2.png", *IN_ORDER, *IN_ORDER[:3]]
    assert find_images(["new/**/*.png"]) == IN_ORDER
    assert find_images(["new/"]) == IN_ORDER
    assert find_images(["n*w"]) == IN_ORDER, "a folder that a pattern matches is looked into"


def test_names_come_from_stdin(here, capsys, monkeypatch):
    lines = b"new/2.png\r\nnew/deeper\n\nnew/1.png"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert run(["predict", "run", "-", "--json"]) == 0
    assert names_in_json(capsys) == ["new/2.png", "new/deeper/3.png", "new/1.png"]


def test_what_is_no_image_is_passed_over_in_folders_alone(here, capsys):
    for name in (".hidden.png", "notes.txt", "Thumbs.db"):
        (here / "new" / name).write_bytes(b"no image")
    (here / "new/.git").mkdir()
    photo(0).save(here / "new/.git/4.png")
    assert find_images(["new", "new/*"]) == [*IN_ORDER, *IN_ORDER]
    photo(0).save(here / "upload", "PNG")
    assert run(["predict", "run", "upload", "--json"]) == 0
    assert names_in_json(capsys) == ["upload"], "a file that is named may be called anything"


def test_a_name_that_looks_like_a_pattern(here, capsys):
    photo(0).save(here / "cat[1].png")
    assert find_images(["cat[1].png"]) == ["cat[1].png"]


def test_undecodable_names_come_through(here, capsys):
    name = os.fsdecode(b"caf\xe9.png")
    photo(0).save(here / "new/deeper" / name)
    assert run(["predict", "run", "new/deeper", "--json"]) == 0
    assert names_in_json(capsys) == ["new/deeper/3.png", f"new/deeper/{name}"]
    assert run(["predict", "run", "new/deeper"]) == 0
    assert r"caf\udce9.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (9, 7), 99),
        Image.new("1", (9, 7), 1),
        Image.new("P", (9, 7), 3),
        Image.new("RGBA", (9, 7), (1, 2, 3, 4)),
        Image.new("LA", (9, 7), (1, 2)),
        Image.new("I;16", (9, 7), 40000),
        Image.new("RGB", (1, 1), "red"),
        Image.new("RGB", (1, 400), "red"),
        Image.new("CMYK", (9, 7), (10, 20, 30, 40)),
    ],
    ids=lambda picture: f"{picture.mode} {picture.size}",
)
def test_images_of_every_kind_are_predicted(picture: Image.Image, here, capsys):
    name = f"photo.{'jpg' if picture.mode == 'CMYK' else 'png'}"
    picture.save(here / name)
    assert run(["predict", "run", name, "--json"]) == 0
    assert names_in_json(capsys) == [name]


def test_a_rotated_photo_is_turned_upright(here, capsys):
    picture = photo(0)
    picture.save(here / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise, so it is stored turned the other way
    picture.transpose(Image.Transpose.ROTATE_90).save(here / "rotated.png", exif=exif)
    assert run(["predict", "run", "upright.png", "rotated.png", "--json"]) == 0
    upright, rotated = json.loads(capsys.readouterr().out)
    assert upright["top"] == rotated["top"]


# ---- what goes wrong


def broken_files(folder: Path) -> dict[str, str]:
    """Images that cannot be read, with what is told of each."""
    (folder / "text.jpg").write_text("my notes")
    (folder / "empty.png").touch()
    photo(0, (200, 200)).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    return {
        "text.jpg": "is not a JPEG, PNG, WebP, BMP or GIF image",
        "empty.png": "is empty",
        "truncated.jpg": "is broken",
        "missing.jpg": "cannot be read: No such file or directory",
    }


@pytest.mark.parametrize("style", ["--csv", "--json", "--min-confidence=0.5"])
def test_a_broken_image_is_one_line_and_stops_no_other(style, here, capsys):
    told = broken_files(here)
    assert run(["predict", "run", "new/1.png", *told, "new/2.png", style]) == 2
    out, error = capsys.readouterr()
    *lines, summary = error.splitlines()
    assert summary == "4 of 6 images could not be read"
    for line, (name, reason) in zip(lines, told.items(), strict=True):
        assert line.startswith(f"error: '{name}' {reason}")
    assert out.count("new/1.png") == out.count("new/2.png") == 1
    assert not any(name in out for name in told)
    if style == "--json":
        assert len(json.loads(out)) == 2


def test_broken_images_alone_are_an_empty_list(here, capsys):
    broken_files(here)
    assert run(["predict", "run", "text.jpg", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("arguments", "cause", "hint"),
    [
        (["run", "nothing"], "there are no images in 'nothing'", "JPEG"),
        (["run", "*.gif"], "no image matches '*.gif'", "'new/*.jpg'"),
        (["run", "new/1.png", "nothing/*"], "no image matches 'nothing/*'", ""),
        (["run", "-"], "there are no names on stdin", "one a line"),
        (["nothing", "new"], "has no model.safetensors", "finished its first epoch"),
        (["nowhere", "new"], "there is no model at nowhere", ""),
        (["B/16", "new"], "B/16 is the name of a shape, not of weights", "train it first"),
        (["features.safetensors", "new"], "this model has no head", "train a head first"),
        (["new/1.png", "new"], "new/1.png is no model file", ""),
        (["run"], "missing argument 'images'", ""),
        (["run", "new", "--csv", "--json"], "--csv and --json exclude each other", ""),
        (
            ["run", "new", "--min-confidence", "80"],
            "'--min-confidence': Input should be less",
            "vitreous predict --help",
        ),
    ],
)
def test_bad_input_is_told_and_nothing_is_predicted(arguments, cause, hint, here, capsys, monkeypatch):
    (here / "nothing").mkdir()
    small_classifier(None).save(here / "features.safetensors")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert run(["predict", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert cause in error
    assert hint in error
    assert len(error.splitlines()) <= 2


def test_rows_are_printed_as_they_come(here, monkeypatch, capsys):
    """Of a hundred thousand images, the first are shown before the last are read."""
    seen = []
    each = type(load("run")).each

    def watched(self, images, batch_size=2):
        for result in each(self, images, batch_size):
            yield result
            seen.append(len(capsys.readouterr().out.splitlines()))

    monkeypatch.setattr("vitreous.classifier.Classifier.each", watched)
    assert run(["predict", "run", "new"]) == 0
    assert seen == [1, 1, 1, 1]
