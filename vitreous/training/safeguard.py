"""What keeps a run from being lost: its state is saved from time to time, and when it is asked to stop."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

import torch

from vitreous.training.checkpointing.files import Checkpoints
from vitreous.training.checkpointing.saver import Saver
from vitreous.training.interruption import Stopped, StopRequest
from vitreous.training.learner import Learner
from vitreous.training.loop import Watch
from vitreous.training.records.log import Log


class Safeguard(Watch):
    """Saves the state of a run; use it as a context, around the training.

    A checkpoint is written while training goes on, when one is due, and after an epoch unless the last one is a second
    old. SIGINT and SIGTERM stop the run at the next update or, of one process, micro-batch, after another checkpoint.

    Args:
        learner: of the run.
        log: of the run.
        facts: what a checkpoint holds besides their states.
    """

    def __init__(self, learner: Learner, log: Log, facts: Mapping[str, Any]) -> None:
        self.learner, self.log, self.facts, self.group = learner, log, facts, learner.group
        minutes = learner.plan.recipe.run.checkpoint_minutes
        checkpoints = Checkpoints(log.folder.path, log.display.print, self.group, learner.passes.in_shards)
        self.saver = Saver(checkpoints, None if minutes == "auto" else minutes, log.display.print)
        self.request = StopRequest(self.group)
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        self.stack.enter_context(self.request)
        self.stack.enter_context(self.saver)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self.stack:
            if error is None or isinstance(error, Stopped):
                state = self.state()
                if self.saver.checkpoints.writes:
                    self.saver.save_now(state, self.learner.step)
                self.group.wait()  # torchrun ends all ranks when one has left

    def state(self) -> dict[str, Any]:
        """Everything that a run needs to go on; its tensors are those of the learner. All ranks call it together."""
        return {**self.facts, "learner": self.learner.state_dict(), "log": self.log.state_dict()}

    def pause(self) -> None:
        """Saves the state if it is time, and raises Stopped if a signal came to any rank."""
        due = self.group.leads and self.saver.is_due(self.expected)
        self._look(due)

    def after_epoch(self) -> None:
        """Saves the state unless that was done a second ago, and raises Stopped if a signal came to any rank."""
        self._look(self.group.leads and self.saver.is_worth)

    def _look(self, due: bool | int) -> None:
        number, due, busy = self.group.highest(self.request.number or 0, due, self.saver.is_busy)
        if due and not busy:
            with torch.inference_mode(False):  # validation is inside of it, which shards do not allow
                state = self.state()
                if self.saver.checkpoints.writes:
                    self.saver.save(state, self.learner.step)
        if number:
            raise Stopped(number)

    def expected(self) -> float | None:
        """The seconds that the whole run takes, as far as they can be known."""
        left = self.log.display.forecast.left()
        return None if left is None else self.log.seconds + left
