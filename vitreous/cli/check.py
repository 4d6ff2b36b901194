"""`vitreous check`."""

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitreous.cli.app import read_settings
from vitreous.cli.inputs import check_unused, counting
from vitreous.support.errors import InputError
from vitreous.support.text import counted, printable, tallied

if TYPE_CHECKING:
    from vitreous.data.check.check import Check
    from vitreous.data.check.findings import Finding, Row
    from vitreous.data.sources.options import DataOptions

UNWISE = 1  # the exit code where training would be unwise
SHOWN = 5  # rows of a finding that are printed
CLASSES = 8  # of a split that are printed, from the largest


def command(
    data: Annotated[str, typer.Argument(help="A source of labeled images, as vitreous train takes it.")],
    out: Annotated[
        Path | None,
        typer.Option(help="A new or empty folder for a page, a contact sheet and all findings as JSON and CSV."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read headers and compare files, but decode no image.")
    ] = False,
    most: Annotated[
        int | None,
        typer.Option(min=0, help="The most images to decode, spread evenly; 0 for all. Default: 200,000."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a setting of the data, such as follow_links=true; repeatable."
        ),
    ] = None,
) -> None:
    """Look at a data set before training: leaks, copies, broken files, odd classes.

    The exit code is 1 if training on the data would be unwise.
    """
    options, max_bad_fraction = data_options(read_settings(settings or []))
    if out is not None:
        check_out(out, data)

    from vitreous.data.check.check import MOST_DECODED, check
    from vitreous.data.sources.open import open_data

    opened = open_data(data, options)
    most_decoded = MOST_DECODED if most is None else most or sys.maxsize
    with counting(sum(map(len, opened.splits))) as show:
        result = check(opened, quick=quick, most_decoded=most_decoded, max_bad_fraction=max_bad_fraction, show=show)
    if out is not None:
        from vitreous.pages.check import write_check

        write_check(result, out)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    else:
        for line in lines_of(result, out):
            print(printable(line))
    if not result.wise:
        raise typer.Exit(UNWISE)


def data_options(settings: dict[str, str]) -> "tuple[DataOptions, float]":
    """How to read the source, and the share of a split that may be unusable, from the user's --set.

    Raises:
        InputError: a key is not a setting of the data, or a value is not valid.
    """
    from vitreous.data.check.check import MAX_BAD_FRACTION
    from vitreous.data.sources.options import DataOptions

    if not settings:  # without torch, which recipes import
        return DataOptions(), MAX_BAD_FRACTION
    from vitreous.training.recipe.recipe import Recipe, find_leaf

    for key in settings:
        if find_leaf(key)[0] != "data":
            hint = "use --set for how images are read, such as max_pixels=200_000_000"
            raise InputError(f"{key!r} is not a setting of the data", hint)
    section = Recipe().with_settings(settings).data
    return section.options, section.max_bad_fraction


def check_out(out: Path, data: str) -> None:
    """Raises InputError if the output would be inside the data, or in a folder that is used."""
    folder, target = Path(data), out.resolve()
    if folder.is_dir() and target.is_relative_to(folder.resolve()):
        raise InputError(f"--out {str(out)!r} is inside the data", "choose a folder outside of it, such as checks")
    check_unused(out)


def lines_of(check: "Check", out: Path | None) -> Iterator[str]:
    """What is printed: the data as it will be read, then the findings."""
    data = check.data
    yield f"{data.name}: {counted(len(check.samples), 'image')} of {counted(len(data.class_names), 'class')}"
    width = max(len(split.name) for split in data.splits)
    for split, counts in zip(data.splits, check.counts.tolist(), strict=True):
        yield f"  {split.name:{width}}  {len(split):>9,}  {classes_text(data.class_names, counts)}"
    yield from files_lines(check)
    if data.ignored:
        yield f"  left out: {tallied(data.ignored)}"
    known = {finding.text for finding in check.findings}
    yield from (f"  note: {note}" for note in data.notes if note not in known)
    for finding in check.findings:
        yield ""
        yield f"{finding.severity}: {finding.text}"
        yield from (f"  {line}" for line in rows_text(finding))
        if finding.hint:
            yield f"  hint: {finding.hint}"
    yield ""
    to_fix = sum(finding.severity == "fix" for finding in check.findings)
    yield f"{to_fix} to fix before training" if to_fix else "nothing to fix before training"
    if out is not None:
        yield f"written to {out}: check.html, contact_sheet.png, check.json, findings.csv"
    elif check.findings:
        yield f"all of it, with pictures: vitreous check {shlex.quote(data.name)} --out check"


def classes_text(names: Sequence[str], counts: Sequence[int]) -> str:
    """The classes of a split with their counts; of many, the largest and the smallest."""
    pairs = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True)]
    if len(pairs) <= CLASSES:
        return ", ".join(pairs)
    order = sorted(range(len(counts)), key=lambda i: -counts[i])
    ends = [pairs[i] for i in (*order[: CLASSES // 2], *order[-CLASSES // 2 :])]
    return f"{', '.join(ends[: CLASSES // 2])} … {', '.join(ends[CLASSES // 2 :])}"


def files_lines(check: "Check") -> Iterator[str]:
    """The sizes and modes of the images."""
    from vitreous.data.check.files import mode_counts

    sizes = check.sizes()
    if sizes is None:
        return
    median, smallest, largest = ("×".join(map(str, sizes[key])) for key in ("median", "smallest", "largest"))
    text = f"{median}, all of them"
    if smallest != largest:
        text = f"median {median}, from {smallest} ({sizes['smallest_image']}) to {largest} ({sizes['largest_image']})"
    yield f"  height×width: {text}"
    modes = ", ".join(f"{count:,} {mode}" for mode, count in mode_counts(check.scan, check.data.channels).items())
    transparent = int(check.scan.rows["transparent"].sum())
    if modes:
        yield f"  modes: {modes}" + (f"; {transparent:,} with transparency, shown on white" if transparent else "")


def copies_text(rows: "Sequence[Row]") -> str:
    """The images of a group on one line, with their splits where these differ and the folders do not show it."""
    held_out = len({row[1] for row in rows}) > 1 and len({str(row[3]).partition("/")[0] for row in rows}) == 1
    return " = ".join(f"{row[3]} ({row[1]})" if held_out else str(row[3]) for row in rows)


def rows_text(finding: "Finding") -> list[str]:
    """The first images of a finding; copies of one image on one line."""
    from vitreous.data.check.findings import COLUMNS, GROUPS, REASONS, SIZES

    columns = COLUMNS[finding.kind]
    if "image" not in columns:  # the text has it all
        return []
    if columns == GROUPS:
        lines = [copies_text([*rows]) for _, rows in groupby(finding.items, itemgetter(0))]
    else:
        text_of = "{2}: {3}" if columns == REASONS else "{2}: {3}×{4}" if columns == SIZES else "{2}"
        lines = [text_of.format(*row) for row in finding.items]
    more = len(lines) > SHOWN or finding.left_out
    return lines[:SHOWN] + (["… --json lists more"] if more else [])
