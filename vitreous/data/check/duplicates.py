"""Copies of images: groups of equal samples, and what they mean across splits and classes."""

from itertools import combinations

import numpy as np

from vitreous.data.check.findings import Finding, Row, Severity
from vitreous.data.check.samples import Samples
from vitreous.support.text import counted

MOST_GROUPS = 500  # that a finding lists
MOST_ALIKE = 4  # images of a group that are listed from the same split and class
NEAR_LEAK = 0.01  # of a split: from here, near copies across splits are serious
ALONE = -1  # the group of a sample without a copy


def equal_groups(keys: np.ndarray, numbers: np.ndarray, total: int) -> np.ndarray:
    """Groups the samples with equal keys.

    Args:
        keys: integers of some samples, "samples" or "samples integers".
        numbers: of these samples.
        total: the number of all samples.

    Returns:
        The group of each of all samples, from 0, or ALONE; int64.
    """
    groups = np.full(total, ALONE, np.int64)
    if len(numbers):
        _, inverse = np.unique(keys, axis=0, return_inverse=True)
        groups[numbers] = inverse.reshape(-1)
    return renumbered(groups)


def renumbered(groups: np.ndarray) -> np.ndarray:
    """The groups of at least two samples, numbered from 0 in the order of their first samples."""
    result = np.full(len(groups), ALONE, np.int64)
    members = np.flatnonzero(groups != ALONE)
    if not len(members):
        return result
    _, first, inverse, counts = np.unique(groups[members], return_index=True, return_inverse=True, return_counts=True)
    order = np.full(len(first), ALONE, np.int64)
    several = np.flatnonzero(counts > 1)
    order[several[np.argsort(first[several])]] = np.arange(len(several))
    result[members] = order[inverse]
    return result


def copy_findings(samples: Samples, exact: np.ndarray, near: np.ndarray | None = None) -> list[Finding]:
    """What copies mean: leaks between splits, one image in different classes, and plain duplicates.

    Args:
        samples: of all splits.
        exact: the groups of exact copies.
        near: if given, the findings are about these groups of near copies, which contain the exact ones; what the
            exact copies explain is not repeated.
    """
    groups = exact if near is None else near
    if groups.max(initial=ALONE) == ALONE:
        return []
    return [check for found in (leaks, conflicts, duplicates) for check in found(samples, exact, near)]


def identities(exact: np.ndarray) -> np.ndarray:
    """A number per sample that only its exact copies share."""
    return np.where(exact == ALONE, np.arange(len(exact)) + len(exact), exact)


def mixed_groups(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """A mask over groups, those whose members differ in a value; the last entry is that of ALONE."""
    count = int(groups.max(initial=ALONE)) + 2
    members = groups != ALONE
    low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(low, groups[members], values[members])
    np.maximum.at(high, groups[members], values[members])
    return low < high


def leaks(samples: Samples, exact: np.ndarray, near: np.ndarray | None) -> list[Finding]:
    """Images of validation or test that are also in an earlier split."""
    findings = []
    splits = samples.data.splits
    for earlier, later in combinations(range(len(splits)), 2):
        leaking = _also_in(samples, exact, earlier, later)
        if near is not None:
            leaking = _also_in(samples, near, earlier, later) & ~leaking
        total, size = int(leaking.sum()), len(splits[later])
        if not total:
            continue
        groups = exact if near is None else near
        verb = "is" if total == 1 else "are"
        also = f"{verb} also"
        if near is not None:
            also = f"{verb} almost identical to {'an image' if total == 1 else 'images'}"
        names = splits[later].name, splits[earlier].name
        text = f"{total:,} of {counted(size, f'{names[0]} image')} {also} in {names[1]}"
        severity: Severity = "fix" if near is None or total >= NEAR_LEAK * size else "notice"
        items, left_out = group_rows(samples, groups, np.unique(groups[leaking]), (earlier, later))
        hint = f"remove them from one of the two, or the {names[0]} results are too good"
        findings.append(Finding("leak" if near is None else "near_leak", severity, text, items, left_out, hint))
    return findings


def _also_in(samples: Samples, groups: np.ndarray, earlier: int, later: int) -> np.ndarray:
    """A mask over all samples: those of the later split with a copy in the earlier one."""
    has_copy = np.zeros(int(groups.max(initial=ALONE)) + 2, bool)  # the last entry is that of ALONE
    has_copy[groups[samples.splits == earlier]] = True
    has_copy[ALONE] = False
    return (samples.splits == later) & has_copy[groups]


def conflicts(samples: Samples, exact: np.ndarray, near: np.ndarray | None) -> list[Finding]:
    """Copies of one image in different classes."""
    groups = exact if near is None else near
    mixed = mixed_groups(samples.labels, groups)
    if near is not None:  # a group whose exact copies disagree has been named
        known = mixed_groups(samples.labels, exact)
        mixed[near[known[exact]]] = False
    mixed[ALONE] = False
    chosen = np.flatnonzero(mixed)
    if not len(chosen):
        return []
    what = "the same image" if near is None else "almost the same image"
    images = counted(int(mixed[groups].sum()), "image")
    text = f"{what} in different classes: {images} in {counted(len(chosen), 'group')} of copies"
    items, left_out = group_rows(samples, groups, chosen)
    hint = "keep one copy of each, in the right class"
    if near is None:
        return [Finding("conflict", "fix", text, items, left_out, hint)]
    return [Finding("near_conflict", "notice", text, items, left_out, f"look at them; {hint}")]


def duplicates(samples: Samples, exact: np.ndarray, near: np.ndarray | None) -> list[Finding]:
    """Copies within one split and class: harmless, but they count more than other images."""
    groups = exact if near is None else near
    numbers = np.arange(len(exact)) if near is None else identities(exact)
    members = groups != ALONE
    rows = np.stack([groups, samples.splits, samples.labels, numbers], axis=1)[members]
    places, counts = np.unique(np.unique(rows, axis=0)[:, :3], axis=0, return_counts=True)
    extra = int((counts - 1).sum())
    if not extra:
        return []
    copies = counted(extra, "copy") if near is None else counted(extra, "near copy")
    text = f"{copies} of other images of the same split and class"
    items, left_out = group_rows(samples, groups, np.unique(places[counts > 1, 0]))
    hint = "remove them, or they count more than other images"
    return [Finding("duplicate" if near is None else "near_duplicate", "notice", text, items, left_out, hint)]


def group_rows(
    samples: Samples, groups: np.ndarray, chosen: np.ndarray, splits: tuple[int, ...] = (0, 1, 2)
) -> tuple[tuple[Row, ...], int]:
    """The rows of the chosen groups, numbered from 1, and how many rows are left out.

    Only samples of these splits, and of each split and class in a group only the first few.
    """
    allowed = np.isin(samples.splits, splits) & np.isin(groups, chosen)
    numbers = np.flatnonzero(allowed)
    numbers = numbers[np.argsort(groups[numbers], kind="stable")]
    shown = chosen[:MOST_GROUPS]
    starts = np.searchsorted(groups[numbers], shown)
    ends = np.searchsorted(groups[numbers], shown, side="right")
    rows: list[Row] = []
    for group, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True), 1):
        members = numbers[start:end]
        kinds = samples.splits[members].astype(np.int64) * len(samples.data.class_names) + samples.labels[members]
        for kind in np.unique(kinds):
            rows += [(group, *samples.row(number)) for number in members[kinds == kind][:MOST_ALIKE].tolist()]
    return tuple(rows), len(numbers) - len(rows)
