"""Two ranks learn what one process learns, however they share the model."""

import json
from pathlib import Path

import pytest

from tests.training.parallel.launching import torchrun
from tests.training.parallel.passes_script import CASES, COUNT, Case

SCRIPT = Path(__file__).with_name("passes_script.py")
HALF = {"ddp": 1e-6, "fsdp": 0.02}  # shards gather weights in 16 bits, replicas round each product alone


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    done = torchrun(SCRIPT)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["case"]: row for row in rows}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "/".join(map(str, case)))
def test_an_update_of_two_ranks_is_that_of_one(case: Case, found):
    row = found["/".join(map(str, case))]
    tolerance = 1e-6 if case.precision == "float32" else HALF[case.kind]
    assert row["gradients"] < tolerance
    assert row["norm"] < tolerance
    assert row["loss"] < tolerance
    assert row["count"] == COUNT
    assert row["same"]
    if case.option == "sgd":  # Adam's first step has the size of the rate, whatever the gradient's
        assert row["weights"] < 1e-7


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_gradients_are_exchanged_once_for_all_micro_batches(kind, found):
    once, accumulated = (found["/".join(map(str, Case(kind, "shared", size)))]["sums"] for size in (None, 2))
    assert once == accumulated > 0
