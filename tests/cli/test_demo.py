"""`vitreous demo`, with a training too short to learn; that it learns in time is what `make demo` itself checks."""

import json
import re
import shlex
from pathlib import Path

import pytest

from vitreous.cli import demo
from vitreous.cli.app import run
from vitreous.support.errors import InputError

QUICK = {"epochs": 1, "warmup_epochs": 0, "depth": 1, "width": 16, "mlp_dim": 16, "num_heads": 2, "batch_size": 512}


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder in which the demo takes a second, and any accuracy will do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "SETTINGS", demo.SETTINGS | QUICK | {"device": "cpu", "threads": 1})
    monkeypatch.setattr(demo, "TARGET", 0.0)
    return tmp_path


def test_it_trains_shows_and_leaves_a_report(quick, capsys):
    assert run(["demo"]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert "test accuracy" in out
    assert "95 % interval" in out
    folder = quick / "runs/demo"
    assert "<svg" in (folder / "report.html").read_text(encoding="utf-8")
    assert "report: runs/demo/report.html\n" in out

    rows = re.findall(r"^ {4}(\d)((?: +(?:\d+|·)){10})$", out, re.MULTILINE)
    assert [name for name, _ in rows] == list("0123456789")
    matrix = [[int(cell) for cell in cells.replace("·", "0").split()] for _, cells in rows]
    accuracy = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["test_accuracy"]
    assert sum(matrix[i][i] for i in range(10)) / sum(map(sum, matrix)) == pytest.approx(accuracy)
    assert len(re.findall(r"^  \d-\d{4}\.png  \d  +[\d.]+%", out, re.MULTILINE)) == demo.SHOWN

    following = out.partition("next:\n  vitreous predict runs/demo runs/demo/held_out\n")[2].splitlines()
    assert following[1] == "  vitreous train photos/"
    for line in (following[0], "vitreous predict runs/demo runs/demo/held_out"):
        assert run(shlex.split(line)[1:]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 10


def test_again_it_replaces_what_it_made(quick):
    assert run(["demo", "--out", "my demo"]) == 0
    first = (quick / "my demo/environment.json").stat()
    assert run(["demo", "--out", "my demo"]) == 0
    assert (quick / "my demo/environment.json").stat().st_ino != first.st_ino
    assert [path.name for path in quick.iterdir()] == ["my demo"], "nothing is left beside it"


def test_below_the_target_it_fails_and_leaves_the_folder(quick, monkeypatch, capsys):
    monkeypatch.setattr(demo, "TARGET", 1.01)
    assert run(["demo"]) == 1
    assert "error: the test accuracy is below 101%" in capsys.readouterr().err
    assert (quick / "runs/demo/report.html").is_file()


def test_the_target_is_the_promised_one():
    assert demo.TARGET == 0.97


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The folder of an earlier demo."""
    folder = tmp_path / "demo"
    with demo.replacing(folder):
        (folder / "held_out").mkdir(parents=True)
        (folder / "held_out/0.png").write_text("first")
        (folder / "report.html").write_text("first")
    return folder


def interrupted(folder: Path) -> None:
    """A demo that is stopped half-way."""
    with demo.replacing(folder):
        assert not folder.exists() or not any(folder.iterdir())
        folder.mkdir(exist_ok=True)
        (folder / "report.html").write_text("half")
        raise KeyboardInterrupt


def test_an_interrupted_demo_leaves_the_earlier_one(earlier):
    with pytest.raises(KeyboardInterrupt):
        interrupted(earlier)
    assert (earlier / "report.html").read_text() == "first"
    assert (earlier / "held_out/0.png").is_file()
    assert [path.name for path in earlier.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("is_there", [False, True])
def test_an_interrupted_first_demo_leaves_nothing(is_there, tmp_path):
    folder = tmp_path / "demo"
    if is_there:
        folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    assert [*tmp_path.rglob("*")] == ([folder] if is_there else [])


def in_a_folder(folder: Path) -> None:
    (folder / "held_out/mine.txt").write_text("precious")


def without_mark(folder: Path) -> None:
    (folder / demo.MARK).unlink()


def with_broken_mark(folder: Path) -> None:
    (folder / demo.MARK).write_text("[1]")


def linked(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def a_file(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("precious")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (in_a_folder, "now holds 'held_out/mine.txt' too; move that out of it, or give another"),
        (without_mark, "is not the folder of an earlier demo; give another with --out"),
        (with_broken_mark, "is not the folder of an earlier demo"),
        (linked, "is not the folder of an earlier demo"),
        (a_file, "is not the folder of an earlier demo"),
    ],
)
def test_what_is_not_the_demos_is_left_alone(change, told, earlier):
    change(earlier)
    before = {path: path.stat().st_ino for path in earlier.parent.rglob("*")}
    with pytest.raises(InputError, match=told), demo.replacing(earlier):
        pytest.fail("it began to work")
    assert {path: path.stat().st_ino for path in earlier.parent.rglob("*")} == before


def test_the_folder_we_are_in_is_not_replaced(earlier, monkeypatch, capsys):
    monkeypatch.chdir(earlier / "held_out")
    for folder in ("..", str(earlier)):
        assert run(["demo", "--out", folder]) == 2
        assert "is the one you are in" in capsys.readouterr().err
    monkeypatch.chdir(earlier)
    assert run(["demo", "--out", "."]) == 2
    assert "hint: go to another with cd, or give another with --out" in capsys.readouterr().err
    assert (earlier / "report.html").read_text() == "first"


def test_a_folder_in_use_is_told_before_the_work(quick, capsys):
    (quick / "photos").mkdir()
    (quick / "photos/cat.jpg").write_text("precious")
    assert run(["demo", "--out", "photos"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == [
        "error: 'photos' is not the folder of an earlier demo", "hint: give another with --out",
    ]  # fmt: skip
