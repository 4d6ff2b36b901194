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
    assert {result["images_seen"] / result["curve"][-1][0] for result in results} == {row.images}
    section = re.search(
        rf"<!-- {experiment} -->(.*?)<!-- /{experiment} -->", (ROOT / DOCUMENT).read_text(encoding="utf-8"), re.DOTALL
    )
    assert section
    assert f"| `{run}` | **{percent(row.accuracy)}** |" in section[1]


@pytest.mark.parametrize(
    ("images", "classes", "range_", "nearest"),
    [
        (244, 2, "65 to 75 %", "201 images of 3 classes reached 59.5 %"),
        (201, 3, "55 to 65 %", "201 images of 3 classes reached 59.5 %"),
        (2_000, 3, "75 to 85 %", "2,374 images of 3 classes reached 82.1 %"),
        (45_000, 10, "45 to 55 %", "45,000 images of 10 classes reached 49.1 %"),
        (30_000, 40, "30 to 40 %", "39,673 images of 45 classes reached 34.1 %"),
    ],
)
def test_the_nearest_run_says_what_to_expect(images: int, classes: int, range_: str, nearest: str):
    line = expectation_line(images, classes)
    assert line.startswith(f"from scratch, expect roughly {range_} on new photos: {nearest} (docs/results.md)")
    assert line.endswith("201 images of 3 classes from 59.5 % to 78.2 %: give some with --model")


def test_nothing_is_expected_where_nothing_similar_was_measured():
    line = expectation_line(1_000_000, 1_000)
    assert "expect" not in line
    assert "1,000,000 images of 1,000 classes, no similar run was measured: 39,673 images of 45 classes" in line
