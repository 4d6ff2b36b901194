"""What several ranks prepare for the model is together what one rank prepares, and so is the gradient."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vitreous.data.loading.batches import Batch
from vitreous.data.loading.shares import Share
from vitreous.model.initialization import fill_at_random
from vitreous.training.learner import Learner
from vitreous.training.objectives.masked_patch import MaskedPatches
from vitreous.training.objectives.objective import VALIDATION, Targets
from vitreous.training.planning.plan import Plan, make_plan

SIZES = [1, 2, 3, 4]
GOALS: dict[str, dict[str, Any]] = {
    "plain": {},
    "balanced": {"balanced_sampling": True},
    "mixed": {"mixup": 0.3, "cutmix": 1.0},
    "mixed per sample": {"mixup": 0.3, "cutmix": 1.0, "mix_per_sample": True},
    "balanced and mixed": {"balanced_sampling": True, "mixup": 0.8},
    "mean_color": {"goal": "masked_patch", "mixup": 0.8},  # which it does not use
    "pixels": {"goal": "masked_patch", "masked_target": "pixels"},
}


@pytest.fixture(params=GOALS)
def plan(request: pytest.FixtureRequest, quick: dict, photos: Path) -> Plan:
    """Of a folder with broken images in both splits; one class is smaller."""
    for number in (1, 7, 8, 9):
        (photos / "train/green" / f"{number}.png").unlink()
    plan = make_plan(
        photos, "auto", "small-data", {**quick, **GOALS[request.param], "batch_size": 7}, lambda line: None
    )
    for name in (*plan.data.train.names[3:12:4], plan.data.validation.names[2]):
        (photos / name).write_text("no image")
    return plan


def ranks_of(plan: Plan, size: int) -> list[Plan]:
    return [replace(plan, share=Share(rank, size)) for rank in range(size)]


def tensors(targets: Targets) -> list[Tensor]:
    if isinstance(targets, MaskedPatches):
        return [getattr(targets, field.name) for field in fields(targets)]
    assert isinstance(targets, Tensor)
    return [targets]


def rows(batch: Batch, prepared: tuple[Tensor, Targets]) -> list[tuple[Any, ...]]:
    """For each image its position in the whole batch, its index, and the bits of all that is prepared."""
    images, targets = prepared
    columns = [[row.numpy().tobytes() for row in column] for column in (images, *tensors(targets))]
    return list(zip(batch.part.positions.tolist(), batch.indices.tolist(), *columns, strict=True))


def training_rows(learner: Learner, plan: Plan, epoch: int) -> list[list[tuple[Any, ...]]]:
    """For each batch of an epoch, its rows."""
    return [
        rows(batch, learner.objective.prepare(batch, plan.setup, epoch, number))
        for number, batch in enumerate(plan.training_batches(epoch))
    ]


def plain_rows(learner: Learner, plan: Plan) -> list[list[tuple[Any, ...]]]:
    """For each batch of the validation, its rows."""
    return [
        rows(batch, learner.objective.prepare(batch, plan.setup, VALIDATION, number))
        for number, batch in enumerate(plan.plain_batches(plan.data.validation))
    ]


def together(ranks: list[list[list[tuple[Any, ...]]]]) -> list[list[tuple[Any, ...]]]:
    """The rows of the whole batches, in the order of their positions."""
    return [sorted(row for part in parts for row in part) for parts in zip(*ranks, strict=True)]


def test_ranks_prepare_what_one_rank_prepares(plan):
    learner = Learner(plan, print)
    alone, plain = [training_rows(learner, plan, epoch) for epoch in (1, 2)], plain_rows(learner, plan)
    assert sum(map(len, plain)) == len(plan.data.validation) - 1
    assert [len(batch) for batch in alone[0]] != [len(batch) for batch in alone[1]]  # broken images are elsewhere
    for size in SIZES:
        ranks = ranks_of(plan, size)
        for epoch in (1, 2):
            assert together([training_rows(learner, rank, epoch) for rank in ranks]) == alone[epoch - 1]
        assert together([plain_rows(learner, rank) for rank in ranks]) == plain


def test_the_gradient_of_the_parts_is_that_of_the_whole(plan):
    """Sums over the ranks, divided by the images of all; broken images count nowhere."""
    learner = Learner(plan, print)
    fill_at_random(learner.model, seed=1)
    fill_at_random(learner.objective, seed=2)
    learner.model.eval()
    for number in range(2):
        (expected, count), *others = [gradient(learner, ranks_of(plan, size), number) for size in SIZES]
        assert expected.norm() > 0
        for found, images in others:
            assert images == count
            assert (found - expected).norm() <= 1e-6 * expected.norm()


def gradient(learner: Learner, ranks: list[Plan], number: int) -> tuple[Tensor, int]:
    """The gradient of a batch's mean loss, and how many images it has."""
    learner.optimizer.zero_grad()
    count = 0
    for plan in ranks:
        batch = plan.training_batches(1)[number]
        if len(batch):
            learner.objective(learner.model, *learner.objective.prepare(batch, plan.setup, 1, number)).loss.backward()
            count += len(batch)
    parameters = [p for group in learner.optimizer.param_groups for p in group["params"] if p.grad is not None]
    return torch.cat([p.grad.flatten() for p in parameters]) / count, count


def test_only_goals_that_mix_borrow(plan):
    ranks = ranks_of(plan, 2)
    borrows = any(batch.borrowed is not None for rank in ranks for batch in rank.training_batches(1))
    assert borrows == (plan.recipe.objective.goal == "classes" and plan.mixing.is_on)
    assert all(batch.borrowed is None for rank in ranks for batch in rank.plain_batches(plan.data.train))
