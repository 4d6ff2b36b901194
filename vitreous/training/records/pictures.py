"""Pictures of a batch as the model sees it: the first views of a run with their labels, and what of them is hidden."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vitreous.data.preprocessing import Preprocessing
from vitreous.model.shapes import Grid, Images, PatchMask
from vitreous.training.records.figures import save, shortened

COLUMNS = 4
MOST_VIEWS = 16
CELL = 2.1  # inches that a view is wide
TALLEST = 2  # times the width; a view that is taller is drawn narrower
GAP, TEXT_LINE = 0.12, 0.15  # inches
LINE = 28  # characters that fit above a view
TEXT = "#333333"
HIDDEN = 0.87  # the gray of a hidden patch, from black 0 to white 1

Labels = Int64[Tensor, " batch"] | Float[Tensor, "batch classes"]


def write_batch_picture(
    path: Path, images: Images, labels: Labels, class_names: tuple[str, ...], preprocessing: Preprocessing
) -> None:
    """Writes `batch_picture` as PNG, atomically."""
    save(batch_picture(images, labels, class_names, preprocessing), path)


def write_masked_picture(
    path: Path, images: Images, hidden: PatchMask, grid: Grid, preprocessing: Preprocessing
) -> None:
    """Writes `masked_picture` as PNG, atomically."""
    save(masked_picture(images, hidden, grid, preprocessing), path)


def batch_picture(images: Images, labels: Labels, class_names: tuple[str, ...], preprocessing: Preprocessing) -> Figure:
    """The first views of a batch, up to 16, each below its label.

    Args:
        images: at least one, normalized, as the model gets them: on any device, perhaps mixed.
        labels: class numbers; or shares of every class, as mixed images have them.
        class_names: by class number.
        preprocessing: by which the images were normalized.
    """
    views = _pixels(images[:MOST_VIEWS], preprocessing)
    captions = [caption(label, class_names) for label in labels[:MOST_VIEWS].cpu()]
    return _grid(list(zip(views, captions, strict=True)))


def masked_picture(images: Images, hidden: PatchMask, grid: Grid, preprocessing: Preprocessing) -> Figure:
    """The first views of a batch, up to 8, each beside itself without its hidden patches.

    Args:
        images: at least one, normalized, as the model gets them without the hiding, on any device.
        hidden: the patches that are hidden, row by row.
        grid: (rows, columns) of patches.
        preprocessing: by which the images were normalized.
    """
    views = _pixels(images[: MOST_VIEWS // 2], preprocessing)
    rows, columns = (side // patches for side, patches in zip(views.shape[1:3], grid, strict=True))
    masks = hidden[: MOST_VIEWS // 2].cpu().numpy().reshape(-1, *grid).repeat(rows, axis=1).repeat(columns, axis=2)
    cells = []
    for view, mask in zip(views, masks, strict=True):
        covered = np.where(mask[..., None], np.float32(HIDDEN), view)
        cells += [(view, ""), (covered, f"{100 * mask.mean():.0f} % hidden")]
    return _grid(cells)


def caption(label: Int64[Tensor, ""] | Float[Tensor, " classes"], class_names: tuple[str, ...]) -> str:
    """The class; or of a mixed image the two with the largest shares, as "pizza 70 % + steak 30 %"."""
    if label.ndim == 0:
        return shortened(class_names[int(label)])
    shares, classes = label.topk(min(2, len(class_names)))
    percents = [round(100 * share) for share in shares.tolist()]
    names = [shortened(class_names[number]) for number in classes.tolist()]
    if len(names) == 1 or percents[1] == 0:
        return names[0]
    parts = [f"{name} {percent} %" for name, percent in zip(names, percents, strict=True)]
    line = " + ".join(parts)
    return line if len(line) <= LINE else "\n+ ".join(parts)


def _pixels(images: Images, preprocessing: Preprocessing) -> Float[np.ndarray, "batch height width channels"]:
    """The values that were normalized, in [0, 1]."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    values = (images.detach().float().cpu() * std + mean).clamp(0, 1)
    return values.permute(0, 2, 3, 1).numpy()


def _grid(cells: list[tuple[Float[np.ndarray, "height width channels"], str]]) -> Figure:
    """Views in rows of four, each below its text."""
    height, width, _ = cells[0][0].shape
    columns = min(COLUMNS, len(cells))
    rows = math.ceil(len(cells) / columns)
    lines = max(len(text.splitlines()) for _, text in cells)
    cell = CELL * min(height / width, TALLEST) + GAP + TEXT_LINE * lines
    figure = Figure(figsize=(columns * CELL, rows * cell), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False)
    for axes in places.flat:
        axes.set_axis_off()
    for axes, (view, text) in zip(places.flat, cells, strict=False):
        _draw(axes, view, text)
    return figure


def _draw(axes: Axes, view: Float[np.ndarray, "height width channels"], text: str) -> None:
    axes.imshow(view if view.shape[-1] == 3 else view[..., 0], cmap="gray", vmin=0, vmax=1)
    # A class may be called $a$; it is a name and no formula.
    axes.set_title(text, fontsize=8, color=TEXT, pad=4, parse_math=False)
