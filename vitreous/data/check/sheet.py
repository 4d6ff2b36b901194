"""A few images of each class, small, on one sheet."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from vitreous.data.check.check import Check
from vitreous.data.check.samples import Samples
from vitreous.data.decoding.bands import shown
from vitreous.data.decoding.images import BadImage
from vitreous.support.counts import spread
from vitreous.support.fonts import drawable, use_fallback_fonts
from vitreous.support.host import usable_cores
from vitreous.support.text import shortened
from vitreous.support.threads import in_order

MOST_CLASSES = 24  # on a sheet; of more, as many spread evenly
OF_CLASS = 8  # images
CELL, GAP, MARGIN = 112, 6, 20  # pixels
LINE = 26  # pixels above a row, for the name of its class
INK, PAPER = "#16191d", "#ffffff"
DPI = 100


class ClassRow(NamedTuple):
    """The images of a class to show, by their number."""

    label: int
    name: str
    images: int
    numbers: list[int]


def rows_of(check: Check) -> list[ClassRow]:
    """Training images of each class, spread evenly; of many classes, some spread evenly."""
    names, train = check.data.class_names, check.data.train
    readable = check.scan.rows["readable"][: len(train)]
    chosen = spread(len(names), MOST_CLASSES)
    rows = []
    for label in chosen.tolist():
        numbers = np.flatnonzero((train.labels == label) & readable)
        places = spread(len(numbers), OF_CLASS)
        rows.append(ClassRow(label, names[label], len(numbers), numbers[places].tolist()))
    return rows


def thumbnails(samples: Samples, numbers: Sequence[int], side: int) -> dict[int, Image.Image]:
    """Images of at most `side` pixels by their number, in RGB; those that cannot be read are missing."""

    def thumbnail(number: int) -> Image.Image | None:
        load, index = samples.loader(number)
        try:
            image = shown(load.at_least(side)(index)).convert("RGB")
        except BadImage:
            return None
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return image

    images = zip(numbers, in_order(thumbnail, numbers, usable_cores()), strict=True)
    return {number: image for number, image in images if image is not None}


def contact_sheet(rows: Sequence[ClassRow], images: Mapping[int, Image.Image]) -> bytes:
    """The images of each class in a row below its name, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from vitreous.support.figures import missing_glyphs_ignored

    width, height = 2 * MARGIN + OF_CLASS * (CELL + GAP) - GAP, 2 * MARGIN + len(rows) * (LINE + CELL + GAP) - GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for place, row in enumerate(rows):
        top = MARGIN + place * (LINE + CELL + GAP)
        for column, number in enumerate(row.numbers):
            if number in images:
                cell = ImageOps.pad(enlarged(images[number]), (CELL, CELL), color=PAPER, centering=(0, 0))
                sheet.paste(cell, (MARGIN + column * (CELL + GAP), top + LINE))
        text = f"{drawable(shortened(row.name), f'class {row.label}')}  {row.images:,}"
        # A class may be called $a$; that is a name, not a formula.
        figure.text(
            MARGIN / width, 1 - (top + LINE / 2) / height, text, color=INK, va="center", size=9, parse_math=False
        )
    use_fallback_fonts(figure)
    figure.figimage(np.asarray(sheet), zorder=-1)
    file = BytesIO()
    with missing_glyphs_ignored():
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": "vitreous"})
    return file.getvalue()


def enlarged(image: Image.Image) -> Image.Image:
    """An image that fills a cell; a small one has square pixels."""
    scale = CELL // max(image.size)
    if scale < 2:
        return image
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
