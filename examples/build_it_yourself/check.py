"""The checks of the steps, in order, up to the first that fails: each box against vitreous's own, with its weights."""

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
    """Checks the steps in order; gives each that is right, with what there is to say of it.

    Args:
        learner: whose file it is.
        epochs: of the training in step 8.

    Raises:
        Fault: the first step that was not given is open, and why.
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
        Fault: it differs: where, by how much, and why.
    """
    mine, reference = learner.build(box.name, box.arguments), box.reference()
    fill_at_random(reference)
    inputs = [torch.randn(shape) for shape in box.inputs]
    part = Beginning(mine) if box.parts else mine
    failed = None
    try:
        learner.run(part, inputs[0], box.name)
    except Fault as fault:
        if fault.unwritten:
            raise
        failed = fault
    check_parameters(mine, reference.state_dict(), box.name, box.parts)  # told first: they may be why it failed
    if failed is not None:
        raise failed
    check_norms(mine, reference)
    mine.load_state_dict(reference.state_dict(), strict=False)
    for x in inputs:
        learner.run(part, x, box.name)
        with learner.running(box.name):
            found = vt.compare(part, reference, x)
        if not found.equal:
            raise Fault(f"{box.name} beside vitreous's own, which is the reference, with the same weights:\n{found}")
