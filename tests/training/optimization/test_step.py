import copy

import pytest
import torch
from torch.nn import functional as F

from vitreous.model.config import ViTConfig
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer
from vitreous.training.objectives.classification import Classification, CrossEntropy
from vitreous.training.optimization.optimizer import make_optimizer
from vitreous.training.optimization.precision import LossScale
from vitreous.training.optimization.step import Totals, train_step

CONFIG = ViTConfig(width=16, depth=2, mlp_dim=32, num_heads=2, image_size=(8, 8), patch_size=(4, 4), num_classes=3)


@pytest.fixture
def model() -> VisionTransformer:
    model = VisionTransformer(CONFIG)
    fill_at_random(model)
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 3, 8, 8)


LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def everything(model, optimizer) -> list[torch.Tensor]:
    """All numbers that a step may change."""
    states = [value for state in optimizer.state.values() for value in state.values()]
    return [t.detach().clone() for t in (*model.state_dict().values(), *states)]


def test_one_batch_can_be_overfitted(images):
    model = VisionTransformer(CONFIG)
    optimizer = make_optimizer(model, lr=1e-2, weight_decay=0.0)
    for _ in range(60):
        result = train_step(model, optimizer, Classification(CrossEntropy()), images, LABELS, lr=1e-2, clip_norm=1.0)
    assert result.correct == 6
    assert result.loss / result.count < 0.01


def test_tells_sums_over_the_batch(model, images):
    logits = model(images)
    result = train_step(
        model,
        make_optimizer(model, lr=0.1, weight_decay=0.0),
        Classification(CrossEntropy()),
        images,
        LABELS,
        lr=0.1,
        clip_norm=1.0,
    )
    torch.testing.assert_close(result.loss, F.cross_entropy(logits, LABELS, reduction="sum").detach())
    assert result.correct == (logits.argmax(1) == LABELS).sum()
    assert result.count == 6
    assert not result.skipped


@pytest.mark.parametrize("clip_norm", [1e-3, 0.1, 1e6, float("inf")])
def test_clips_at_the_global_norm(model, images, clip_norm: float):
    other = copy.deepcopy(model)
    F.cross_entropy(other(images), LABELS).backward()
    gradients = [p.grad for p in other.parameters() if p.grad is not None]
    norm = torch.cat([g.flatten() for g in gradients]).norm()

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    before = [p.detach().clone() for p in model.parameters()]
    result = train_step(model, optimizer, Classification(CrossEntropy()), images, LABELS, lr=0.5, clip_norm=clip_norm)
    torch.testing.assert_close(result.grad_norm, norm)
    for old, new, gradient in zip(before, model.parameters(), gradients, strict=True):
        moved = 0.5 * gradient * min(1.0, clip_norm / norm.item())
        torch.testing.assert_close(new.detach(), old - moved, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_bad_image_changes_nothing(model, images, bad: float, steps_before: int):
    optimizer = make_optimizer(model, lr=1e-2, weight_decay=0.1)

    def step(images: torch.Tensor):
        return train_step(model, optimizer, Classification(CrossEntropy()), images, LABELS, lr=1e-2, clip_norm=1.0)

    for _ in range(steps_before):
        step(images)
    weights, before = copy.deepcopy(model.state_dict()), everything(model, optimizer)
    broken = images.clone()
    broken[2, 1, 3, 4] = bad
    result = step(broken)
    assert result.skipped
    assert (result.loss, result.correct, result.count) == (0, 0, 0)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    if steps_before:  # the first step makes the optimizer's state
        assert all(torch.equal(a, b) for a, b in zip(before, everything(model, optimizer), strict=True))
    assert not step(images).skipped, "the next step goes on"
    assert not torch.equal(weights["class_token"], model.class_token)


def test_a_skipped_step_is_as_if_it_had_not_been(model, images):
    other = copy.deepcopy(model)
    for network, batches in ((model, [images * torch.nan, images, images]), (other, [images, images])):
        optimizer = make_optimizer(network, lr=1e-2, weight_decay=0.1)
        for batch in batches:
            train_step(network, optimizer, Classification(CrossEntropy()), batch, LABELS, lr=1e-2, clip_norm=1.0)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_unfused_optimizer_is_rejected(model, images):
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="SGD is not fused"):
        train_step(model, optimizer, Classification(CrossEntropy()), images, LABELS, lr=1.0, clip_norm=1.0)


def test_totals_are_over_samples_and_know_what_was_skipped(model, images):
    optimizer, totals = make_optimizer(model, lr=0.0, weight_decay=0.0), Totals()
    batches = [(images, LABELS), (images[:2] * torch.nan, LABELS[:2]), (images[:1], LABELS[:1])]
    for step, (batch, labels) in enumerate(batches, start=1):
        result = train_step(model, optimizer, Classification(CrossEntropy()), batch, labels, lr=0.0, clip_norm=1.0)
        totals.add(step, 0.0, result)
    seen, truth = torch.cat([images, images[:1]]), torch.cat([LABELS, LABELS[:1]])
    logits = model(seen)
    loss, accuracy, count = totals.read()
    assert loss == pytest.approx(F.cross_entropy(logits, truth).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == truth).float().mean().item())
    assert count == 7
    assert totals.skipped_steps() == [2]


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 6, 100])
def test_gradients_of_micro_batches_add_up_to_the_batch_s(model, images, micro_batch: int):
    """In float64, ten updates: the same weights to 1e-9."""
    whole, parts = model.double(), copy.deepcopy(model).double()
    for network, size in ((whole, None), (parts, micro_batch)):
        optimizer = make_optimizer(network, lr=1e-2, weight_decay=0.1)
        for number in range(10):
            batch = images.double().roll(number, dims=2)
            result = train_step(
                network,
                optimizer,
                Classification(CrossEntropy()),
                batch,
                LABELS,
                lr=1e-2,
                clip_norm=1.0,
                micro_batch=size,
            )
        assert result.count == 6
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_bad_image_skips_the_whole_batch_also_in_parts(model, images):
    before = copy.deepcopy(model.state_dict())
    images[5] = torch.nan
    optimizer = make_optimizer(model, lr=1e-2, weight_decay=0.1)
    result = train_step(
        model, optimizer, Classification(CrossEntropy()), images, LABELS, lr=1e-2, clip_norm=1.0, micro_batch=2
    )
    assert (result.skipped, result.count) == (True, 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_loss_scale_changes_nothing_but_what_vanishes(model, images):
    other, scale = copy.deepcopy(model), LossScale(torch.device("cpu"), first=2.0**8)
    results = []
    for network, loss_scale in ((model, None), (other, scale)):
        optimizer = make_optimizer(network, lr=1e-2, weight_decay=0.1)
        for _ in range(3):
            result = train_step(
                network, optimizer, Classification(CrossEntropy()), images, LABELS,
                lr=1e-2, clip_norm=0.1, loss_scale=loss_scale,
            )  # fmt: skip
        results.append(result)
    torch.testing.assert_close(results[0].grad_norm, results[1].grad_norm)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert scale.factor == 2.0**8


def test_an_overflow_skips_the_step_and_halves_the_scale(model, images):
    scale = LossScale(torch.device("cpu"), first=1e38)
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, lr=1e-2, weight_decay=0.1)
    result = train_step(
        model, optimizer, Classification(CrossEntropy()), images * 1e3, LABELS,
        lr=1e-2, clip_norm=1.0, loss_scale=scale,
    )  # fmt: skip
    assert result.skipped
    assert scale.factor == pytest.approx(5e37)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_bfloat16_is_near_float32(model, images):
    norms, losses = [], []
    for precision in ("float32", "bfloat16"):
        network = copy.deepcopy(model)
        optimizer = make_optimizer(network, lr=1e-3, weight_decay=0.0)
        result = train_step(
            network, optimizer, Classification(CrossEntropy()), images, LABELS,
            lr=1e-3, clip_norm=1.0, precision=precision,
        )  # fmt: skip
        assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
        norms.append(result.grad_norm.item())
        losses.append(result.loss.item())
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert norms[1] != norms[0], "it was computed otherwise"


def test_a_group_has_its_own_share_of_the_rate(model, images):
    slow = copy.deepcopy(model)
    moved = []
    for network, layer_decay in ((model, 1.0), (slow, 0.5)):
        before = copy.deepcopy(network.state_dict())
        optimizer = make_optimizer(network, lr=1e-2, weight_decay=0.0, layer_decay=layer_decay)
        train_step(network, optimizer, Classification(CrossEntropy()), images, LABELS, lr=1e-2, clip_norm=1.0)
        moved.append(
            {name: (tensor - before[name]).abs().max().item() for name, tensor in network.state_dict().items()}
        )
    for name, share in (
        ("head.classifier.weight", 1), ("encoder.norm.bias", 1), ("encoder.blocks.1.mlp.fc1.weight", 0.5),
        ("encoder.blocks.0.mlp.fc1.weight", 0.25), ("class_token", 0.125), ("patch_embedding.projection.weight", 0.125),
    ):  # fmt: skip
        assert moved[1][name] == pytest.approx(share * moved[0][name], rel=1e-3)


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_accumulated_gradients_are_the_large_batch_s(model, images, micro_batch: int):
    """In float32, to 1e-6 of the largest: they are what a step of plain SGD without clipping moves by."""
    parts, moved = copy.deepcopy(model), []
    for network, size in ((model, None), (parts, micro_batch)):
        before = [parameter.detach().clone() for parameter in network.parameters()]
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0, fused=True)
        objective = Classification(CrossEntropy())
        train_step(network, optimizer, objective, images, LABELS, lr=1.0, clip_norm=float("inf"), micro_batch=size)
        moved.append(torch.cat([(a - b).flatten() for a, b in zip(before, network.parameters(), strict=True)]))
    assert moved[0].abs().max() > 0.01
    assert (moved[0] - moved[1]).abs().max() < 1e-6 * max(1.0, moved[0].abs().max().item())
