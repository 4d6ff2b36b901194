"""What the processes of a run tell each other."""

from pathlib import Path

import pytest
import torch

from tests.training.parallel.launching import torchrun
from vitreous.support.errors import REPORTED, InputError
from vitreous.training.learner import Learner
from vitreous.training.optimization.memory import MicroBatch
from vitreous.training.parallel.group import ALONE_GROUP, LocalError
from vitreous.training.run import run_training


def test_three_ranks_agree():
    done = torchrun(Path(__file__).with_name("group_script.py"), ranks=3)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0", "1", "2"]


def test_a_process_alone_tells_itself(tmp_path):
    group = ALONE_GROUP
    assert group.highest(3, 1) == [3, 1]
    assert group.from_first("x") == "x"
    assert group.gather((1, 2)) == [(1, 2)]
    assert group.agree(lambda: 5) == 5
    with pytest.raises(InputError, match="full") as raised, group:
        group.lead(lambda: (_ for _ in ()).throw(InputError("full")))
    assert not hasattr(raised.value, REPORTED)


def test_a_rank_that_cannot_go_on_does_not_end_the_run_quietly(photos, tmp_path, quick, monkeypatch):
    """The others would wait for it in the test: even if a model is kept, the error is raised."""
    update = Learner.update

    def failing(learner: Learner, batch: object) -> object:
        if learner.step == 3:  # in the second epoch
            raise LocalError("out of memory with 4 images at once", "go on with --set micro_batch=2")
        return update(learner, batch)

    monkeypatch.setattr(Learner, "update", failing)
    with pytest.raises(LocalError):
        run_training(photos, "auto", None, tmp_path / "run", quick | {"minutes": 0}, quiet=True)
    assert (tmp_path / "run/model.safetensors").is_file()
    assert not (tmp_path / "run/results.csv").exists()


def test_memory_that_is_short_on_one_of_several_ranks():
    def step(micro_batch: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(LocalError, match=r"out of memory with 16 images at once; go on with --set micro_batch=8"):
        MicroBatch(16, pytest.fail, can_shrink=False).run(step)
