"""Findings about files and pixels, from a scan: one function per kind, and a table of them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from vitreous.data.check.classes import MOST_ITEMS
from vitreous.data.check.findings import Finding, Row, Severity
from vitreous.data.check.samples import Samples
from vitreous.data.check.scan import DEEP, GRAY, MODES, Fault, Scan
from vitreous.support.counts import too_many_broken
from vitreous.support.text import counted, listed

TOO_LARGE = ("is too large", "has more than")  # how the reasons of oversized files begin
SMALL = 4  # times smaller than the median image, by the shorter side
ELONGATED = 4  # times longer than wide
MOST = 0.9  # share of a class that has a property, and of the others that have not: a shortcut
ENOUGH = 10  # images of a class, to speak of a shortcut


def file_findings(samples: Samples, scan: Scan, max_bad_fraction: float) -> list[Finding]:
    """The findings about files.

    Args:
        samples: of all splits.
        scan: of these samples.
        max_bad_fraction: of a split that may be unusable; a run stops at more.
    """
    found = unusable(samples, scan, max_bad_fraction)
    return [*found, *(finding for check in CHECKS for finding in check(samples, scan))]


def unusable(samples: Samples, scan: Scan, max_bad_fraction: float) -> list[Finding]:
    """Broken and oversized files, with their reasons."""
    too_many = any(
        too_many_broken(int(np.sum(~scan.rows["readable"][start:end])), end - start, max_bad_fraction)
        for start, end in pairwise(samples.starts.tolist())
    )
    severity: Severity = "fix" if too_many else "notice"
    oversized = [fault for fault in scan.bad if fault.reason.startswith(TOO_LARGE)]
    broken = [fault for fault in scan.bad if not fault.reason.startswith(TOO_LARGE)]
    missing = any("pip install" in fault.reason for fault in broken)
    findings = []
    for kind, faults, what, hint in (
        (
            "broken",
            broken,
            "cannot be read",
            f"{'install what they need, or ' if missing else ''}replace or remove them",
        ),
        ("oversized", oversized, "too large", "make them smaller, or raise the limit with --set max_pixels=NUMBER"),
    ):
        if faults:
            verb = "" if kind == "broken" else "is " if len(faults) == 1 else "are "
            text = f"{len(faults):,} of {counted(len(samples), 'image')} {verb}{what}"
            findings.append(Finding(kind, severity, text, *_fault_rows(samples, faults), hint))
    return findings


def repaired(samples: Samples, scan: Scan) -> list[Finding]:
    """Files that decoding had to repair."""
    if not scan.repaired:
        return []
    text = f"{counted(len(scan.repaired), 'image')} repaired or clipped while decoding"
    rows, left_out = _fault_rows(samples, scan.repaired)
    return [
        Finding("repaired", "notice", text, rows, left_out, "training uses them; open and save them again if you can")
    ]


def flat(samples: Samples, scan: Scan) -> list[Finding]:
    """Images of a single color."""
    numbers = np.flatnonzero(scan.rows["flat"])
    if not len(numbers):
        return []
    has = "has" if len(numbers) == 1 else "have"
    text = f"{counted(len(numbers), 'image')} {has} a single color"
    rows = samples.rows(numbers[:MOST_ITEMS].tolist())
    return [
        Finding("flat", "notice", text, rows, len(numbers) - len(rows), "look at them; remove them if they are blank")
    ]


def small(samples: Samples, scan: Scan) -> list[Finding]:
    """Images much smaller than the others."""
    sides = _sides(scan)
    readable = scan.rows["readable"]
    if not readable.any():
        return []
    median = int(np.median(sides[readable].min(axis=1)))
    numbers = np.flatnonzero(readable & (sides.min(axis=1) * SMALL < median))
    if not len(numbers):
        return []
    text = f"{counted(len(numbers), 'image')} at least {SMALL} times smaller than most"
    text += f": a side under {-(-median // SMALL):,} pixels, where the median has {median:,}"
    hint = "enlarged, they are blurred; look at them"
    return [Finding("small", "notice", text, *_size_rows(samples, scan, numbers), hint)]


def elongated(samples: Samples, scan: Scan) -> list[Finding]:
    """Images much longer than wide, if most are not."""
    sides = _sides(scan)
    mask = scan.rows["readable"] & (sides.max(axis=1) > ELONGATED * sides.min(axis=1))
    numbers = np.flatnonzero(mask)
    if not len(numbers) or 2 * len(numbers) > scan.rows["readable"].sum():
        return []
    text = f"{counted(len(numbers), 'image')} more than {ELONGATED} times as long as wide"
    hint = "squashed or cropped to a square, they lose much; cut them"
    return [Finding("elongated", "notice", text, *_size_rows(samples, scan, numbers), hint)]


def mixed_depth(samples: Samples, scan: Scan) -> list[Finding]:
    """Images of more than 8 bits next to others."""
    counts = mode_counts(scan)
    deep = {mode: count for mode, count in counts.items() if mode in DEEP}
    if not deep or len(deep) == len(counts):
        return []
    total = sum(deep.values())
    text = f"{counted(total, 'image')} with more than 8 bits, {sum(counts.values()) - total:,} with 8"
    hint = "they are scaled differently; save all of them in the same way, or see --set max_value"
    return [Finding("mixed_depth", "notice", text, tuple(counts.items()), 0, hint)]


def shortcuts(samples: Samples, scan: Scan) -> list[Finding]:
    """Properties of files that give a class away: nearly all its images have them, and few others."""
    train = scan.rows[: int(samples.starts[1])]
    labels, train = samples.labels[: len(train)][train["readable"]], train[train["readable"]]
    grays = np.isin(train["mode"], [MODES.index(mode) for mode in GRAY]).astype(np.int64)
    sizes = train["height"].astype(np.int64) << 32 | train["width"]
    rows = [
        (samples.data.class_names[label], text_of(value), images)
        for values, text_of in ((grays, lambda gray: "gray" if gray else "color"), (sizes, _size_text))
        for label, value, images in given_away(labels, values)
    ]
    if not rows:
        return []
    shown = listed([f"{name!r} ({word})" for name, word, _ in rows], 4)
    text = f"classes that the kind of file gives away: {shown}"
    hint = "a model may learn this instead of what the images show"
    return [Finding("shortcut", "notice", text, tuple(rows[:MOST_ITEMS]), max(0, len(rows) - MOST_ITEMS), hint)]


def given_away(labels: np.ndarray, values: np.ndarray) -> list[tuple[int, int, int]]:
    """The classes that a value gives away, with the value and the number of images that have it."""
    if not len(labels):
        return []
    pairs, have = np.unique(np.stack([labels, values], axis=1), axis=0, return_counts=True)
    of_value = dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))
    of_class, result = np.bincount(labels), []
    for (label, value), count in zip(pairs.tolist(), have.tolist(), strict=True):
        size, rest = int(of_class[label]), len(labels) - int(of_class[label])
        others = of_value[value] - count
        if min(size, rest) >= ENOUGH and count >= MOST * size and others <= (1 - MOST) * rest:
            result.append((label, value, count))
    return result


def mode_counts(scan: Scan, channels: int = 3) -> dict[str, int]:
    """How many readable images have each of Pillow's modes, the most frequent first; it has none for other channels."""
    if channels not in (1, 3):
        return {f"of {channels} channels": int(scan.rows["readable"].sum())}
    counts = np.bincount(scan.rows["mode"][scan.rows["readable"]], minlength=len(MODES))
    return {MODES[i]: int(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i] and MODES[i]}


def _sides(scan: Scan) -> np.ndarray:
    """The height and width of each image, "samples 2"."""
    return np.stack([scan.rows["height"], scan.rows["width"]], axis=1)


def _size_text(both: int) -> str:
    """A height and a width in one integer as text."""
    return f"{both >> 32}×{both & 0xFFFFFFFF}"


def _size_rows(samples: Samples, scan: Scan, numbers: np.ndarray) -> tuple[tuple[Row, ...], int]:
    """The rows of some samples with their sizes, and how many are left out."""
    shown = numbers[:MOST_ITEMS].tolist()
    rows = tuple(
        (*samples.row(number), int(scan.rows["height"][number]), int(scan.rows["width"][number])) for number in shown
    )
    return rows, len(numbers) - len(rows)


def _fault_rows(samples: Samples, faults: Sequence[Fault]) -> tuple[tuple[Row, ...], int]:
    """The rows of some faults, and how many are left out."""
    rows = tuple((*samples.row(fault.number), fault.reason) for fault in faults[:MOST_ITEMS])
    return rows, len(faults) - len(rows)


CHECKS: tuple[Callable[[Samples, Scan], list[Finding]], ...] = (
    repaired,
    flat,
    small,
    elongated,
    mixed_depth,
    shortcuts,
)
