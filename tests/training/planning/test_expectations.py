"""What is expected from scratch is what docs/results.md has."""

import json
import re
import statistics
from pathlib import Path

import pytest

from vitreous.training.planning.expectations import (
    DOCUMENT,
    FROM_SCRATCH,
    FROM_WEIGHTS,
    Measured,
    expectation_line,
    percent,
)

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("row", [*FROM_SCRATCH, FROM_WEIGHTS], ids=lambda row: row.run)
def test_the_numbers_are_those_of_the_results(row: Measured):
    experiment, run = row.run.split("/")
    paths = sorted((ROOT / "experiments" / "results" / experiment).glob(f"{run}-seed*.json"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert round(statistics.mean(result["accuracy"] for result in results), 3) == row.accuracy
    assert round(statistics.mean(result["wall_seconds"] for result in results) / 60) == row.minutes
    assert {result["images_seen"] / result["curve"][-1][0] for result in results} == {row.images}
    section = re.search(
        rf"<!-- {experiment} -->(.*?)<!-- /{experiment} -->", (ROOT / DOCUMENT).read_text(encoding="utf-8"), re.DOTALL
    )
    assert section
    assert f"| `{run}` | **{percent(row.accuracy)}** |" in section[1]


@pytest.mark.parametrize(
    ("images", "classes", "run", "result"),
    [
        (244, 2, "201 images of 3 classes (guessing: 33%; here: 50%)", "59.5 % from scratch at 64×64 pixels in 2"),
        (2_000, 3, "2,374 images of 3 classes (guessing: 33%; here: 33%)", "82.1 % from scratch at 64×64 pixels in 12"),
        (45_000, 10, "45,000 images of 10 classes (guessing: 10%; here: 10%)", "49.1 % from scratch at 32×32 pixels"),
        (30_000, 40, "39,673 images of 45 classes (guessing: 2%; here: 2%)", "34.1 % from scratch at 64×64 pixels"),
    ],
)
def test_the_nearest_run_comes_with_its_conditions(images: int, classes: int, run: str, result: str):
    line = expectation_line(images, classes)
    assert line is not None
    assert line.startswith(f"what to expect: the nearest measured run, {run}, reached {result}")
    assert ("and 78.2 % from pre-trained weights" in line) == (images == 244)
    assert line.endswith(f"({DOCUMENT})")


def test_nothing_is_expected_where_nothing_similar_was_measured():
    assert expectation_line(1_000_000, 1_000) is None
