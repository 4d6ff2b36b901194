"""`vt.check`: a look at a data set before it is trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np

from vitreous.data.check.classes import class_findings, counts_of
from vitreous.data.check.duplicates import copy_findings, equal_groups
from vitreous.data.check.files import file_findings, mode_counts
from vitreous.data.check.findings import COLUMNS, Finding, by_severity
from vitreous.data.check.fingerprints import near_groups
from vitreous.data.check.samples import Samples
from vitreous.data.check.scan import Scan, scan
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData
from vitreous.support.counts import spread
from vitreous.support.errors import InputError
from vitreous.support.text import counted, printable

MOST_DECODED = 200_000  # images; of more, this many are decoded, spread evenly
NEAR_SIDE = 24  # pixels of the shorter side, below which fingerprints say little
MAX_BAD_FRACTION = 0.01  # of a split that may be unusable, as in a recipe


@dataclass(frozen=True, eq=False)
class Check:
    """What a check has found; it shows itself in notebooks.

    Args:
        data: the source.
        scan: what its files are.
        findings: the serious ones first.
    """

    data: ImageData
    scan: Scan
    findings: tuple[Finding, ...]

    @property
    def wise(self) -> bool:
        """Whether there is nothing to fix before training."""
        return all(finding.severity != "fix" for finding in self.findings)

    @cached_property
    def samples(self) -> Samples:
        """The samples of all splits, by their number in the scan."""
        return Samples(self.data)

    @cached_property
    def counts(self) -> np.ndarray:
        """The images of each class in each split, "splits classes"."""
        return counts_of(self.data)

    def sizes(self) -> dict[str, Any] | None:
        """The median, smallest and largest (height, width), and the last two images; None if none is readable."""
        numbers = np.flatnonzero(self.scan.rows["readable"])
        if not len(numbers):
            return None
        height, width = (self.scan.rows[side][numbers].astype(np.int64) for side in ("height", "width"))
        result: dict[str, Any] = {"median": [int(np.median(height)), int(np.median(width))]}
        for name, place in (("smallest", np.argmin(height * width)), ("largest", np.argmax(height * width))):
            result[name] = [int(height[place]), int(width[place])]
            result[f"{name}_image"] = self.samples.name(int(numbers[place]))
        return result

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON. The keys stay; findings are described in `findings.COLUMNS`."""
        names = self.data.class_names
        readable = self.scan.rows["readable"]
        return {
            "data": self.data.name,
            "wise": self.wise,
            "classes": list(names),
            "splits": {
                split.name: {"images": len(split), "classes": dict(zip(names, row, strict=True))}
                for split, row in zip(self.data.splits, self.counts.tolist(), strict=True)
            },
            "sizes": self.sizes(),
            "modes": mode_counts(self.scan, self.data.channels),
            "transparent": int(self.scan.rows["transparent"][readable].sum()),
            "readable": int(readable.sum()),
            "decoded": int(self.scan.rows["decoded"].sum()),
            "ignored": dict(self.data.ignored),
            "notes": list(self.data.notes),
            "findings": [
                {
                    "kind": finding.kind,
                    "severity": finding.severity,
                    "text": finding.text,
                    "hint": finding.hint,
                    "items": [dict(zip(COLUMNS[finding.kind], row, strict=True)) for row in finding.items],
                    "left_out": finding.left_out,
                }
                for finding in self.findings
            ],
        }

    def __repr__(self) -> str:
        to_fix = sum(finding.severity == "fix" for finding in self.findings)
        return f"Check({self.data.name!r}, {to_fix} to fix, {counted(len(self.findings) - to_fix, 'notice')})"

    def _repr_html_(self) -> str:
        """The findings as a table."""
        rows = "".join(
            f"<tr><td>{finding.severity}</td><td style='text-align:left'>{escape(printable(finding.text))}</td>"
            f"<td style='text-align:left'>{escape(printable(finding.hint))}</td></tr>"
            for finding in self.findings
        )
        title = f"{escape(printable(self.data.name))}: {counted(len(self.samples), 'image')}"
        return f"<table><caption>{title}</caption>{rows or '<tr><td>nothing found</td></tr>'}</table>"


def check(
    data: Any,
    *,
    settings: Mapping[str, Any] | None = None,
    options: DataOptions | None = None,
    quick: bool = False,
    most_decoded: int = MOST_DECODED,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    show: Callable[[int], None] = lambda done: None,
) -> Check:
    """Looks at a data set before it is trained on: broken files, copies, leaks between splits, odd classes and sizes.

    Args:
        data: a source as `vitreous.train` takes it, or an opened one.
        settings: of how to read a source that is not open, as `--set` names them, such as {"channels": 4}.
        options: the same as an object, which the settings override.
        quick: read headers and contents, but decode nothing; near copies and files broken inside are not found.
        most_decoded: of more images, this many are decoded, spread evenly over the splits.
        max_bad_fraction: of a split that may be unusable.
        show: called with the number of images done.

    Raises:
        InputError: the source cannot be opened, as `open_data` says; or a setting is not valid, or is of no use.
    """
    settings = dict(settings or {})
    for name in ("max_bad_fraction", "data.max_bad_fraction"):
        max_bad_fraction = settings.pop(name, max_bad_fraction)
    if settings and isinstance(data, ImageData):
        raise InputError("the data is open already, so settings change nothing", "give the source itself")
    options = (options or DataOptions()).with_settings(settings)
    opened = data if isinstance(data, ImageData) else open_data(data, options)
    samples = Samples(opened)
    decoded = np.zeros(len(samples), bool)
    if not quick:
        decoded[spread(len(samples), most_decoded)] = True
    seen = scan(samples, decoded, show)
    readable = seen.rows["readable"]
    counts = np.stack(
        [
            np.bincount(samples.labels[(samples.splits == split) & readable], minlength=len(opened.class_names))
            for split in range(len(opened.splits))
        ]
    )
    findings = class_findings(opened, counts) + file_findings(samples, seen, max_bad_fraction)
    findings += duplicate_findings(samples, seen)
    if not decoded.all():
        findings.append(_not_decoded(int((~decoded).sum()), len(samples)))
    return Check(opened, seen, tuple(by_severity(findings)))


def duplicate_findings(samples: Samples, seen: Scan) -> list[Finding]:
    """What exact and near copies mean."""
    rows = seen.rows
    readable = np.flatnonzero(rows["readable"])
    exact = equal_groups(rows["digest"][readable], readable, len(samples))
    findings = copy_findings(samples, exact)
    large = np.minimum(rows["height"], rows["width"]) >= NEAR_SIDE
    numbers = np.flatnonzero(rows["decoded"] & ~rows["flat"] & large)
    if len(numbers):
        near, left_out = near_groups(rows["hashes"][numbers], numbers, len(samples))
        findings += copy_findings(samples, exact, near)
        if left_out:
            text = f"{left_out:,} images look so similar that near copies among them were not all compared"
            findings.append(Finding("not_compared", "notice", text, ((left_out,),)))
    return findings


def _not_decoded(count: int, total: int) -> Finding:
    """How many images were not decoded, and what may have been missed."""
    if count == total:
        text = (
            "no image was decoded, so files broken after their header, near copies and blank images were not looked for"
        )
        return Finding("not_decoded", "notice", text, ((count,),), 0, "check without --quick finds them")
    text = f"{total - count:,} of {total:,} images were decoded, spread evenly; of the others only the header was read"
    return Finding("not_decoded", "notice", text, ((count,),), 0, "--most 0 decodes all of them")
