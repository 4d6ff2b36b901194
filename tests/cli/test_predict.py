"""`vitreous predict`."""

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.classifiers import CLASSES, small_classifier
from tests.cli.photos import IN_ORDER, fill, photo
from vitreous.classifier import load
from vitreous.cli.app import run
from vitreous.cli.inputs import find_images


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a run and photos in new/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    fill(tmp_path, "run")
    return tmp_path


def names_in_json(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [row["image"] for row in json.loads(capsys.readouterr().out)]


# ---- output formats


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


def test_json_has_every_field(here, capsys):
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


def test_predictions_below_min_confidence_are_marked(here, capsys):
    confidence = {p.image: p.probability for p in load("run")(IN_ORDER)}
    threshold = sorted(confidence.values())[2]  # two are below
    assert run(["predict", "run", "new", "--min-confidence", str(threshold), "--json"]) == 0
    unsure = {row["image"]: row["unsure"] for row in json.loads(capsys.readouterr().out)}
    assert unsure == {image: probability < threshold for image, probability in confidence.items()}
    assert sorted(unsure.values()) == [False, False, True, True]

    assert run(["predict", "run", "new", "--min-confidence", str(threshold), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["image"]: row["unsure"] == "unsure" for row in rows} == unsure
    assert {row["class_name"] for row in rows} <= {*CLASSES}

    assert run(["predict", "run", "new", "--min-confidence", str(threshold)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {words[0]: words[1] == "unsure" for words in lines} == unsure
    assert all(words[3] in CLASSES for words in lines), "the table still lists the top classes of an unsure image"


def test_hostile_names_are_inert_in_every_format(here, capsys):
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


# ---- finding images


def test_files_folders_and_patterns_keep_their_order(here, capsys):
    assert find_images(["new/2.png", "new", "new/*.png"]) == ["new/2.png", *IN_ORDER, *IN_ORDER[:3]]
    assert find_images(["new/**/*.png"]) == IN_ORDER
    assert find_images(["new/"]) == IN_ORDER
    assert find_images(["n*w"]) == IN_ORDER, "a folder that a pattern matches is searched"


def test_names_come_from_stdin(here, capsys, monkeypatch):
    lines = b"new/2.png\r\nnew/deeper\n\nnew/1.png"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert run(["predict", "run", "-", "--json"]) == 0
    assert names_in_json(capsys) == ["new/2.png", "new/deeper/3.png", "new/1.png"]


def test_files_that_are_not_images_are_skipped_only_in_folders(here, capsys):
    for name in (".hidden.png", "notes.txt", "Thumbs.db"):
        (here / "new" / name).write_bytes(b"no image")
    (here / "new/.git").mkdir()
    photo(0).save(here / "new/.git/4.png")
    assert find_images(["new", "new/*"]) == [*IN_ORDER, *IN_ORDER]
    assert capsys.readouterr().err == "passed over: 2 × txt file\n"
    photo(0).save(here / "upload", "PNG")
    assert run(["predict", "run", "upload", "--json"]) == 0
    assert names_in_json(capsys) == ["upload"], "an explicitly named file may have any suffix"


def test_files_that_are_passed_over_are_counted_by_kind(here, capsys):
    for name in ("1.CR2", "2.cr2", "a.svg", "report.pdf", "README", "deeper/3.cr2", "bad\x1b.\x1b[31m"):
        (here / "new" / name).write_bytes(b"no image")
    assert run(["predict", "run", "new", "--json"]) == 0
    out, error = capsys.readouterr()
    assert len(json.loads(out)) == len(IN_ORDER)
    lines = error.splitlines()
    kinds = r"passed over: 3 × cr2 file, 1 × svg file, 1 × pdf file, 1 × file without a suffix, 1 × \x1b[31m file"
    assert sorted(lines[0].split(", ")) == sorted(kinds.split(", "))
    assert lines[1:] == ["hint: cr2, svg pictures are not read; save them as JPEG or PNG"]


@pytest.mark.parametrize("name", ["new.zip", "NEW.tar.gz", "new.zip.001", "new.part1.rar"])
def test_an_archive_has_to_be_unpacked(name, here, capsys):
    (here / name).write_bytes(b"PK")
    assert run(["predict", "run", name]) == 2
    cause = f"error: {name!r} is an archive, not an image"
    assert capsys.readouterr().err == f"{cause}\nhint: unpack it, and give the folder\n"
    (here / name).rename(here / "new" / name)
    assert find_images(["new"]) == IN_ORDER
    assert capsys.readouterr().err.endswith("hint: archives are not read; unpack them\n")


@pytest.mark.parametrize("what", ["raw", "raw/*", "raw/*.cr2"])
def test_a_folder_without_images_says_what_is_in_it(what, here, capsys):
    (here / "raw").mkdir()
    for number in range(3):
        (here / "raw" / f"{number}.cr2").touch()
    assert run(["predict", "run", what]) == 2
    assert ", but 3 × cr2 file\n" in capsys.readouterr().err


def test_large_photos_need_an_option(here, capsys):
    photo(0, (40, 50)).save(here / "large.png")
    assert run(["predict", "run", "large.png", "--json", "--max-pixels", "1999"]) == 2
    error = capsys.readouterr().err
    assert "is too large: 50 x 40 pixels, 1,999 pixels and 65,535 a side are allowed" in error
    assert "--max-pixels 2e8" in error
    assert run(["predict", "run", "large.png", "--json", "--max-pixels", "2e3"]) == 0


def test_repaired_files_are_named_once(here, capsys):
    for number in range(3):
        path = here / "new" / f"{number}.jpg"
        photo(number, (64, 64)).save(path, progressive=True)
        path.write_bytes(path.read_bytes()[:-2])
    assert run(["predict", "run", "new", "--csv"]) == 0
    assert capsys.readouterr().err == ("note: new/0.jpg: repaired: its end marker is missing (and 2 more like it)\n")


def test_an_existing_file_named_like_a_pattern_is_a_file(here, capsys):
    photo(0).save(here / "cat[1].png")
    assert find_images(["cat[1].png"]) == ["cat[1].png"]


def test_undecodable_names_round_trip(here, capsys):
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


# ---- bad images and bad input


def broken_files(folder: Path) -> dict[str, str]:
    """Images that cannot be read, with the reason expected for each."""
    (folder / "text.jpg").write_text("my notes")
    (folder / "empty.png").touch()
    photo(0, (200, 200)).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    return {
        "text.jpg": "is not a JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC image",
        "empty.png": "is empty",
        "truncated.jpg": "is broken",
        "missing.jpg": "cannot be read: No such file or directory",
    }


@pytest.mark.parametrize("style", ["--csv", "--json", "--min-confidence=0.5"])
def test_a_broken_image_is_one_line_and_the_others_are_predicted(style, here, capsys):
    broken = broken_files(here)
    assert run(["predict", "run", "new/1.png", *broken, "new/2.png", style]) == 2
    out, error = capsys.readouterr()
    *lines, summary = error.splitlines()
    assert summary == "4 of 6 images could not be read"
    for line, (name, reason) in zip(lines, broken.items(), strict=True):
        assert line.startswith(f"error: '{name}' {reason}")
    assert out.count("new/1.png") == out.count("new/2.png") == 1
    assert not any(name in out for name in broken)
    if style == "--json":
        assert len(json.loads(out)) == 2


def test_if_all_images_are_broken_json_is_an_empty_list(here, capsys):
    broken_files(here)
    assert run(["predict", "run", "text.jpg", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("arguments", "cause", "hint"),
    [
        (["run", "nothing"], "no images in 'nothing'", "JPEG"),
        (["run", "*.gif"], "no image matches '*.gif'", "'new/*.jpg'"),
        (["run", "new/1.png", "nothing/*"], "no image matches 'nothing/*'", ""),
        (["run", "-"], "stdin is empty", "one path per line"),
        (["nothing", "new"], "has no model.safetensors", "finished an epoch"),
        (["nowhere", "new"], "there is no model at nowhere", ""),
        (["B/16", "new"], "B/16 is a model variant, not weights", "train it first"),
        (["features.safetensors", "new"], "this model has no head", "train a head first"),
        (["new/1.png", "new"], "new/1.png is not a model file", ""),
        (["run"], "missing argument 'images'", ""),
        (["run", "new", "--csv", "--json"], "--csv and --json exclude each other", ""),
        (
            ["run", "new", "--min-confidence", "80"],
            "'--min-confidence': Input should be less",
            "vitreous predict --help",
        ),
    ],
)
def test_bad_input_is_reported_and_nothing_is_predicted(arguments, cause, hint, here, capsys, monkeypatch):
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
    """The first of a hundred thousand predictions appear before the last image is read."""
    seen = []
    each = type(load("run")).each

    def watched(self, images, reading):
        for result in each(self, images, 2, reading):
            yield result
            seen.append(len(capsys.readouterr().out.splitlines()))

    monkeypatch.setattr("vitreous.classifier.Classifier.each", watched)
    assert run(["predict", "run", "new"]) == 0
    assert seen == [1, 1, 1, 1]
