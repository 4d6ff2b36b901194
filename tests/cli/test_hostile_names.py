"""Class names that try to be something else: they are names on the terminal, in tables, in pages and in pictures."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.photos import photo
from vitreous.classifier import load
from vitreous.cli.app import run

NAMES = [
    *("two\nlines", "=cmd|' \u2044C calc'!A0", "<script>alert(1)<\u2044script>", "photo\u202egnp.exe", "\x1b[31mred"),
    *("\U0001f408", "猫", "L" * 200, "-5", "\udcff", "$x^2$", "{{ name }}", "%s"),
]
TRAIN = [
    *("variant=mu/4", "depth=1", "image_size=8", "epochs=1", "minutes=0", "warmup_epochs=0", "threads=1"),
    *("workers=0", "device=cpu", "batch_size=32"),
]


class Page(HTMLParser):
    """The elements and attributes of a page that could run something, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.dangers: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object"):
            self.dangers.append(tag)
        self.dangers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def check_tables(folder: Path) -> None:
    """Every row is complete, and no cell is a formula or unprintable."""
    for path in folder.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [*csv.reader(file)]
        assert len({len(row) for row in rows}) == 1, path
        for cell in (cell for row in rows for cell in row):
            assert cell.isprintable()
            assert not cell.startswith(("=", "+", "@"))
            assert not cell.startswith("-") or (cell[1:2].isdigit() and cell != "-5")


def test_a_whole_run_with_hostile_class_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(NAMES):
        for split, images in (("train", 3), ("val", 1), ("test", 1)):
            try:
                (tmp_path / "photos" / split / name).mkdir(parents=True)
            except OSError:
                pytest.skip("this file system refuses the names")
            for number in range(images):
                photo(100 * place + 10 * len(split) + number, (8, 8)).save(f"photos/{split}/{name}/{number}.png")
    settings = [word for pair in TRAIN for word in ("--set", pair)]
    image = "photos/test/-5/0.png"
    for command, code in (
        (["train", "photos", "--out", "run", *settings], 0),
        (["predict", "run", "photos/test", "--csv"], 0),
        (["predict", "run", "photos/test"], 0),
        (["explain", "run", image, "--out", "explained", "--only", "attention"], 0),
        (["check", "photos", "--out", "checked"], 0),
        (["check", "photos", "--json"], 0),
    ):
        assert run(command) == code, capsys.readouterr().err
        printed = capsys.readouterr()
        for line in (printed.out + printed.err).split("\n"):
            assert line.isprintable(), command
    assert {*json.loads(printed.out)["classes"]} == {*NAMES}
    assert load("run").class_names is not None
    assert {*load("run").class_names} == {*NAMES}
    for folder in (tmp_path / "run", tmp_path / "explained", tmp_path / "checked"):
        check_tables(folder)
        for path in folder.glob("*.png"):
            Image.open(path).load()
    for path in (tmp_path / "run/report.html", tmp_path / "checked/check.html"):
        page = Page(path)
        assert page.dangers == []
        assert "<script>alert(1)" in page.text  # as text
        assert not {"\u202e", "\x1b"} & {*page.text}
