"""The page of a check."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.check.faults import copy, encoded, make_photos, picture
from tests.pages.test_report import Page
from vitreous.data.check.check import check
from vitreous.data.check.findings import COLUMNS
from vitreous.data.check.sheet import CELL, MOST_CLASSES, contact_sheet, rows_of, thumbnails
from vitreous.pages.check import write_check
from vitreous.pages.check.view import MOST_CLASSES as MOST_BARS
from vitreous.pages.check.view import TITLES, class_bars

EVIL = "<script>alert(1)<"


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos")


@pytest.fixture
def faulty(tmp_path):
    """Photos with most kinds of faults."""
    folder = make_photos(tmp_path / "photos", classes=("ant", EVIL.replace("/", ""), "bee"))
    copy(folder, "test/ant/0.jpg", "train/ant/copy.jpg")
    copy(folder, "train/ant/1.jpg", "train/bee/copy.jpg")
    copy(folder, "train/ant/2.jpg", "train/ant/again.jpg")
    (folder / "val/ant/3.jpg").write_bytes(b"not an image")
    (folder / "train/ant/tiny.png").write_bytes(encoded(picture(1001, (10, 12)), "PNG"))
    (folder / "train/ant/blank.png").write_bytes(encoded(Image.new("RGB", (60, 80)), "PNG"))
    (folder / "train/ant/notes.txt").write_text("x")
    return folder


def page_of(folder, out) -> Page:
    return Page(write_check(check(folder), out).read_text(encoding="utf-8"))


def test_a_good_set_is_ready(photos, tmp_path):
    page = page_of(photos, tmp_path / "out")
    assert "Readyto train" in page.text
    assert "Nothing to fix before training." in page.text
    assert "What to fix" not in page.text
    assert "Every image has 60×80 pixels." in page.text
    assert len(page.all("img")) == 2 * 8


def test_findings_are_shown_with_pictures(faulty, tmp_path):
    page = page_of(faulty, tmp_path / "out")
    assert "2to fix" in page.text
    assert "1 of 36 test images is also in train." in page.text
    assert "is not a JPEG" in page.text
    assert "10×12 pixels" in page.text
    assert "Left out: 1 × txt file." in page.text
    assert len(page.all("div", "group")) == 3
    shown = {a["alt"] for a in page.all("img")}
    assert {"train/ant/copy.jpg", "test/ant/0.jpg", "train/bee/copy.jpg", "train/ant/blank.png"} <= shown
    assert len(page.all("li", "fix")) == 2


def test_it_is_one_file_without_requests(faulty, tmp_path):
    html = write_check(check(faulty), tmp_path / "out").read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    assert "http" not in html.replace("http-equiv", "")
    assert len(html) < 500_000


def test_names_are_escaped(faulty, tmp_path):
    html = write_check(check(faulty), tmp_path / "out").read_text(encoding="utf-8")
    assert "<script" not in html
    assert EVIL in Page(html).text


def test_it_works_with_a_screen_reader_and_by_keyboard(faulty, tmp_path):
    page = page_of(faulty, tmp_path / "out")
    assert all(a["alt"] for a in page.all("img"))
    assert all(a["aria-label"] for _, a in page.elements if a.get("role") == "img")
    assert all(a["tabindex"] == "0" for a in page.all("div", "scroll"))
    assert {a["scope"] for a in page.all("th")} == {"col"}
    [svg] = page.all("svg")
    assert "from 10×12 to 60×80 pixels" in svg["aria-label"]


def test_every_kind_has_a_title():
    assert sorted(TITLES) == sorted(COLUMNS)


def test_a_file_that_breaks_between_scan_and_page_is_left_out(photos, tmp_path):
    copy(photos, "test/ant/0.jpg", "train/ant/copy.jpg")
    result = check(photos)
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"gone")
    page = Page(write_check(result, tmp_path / "out").read_text(encoding="utf-8"))
    assert page.all("img") == []
    assert page.text.count("cannot be shown") == 2


def test_of_many_classes_some_are_shown(tmp_path):
    names = tuple(f"c{i:02}" for i in range(50))
    for number, name in enumerate(names):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2 + (number == 7)):
            (tmp_path / "photos" / name / f"{i}.png").write_bytes(encoded(picture(9 * number + i, (30, 30)), "PNG"))
    result = check(tmp_path / "photos")
    bars = class_bars(result)
    assert len(bars) == MOST_BARS
    assert bars[0]["name"] == "c07"
    page = page_of(tmp_path / "photos", tmp_path / "out")
    assert "the 20 largest and the 20 smallest of 50 classes" in page.text
    assert f"of {MOST_CLASSES} of 50 classes" in page.text


# ---- the contact sheet


def test_the_sheet_has_the_images_of_each_class(tmp_path):
    for number, name in enumerate(["ant"] * 12 + ["bee"] * 3 + ["$c$ 蜂"] * 2):
        (tmp_path / name).mkdir(exist_ok=True)
        color = (200, 0, 0) if name == "ant" else (0, 0, 200)
        (tmp_path / name / f"{number}.png").write_bytes(encoded(Image.new("RGB", (CELL, CELL), color), "PNG"))
    result = check(tmp_path)
    rows = rows_of(result)
    assert [(row.name, row.images, len(row.numbers)) for row in rows] == [
        ("$c$ 蜂", 1, 1),
        ("ant", 11, 8),
        ("bee", 2, 2),
    ]
    images = thumbnails(result.samples, [n for row in rows for n in row.numbers], CELL)
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(rows, images))).convert("RGB"))
    assert (sheet == (200, 0, 0)).all(axis=2).sum() == 8 * CELL**2
    assert (sheet == (0, 0, 200)).all(axis=2).sum() == 3 * CELL**2
    dark = (sheet.max(axis=2) < 120).any(axis=1)
    assert dark.any(), "the names are drawn"


def test_thumbnails_are_small_and_of_any_source(photos):
    result = check("digits")
    images = thumbnails(result.samples, [0, 1796], 4)
    assert {image.size for image in images.values()} == {(4, 4)}
    assert {image.mode for image in images.values()} == {"RGB"}
