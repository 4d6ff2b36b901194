"""What the page of a check shows, section by section, as plain values for `check/check.html`."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitreous import __version__
from vitreous.data.check.check import Check
from vitreous.data.check.files import mode_counts
from vitreous.data.check.findings import COLUMNS, GROUPS, IMAGES, REASONS, SIZES, Finding, Row
from vitreous.data.check.sheet import ClassRow, thumbnails
from vitreous.explain.inline import CRISP
from vitreous.pages.pictures import photo
from vitreous.support.counts import spread
from vitreous.support.figures import shown_as
from vitreous.support.text import tallied

TITLES = {
    "leak": "The same images in two splits",
    "near_leak": "Almost the same images in two splits",
    "conflict": "One image, different classes",
    "near_conflict": "Almost one image, different classes",
    "broken": "Broken files",
    "oversized": "Files that are too large",
    "no_images": "Classes without images",
    "similar_names": "Class names that look alike",
    "missing_class": "Classes missing in a split",
    "tiny_class": "Tiny classes",
    "lopsided": "Lopsided classes",
    "duplicate": "Copies",
    "near_duplicate": "Near copies",
    "repaired": "Repaired files",
    "flat": "Images of a single color",
    "small": "Much smaller images",
    "elongated": "Elongated images",
    "mixed_depth": "Mixed bit depths",
    "shortcut": "Shortcuts",
    "not_decoded": "Not decoded",
    "not_compared": "Not compared",
}
SIDE = 144  # pixels of a picture
MOST_GROUPS, OF_GROUP = 12, 4  # of a finding with pictures
MOST_PICTURES = 12
MOST_ROWS = 60  # of a table
MOST_CLASSES = 40  # bars; of more classes, the largest and the smallest
MOST_POINTS = 1500  # of the chart of sizes
WIDTH, HEIGHT = 560, 400
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 48  # margins of the chart


def check_view(check: Check, rows: Sequence[ClassRow], images: Mapping[int, Image.Image]) -> dict[str, Any]:
    """The template's variables.

    Args:
        check: what was found.
        rows: the images of each class to show.
        images: these images by their number, small.
    """
    data, name = check.data, Path(check.data.name).name or check.data.name
    sizes = check.sizes()
    pictures = finding_pictures(check)
    return {
        "title": f"{name}, before training",
        "name": name,
        "to_fix": sum(finding.severity == "fix" for finding in check.findings),
        "facts": {
            "Images": f"{len(check.samples):,}",
            "Classes": f"{len(data.class_names):,}",
            **{split.name.capitalize(): f"{len(split):,}" for split in data.splits},
            "Median size": "–" if sizes is None else "×".join(map(str, sizes["median"])),
        },
        "findings": [finding_view(finding, pictures) for finding in check.findings],
        "splits": [split.name for split in data.splits],
        "classes": class_bars(check),
        "class_count": len(data.class_names),
        "sizes": sizes,
        "chart": size_chart(check),
        "modes": mode_counts(check.scan, data.channels),
        "shown_as": shown_as(data.channels),
        "transparent": int(check.scan.rows["transparent"].sum()),
        "decoded": int(check.scan.rows["decoded"].sum()),
        "total": len(check.samples),
        "sheet": [
            {
                "name": row.name,
                "images": row.images,
                "pictures": [picture(images[n], check.samples.name(n)) for n in row.numbers if n in images],
            }
            for row in rows
        ],
        "ignored": tallied(data.ignored),
        "notes": data.notes,
        "version": __version__,
    }


def picture(image: Image.Image, name: str) -> dict[str, Any]:
    """An image for the page."""
    return {"source": photo(image, SIDE), "name": name, "crisp": max(image.size) <= CRISP}


def shown_rows(finding: Finding) -> list[Row]:
    """The rows of a finding that have a picture on the page."""
    columns = COLUMNS[finding.kind]
    if columns == GROUPS:
        groups = [list(rows) for _, rows in groupby(finding.items, itemgetter(0))]
        return [row for group in groups[:MOST_GROUPS] for row in group[:OF_GROUP]]
    return list(finding.items[:MOST_PICTURES]) if columns in (IMAGES, SIZES) else []


def finding_pictures(check: Check) -> dict[tuple[str, str], dict[str, Any]]:
    """The pictures of the findings, by split and name."""
    wanted: set[tuple[str, str]] = set()
    for finding in check.findings:
        split, image = (
            COLUMNS[finding.kind].index(name) if name in COLUMNS[finding.kind] else 0 for name in ("split", "image")
        )
        wanted |= {(str(row[split]), str(row[image])) for row in shown_rows(finding)}
    numbers: dict[int, tuple[str, str]] = {}
    for split, start in zip(check.data.splits, check.samples.starts.tolist(), strict=False):
        if names := {name for of, name in wanted if of == split.name}:
            numbers |= {start + i: (split.name, name) for i, name in enumerate(split.names) if name in names}
    images = thumbnails(check.samples, list(numbers), SIDE)
    return {numbers[number]: picture(image, numbers[number][1]) for number, image in images.items()}


def finding_view(finding: Finding, pictures: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """A finding with its groups of pictures, its pictures, or its table."""
    columns, rows = COLUMNS[finding.kind], shown_rows(finding)
    cards = [
        {**dict(zip(columns, row, strict=True)), "picture": pictures.get((str(row[-3]), str(row[-1])))}
        for row in rows
        if columns in (GROUPS, IMAGES)
    ]
    if columns == SIZES:
        cards = [
            {**dict(zip(columns, row, strict=True)), "picture": pictures.get((str(row[0]), str(row[2])))}
            for row in rows
        ]
    groups = [list(group) for _, group in groupby(cards, itemgetter("group"))] if columns == GROUPS else []
    table = list(finding.items[:MOST_ROWS]) if columns == REASONS or (not rows and len(finding.items) > 8) else []
    shown = len(rows) or len(table)
    return {
        "title": TITLES[finding.kind],
        "severity": finding.severity,
        "text": finding.text,
        "hint": finding.hint,
        "groups": groups,
        "cards": [] if columns == GROUPS else cards,
        "columns": columns,
        "rows": table,
        "more": len(finding.items) + finding.left_out - shown if shown else 0,
    }


def class_bars(check: Check) -> list[dict[str, Any]]:
    """The classes with their images in each split, as shares of the largest; of many, the largest and the smallest."""
    counts = check.counts
    totals = counts.sum(axis=0)
    order = np.argsort(-totals, kind="stable")
    if len(order) > MOST_CLASSES:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    full = max(1, int(totals.max()))
    return [
        {
            "name": check.data.class_names[i],
            "parts": [
                (split.name, int(count), int(count) / full)
                for split, count in zip(check.data.splits, counts[:, i], strict=True)
            ],
            "total": int(totals[i]),
        }
        for i in order.tolist()
    ]


def size_chart(check: Check) -> dict[str, Any] | None:
    """Every size of an image as a point, larger for more images; None if all are equal."""
    rows = check.scan.rows[check.scan.rows["readable"]]
    sizes, counts = np.unique(np.stack([rows["width"], rows["height"]], axis=1), axis=0, return_counts=True)
    if len(sizes) < 2:
        return None
    if len(sizes) > MOST_POINTS:
        keep = spread(len(sizes), MOST_POINTS)
        sizes, counts = sizes[keep], counts[keep]
    low, high = math.log2(sizes.min()) - 0.3, math.log2(sizes.max()) + 0.3
    x_scale, y_scale = (WIDTH - LEFT - RIGHT) / (high - low), (HEIGHT - TOP - BOTTOM) / (high - low)

    def x_of(width: int | float) -> float:
        return LEFT + (math.log2(width) - low) * x_scale

    def y_of(height: int | float) -> float:
        return HEIGHT - BOTTOM - (math.log2(height) - low) * y_scale

    step = math.ceil((high - low) / 7)
    ticks = [2**power for power in range(math.ceil(low), math.floor(high) + 1, step)]
    return {
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM,
        "x_ticks": [(x_of(tick), f"{tick:,}") for tick in ticks],
        "y_ticks": [(y_of(tick), f"{tick:,}") for tick in ticks],
        "diagonal": (x_of(2**low), y_of(2**low), x_of(2**high), y_of(2**high)),
        "points": [
            (x_of(width), y_of(height), 2.5 + 1.5 * math.log2(count) / 2, f"{height}×{width}: {count:,}")
            for (width, height), count in zip(sizes.tolist(), counts.tolist(), strict=True)
        ],
    }  # fmt: skip
