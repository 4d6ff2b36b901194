"""RandAugment, TrivialAugment, AutoAugment, color jitter and random erasing.

They work on Pillow images in mode "RGB" or "L", and give the same bits as torchvision.transforms.v2 without importing
it, which would cost every loading process seconds. All random numbers come from the given generator; how many are drawn
depends only on the settings and the image size.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

TRIES = 10  # random boxes to try
GRAY = 128  # fills in from outside the image, as in the RandAugment authors' code
LEVELS = 31  # of TrivialAugment: 0 to 30
ERASED_AREA = (0.02, 0.4)  # of random erasing, from its paper
ERASED_RATIO = (0.3, 1 / 0.3)
AUTHORS_SIDE = 224  # the image size for which RandAugment's translations and cutout are given in pixels


class Scale(NamedTuple):
    """The strength of an operation by level: start + slope * level."""

    start: float = 0.0
    slope: float = 0.0
    signed: bool = False  # whether the slope is negated with probability 1/2

    def at(self, level: float, draw: float) -> float:
        """The strength at a level; `draw`, in [0, 1), chooses the sign."""
        return self.start + (-self.slope if self.signed and draw < 0.5 else self.slope) * level


def _affine(image: Image.Image, *matrix: int | float) -> Image.Image:
    """An affine map with nearest neighbors: output (x, y) reads input matrix (2 x 3, row-major) times (x, y, 1)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=_gray(image))


def _gray(image: Image.Image) -> tuple[int, ...]:
    return (GRAY,) * len(image.getbands())


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, fillcolor=_gray(image))


def _solarize_add(image: Image.Image, addition: float) -> Image.Image:
    table = [min(255, value + int(addition)) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


# Each takes an image and a strength, in the unit of the comment.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "rotate": _rotate,  # degrees, counterclockwise
    "posterize": lambda image, bits: ImageOps.posterize(image, max(1, min(8, int(bits)))),  # bits kept
    "solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),  # inverts values from here on
    "solarize_add": _solarize_add,  # added to values below 128
    # 0 is gray, 1 unchanged; likewise the next three
    "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "shear_x": lambda image, slope: _affine(image, 1, slope, 0, 0, 1, 0),  # columns per row; the first row stays
    "shear_y": lambda image, slope: _affine(image, 1, 0, 0, slope, 1, 0),
    "translate_x": lambda image, pixels: _affine(image, 1, 0, round(pixels), 0, 1, 0),  # to the left
    "translate_y": lambda image, pixels: _affine(image, 1, 0, 0, 0, 1, round(pixels)),  # upwards
}

# The authors' scales. The largest magnitude was 10 in the paper; AugReg extrapolates linearly to 20.
RANDAUGMENT = {
    "autocontrast": Scale(),
    "equalize": Scale(),
    "invert": Scale(),
    "rotate": Scale(0, 3, signed=True),
    "posterize": Scale(0, 0.4),
    "solarize": Scale(0, 25.6),
    "solarize_add": Scale(0, 11),
    "color": Scale(0.1, 0.18),
    "contrast": Scale(0.1, 0.18),
    "brightness": Scale(0.1, 0.18),
    "sharpness": Scale(0.1, 0.18),
    "shear_x": Scale(0, 0.03, signed=True),
    "shear_y": Scale(0, 0.03, signed=True),
    "translate_x": Scale(0, 10, signed=True),  # pixels of a side of 224
    "translate_y": Scale(0, 10, signed=True),
    "cutout": Scale(0, 4),  # half the box's side, in pixels of 224
}

# The paper's "wide" space.
TRIVIAL_AUGMENT = {
    "identity": Scale(),
    "autocontrast": Scale(),
    "equalize": Scale(),
    "rotate": Scale(0, 4.5, signed=True),
    "posterize": Scale(8.5, -0.2),  # 8 - level / 5, rounded
    "solarize": Scale(255, -8.5),
    "color": Scale(1, 0.033, signed=True),
    "contrast": Scale(1, 0.033, signed=True),
    "brightness": Scale(1, 0.033, signed=True),
    "sharpness": Scale(1, 0.033, signed=True),
    "shear_x": Scale(0, 0.033, signed=True),
    "shear_y": Scale(0, 0.033, signed=True),
    "translate_x": Scale(0, 32 / 30, signed=True),
    "translate_y": Scale(0, 32 / 30, signed=True),
}

# The ImageNet policy in the appendix of the paper: pairs of operations, each with its probability and its level from 0
# to 9. Some pairs occur twice.
Step = tuple[str, float, int]
AUTO_AUGMENT_POLICY: tuple[tuple[Step, Step], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)
AUTO_AUGMENT = {
    "autocontrast": Scale(),
    "equalize": Scale(),
    "invert": Scale(),
    "rotate": Scale(0, 30 / 9, signed=True),
    "posterize": Scale(8.5, -4 / 9),  # 8 - level * 4 / 9, rounded
    "solarize": Scale(256, -255 / 9),  # torchvision's 255 - level * 255 / 9, slightly larger in float32, rounded up
    "color": Scale(1, 0.1, signed=True),
    "contrast": Scale(1, 0.1, signed=True),
    "sharpness": Scale(1, 0.1, signed=True),
    "shear_x": Scale(0, 0.3 / 9, signed=True),
}


def rand_augment(image: Image.Image, layers: int, magnitude: float, generator: np.random.Generator) -> Image.Image:
    """RandAugment (Cubuk et al., arXiv 1909.13719) as AugReg (arXiv 2106.10270) uses it.

    As in big_vision's pp/autoaugment.py and configs/vit_i1k.py: the operations, including cutout, each equally likely
    and always applied; their strengths; the gray fill. Strengths are linear without a limit: posterize gets weaker with
    the magnitude, and the threshold of solarize is a byte that wraps at 256 (issue 110 there), so that magnitudes 0, 10
    and 20 invert the whole image and 15 inverts its bright half. Magnitude 0 is not the identity: posterize keeps one
    bit, and color, contrast, brightness and sharpness are at a tenth.

    Differences: contrast is relative to the image mean, theirs by mistake to a fixed gray, 196 at 224 x 224 (issue 109
    there); posterize above magnitude 22 changes nothing, theirs keeps one bit; translations and cutout scale with the
    image size, and agree at 224.

    Args:
        image: of the size the model sees.
        layers: number of operations, each drawn from `RANDAUGMENT`.
        magnitude: of all operations: 10, 15 or 20 in AugReg, and 0 in its lightest setting.
        generator: four numbers per layer are drawn.
    """
    for choice, sign, down, right in generator.random((layers, 4)).tolist():
        name = _pick(RANDAUGMENT, choice)
        strength = RANDAUGMENT[name].at(magnitude, sign)
        if name == "cutout":
            image = cut_out(image, strength / AUTHORS_SIDE, down, right)
            continue
        if name == "translate_x":
            strength *= image.width / AUTHORS_SIDE
        elif name == "translate_y":
            strength *= image.height / AUTHORS_SIDE
        elif name == "solarize":
            strength %= 256
        image = OPERATIONS[name](image, strength)
    return image


def cut_out(image: Image.Image, share: float, down: float, right: float) -> Image.Image:
    """A copy with a gray box (cutout: DeVries and Taylor, arXiv 1708.04552), clipped at the edges.

    `share` is half the box's height and width, and (`down`, `right`) its center: fractions of the image's size.
    """
    x, y = int(right * image.width), int(down * image.height)
    columns, rows = round(share * image.width), round(share * image.height)
    box = (max(0, x - columns), max(0, y - rows), min(image.width, x + columns), min(image.height, y + rows))
    image = image.copy()
    image.paste(_gray(image), box)
    return image


def trivial_augment(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """TrivialAugment (Müller and Hutter, arXiv 2103.10158): one operation of random strength. Draws three numbers."""
    choice, level, sign = generator.random(3).tolist()
    name = _pick(TRIVIAL_AUGMENT, choice)
    return OPERATIONS[name](image, TRIVIAL_AUGMENT[name].at(float(int(level * LEVELS)), sign))


def auto_augment(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """AutoAugment (Cubuk et al., arXiv 1805.09501): one pair of `AUTO_AUGMENT_POLICY`. Draws five numbers.

    Policy and strengths are those of torchvision's AutoAugmentPolicy.IMAGENET, which rounds the strengths to float32;
    the fill is gray.
    """
    choice, *draws = generator.random(5).tolist()
    pair = AUTO_AUGMENT_POLICY[int(choice * len(AUTO_AUGMENT_POLICY))]
    for (name, probability, level), (draw, sign) in zip(pair, (draws[:2], draws[2:]), strict=True):
        if draw < probability:
            image = OPERATIONS[name](image, AUTO_AUGMENT[name].at(float(level), sign))
    return image


def color_jitter(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Scales brightness, contrast, then saturation by factors drawn uniformly from 1 - strength to 1 + strength.

    Draws three numbers.
    """
    for name, draw in zip(("brightness", "contrast", "color"), generator.random(3).tolist(), strict=True):
        image = OPERATIONS[name](image, 1 + strength * (2 * draw - 1))
    return image


def erased(
    view: UInt8[Tensor, "channels height width"], probability: float, generator: np.random.Generator
) -> UInt8[Tensor, "channels height width"]:
    """Fills a random box with random bytes (random erasing: Zhong et al., arXiv 1708.04896), or returns the view.

    The view is not changed. The number of draws depends on neither the box nor the probability.
    """
    _, height, width = view.shape
    erase = generator.random() < probability
    box = fitting_box(height, width, ERASED_AREA, ERASED_RATIO, generator.random((TRIES, 4)))
    noise = generator.integers(0, 256, view.shape, dtype=np.uint8)
    if not erase or box is None:
        return view
    top, left, rows, columns = box
    inside = (slice(None), slice(top, top + rows), slice(left, left + columns))
    view = view.clone()
    view[inside] = torch.from_numpy(noise)[inside]
    return view


def fitting_box(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], draws: np.ndarray
) -> tuple[int, int, int, int] | None:
    """The (top, left, height, width) of a random box in an image of height x width; None if no try fits.

    The box's share of the image's area is uniform in the range `area`, its width / height in `ratio`, uniform in its
    logarithm. Each row of `draws`, "tries 4" in [0, 1), has area, ratio, top and left of a try; the first that fits is
    used.
    """
    (low, high), (narrow, wide) = area, ratio
    for share, slant, down, right in draws.tolist():
        target = height * width * (low + share * (high - low))
        shape = math.exp(math.log(narrow) + slant * (math.log(wide) - math.log(narrow)))
        rows, columns = round(math.sqrt(target / shape)), round(math.sqrt(target * shape))
        if 0 < rows <= height and 0 < columns <= width:
            return int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns
    return None


def _pick(table: dict[str, Scale], draw: float) -> str:
    """A name of the table, each equally likely."""
    return list(table)[int(draw * len(table))]
