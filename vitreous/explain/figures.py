"""The figures of an explained model, after the paper's Figures 6, 7, 11 and 14, and others.

Each function takes numbers and returns a matplotlib figure; `vitreous.explain.drawing.save_figure` writes it.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from vitreous.explain import drawing
from vitreous.explain.drawing import GAP, MARGIN, STYLE, TEXT_LINE, Photo, mosaic, place, show_map, show_photo, write

TALLEST = 2.5  # the most height of a photo, in widths; taller ones are squeezed
HEADS_WIDTH = 7.0  # inches for all heads of a block
MOST_PLACES = 14  # the most rows and columns of positions shown: a B/16 at 224 has 14
FILTERS_A_ROW = 7
FINE = 42  # least pixels of a small picture's side
HEAD_COLUMN = 0.62  # inches of the labels at the left


@rc_context(STYLE)
def photo_sheet(
    photos: Sequence[Photo],
    values: Float[ndarray, "images rows columns *rgb"],
    captions: Sequence[Sequence[str]],
    note: str = "",
) -> Figure:
    """Photos in up to three columns, each next to the values of its patches, as in Figures 6 and 14.

    Args:
        photos: at least one, all of one size.
        values: a map per photo, drawn from its smallest value, transparent, to its largest; or colors in [0, 1].
        captions: lines of text for each photo.
        note: what the values show.
    """
    count = len(photos)
    columns, width = (count, (2.4, 1.7)[count - 1]) if count < 3 else (3, 1.3)
    height = width * min(_shape(photos[0]), TALLEST)
    lines = max(map(len, captions))
    pair, line = 2 * width + GAP, height + lines * TEXT_LINE + 0.12
    top = MARGIN + 1.5 * TEXT_LINE
    figure = _figure(columns * (pair + 2 * GAP) - 2 * GAP, top - MARGIN + math.ceil(count / columns) * line, note)
    for index, (photo, patches, texts) in enumerate(zip(photos, values, captions, strict=True)):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * (pair + 2 * GAP), top + row * line
        show_photo(place(figure, x, y, width, height), photo)
        axes = place(figure, x + width + GAP, y, width, height)
        if patches.ndim == 2:
            show_map(axes, photo, patches)
        else:
            axes.imshow(_bytes(patches), interpolation="none", aspect="auto")
        for number, text in enumerate(texts):
            ink = drawing.SOFT if number else drawing.INK
            write(figure, x, y + height + (number + 0.7) * TEXT_LINE, text, width=pair, ink=ink)
    return figure


@rc_context(STYLE)
def photo_with_maps(photo: Photo, maps: Sequence[tuple[str, Float[ndarray, "rows columns"]]], caption: str) -> Figure:
    """One photo with its caption, and several maps of it side by side, each with its name below."""
    width = 2.4
    height = width * _shape(photo)
    figure = _figure((len(maps) + 1) * (width + GAP) - GAP, height + 2 * TEXT_LINE)
    for column, (name, scores) in enumerate([(caption, None), *maps]):
        left = MARGIN + column * (width + GAP)
        axes = place(figure, left, MARGIN, width, height)
        if scores is None:
            show_photo(axes, photo)
        else:
            show_map(axes, photo, scores)
        ink = drawing.INK if scores is None else drawing.SOFT
        write(figure, left, MARGIN + height + TEXT_LINE, name, width=width, ink=ink)
    return figure


@rc_context(STYLE)
def heads_sheet(
    photo: Photo, maps: Float[ndarray, "blocks heads rows columns"], caption: str, note: str = ""
) -> Figure:
    """One image, and its map for every head (across) of every block (down), pale at its smallest value."""
    blocks, heads = maps.shape[:2]
    cells = np.stack([np.stack([drawing.tints(head) for head in block]) for block in maps])
    cell = min(0.7, HEADS_WIDTH / heads)
    height = cell * min(_shape(photo), TALLEST)
    side = 1.5  # inches of the photo
    down, top = blocks * height, MARGIN + 3 * TEXT_LINE
    figure = _figure(
        side + HEAD_COLUMN + heads * cell, max(down, side * _shape(photo) + TEXT_LINE) + top - MARGIN, note
    )
    show_photo(place(figure, MARGIN, top, side, side * _shape(photo)), photo)
    write(figure, MARGIN, top + side * _shape(photo) + 0.7 * TEXT_LINE, caption, width=side, ink=drawing.INK)
    left = MARGIN + side + HEAD_COLUMN
    picture = mosaic(cells, FINE)
    place(figure, left, top, heads * cell, down).imshow(picture, interpolation="none", aspect="auto")
    for i in range(0, blocks, math.ceil(TEXT_LINE / height)):  # as many labels as fit
        write(figure, left - 0.08, top + (i + 0.5) * height, f"block {i}", align="right")
    for i in range(heads):
        write(figure, left + (i + 0.5) * cell, top - TEXT_LINE / 2, str(i), align="center")
    write(figure, left - 0.08, top - TEXT_LINE / 2, "head", align="right")
    return figure


@rc_context(STYLE)
def distance_figure(
    mean: Float[ndarray, "blocks heads"], spread: Float[ndarray, "blocks heads"], note: str = "", weights: str = ""
) -> Figure:
    """How far each head of each block looks, in pixels, as in Figure 7 right and Figure 11.

    A dot is the mean over images, a thin line one standard deviation to each side; `weights` says what is averaged.
    """
    blocks, heads = mean.shape
    figure = _figure(max(4.6, drawing.inches(weights)), 3.2, note)
    write(figure, MARGIN, MARGIN + 1.5 * TEXT_LINE, weights)
    axes = place(figure, MARGIN + 0.5, MARGIN + 2 * TEXT_LINE, 4.0, 2.5)
    axes.set_axis_on()
    # The heads of a block are side by side, near to far, so that none hides another.
    order = np.argsort(mean, axis=1, kind="stable")
    mean, spread = (np.take_along_axis(values, order, axis=1) for values in (mean, spread))
    offsets = np.linspace(-0.28, 0.28, heads) if heads > 1 else np.zeros(1)
    places = (np.arange(blocks)[:, None] + offsets).ravel()
    axes.grid(axis="y", color=drawing.LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.vlines(places, (mean - spread).ravel(), (mean + spread).ravel(), color="#9aa5b1", linewidth=0.6)
    axes.scatter(places, mean.ravel(), s=9, color=[np.array(drawing.HEAT) / 255], linewidths=0, zorder=2)
    axes.set_xlim(-0.6, blocks - 0.4)
    axes.set_ylim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=13))
    axes.set_xlabel("network depth (block)")
    axes.set_ylabel("mean attention distance (pixels)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@rc_context(STYLE)
def similarity_figure(similarity: Float[ndarray, "rows columns rows columns"], note: str = "") -> Figure:
    """The cosine similarity of every position embedding with all others, as in Figure 7 center.

    Of a grid above 14×14, every second, third, … position is shown.
    """
    rows, columns = similarity.shape[:2]
    step = math.ceil(max(rows, columns) / MOST_PLACES)
    cells = drawing.diverging(similarity[::step, ::step])
    cell = min(0.7, 5.6 / max(cells.shape[:2]))
    height = cell * rows / columns
    across, down = cells.shape[1] * cell, cells.shape[0] * height
    left, top = MARGIN + 0.42, MARGIN + 2 * TEXT_LINE
    figure = _figure(0.42 + across + 0.75, 2 * TEXT_LINE + down + 0.42, note)
    picture = mosaic(cells, FINE)
    place(figure, left, top, across, down).imshow(picture, interpolation="none", aspect="auto")
    for i in range(cells.shape[0]):
        write(figure, left - 0.07, top + (i + 0.5) * height, str(i * step), align="right")
    for i in range(cells.shape[1]):
        write(figure, left + (i + 0.5) * cell, top + down + 0.1, str(i * step), align="center")
    write(figure, left + across / 2, top + down + 0.3, "column", align="center")
    place(figure, 0.0, top, MARGIN + 0.2, down).text(0.6, 0.5, "row", rotation=90, ha="center", va="center")
    bar = left + across + 0.15
    tall = min(down, 2.0)
    gradient = drawing.diverging(np.linspace(1, -1, 101)[:, None])
    place(figure, bar, top, 0.1, tall).imshow(gradient, interpolation="none", aspect="auto")
    for value, text in ((1, "1"), (0, "0"), (-1, "−1")):
        write(figure, bar + 0.17, top + (1 - value) / 2 * tall, text)
    return figure


@rc_context(STYLE)
def filters_figure(filters: Float[ndarray, "components channels height width"], note: str = "") -> Figure:
    """The principal components of the embedding filters, first to last, as in Figure 7 left.

    Three channels are drawn in color; of any other number, the mean is drawn in gray.
    """
    count, channels, rows, columns = filters.shape
    pictures = filters if channels == 3 else filters.mean(axis=1, keepdims=True).repeat(3, axis=1)
    largest = np.abs(pictures).max(axis=(1, 2, 3), keepdims=True)
    pictures = _bytes(0.5 + 0.5 * pictures / np.maximum(largest, 1e-12)).transpose(0, 2, 3, 1)
    across = min(FILTERS_A_ROW, count)
    down = math.ceil(count / across)
    cells = np.full((down * across, rows, columns, 3), 255, np.uint8)
    cells[:count] = pictures
    cells = cells.reshape(down, across, rows, columns, 3)
    cell = 0.6
    height = cell * rows / columns
    figure = _figure(across * cell, down * height + 1.5 * TEXT_LINE, note)
    axes = place(figure, MARGIN, MARGIN + 1.5 * TEXT_LINE, across * cell, down * height)
    axes.imshow(mosaic(cells, FINE), interpolation="none", aspect="auto")
    return figure


def _figure(width: float, height: float, note: str = "") -> Figure:
    """An empty figure for content of a size in inches, with a margin around it and a note on top."""
    width = max(width, drawing.inches(note))
    figure = Figure(figsize=(width + 2 * MARGIN, height + 2 * MARGIN))
    write(figure, MARGIN, MARGIN + TEXT_LINE / 2, note)
    return figure


def _shape(photo: Photo) -> float:
    """Height by width."""
    return photo.shape[0] / photo.shape[1]


def _bytes(values: Float[ndarray, "*shape"]) -> UInt8[ndarray, "*shape"]:
    """Values from 0 to 1 as bytes."""
    return (values.clip(0, 1) * 255).round().astype(np.uint8)
