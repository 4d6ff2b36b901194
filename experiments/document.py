"""docs/results.md: the parts between marks are generated from the results."""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from experiments import curves
from experiments.results import Result
from experiments.runner import Runner
from experiments.table import Experiment, Levels, Run
from vitreous.evaluation.metrics import wilson_interval
from vitreous.support.files import write_text

DOCUMENT, PICTURES = Path("docs", "results.md"), Path("docs", "results")
NOT_YET = "not run yet"
Results = dict[str, list[Result]]  # of each run that has some, by its name


def write(runner: Runner) -> None:
    """Rewrites the document's generated parts and pictures; text outside the marks stays."""
    path = runner.root / DOCUMENT
    text = path.read_text(encoding="utf-8")
    for experiment in runner.table:
        results = finished(runner, experiment)
        text = replaced(text, experiment.name, part(runner, experiment, results))
        if has_curves(experiment, results):
            curves.draw(results, experiment, picture(runner.root, experiment))
    write_text(path, text)


def replaced(text: str, name: str, part: str) -> str:
    """The document with a new part between the marks of a name, which must exist."""
    text, count = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda marks: marks[1] + part + marks[2], text, flags=re.DOTALL
    )
    assert count == 1, f"the document has {count} parts with the marks of {name}"
    return text


def finished(runner: Runner, experiment: Experiment) -> Results:
    """The results of an experiment so far."""
    results = {
        run.name: [result for seed in run.seeds if (result := runner.result(experiment, run, seed)) is not None]
        for run in experiment.runs
    }
    return {name: of_run for name, of_run in results.items() if of_run}


def picture(root: Path, experiment: Experiment) -> Path:
    """The file of an experiment's picture."""
    return root / PICTURES / f"{experiment.name}.png"


def has_curves(experiment: Experiment, results: Results) -> bool:
    """Whether there is something to draw."""
    return any(curves.points(result, experiment) for of_run in results.values() for result in of_run)


def part(runner: Runner, experiment: Experiment, results: Results) -> str:
    """The part of an experiment."""
    levels = experiment.levels
    table = accuracy_table(experiment, results) if levels is None else levels_table(experiment.runs, levels, results)
    parts = [f"## {experiment.title}", experiment.question, table]
    parts += [goal_line(run, results.get(run.name, [])) for run in experiment.runs if run.goal]
    if results:
        parts.append(machine_line(results))
    commands = [shlex.join(runner.shown(experiment, run, run.seeds[0])) for run in experiment.runs]
    parts.append("\n".join(("```sh", *commands, "```")))
    if has_curves(experiment, results):
        parts.append(f"![{curves.measured(experiment)}]({PICTURES.name}/{experiment.name}.png)")
    return "\n\n".join(parts) + "\n"


def accuracy_table(experiment: Experiment, results: Results) -> str:
    """A row for each run: accuracies over its seeds, and their cost."""
    header = ["run", "accuracy", "lowest to highest", "95 % interval", "of", "seeds", "best epoch"]
    header += ["seconds", "CPU seconds", "images seen"]
    base = results.get(experiment.baseline or "")
    if experiment.baseline:
        header[4:4] = [f"beside {experiment.baseline} (95 % interval)"]
    rows = []
    for run in experiment.runs:
        of_run = results.get(run.name)
        if not of_run:
            rows.append(not_run(run, header))
            continue
        row = [f"`{run.name}`", *accuracy_cells(of_run), measured_on(of_run[0]), seeds_cell(run, of_run)]
        row += [listed(result.best_epoch for result in of_run)]
        row += [average(result.wall_seconds for result in of_run), average(result.cpu_seconds for result in of_run)]
        row += [average(result.images_seen for result in of_run)]
        if experiment.baseline:
            row[4:4] = ["" if base is None or run.name == experiment.baseline else difference_cell(of_run, base)]
        rows.append(row)
    return markdown(header, rows)


def not_run(run: Run, header: list[str]) -> list[str]:
    """The row of a run without a result."""
    return [f"`{run.name}`", NOT_YET, *[""] * (len(header) - 2)]


def levels_table(runs: Sequence[Run], levels: Levels, results: Results) -> str:
    """A row for each run: what it measured at each level."""
    interval = ["95 % interval"] if levels.with_interval else []
    header = [levels.of, *levels.columns.values(), *interval, "of", "seeds"]
    rows = []
    for run in runs:
        of_run = results.get(run.name)
        if not of_run:
            rows.append(not_run(run, header))
            continue
        cells = [spread([result.levels[key] for result in of_run if result.levels]) for key in levels.columns]
        cells += [interval_cell(of_run)] * levels.with_interval
        rows.append([f"`{run.name}`", *cells, measured_on(of_run[0]), seeds_cell(run, of_run)])
    return markdown(header, rows)


def accuracy_cells(results: list[Result]) -> list[str]:
    """The mean accuracy, its spread, and the mean's interval."""
    accuracies = [result.accuracy for result in results]
    low_to_high = f"{percent(min(accuracies))} to {percent(max(accuracies))}" if len(accuracies) > 1 else ""
    return [f"**{percent(fmean(accuracies))}**", low_to_high, interval_cell(results)]


def spread(values: list[float]) -> str:
    """A mean, and the lowest and the highest if they differ."""
    middle = percent(fmean(values))
    return middle if min(values) == max(values) else f"{middle} ({percent(min(values))} to {percent(max(values))})"


def interval_cell(results: list[Result]) -> str:
    """The interval of the mean accuracy; none for hidden patches, which are not independent."""
    interval = interval_of(results)
    return "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"


def interval_of(results: list[Result]) -> tuple[float, float] | None:
    """Wilson's 95 % interval of the mean accuracy on the split's images: more seeds do not add images."""
    count = results[0].count
    if count is None:
        return None
    return wilson_interval(round(fmean(result.accuracy for result in results) * count), count)


def difference_cell(results: list[Result], base: list[Result]) -> str:
    """How much better than the baseline, with the interval of the difference, in percentage points."""
    interval = difference_interval(results, base)
    difference = fmean(result.accuracy for result in results) - fmean(result.accuracy for result in base)
    return "" if interval is None else f"{points(difference)} ({points(interval[0])} to {points(interval[1])})"


def difference_interval(results: list[Result], base: list[Result]) -> tuple[float, float] | None:
    """The 95 % interval of the difference of two shares (Newcombe 1998, method 10), as if on different images.

    They are the same images, so the true one is narrower.
    """
    first, second = interval_of(results), interval_of(base)
    if first is None or second is None:
        return None
    p, q = fmean(result.accuracy for result in results), fmean(result.accuracy for result in base)
    below = ((p - first[0]) ** 2 + (second[1] - q) ** 2) ** 0.5
    above = ((first[1] - p) ** 2 + (q - second[0]) ** 2) ** 0.5
    return p - q - below, p - q + above


def goal_line(run: Run, results: list[Result]) -> str:
    """Whether a run's goal is reached."""
    assert run.goal is not None, "the run has a goal"
    goal = f"Goal: {100 * run.goal.accuracy:.0f} % within {run.goal.seconds:,.0f} s"
    if not results:
        return f"{goal}: {NOT_YET}."
    good = sum(one.accuracy >= run.goal.accuracy and one.wall_seconds <= run.goal.seconds for one in results)
    return f"{goal}: reached by {good} of {len(results)} seeds."


def machine_line(results: Results) -> str:
    """The machines, dates and versions of the results."""
    hosts, dates, versions = set(), set(), set()
    for result in (one for of_run in results.values() for one in of_run):
        where = "" if result.host["device"] == "cpu" else f" and {result.host['device']}"
        hosts.add(f"{result.host['cpu']}, {result.host['cores']} cores{where}, torch {result.host['torch']}")
        dates.add(result.date[:10])
        versions.add(result.version)
    when = f"{min(dates)} to {max(dates)}" if len(dates) > 1 else min(dates)
    return f"Machine: {'; '.join(sorted(hosts))}; vitreous {', '.join(sorted(versions))}; {when}."


def measured_on(result: Result) -> str:
    """What the accuracy was measured on."""
    return f"{result.split}, hidden patches" if result.count is None else f"{result.split}, {result.count:,} images"


def seeds_cell(run: Run, results: list[Result]) -> str:
    """The finished seeds, and the missing ones."""
    done = [result.seed for result in results]
    missing = [seed for seed in run.seeds if seed not in done]
    return listed(done) + (f"; {listed(missing)} {NOT_YET}" if missing else "")


def listed(values: Iterable[float | None]) -> str:
    """The values that are not None, separated by commas."""
    return ", ".join(str(value) for value in values if value is not None)


def average(values: Iterable[float | None]) -> str:
    """The mean of the values that are not None; empty if there are none."""
    known = [value for value in values if value is not None]
    return f"{fmean(known):,.0f}" if known else ""


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table, its first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
