"""What a run says of the devices that it uses."""

import dataclasses

import pytest
import torch

from vitreous.data.loading.shares import Share
from vitreous.training.planning.plan import Plan, make_plan
from vitreous.training.records.summary import idle_devices, machine


@pytest.fixture
def plan(photos, quick) -> Plan:
    return make_plan(photos, "auto", None, quick, lambda line: None)


def test_several_processes_and_their_images(plan):
    assert machine(plan).startswith("on cpu in float32, ")
    two = dataclasses.replace(plan, share=Share(0, 2), parallel="ddp")
    assert machine(two).startswith("on 2 × cpu with up to 8 images each (parallel=ddp) in float32")
    many = dataclasses.replace(two, share=Share(0, 8), recipe=plan.recipe.with_settings({"batch_size": 4096}))
    assert "with up to 5 images each" in machine(many)  # of 33 in all


def test_gpus_that_are_not_used_are_named(plan, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert [*idle_devices(plan)] == []
    one = dataclasses.replace(plan, device=torch.device("cuda"))
    (line,) = idle_devices(one)
    assert line.startswith("one of 8 GPUs is used; to use all of them: torchrun --standalone --nproc-per-node=8")
    assert [*idle_devices(dataclasses.replace(one, parallel="fsdp"))] == []
