"""Tensors read ahead are the same, each is read once, and a failure comes where its tensor is used."""

import threading

import pytest
import torch

from vitreous.checkpoints.files.ahead import WINDOW, ReadAhead


class Recording(dict):
    """Tensors that record which were read, and in how many threads."""

    def __init__(self, tensors):
        super().__init__(tensors)
        self.reads, self.threads = [], set()

    def __getitem__(self, key):
        self.reads.append(key)
        self.threads.add(threading.get_ident())
        if key == "bad":
            raise ValueError("a damaged tensor")
        return super().__getitem__(key)


TENSORS = {f"t{i}": torch.full((3,), float(i)) for i in range(20)}


def test_each_is_read_once_and_few_at_a_time():
    source = Recording(TENSORS)
    reader = ReadAhead(source, list(TENSORS))
    source.reads.clear()  # of checks of its type
    source.threads.clear()
    with reader as ahead:
        for i, key in enumerate(TENSORS):
            assert torch.equal(ahead[key], TENSORS[key])
            assert len(source.reads) <= i + 1 + WINDOW
    assert sorted(source.reads) == sorted(TENSORS)
    assert threading.get_ident() not in source.threads


def test_another_order_and_a_second_use_work():
    with ReadAhead(Recording(TENSORS), ["t0", "t1"]) as ahead:
        assert [float(ahead[key][0]) for key in ("t19", "t1", "t0", "t0")] == [19, 1, 0, 0]


def test_a_failure_is_raised_on_use_and_leaves_no_thread():
    before = threading.active_count()
    source = Recording(TENSORS)
    reader = ReadAhead(source, ["t0", "bad", *TENSORS])
    source["bad"] = torch.ones(1)
    with reader as ahead:
        assert ahead["t0"] is not None
        with pytest.raises(ValueError, match="a damaged tensor"):
            ahead["bad"]
    assert threading.active_count() == before
