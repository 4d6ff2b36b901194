"""The check of step 8: does the learner's training loop teach the learner's model to read digits?"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from examples.build_it_yourself.learner import Fault, Learner
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.digits import DIGITS
from vitreous.data.sources.open import open_data
from vitreous.data.sources.splits import Split

MODEL = (8, 4, 64, 3, 4, 128, 10)  # image_size, patch_size, width, depth, num_heads, mlp_dim, num_classes
EPOCHS = 20  # about ten seconds on one core
GOAL = 0.95
TRIAL = 150  # images of a first short run, which finds most mistakes
SAME_DIRECTION = 0.99  # cosine of two gradients that differ only by a factor


class Watch:
    """Records what a training loop does to one weight."""

    def __init__(self) -> None:
        self.gradients = 0  # computed
        self.steps = 0  # of an optimizer
        self.stale = False  # whether a step used gradients of earlier steps, too
        self._new: Tensor | None = None  # the gradient since the last step

    def gradient(self, gradient: Tensor) -> None:
        """Called with each new gradient."""
        self.gradients += 1
        self._new = gradient.detach().clone() if self._new is None else self._new + gradient

    def step(self, weight: Tensor) -> None:
        """Called before each step of an optimizer."""
        self.steps += 1
        if self._new is not None and weight.grad is not None:
            cosine = torch.cosine_similarity(weight.grad.flatten(), self._new.flatten(), dim=0)
            self.stale |= cosine.item() < SAME_DIRECTION
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
    """Trains a small model, first for a moment and then in full, and tests it on held-out digits.

    Args:
        learner: the learner's file.
        epochs: of the full training.
        goal: the share of held-out digits that the model must read.

    Returns:
        The result in words.

    Raises:
        Fault: the loop is not written, fails, does not change the weights, or misses the goal.
    """
    data = open_data(DIGITS)
    assert data.test is not None, "the digits have a test split"
    splits = [tensors(data.train), tensors(data.validation)]
    images, labels = (torch.cat(both) for both in zip(*splits, strict=True))
    trial = torch.randperm(len(images))[:TRIAL]
    check_trial(learner, images[trial], labels[trial])
    model, started = learner.build("VisionTransformer", MODEL), time.perf_counter()
    with learner.running("train"):
        learner.find("train")(model, images.clone(), labels.clone(), epochs)
    seconds = time.perf_counter() - started
    check_finite(model)
    test_images, test_labels = tensors(data.test)
    train_accuracy, test_accuracy = accuracy(model, images, labels), accuracy(model, test_images, test_labels)
    if test_accuracy < goal:
        raise Fault(
            f"After {epochs} epochs the model reads {test_accuracy:.1%} of {len(test_labels)} held-out digits, and "
            f"{train_accuracy:.1%} of those it was trained on; the goal is {goal:.0%}.\nIs the learning rate 1e-3? "
            "Does every epoch go through all images, in a new order? Do images and labels of a batch belong together?"
        )
    return f"it reads {test_accuracy:.1%} of {len(test_labels)} held-out digits, after {seconds:.0f} s"


def check_trial(learner: Learner, images: Tensor, labels: Tensor) -> None:
    """Trains for one epoch on a few images, and checks the weights.

    Raises:
        Fault: some weights have not changed, or are not finite; or gradients add up from batch to batch.
    """
    model = learner.build("VisionTransformer", MODEL)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with watching(model.get_parameter("head.classifier.weight")) as watch, learner.running("train"):
        learner.find("train")(model, images, labels, 1)
    check_finite(model)
    unchanged = [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    if not watch.gradients:
        raise Fault("train computes no gradients: call backward() on the loss.")
    if len(unchanged) == len(before):
        fix = "give the optimizer model.parameters()" if watch.steps else "call the optimizer's step() after backward()"
        raise Fault(f"train changes none of the model's weights: {fix}.")
    if unchanged:
        names = ", ".join(unchanged[:3]) + ", …" * (len(unchanged) > 3)
        raise Fault(f"train does not change {names}: it must change all weights.")
    if watch.stale:
        raise Fault("The gradients of earlier batches are still there: call zero_grad() before each backward().")


def check_finite(model: nn.Module) -> None:
    """Raises Fault if training has made a weight infinite or NaN."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise Fault(
                f"After training, {name} holds infinite numbers or NaN: try a smaller learning rate, such as 1e-3."
            )


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images whose top class is their label."""
    return (model.eval()(images).argmax(dim=1) == labels).double().mean().item()


def tensors(split: Split) -> tuple[Tensor, Tensor]:
    """Images "batch 3 8 8" from -1 to 1, and labels."""
    rgb = Preprocessing((8, 8))
    images = torch.stack([rgb.pixels(split.load(i)) for i in range(len(split))])
    return images / 127.5 - 1, torch.from_numpy(split.labels)
