"""The time that a run still takes, from the updates and validations so far."""

import time
from collections.abc import Callable

SCORING = 0.5  # of the time of an update, that scoring an image takes; until the first validation is timed
KEPT = 0.8  # weight of the earlier epochs, each time one ends: what the machine does now counts more


class Forecast:
    """How long a run still takes. Updates and validations are timed apart, since not every epoch has both.

    Args:
        epochs: of the run.
        steps: updates of the run.
        per_epoch: updates of an epoch; the last one may have fewer.
        evaluate_every: epochs between validations; the last one is always validated.
        validation_share: images to validate over images to train.
        clock: seconds from any moment on.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        per_epoch: int,
        evaluate_every: int = 1,
        validation_share: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.epochs, self.steps, self.per_epoch = epochs, steps, per_epoch
        self.evaluate_every, self.validation_share, self.clock = evaluate_every, validation_share, clock
        self.epoch, self.step = 1, 0
        self.counted = self.updating = 0.0  # updates of earlier epochs and their seconds, weighted
        self.validated = self.validating = 0.0  # the same for validations
        self.began = self.updated = clock()
        self.first = self.since = 0  # updates before this epoch, and before this process made some in it

    def begin_epoch(self, epoch: int, step: int = 0) -> None:
        """Starts an epoch, from 1, or goes on with it after so many updates of the run."""
        self.epoch = epoch
        self.first = min((epoch - 1) * self.per_epoch, self.steps)
        self.step = self.since = max(self.first, step)
        self.began = self.updated = self.clock()

    def update(self, step: int) -> None:
        """An update is done; `step` of them are in the whole run."""
        self.step, self.updated = step, self.clock()

    def end_epoch(self, validated: bool) -> None:
        """Ends the epoch; all time since its last update is its validation's, if it has one."""
        self.counted = KEPT * self.counted + self.step - self.since
        self.updating = KEPT * self.updating + self.updated - self.began
        if validated:
            self.validated = KEPT * self.validated + 1
            self.validating = KEPT * self.validating + self.clock() - self.updated
        self.epoch += 1
        self.first = self.since = self.step
        self.began = self.updated = self.clock()

    @property
    def seconds_per_step(self) -> float | None:
        """Of an update; None before the first."""
        steps = self.counted + self.step - self.since
        return (self.updating + self.updated - self.began) / steps if steps else None

    def seconds_per_validation(self, per_step: float) -> float:
        """Of a validation: measured, or a guess from an update's seconds before the first."""
        if self.validated:
            return self.validating / self.validated
        return SCORING * self.validation_share * per_step * self.per_epoch

    def left(self, scored: float = 0.0) -> float | None:
        """The seconds that the run still takes; None before the first update.

        Args:
            scored: the share of the validation that is done.
        """
        per_step = self.seconds_per_step
        if per_step is None:
            return None
        epochs = range(self.epoch, self.epochs + 1)
        validations = sum(epoch % self.evaluate_every == 0 or epoch == self.epochs for epoch in epochs)
        updates = per_step * (self.steps - self.step)
        return updates + self.seconds_per_validation(per_step) * max(0.0, validations - scored)
