"""Findings about the classes, from counts and names alone: one function per kind, and a table of them."""

from collections.abc import Callable
from itertools import groupby

import numpy as np

from vitreous.data.check.findings import Finding
from vitreous.data.sources.names import skeleton
from vitreous.data.sources.splits import ImageData
from vitreous.support.counts import is_lopsided
from vitreous.support.text import counted, listed

TINY = 10  # training images, below which a class is hardly learned
MOST_ITEMS = 1000  # rows of a finding


def counts_of(data: ImageData) -> np.ndarray:
    """The images of each class in each split, int64 "splits classes"."""
    return np.stack([np.bincount(split.labels, minlength=len(data.class_names)) for split in data.splits])


def class_findings(data: ImageData, counts: np.ndarray) -> list[Finding]:
    """The findings about classes.

    Args:
        data: the source.
        counts: the usable images of each class in each split, "splits classes".
    """
    return [finding for check in CHECKS for finding in check(data, counts)]


def no_images(data: ImageData, counts: np.ndarray) -> list[Finding]:
    """Classes that cannot be learned, since no training image of them is left."""
    classes = [data.class_names[i] for i in np.flatnonzero(counts[0] == 0)]
    if not classes:
        return []
    text = f"{counted(len(classes), 'class')} without a usable training image: {quoted(classes)}"
    items = tuple((name, 0) for name in classes[:MOST_ITEMS])
    return [Finding("no_images", "fix", text, items, len(classes) - len(items), "add images, or remove the class")]


def similar_names(data: ImageData, counts: np.ndarray) -> list[Finding]:
    """Names that differ only in case, accents' spelling, spaces, hyphens or underscores: probably one class."""
    ordered = sorted(data.class_names, key=lambda name: (skeleton(name), name))
    groups = [list(names) for _, names in groupby(ordered, skeleton)]
    pairs = [(names[0], other) for names in groups for other in names[1:]]
    if not pairs:
        return []
    shown = listed([f"{a!r} and {b!r}" for a, b in pairs])
    text = f"class names that differ only in case, spaces or marks: {shown}"
    items = tuple(pairs[:MOST_ITEMS])
    return [Finding("similar_names", "fix", text, items, len(pairs) - len(items), "merge them, or rename one")]


def missing_classes(data: ImageData, counts: np.ndarray) -> list[Finding]:
    """Classes that validation or test has no images of."""
    findings = []
    for split, row in zip(data.splits[1:], counts[1:], strict=True):
        names = [data.class_names[i] for i in np.flatnonzero((row == 0) & (counts[0] > 0))]
        if names:
            text = f"{split.name} has no images of {quoted(names)}"
            items = tuple((split.name, name) for name in names[:MOST_ITEMS])
            hint = f"add images of them to {split.name}, or its results leave these classes out"
            findings.append(Finding("missing_class", "notice", text, items, len(names) - len(items), hint))
    return findings


def tiny_classes(data: ImageData, counts: np.ndarray) -> list[Finding]:
    """Classes with few training images."""
    places = np.flatnonzero((counts[0] > 0) & (counts[0] < TINY))
    if not len(places):
        return []
    places = places[np.argsort(counts[0][places], kind="stable")]
    classes = [(data.class_names[i], int(counts[0][i])) for i in places[:MOST_ITEMS].tolist()]
    shown = listed([f"{name!r} {count}" for name, count in classes], 5)
    more = f", {shown}" if len(places) <= len(classes) else ""
    text = f"{counted(len(places), 'class')} with fewer than {TINY} training images{more}"
    return [Finding("tiny_class", "notice", text, tuple(classes), len(places) - len(classes), "add images of them")]


def lopsided(data: ImageData, counts: np.ndarray) -> list[Finding]:
    """A largest class that outweighs the smallest in training."""
    present = np.flatnonzero(counts[0])
    if not len(present):
        return []
    smallest, largest = (int(present[pick(counts[0][present])]) for pick in (np.argmin, np.argmax))
    few, many = int(counts[0][smallest]), int(counts[0][largest])
    if not is_lopsided((few, many)):
        return []
    names = data.class_names
    ratio = f"{many / few:,.1f}".removesuffix(".0")
    text = f"{counted(many, 'training image')} of {names[largest]!r}, but {few:,} of {names[smallest]!r}"
    hint = "compare balanced accuracy; --set balanced_sampling=true shows small classes as often as large ones"
    return [
        Finding("lopsided", "notice", f"{text} ({ratio}:1)", ((names[largest], many), (names[smallest], few)), 0, hint)
    ]


def quoted(names: list[str]) -> str:
    """Class names in a sentence."""
    return listed([repr(name) for name in names])


Check = Callable[[ImageData, np.ndarray], list[Finding]]
CHECKS: tuple[Check, ...] = (no_images, similar_names, missing_classes, tiny_classes, lopsided)
