"""Draws docs/paper/pictures/*.png: the pictures of the guided reading that show a photo, or what a model has learned.

From the repository's root, in about a minute: `python -m docs.draw_paper_photos`. The flower is scikit-learn's
flower.jpg, by dany13 / vultilion on Flickr (CC BY 2.0). The model that reads digits is trained here, from a fixed seed.
"""

from io import BytesIO
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from numpy import ndarray
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor
from torch.nn import functional as F

from docs.draw_architecture import COLORS
from docs.draw_parts import B16, PICTURES
from examples.build_it_yourself.training_loop import train
from vitreous.explain.drawing import ACCENT, INK, grayed, heat, place, render, write
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.support.files import write_bytes

WIDTH = 8  # inches, of 100 of a screen's pixels each
PAPER = COLORS["paper"][0]
KEPT = 160  # colors of each picture: enough for a photo of this size, and small
FRAME = tuple(part / 255 for part in ACCENT)


# ---- an image becomes patches


PATCH = (5, 10)  # row and column of the patch that is enlarged: the edge of the flower


def patches() -> Figure:
    """The flower under B/16's grid, and one of its patches: enlarged, by channel, flattened."""
    figure, size, side = Figure((WIDTH, 3.1), facecolor=PAPER), B16.image_size[0], B16.patch_size[0]
    pixels = flower(size)
    row, column = (number * side for number in PATCH)
    patch = pixels[row : row + side, column : column + side]
    photo = shown(figure, 0.3, 0.55, 2.24, pixels)
    for line in range(side, size, side):
        photo.plot([line - 0.5] * 2, [-0.5, size - 0.5], color="white", linewidth=0.4, alpha=0.75)
        photo.plot([-0.5, size - 0.5], [line - 0.5] * 2, color="white", linewidth=0.4, alpha=0.75)
    outline(photo, column, row, side)
    enlarged = shown(figure, 3.2, 0.55, 1.28, patch)
    outline(enlarged, 0, 0, side)
    for corner in (0, side):
        start, end = (column + side - 0.5, row - 0.5 + corner), (-0.5, corner - 0.5)
        figure.add_artist(
            ConnectionPatch(start, end, "data", "data", axesA=photo, axesB=enlarged, color=FRAME, linewidth=0.7)
        )
    channels = [tinted(patch, channel) for channel in range(3)]
    for channel, name in enumerate(("red", "green", "blue")):
        shown(figure, 4.9 + 0.98 * channel, 0.7, 0.82, channels[channel])
        write(figure, 5.31 + 0.98 * channel, 1.64, name, align="center")
    row_of_numbers = np.concatenate([channel.reshape(1, -1, 3) for channel in channels], axis=1)
    strip = place(figure, 3.2, 2.3, 4.5, 0.3)
    strip.imshow(row_of_numbers, aspect="auto", interpolation="nearest")
    rows, columns = B16.grid
    titles = ((0.3, f"{size} × {size} pixels, {rows} × {columns} patches"), (3.2, f"patch {PATCH}"))
    for left, words in (*titles, (4.9, f"its channels, {side} × {side} each")):
        write(figure, left, 0.36, words, ink=INK)
    write(figure, 3.2, 2.12, f"flattened: channel by channel, row by row: {side * side * 3} numbers", ink=INK)
    number = PATCH[0] * columns + PATCH[1]
    write(figure, 3.2, 2.74, f"row number {number} of x_p: {PATCH[0]} · {columns} + {PATCH[1]}; all count from 0")
    return figure


def flower(size: int) -> ndarray:
    """The photo as a square of so many pixels, the largest part from its middle."""
    photo = Image.fromarray(load_sample_image("flower.jpg"))
    left, side = (photo.width - photo.height) // 2, photo.height
    return np.asarray(photo.crop((left, 0, left + side, side)).resize((size, size), Image.Resampling.LANCZOS))


def tinted(patch: ndarray, channel: int) -> ndarray:
    """One channel of a patch, in its color."""
    alone = np.zeros_like(patch)
    alone[..., channel] = patch[..., channel]
    return alone


def outline(axes: Axes, left: int, top: int, side: int) -> None:
    """A frame around a square of pixels."""
    frame = Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=FRAME, linewidth=1.2, clip_on=False)
    axes.add_patch(frame)


def shown(figure: Figure, left: float, top: float, side: float, pixels: ndarray) -> Axes:
    """A square picture at a place of a figure, each pixel a square."""
    axes = place(figure, left, top, side, side)
    axes.imshow(pixels, interpolation="nearest")
    return axes


# ---- where the heads of a small model look


READER = ViTConfig(
    **{"width": 64, "depth": 4, "mlp_dim": 128, "num_heads": 4},
    **{"image_size": 16, "patch_size": 2, "channels": 1, "num_classes": 10},
)
LEARNT, EPOCHS = 1400, 15  # images that it learns from, and how often; the others are held out
BLOCK = 2
SHOWN = (0, 3, 4)  # digits


class Reader(NamedTuple):
    """A model that has learned to read digits, and digits that it has not seen."""

    model: VisionTransformer
    images: Tensor
    labels: Tensor
    accuracy: float


def reader() -> Reader:
    """Trains a small model on scikit-learn's digits, enlarged to 16 × 16 pixels."""
    torch.set_num_threads(1)  # the sums of more threads are other ones
    torch.manual_seed(0)
    digits = load_digits()
    small = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    images = F.interpolate(small, size=READER.image_size, mode="bilinear")
    labels = torch.tensor(digits.target)
    model = VisionTransformer(READER)
    train(model, images[:LEARNT], labels[:LEARNT], EPOCHS)
    model.eval()
    with torch.no_grad():
        right = model(images[LEARNT:]).argmax(dim=1) == labels[LEARNT:]
    return Reader(model, images[LEARNT:][right], labels[LEARNT:][right], right.double().mean().item())


def attention_digit(learned: Reader) -> Figure:
    """Some digits, and for each head of one block where the class token looks."""
    chosen = [learned.labels.tolist().index(digit) for digit in SHOWN]
    images, side, step = learned.images[chosen], 1.0, 1.25
    weights = learned.model.attention_weights(images, [BLOCK])[BLOCK][:, :, 0, 1:]  # of the class token, over patches
    maps = weights.unflatten(-1, READER.grid).detach().numpy()
    figure = Figure((WIDTH, 0.86 + 1.12 * len(chosen)), facecolor=PAPER)
    lefts = [0.9 + step * column for column in range(1 + READER.num_heads)]
    words = ("the digit", *(f"head {head}" for head in range(READER.num_heads)))
    for left, name in zip(lefts, words, strict=True):
        write(figure, left + side / 2, 0.3, name, ink=INK, align="center")
    for row, image in enumerate(images):
        pixels = ((image[0, ..., None] + 1) * 127.5).round().to(torch.uint8).numpy()
        top = 0.46 + 1.12 * row
        shown(figure, lefts[0], top, side, pixels.repeat(3, axis=2))
        for left, scores in zip(lefts[1:], maps[row], strict=True):
            axes = shown(figure, left, top, side, grayed(pixels))
            axes.imshow(heat(scores), interpolation="nearest", extent=(-0.5, 15.5, 15.5, -0.5))
    rows, columns = READER.grid
    where = f"block {BLOCK} of {READER.depth}, counted from 0; {prod(READER.grid)} patches ({rows} × {columns}); "
    how = f"trained on {LEARNT:,} digits, the model reads {learned.accuracy:.0%} of the others"
    below = figure.get_size_inches()[1]
    write(figure, WIDTH / 2, below - 0.32, where + "each map has its own scale", align="center")
    write(figure, WIDTH / 2, below - 0.16, how, align="center")
    return figure


def file_of(figure: Figure) -> bytes:
    """The PNG of a figure, in few colors."""
    image = Image.open(BytesIO(render(figure, "png"))).convert("RGB")
    file = BytesIO()
    image.quantize(KEPT, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    write_bytes(PICTURES / "patches.png", file_of(patches()))
    write_bytes(PICTURES / "attention_digit.png", file_of(attention_digit(reader())))
