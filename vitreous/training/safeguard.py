"""What keeps a run from being lost: its state is saved from time to time, and when it is asked to stop."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

from vitreous.training.checkpointing.files import Checkpoints
from vitreous.training.checkpointing.saver import Saver
from vitreous.training.interruption import Stopped, StopRequest
from vitreous.training.learner import Learner
from vitreous.training.loop import Watch
from vitreous.training.records.log import Log


class Safeguard(Watch):
    """Saves the state of a run; use it as a context, around the training.

    A checkpoint is written while training goes on, when one is due and after each epoch. SIGINT and SIGTERM stop the
    run at the next update or micro-batch, after another checkpoint; a second one ends the process at once.

    Args:
        learner: of the run.
        log: of the run.
        facts: what a checkpoint holds besides their states.
    """

    def __init__(self, learner: Learner, log: Log, facts: Mapping[str, Any]) -> None:
        self.learner, self.log, self.facts = learner, log, facts
        minutes = learner.plan.recipe.run.checkpoint_minutes
        checkpoints = Checkpoints(log.folder.path, log.display.print)
        self.saver = Saver(checkpoints, None if minutes == "auto" else minutes, log.display.print)
        self.request = StopRequest()
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        self.stack.enter_context(self.request)
        self.stack.enter_context(self.saver)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self.stack:
            if error is None or isinstance(error, Stopped):
                self.saver.save_now(self.state, self.learner.step)

    def state(self) -> dict[str, Any]:
        """Everything that a run needs to go on; its tensors are those of the learner."""
        return {**self.facts, "learner": self.learner.state_dict(), "log": self.log.state_dict()}

    def pause(self) -> None:
        """Saves the state if it is time, and raises Stopped if a signal came."""
        if self.saver.is_due(self.expected):
            self.saver.save(self.state, self.learner.step)
        self.request.raise_if_any()

    def after_epoch(self) -> None:
        """Saves the state, and raises Stopped if a signal came."""
        self.saver.save(self.state, self.learner.step)
        self.request.raise_if_any()

    def expected(self) -> float | None:
        """The seconds that the whole run takes, as far as they can be known."""
        left = self.log.display.forecast.left()
        return None if left is None else self.log.seconds + left
