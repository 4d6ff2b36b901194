"""The check of step 8: whether the learner's training loop teaches the learner's model to read digits."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from examples.build_it_yourself.learner import Fault, Learner
from vitreous.data.sources.open import DIGITS, open_data
from vitreous.data.sources.splits import Split

MODEL = (8, 4, 64, 3, 4, 128, 10)  # image_size, patch_size, width, depth, num_heads, mlp_dim, num_classes
EPOCHS = 20  # about ten seconds on one core
GOAL = 0.95
TRIAL = 150  # images of a first short run, which shows most faults at once
ALIKE = 0.99  # cosine of two gradients that differ by no more than a factor


class Watch:
    """What a training loop does to one weight."""

    def __init__(self) -> None:
        self.gradients = 0  # that were computed
        self.steps = 0  # of an optimizer
        self.stale = False  # whether an optimizer found gradients of earlier steps added to the new ones
        self._new: Tensor | None = None  # gradient since the last step

    def gradient(self, gradient: Tensor) -> None:
        """Sees a new gradient."""
        self.gradients += 1
        self._new = gradient.detach().clone() if self._new is None else self._new + gradient

    def step(self, weight: Tensor) -> None:
        """Sees an optimizer's step."""
        self.steps += 1
        if self._new is not None and weight.grad is not None:
            alike = torch.cosine_similarity(weight.grad.flatten(), self._new.flatten(), dim=0)
            self.stale |= alike.item() < ALIKE
        self._new = None


@contextmanager
def watching(weight: nn.Parameter) -> Iterator[Watch]:
    """Watches a weight while a training loop runs."""
    watch = Watch()

    def before_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watch.step(weight)

    with ExitStack() as stack:
        stack.callback(weight.register_hook(watch.gradient).remove)
        stack.callback(register_optimizer_step_pre_hook(before_step).remove)
        yield watch


def check_training(learner: Learner, epochs: int = EPOCHS, goal: float = GOAL) -> str:
    """Trains a small model, first for a moment, then in earnest, and reads digits that it has not seen.

    Args:
        learner: whose file it is.
        epochs: of the training in earnest.
        goal: the share of held-out digits to be read.

    Returns:
        What it reached.

    Raises:
        Fault: the loop is not written, fails, does not change the weights, or the goal is missed.
    """
    data = open_data(DIGITS)
    assert data.test is not None, "the digits have a test split"
    parts = [tensors(data.train), tensors(data.validation)]
    images, labels = (torch.cat(both) for both in zip(*parts, strict=True))
    some = torch.randperm(len(images))[:TRIAL]
    check_trial(learner, images[some], labels[some])
    model, started = learner.build("VisionTransformer", MODEL), time.perf_counter()
    with learner.running("train"):
        learner.find("train")(model, images.clone(), labels.clone(), epochs)
    seconds = time.perf_counter() - started
    check_finite(model)
    seen, (held_out, answers) = accuracy(model, images, labels), tensors(data.test)
    reached = accuracy(model, held_out, answers)
    if reached < goal:
        raise Fault(
            f"After {epochs} epochs the model reads {reached:.1%} of {len(answers)} held-out digits, and {seen:.1%} of "
            f"those it has seen; the goal is {goal:.0%}.\nIs the learning rate 1e-3? Does every epoch go through all "
            "images, in a new order? Do images and labels of a batch belong together?"
        )
    return f"it reads {reached:.1%} of {len(answers)} digits that it has not seen, after {seconds:.0f} s"


def check_trial(learner: Learner, images: Tensor, labels: Tensor) -> None:
    """Trains for one epoch on a few images, and looks what became of the weights.

    Raises:
        Fault: they, or some, are as they were, or no numbers; or gradients add up.
    """
    model = learner.build("VisionTransformer", MODEL)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with watching(model.get_parameter("head.classifier.weight")) as watch, learner.running("train"):
        learner.find("train")(model, images, labels, 1)
    check_finite(model)
    kept = [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    if not watch.gradients:
        raise Fault("train computes no gradients: call backward() on the loss.")
    if len(kept) == len(before):
        why = "give the optimizer model.parameters()" if watch.steps else "call the optimizer's step()"
        raise Fault(f"train changes none of the model's weights: {why} after backward().")
    if kept:
        raise Fault(
            f"train does not change {', '.join(kept[:3])}{', …' * (len(kept) > 3)}: it must change all weights."
        )
    if watch.stale:
        raise Fault("The gradients of earlier batches are still there: call zero_grad() before each backward().")


def check_finite(model: nn.Module) -> None:
    """Raises Fault if training has made a weight infinite or no number."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise Fault(f"After training, {name} holds infinite numbers or NaN: a smaller learning rate, such as 1e-3?")


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images whose likeliest class is their label."""
    return (model.eval()(images).argmax(dim=1) == labels).double().mean().item()


def tensors(split: Split) -> tuple[Tensor, Tensor]:
    """Images "batch 3 8 8" from -1 to 1, and labels."""
    pixels = np.stack([np.asarray(split.load(i).convert("RGB")) for i in range(len(split))])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return images / 127.5 - 1, torch.from_numpy(split.labels)
