"""The outcomes as text: a table by family, totals, and what is refused, for the terminal and for docs/weights.md."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.coverage.families import FAMILIES, FamilyRow, family_of
from benchmarks.coverage.outcome import Outcome

DOCUMENT = Path(__file__).parents[2] / "docs" / "weights.md"
HEAD = ("family", "a line to try", "timm's names", "transformers' classes", "files of the makers")
RESULTS = ("equal", "refused", "different")


def counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many outcomes there are of each result."""
    results = [outcome.result for outcome in outcomes]
    return {result: results.count(result) for result in RESULTS}


def share(outcomes: Sequence[Outcome]) -> str:
    """The cell of a table: how many are equal, of how many; those that differ are pointed out."""
    found = counts(outcomes)
    wrong = f", {found['different']} different" if found["different"] else ""
    return f"{found['equal']} of {len(outcomes)}{wrong}" if outcomes else ""


def in_family(row: FamilyRow, names: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes of timm's names in a family."""
    return [outcome for outcome in names if family_of(outcome.name) is row]


def table(names: Sequence[Outcome], classes: Sequence[Outcome]) -> str:
    """The table of families in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for row in FAMILIES:
        theirs = [outcome for outcome in classes if outcome.name in row.classes]
        cells = (
            row.title,
            f"`{row.line}`" if row.line else "",
            share(in_family(row, names)),
            share(theirs),
            ", ".join(f"`{layout}`" for layout in row.layouts),
        )
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(lines)


def total(library: str, version: str, what: str, outcomes: Sequence[Outcome]) -> str:
    """One line of the totals."""
    found = counts(outcomes)
    equal = [outcome for outcome in outcomes if outcome.result == "equal"]
    back = sum(outcome.back == "equal" for outcome in equal)
    wrong = sum(outcome.back == "different" for outcome in equal)
    largest = max((outcome.difference for outcome in equal), default=0.0)
    numbers = ", ".join(f"{found[result]} {result}" for result in RESULTS)
    exported = f"{back} exported back" + (f" ({wrong} different)" if wrong else "")
    return f"- {library} {version}: {len(outcomes)} {what}: {numbers}; largest difference {largest:.0e}; {exported}"


def refusals(outcomes: Sequence[Outcome]) -> str:
    """What is refused or different, grouped by the line that says why."""
    groups: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.result != "equal":
            architecture = outcome.name.partition(".")[0]
            why = outcome.why.replace(f"'{architecture}'", "…")
            wrong = "" if outcome.result == "refused" else f"{outcome.result}: "
            groups.setdefault(f"{wrong}{why}", []).append(architecture)
    lines = []
    for why, found in sorted(groups.items(), key=lambda item: (-len(item[1]), item[1])):
        architectures = list(dict.fromkeys(found))
        tags = "" if len(found) == len(architectures) else f" ({len(found)} names)"
        lines.append(f"- {', '.join(f'`{name}`' for name in architectures)}{tags}: {escaped(why)}")
    return "\n".join(lines) or "- none"


def remarks(outcomes: Sequence[Outcome]) -> str:
    """What was not tested as published, and what was not exported back, one line each."""
    lines = [f"{outcome.name}: {outcome.note}" for outcome in outcomes if outcome.note and outcome.back == "equal"]
    lines += [
        f"{outcome.name}: its export is {outcome.back}: {outcome.note}"
        for outcome in outcomes
        if outcome.back not in (None, "equal")
    ]
    return "\n".join(lines)


def escaped(line: str) -> str:
    """A message as plain text in Markdown."""
    return re.sub(r"([*_<>|])", r"\\\1", line)


def write(parts: dict[str, str], document: Path = DOCUMENT) -> None:
    """Replaces what is between the marks of each part in the document."""
    text = document.read_text(encoding="utf-8")
    for name, content in parts.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda match: f"{match[1]}{content}\n{match[2]}", text, flags=re.DOTALL)  # noqa: B023
        assert count == 1, f"{document} has no marks for {name}"
    document.write_text(text, encoding="utf-8")
