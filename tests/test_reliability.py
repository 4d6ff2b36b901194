"""`make reliability`, with few faults of each kind, and its document."""

import random
from pathlib import Path

import pytest

from benchmarks.reliability import __main__ as command
from benchmarks.reliability import cost, document
from benchmarks.reliability.disks import mounted
from benchmarks.reliability.document import Row
from benchmarks.reliability.outcome import Lab, Outcome, Tally
from benchmarks.reliability.table import EXPERIMENTS, Experiment
from benchmarks.reliability.tracing import killed_before

ROOT = Path(__file__).parents[1]
GOOD = Outcome(3, 3, 0, "2 of 3 do not load", True)


def experiment(outcome: Outcome) -> Experiment:
    return Experiment(1, "a fault", "it goes on", lambda lab: outcome)


def test_few_faults_of_each_kind_are_survived(fresh_process):
    code = "import sys; from benchmarks.reliability.__main__ import main; sys.exit(main(['--short']))"
    done = fresh_process(code, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", passed") == len(EXPERIMENTS)
    assert "FAILED" not in done.stdout


def test_each_line_has_a_row_in_the_document():
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    for row in EXPERIMENTS:
        assert f"| {row.line} | {row.fault} |" in text


@pytest.mark.parametrize(
    "outcome",
    [
        GOOD._replace(survived=2),
        GOOD._replace(lost=1),
        GOOD._replace(control_failed=False),
        GOOD._replace(injected=0, survived=0),
    ],
)
def test_what_is_not_survived_fails(outcome, monkeypatch, capsys):
    assert GOOD.passed
    assert not outcome.passed
    monkeypatch.setattr(cost, "measured", lambda folder: "")
    for found, code in ((GOOD, 0), (outcome, 1)):
        monkeypatch.setattr(command, "EXPERIMENTS", (experiment(found),))
        assert command.main(["--seed", "7"]) == code
    assert "seed 7" in capsys.readouterr().out


def test_a_fault_counts_once():
    tally = Tally()
    tally.add(None)
    tally.add("it is gone", lost=5)
    outcome = tally.outcome("the same", True)
    assert outcome == Outcome(2, 1, 5, "the same", True, ("it is gone",))
    assert document.failures([Row(experiment(outcome), outcome, 1.0)]) == ["line 1: it is gone"]
    control = GOOD._replace(control_failed=False)
    lines = document.failures([Row(experiment(control), control, 1.0)])
    assert lines == ["line 1: the control did not fail: 2 of 3 do not load"]


def test_the_table_and_the_document(tmp_path):
    rows = [Row(experiment(GOOD), GOOD, 1.4), Row(experiment(GOOD), None, 0.0, "mounting needs root")]
    head, _, first, second = document.table(rows).splitlines()
    assert head.startswith("| line | fault |")
    assert first == "| 1 | a fault | it goes on | 3 | 3 | 0 | 1 | 2 of 3 do not load |"
    assert second == "| 1 | a fault | it goes on | left out | | | | mounting needs root |"
    path = tmp_path / "reliability.md"
    path.write_text("before\n<!-- reliability -->\nold\n<!-- /reliability -->\nafter\n", encoding="utf-8")
    document.write("new\\1", path)
    assert path.read_text(encoding="utf-8").splitlines()[2] == "new\\1"


def test_the_cost_of_checkpoints(tmp_path, monkeypatch, capsys):
    settings = {**cost.MODEL, "variant": "mu/4", "depth": 2, "image_size": 8, "threads": 1}
    found = cost.measure(tmp_path, settings, pairs=2, updates=2)
    assert found.size > sum(path.stat().st_size for path in (tmp_path / "run").glob("*.safetensors"))
    assert [*map(len, found[1:])] == [2, 2, 2, 2]
    assert all(processor <= seconds for processor, seconds in zip(found.processor, found.seconds, strict=True))
    found = cost.Cost(350_000_000, [0.6, 0.6], [2.0, 4.0], [1.0, 2.0], [(12.0, 10.0), (11.0, 10.0)])
    lines = cost.table(found, [(1.2, 1.0)]).splitlines()
    assert "| size of a checkpoint | 350 MB |" in lines
    assert "| with a checkpoint each 10 minutes | 0.10% waiting, 0.25% of one core writing |" in lines
    assert "| a block of updates takes longer by | 1.50 (1.25 to 1.75) s, of 10.00 (10.00 to 10.00) s |" in lines
    assert lines[-1].endswith("| 20.0 (20.0 to 20.0) % longer than without |")

    monkeypatch.setattr(cost, "measured", lambda folder: "a table")
    path = tmp_path / "reliability.md"
    path.write_text("before\n<!-- cost -->\nold\n<!-- /cost -->\nafter\n", encoding="utf-8")
    assert command.main(["--only", "cost", "--out", str(path)]) == 0
    assert path.read_text(encoding="utf-8").splitlines()[-3:] == ["a table", "<!-- /cost -->", "after"]
    assert "seed" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--only", "1", "--out", str(path)])


def test_what_the_machine_lacks_is_left_out_and_said(tmp_path, monkeypatch, capsys):
    def run(lab: Lab) -> Outcome:
        with mounted(lab.folder / "disk", "-t", "tmpfs", "tmpfs"):
            return GOOD

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(command, "EXPERIMENTS", (Experiment(10, "a full disk", "", run),))
    assert command.main(["--short"]) == 0
    assert "| 10 | a full disk | | left out | | | | mounting needs root" in capsys.readouterr().out


def test_an_experiment_that_breaks_does_not_pass(monkeypatch, capsys):
    def run(lab: Lab) -> Outcome:
        raise OSError("no such thing")

    monkeypatch.setattr(command, "EXPERIMENTS", (Experiment(1, "a fault", "", run),))
    assert command.main(["--short"]) == 1
    assert "no such thing" in capsys.readouterr().err


def test_a_child_is_killed_before_each_call(tmp_path):
    """It makes files one by one; those that are there are the first ones, and one more only after more calls."""
    found = []
    for call in range(100):
        for path in tmp_path.iterdir():
            path.unlink()
        killed = killed_before(call, lambda: [(tmp_path / f"{number}").touch() for number in range(3)])
        found.append(sorted(path.name for path in tmp_path.iterdir()))
        if not killed:
            break
    assert found[0] == []
    assert found[-1] == ["0", "1", "2"]
    assert [len(names) for names in found] == sorted(map(len, found))
    assert {1, 2} <= {*map(len, found)}


def test_the_same_seed_draws_the_same_moments(tmp_path):
    drawn = []

    def run(lab: Lab) -> Outcome:
        assert isinstance(lab.draw, random.Random)
        assert not [*lab.folder.iterdir()]
        drawn.append((lab.draw.random(), lab.count(100, 1)))
        return GOOD

    for short in (False, True):
        command.measured(Experiment(1, "", "", run), 7, short)
    assert drawn[0][0] == drawn[1][0]
    assert [count for _, count in drawn] == [100, 1]


FORKS = """
import os, signal, subprocess
from pathlib import Path
from benchmarks.reliability.warm import fork

def run(program):
    return fork(Path("/"), ["list", "recipes"], {"A": "1"}, program)

process = run(None)
output, error = process.communicate()
print("whole", process.returncode, "small-data" in output, error == "")
process = run("import sys, os; print(os.getcwd(), dict(os.environ)); print('bad', file=sys.stderr); sys.exit(3)")
print("ended", process.communicate(), process.returncode)
process = run("raise ValueError('no such thing')")
print("raised", "no such thing" in process.communicate()[1], process.returncode)
process = run("import time; print('here', flush=True); time.sleep(600)")
print("line", next(process.stdout).strip(), process.poll())
try:
    process.wait(0.1)
except subprocess.TimeoutExpired:
    print("late")
process.send_signal(signal.SIGTERM)
print("signal", process.wait(60))
process.kill()
"""


def test_a_fork_is_a_process_of_its_own(fresh_process):
    done = fresh_process(FORKS, timeout=600)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "whole 0 True True",
        "ended (\"/ {'A': '1'}\\n\", 'bad\\n') 3",
        "raised True 1",
        "line here None",
        "late",
        "signal -15",
    ]
