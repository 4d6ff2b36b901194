"""What a check finds: each finding has a kind, how serious it is, one sentence, and a table of what it is about."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["fix", "notice"]  # fix: training on it would mislead
Row = tuple[str | int, ...]

GROUPS = ("group", "split", "class", "image")  # images of one group are copies of each other
REASONS = ("split", "class", "image", "reason")
SIZES = ("split", "class", "image", "height", "width")
IMAGES = ("split", "class", "image")
COUNTS = ("class", "images")
# The kinds, and the columns of their tables. `vitreous check --json` has these names: they stay.
COLUMNS: dict[str, tuple[str, ...]] = {
    "leak": GROUPS,  # copies in two splits
    "conflict": GROUPS,  # copies with different classes
    "near_leak": GROUPS,
    "near_conflict": GROUPS,
    "broken": REASONS,
    "oversized": REASONS,
    "no_images": COUNTS,  # classes without a training image
    "similar_names": ("class", "other_class"),
    "missing_class": ("split", "class"),  # classes that a split lacks
    "tiny_class": COUNTS,
    "lopsided": COUNTS,
    "duplicate": GROUPS,  # copies within a split and class
    "near_duplicate": GROUPS,
    "repaired": REASONS,
    "flat": IMAGES,
    "small": SIZES,
    "elongated": SIZES,
    "mixed_depth": ("mode", "images"),
    "shortcut": ("class", "property", "images"),  # properties of files that give a class away
    "not_decoded": ("images",),  # how many were not, by --quick or of very many
    "not_compared": ("images",),  # how many were left out of the search for copies
}


@dataclass(frozen=True)
class Finding:
    """One thing to know about a data set.

    Args:
        kind: a key of COLUMNS.
        severity: "fix" if training would mislead, otherwise "notice".
        text: a sentence without its period.
        items: what it is about, as rows with the columns of its kind; of very many, the first.
        left_out: rows that `items` leaves out.
        hint: what to do about it; empty if nothing helps.
    """

    kind: str
    severity: Severity
    text: str
    items: tuple[Row, ...] = ()
    left_out: int = 0
    hint: str = ""


def by_severity(findings: list[Finding]) -> list[Finding]:
    """The findings with the serious ones first, otherwise in their order."""
    return sorted(findings, key=lambda finding: finding.severity != "fix")
