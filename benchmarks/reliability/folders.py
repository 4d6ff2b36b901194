"""Lines 14 and 15: two runs in one folder, and what is removed from it."""

import random
import time
from pathlib import Path
from unittest.mock import patch

from benchmarks.reliability.damage import with_flip
from benchmarks.reliability.kills import state_of
from benchmarks.reliability.outcome import Lab, Outcome, Tally
from benchmarks.reliability.runs import OFTEN, SETTINGS, Process, make_photos, newest, size_of, start, words
from vitreous.checkpoints.store import load_model
from vitreous.training.checkpointing.files import Checkpoints
from vitreous.training.run import run_training

REFUSALS = ("is writing to the folder", "already has a trained model", "is not empty")
NO_LOCK = "import filelock; filelock.FileLock.acquire = lambda self, *given, **options: None"
WRITES = 12  # in a trial of what is kept


def two_runs(lab: Lab) -> Outcome:
    """Two processes train into one folder, started together or one a little later."""
    tally, photos = Tally(), make_photos(lab.folder / "photos")
    for trial in range(lab.count(20, 1)):
        arguments = [photos.name, "--out", f"run{trial}", *words({**SETTINGS, "epochs": lab.count(60, 9)})]
        first = start(lab.folder, arguments)
        time.sleep(lab.draw.choice([0.0, lab.draw.uniform(0, 4)]))
        second = start(lab.folder, arguments)
        errors = [process.communicate()[1] for process in (first, second)]
        codes = sorted((first.returncode, second.returncode))
        problem = None
        if codes != [0, 2]:
            problem = f"exit statuses {codes}"
        elif not any(refusal in error for error in errors for refusal in REFUSALS):
            problem = f"not said: {errors}"
        elif newest(lab.folder / f"run{trial}") is None:
            problem = "no checkpoint loads"
        tally.add(None if problem is None else f"two runs, trial {trial}: {problem}")
    arguments = [photos.name, "--out", "control", *words({**SETTINGS, "epochs": 2})]
    start(lab.folder, arguments).communicate()
    resume = ["--resume", "control", "--set", "epochs=4000"]
    both = [start(lab.folder, resume, NO_LOCK) for _ in range(2)]
    goes_on = [is_going_on(process) for process in both]
    for process in both:
        process.kill()
        process.communicate()
    control = "without the lock: " + ("both write to the folder" if all(goes_on) else "one is refused")
    return tally.outcome(control, all(goes_on))


def is_going_on(process: Process) -> bool:
    """Whether a resumed run trains; waits until it does, or ends."""
    assert process.stdout is not None
    return any(line.startswith("going on") for line in process.stdout)


def retention(lab: Lab) -> Outcome:
    """Many checkpoints after the best one, some of them damaged; and a run whose first epoch is the best."""
    tally, lost_best = Tally(), 0
    trials = lab.count(25, 3)
    for trial in range(trials):
        folder = lab.sub(f"trial{trial}")
        problem, lost = one_trial(lab, folder)
        tally.add(None if problem is None else f"trial {trial}: {problem}", lost)
        lost_best += newest_two_lose_best(lab.draw)
    problem = best_epoch_stays(lab)
    tally.add(None if problem is None else f"a run whose first epoch is the best: {problem}")
    control = f"the newest two files kept: the best is deleted in {lost_best} of {trials}"
    return tally.outcome(control, lost_best > 0)


def one_trial(lab: Lab, folder: Path) -> tuple[str | None, int]:
    """What is wrong after some checkpoints of which the newest is damaged now and then, and the bytes lost."""
    checkpoints, best = Checkpoints(folder, lambda line: None), b""
    for number in range(1, WRITES):
        if not best or lab.draw.random() < 0.2:
            best = f"the best, of {number}".encode()
            (folder / "model.safetensors").write_bytes(best)
        path = checkpoints.write(state_of(number), step=number)
        found = newest(folder)
        if found is None or found.state["number"] != number:
            return f"checkpoint {number} is not found", size_of(path)
        if (found.path / "model.safetensors").read_bytes() != best:
            return f"the best model is not in checkpoint {number}", len(best)
        if number > 1 and lab.draw.random() < 0.5:
            file = lab.draw.choice(sorted(path.iterdir()))
            file.write_bytes(with_flip(file.read_bytes(), lab.draw.randrange(8 * file.stat().st_size)))
            found = newest(folder)
            if found is None:
                return f"nothing is left when checkpoint {number} is damaged", size_of(path)
    return (None if (folder / "model.safetensors").read_bytes() == best else "the best model is gone"), 0


def newest_two_lose_best(draw: random.Random) -> bool:
    """Whether the usual retention, of the newest two of some checkpoints, deletes the best of them."""
    best = draw.randrange(WRITES)
    return best < WRITES - 2


def best_epoch_stays(lab: Lab) -> str | None:
    """What is wrong with the model of a run whose first epoch is the best of many."""
    photos = make_photos(lab.folder / "photos")
    with patch("vitreous.training.records.log.is_better", lambda row, best, keep_by: best is None):
        out = run_training(
            photos, out=lab.folder / "run", settings={**SETTINGS, **OFTEN, "epochs": 9}, quiet=True
        ).folder
    files = [out / "model.safetensors", *(path / "model.safetensors" for path in (out / "checkpoints").iterdir())]
    epochs = [load_model(file).metadata["epoch"] for file in files]
    return None if epochs == [1, 1, 1] else f"the models are of epochs {epochs}"
