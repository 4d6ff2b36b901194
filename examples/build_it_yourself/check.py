"""Checks the steps in order, up to the first that fails: each box against vitreous's own, with the same weights."""

from collections.abc import Iterator

import torch

import vitreous as vt
from examples.build_it_yourself.boxes import BOXES, Beginning, Box
from examples.build_it_yourself.digits import EPOCHS, check_training
from examples.build_it_yourself.learner import Fault, Learner
from examples.build_it_yourself.parameters import check_norms, check_parameters
from examples.build_it_yourself.steps import STEPS, Step
from vitreous.model.initialization import fill_at_random


def check_steps(learner: Learner, epochs: int = EPOCHS) -> Iterator[tuple[Step, str]]:
    """Checks the steps in order; yields each right one with its result.

    Args:
        learner: the learner's file.
        epochs: of the training in step 8.

    Raises:
        Fault: the next step is open, and why.
    """
    learner.load()
    with torch.random.fork_rng(devices=[]):
        for step in STEPS:
            torch.manual_seed(0)
            if step.number in BOXES:
                check_box(learner, BOXES[step.number])
                yield step, "right"
            else:
                yield step, f"right: {check_training(learner, epochs)}"


def check_box(learner: Learner, box: Box) -> None:
    """Compares a box with vitreous's own.

    Raises:
        Fault: where it differs, by how much, and why.
    """
    mine, reference = learner.build(box.name, box.arguments), box.reference()
    fill_at_random(reference)
    inputs = [torch.randn(shape) for shape in box.inputs]
    part = Beginning(mine) if box.parts else mine
    failure = None
    try:
        learner.run(part, inputs[0], box.name)
    except Fault as fault:
        if fault.unwritten:
            raise
        failure = fault
    check_parameters(mine, reference.state_dict(), box.name, box.parts)  # reported first, since it may be the reason
    if failure is not None:
        raise failure
    check_norms(mine, reference)
    mine.load_state_dict(reference.state_dict(), strict=False)
    for x in inputs:
        learner.run(part, x, box.name)
        with learner.running(box.name):
            comparison = vt.compare(part, reference, x)
        if not comparison.equal:
            raise Fault(f"{box.name} against vitreous's own, the reference, with the same weights:\n{comparison}")
