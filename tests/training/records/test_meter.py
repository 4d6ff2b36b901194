import time

import pytest
import torch

from vitreous.model.cost import nominal_multiply_adds
from vitreous.training.planning.plan import Plan, make_plan
from vitreous.training.records import meter as meters
from vitreous.training.records.meter import Meter, best_flops


@pytest.fixture
def plan() -> Plan:
    return make_plan("digits", "auto", "digits", {}, print)


def test_waiting_for_batches_is_timed_apart_from_the_steps(plan):
    def slow():
        for _ in range(3):
            time.sleep(0.03)
            yield from plan.plain_batches(plan.data.validation)

    meter, seen = Meter(plan), 0
    for batch in meter.timed(slow()):
        seen += len(batch)
        time.sleep(0.01)
    row, seconds = meter.row(seen), time.perf_counter() - meter.started
    assert seen == 3 * len(plan.data.validation)
    assert 0.09 <= meter.waited < seconds
    assert row["data_wait"] == pytest.approx(meter.waited / seconds, rel=0.05)
    assert row["images_per_second"] == pytest.approx(seen / seconds, rel=0.05)
    assert row["memory_bytes"] > 10**7
    assert "mfu" not in row, "a CPU has none"


def test_what_a_device_can_do_is_measured():
    flops = best_flops(torch.device("cpu"), torch.float32, side=128)
    assert 10**7 < flops < 10**13


def test_mfu_is_the_share_of_a_matrix_product(plan, monkeypatch):
    """The count is that of the formula, three passes of two operations for each multiply-add."""
    monkeypatch.setattr(meters, "best_flops", lambda device, dtype: 1e12)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * 10**9)
    object.__setattr__(plan, "device", torch.device("cuda"))
    row = Meter(plan).row(100)
    executed = 6 * nominal_multiply_adds(plan.config) * row["images_per_second"]
    assert row["mfu"] == pytest.approx(executed / 1e12, rel=1e-6)
    assert row["memory_bytes"] == 5 * 10**9
