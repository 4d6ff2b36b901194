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

    commands = re.findall(r"^  vitreous (.*)$", out.partition("next:\n")[2], re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["predict", "inspect"]
    for command in commands:
        assert run(shlex.split(command)) == 0
    assert len(capsys.readouterr().out.splitlines()) > 10


def test_again_it_replaces_what_it_made(quick):
    assert run(["demo", "--out", "my demo"]) == 0
    first = (quick / "my demo/environment.json").stat()
    assert run(["demo", "--out", "my demo"]) == 0
    assert (quick / "my demo/environment.json").stat().st_ino != first.st_ino
    assert [path.name for path in quick.iterdir()] == ["my demo"], "nothing else is left"


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


def without_manifest(folder: Path) -> None:
    (folder / demo.MANIFEST).unlink()


def with_broken_manifest(folder: Path) -> None:
    (folder / demo.MANIFEST).write_text("[1]")


def linked(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def a_file(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("precious")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_a_folder, "also contains 'held_out/mine.txt'; move that elsewhere, or choose another"),
        (without_manifest, "is not the folder of an earlier demo; choose another with --out"),
        (with_broken_manifest, "is not the folder of an earlier demo"),
        (linked, "is not the folder of an earlier demo"),
        (a_file, "is not the folder of an earlier demo"),
    ],
)
def test_files_of_others_are_left_alone(change, message, earlier):
    change(earlier)
    before = {path: path.stat().st_ino for path in earlier.parent.rglob("*")}
    with pytest.raises(InputError, match=message), demo.replacing(earlier):
        pytest.fail("it began to work")
    assert {path: path.stat().st_ino for path in earlier.parent.rglob("*")} == before


def test_the_current_folder_is_not_replaced(earlier, monkeypatch, capsys):
    monkeypatch.chdir(earlier / "held_out")
    for folder in ("..", str(earlier)):
        assert run(["demo", "--out", folder]) == 2
        assert "is the current folder" in capsys.readouterr().err
    monkeypatch.chdir(earlier)
    assert run(["demo", "--out", "."]) == 2
    assert "hint: cd to another folder, or choose another with --out" in capsys.readouterr().err
    assert (earlier / "report.html").read_text() == "first"


def test_a_folder_in_use_is_reported_before_the_work(quick, capsys):
    (quick / "photos").mkdir()
    (quick / "photos/cat.jpg").write_text("precious")
    assert run(["demo", "--out", "photos"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == [
        "error: 'photos' is not the folder of an earlier demo",
        "hint: choose another with --out; if a stopped demo left it, remove it",
    ]  # fmt: skip
