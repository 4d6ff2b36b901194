"""The progress of the work before training."""

import io
from contextlib import suppress

import pytest
from rich.console import Console

from vitreous.training.records import broken, waiting
from vitreous.training.records.display import Display
from vitreous.training.run import run_training


def test_elsewhere_than_on_a_terminal_there_is_a_line_every_half_minute(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(waiting.time, "perf_counter", lambda: now[0])
    with Display() as display, waiting.waiting(display, "decoding all images", 4000) as report:
        for second in range(0, 100):
            now[0] = 100.0 + second
            report(second * 40)
    assert capsys.readouterr().out.splitlines() == [
        "decoding all images: 1,200 of 4,000, about 1 min 10 s left",
        "decoding all images: 2,400 of 4,000, about 40 s left",
        "decoding all images: 3,600 of 4,000, about 10 s left",
    ]


def test_a_terminal_has_a_bar_that_goes_away_and_then_the_bar_of_training(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr("vitreous.training.records.display.Console", lambda **options: console)
    with Display() as display:
        with suppress(KeyboardInterrupt), waiting.waiting(display, "decoding all images", 4000) as report:
            report(1000)
            raise KeyboardInterrupt
        assert display.progress.live.is_started
        display.print("a line")
    lines = screen.getvalue()
    assert "decoding all images" in lines
    assert "1000/4000" in lines
    assert lines.index("1000/4000") < lines.index("a line")


def test_a_quiet_run_shows_nothing(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "LINE_EVERY", 0.0)
    with Display(quiet=True) as display, waiting.waiting(display, "decoding", 10) as report:
        report(5)
    assert capsys.readouterr().out == ""


# ---- what is said of the check


@pytest.mark.parametrize(
    ("estimate", "line"),
    [
        (broken.Estimate("all", 5.0, 5.0), ""),
        (broken.Estimate("none", 0.0, 0.0), ""),
        (broken.Estimate("all", 45.0, 45.0), "decoding all images once, about 45 s (check_images=none skips it)"),
        (
            broken.Estimate("headers", 90.0, 7200.0),
            "decoding all images would take about 2 h 00 min (check_images=all); reading image headers instead, about "
            "1 min 30 s",
        ),
        (
            broken.Estimate("sample", 20.0, 7200.0),
            "decoding all images would take about 2 h 00 min (check_images=all); reading some image headers instead, "
            "about 20 s",
        ),
    ],
)
def test_a_long_check_and_a_lesser_one_are_announced(estimate, line, monkeypatch, photos, tmp_path, quick, capsys):
    monkeypatch.setattr(broken, "choose_check", lambda data: estimate)
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"epochs": 1, "warmup_epochs": 0})
    assert run.recipe.data.check_images == estimate.how
    out = capsys.readouterr().out
    assert line in out
    assert ("about" in out.partition("pixels in")[0]) == bool(line)
    checked = {
        "all": "decoded all 48 images in 0 s; none is broken",
        "headers": "read the headers of all 48 images in 0 s; none is broken",
        "sample": "read the headers of 48 images, a sample, in 0 s; none is broken",
        "none": "",
    }[estimate.how]
    assert checked in out
    assert ("none is broken" in out) == bool(checked)
