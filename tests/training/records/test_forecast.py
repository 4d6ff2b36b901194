import pytest

from vitreous.training.records.forecast import Forecast


class Run:
    """A run of a fixed speed, and its forecast."""

    def __init__(self, epochs: int, steps: int, per_epoch: int, every: int, update: float, validation: float) -> None:
        self.now = 0.0
        self.update, self.validation, self.every = update, validation, every
        self.forecast = Forecast(epochs, steps, per_epoch, every, 0.5, lambda: self.now)
        self.epochs, self.steps, self.per_epoch = epochs, steps, per_epoch

    def times(self) -> list[tuple[float, float | None]]:
        """The time after each update and epoch, with the forecast of what is left."""
        times = []
        for epoch in range(1, self.epochs + 1):
            self.forecast.begin_epoch(epoch)
            for step in range((epoch - 1) * self.per_epoch, min(epoch * self.per_epoch, self.steps)):
                self.now += self.update
                self.forecast.update(step + 1)
                times.append((self.now, self.forecast.left()))
            validated = epoch % self.every == 0 or epoch == self.epochs
            self.now += self.validation if validated else 0
            self.forecast.end_epoch(validated)
            times.append((self.now, self.forecast.left()))
        return times


@pytest.mark.parametrize("every", [1, 3, 100])
def test_the_rest_is_that_of_the_updates_and_the_validations(every):
    """After the first validation the forecast of a steady machine is exact; the last epoch ends early."""
    run = Run(epochs=10, steps=95, per_epoch=10, every=every, update=2.0, validation=30.0)
    times = run.times()
    end = times[-1][0]
    first = next(number for number, (now, _) in enumerate(times) if now >= 10 * 2.0 * every + 30) if every < 10 else -1
    for now, left in times[first:]:
        assert left == pytest.approx(end - now, abs=1e-6)


def test_the_first_epoch_has_a_guess_of_its_validation():
    run = Run(epochs=2, steps=20, per_epoch=10, every=1, update=2.0, validation=30.0)
    now, left = run.times()[0]
    assert (now, left) == (2.0, 19 * 2.0 + 2 * 0.5 * 0.5 * 20.0)
    assert Forecast(2, 20, 10).left() is None


def test_what_the_machine_does_now_counts_more():
    run = Run(epochs=20, steps=200, per_epoch=10, every=1, update=1.0, validation=0.0)
    forecast = run.forecast
    for epoch in range(1, 16):
        run.update = 1.0 if epoch < 6 else 3.0
        forecast.begin_epoch(epoch)
        for step in range(10):
            run.now += run.update
            forecast.update((epoch - 1) * 10 + step + 1)
        forecast.end_epoch(True)
    assert 50 * 2.6 < forecast.left() < 50 * 3.0


def test_a_validation_half_done_counts_half():
    run = Run(epochs=2, steps=20, per_epoch=10, every=1, update=1.0, validation=40.0)
    run.times()
    forecast = Forecast(3, 30, 10, clock=lambda: run.now)
    forecast.validated, forecast.validating = 1.0, 40.0
    forecast.begin_epoch(3)
    for step in range(20, 30):
        run.now += 1.0
        forecast.update(step + 1)
    assert forecast.left(0.0) == 40.0
    assert forecast.left(0.5) == 20.0
