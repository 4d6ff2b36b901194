"""A run has one set of loading processes, or says why it has none."""

import pytest

from vitreous.data.loading import workers
from vitreous.training.planning import plan as planning
from vitreous.training.planning.budget import Cost
from vitreous.training.planning.plan import make_plan
from vitreous.training.run import run_training

SETTINGS = {"batch_size": 512, "depth": 1, "threads": 1, "device": "cpu", "workers": 2}


@pytest.fixture
def launchers(monkeypatch):
    """The launchers that are started."""
    started, launcher = [], workers.Launcher
    monkeypatch.setattr(workers, "Launcher", lambda patience: started.append(launcher(patience)) or started[-1])
    return started


def test_epochs_validation_and_test_share_the_processes(tmp_path, launchers):
    settings = SETTINGS | {"epochs": 3, "worker_timeout": 99.0}
    run_training("digits", out=tmp_path / "run", settings=settings, quiet=True)
    (launcher,) = launchers
    assert launcher.patience == 99
    assert launcher.process.poll() is not None


def test_the_processes_end_with_a_run_that_fails(tmp_path, launchers, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr("vitreous.training.run.fit", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run_training("digits", out=tmp_path / "run", settings=SETTINGS, quiet=True)
    (launcher,) = launchers
    assert launcher.process.poll() is not None


def test_a_plan_says_why_it_has_no_processes(monkeypatch):
    monkeypatch.setattr(planning, "obstacle", lambda *loaders: "Mine is defined in the script itself")
    notes = []
    plan = make_plan("digits", "auto", "digits", SETTINGS, notes.append)
    assert plan.workers == plan.processes.count == 0
    assert "images are loaded in the main process: Mine is defined in the script itself" in notes


def test_whether_data_can_be_sent_is_asked_once_for_all_choices_within_a_budget(monkeypatch):
    asked, measured = [], []

    def fit(draft, data, start, cost_of, notify):
        for _ in range(3):
            cost_of(*planning.resolve_recipe(draft, data, start))
        return draft, None

    monkeypatch.setattr(planning, "fit", fit)
    monkeypatch.setattr(planning, "obstacle", lambda *loaders: asked.append(len(loaders)))

    def measure(plan):
        measured.append(plan)
        return Cost(1.0, 1.0, 1, plan.workers)

    plan = make_plan("digits", "auto", "digits", SETTINGS, print, measure)
    assert [draft.workers for draft in measured] == [plan.workers] * 3 == [2] * 3
    assert asked == [3], "with the loaders of all splits"
