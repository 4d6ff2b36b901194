"""Random changes of a picture besides where it is cropped: Rand-, Trivial- and AutoAugment, color jitter, erasing.

The pixels are those of Pillow, in mode "RGB" or "L" (one channel). They are the bits that the functions of
torchvision.transforms.v2 give for the same Pillow image, without its import, which costs every loading process seconds.
Every random number comes from the generator that is passed in; how many are drawn depends on the settings and the size
of the picture alone.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

TRIES = 10  # shapes of a box that are tried
GRAY = 128  # what comes in from outside of the picture, as RandAugment's authors have it
LEVELS = 31  # of TrivialAugment: 0 to 30
ERASED_AREA = (0.02, 0.4)  # of random erasing, as its paper has it
ERASED_RATIO = (0.3, 1 / 0.3)
AUTHORS_SIDE = 224  # pixels of the pictures for which RandAugment's translations and cutout are given


class Scale(NamedTuple):
    """How strong an operation is at a level: start + slope * level, or start - slope * level half of the time.

    Args:
        start: the strength at level 0.
        slope: what one level adds.
        signed: whether the slope is turned around for half of the draws.
    """

    start: float = 0.0
    slope: float = 0.0
    signed: bool = False

    def at(self, level: float, draw: float) -> float:
        """The strength; `draw`, from [0, 1), chooses the sign."""
        return self.start + (-self.slope if self.signed and draw < 0.5 else self.slope) * level


def _affine(image: Image.Image, *matrix: int | float) -> Image.Image:
    """Output pixel (x, y) is the one nearest to the matrix (2 x 3, row by row) times (x, y, 1)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=_gray(image))


def _gray(image: Image.Image) -> tuple[int, ...]:
    return (GRAY,) * len(image.getbands())


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, fillcolor=_gray(image))


def _solarize_add(image: Image.Image, addition: float) -> Image.Image:
    table = [min(255, value + int(addition)) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


# Each takes an image and a strength.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "rotate": _rotate,  # degrees, against the clock
    "posterize": lambda image, bits: ImageOps.posterize(image, max(1, min(8, int(bits)))),  # highest bits that stay
    "solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),  # values from here are inverted
    "solarize_add": _solarize_add,  # what is added to values below 128
    "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),  # 0 gray, 1 as it is; so the next three
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "shear_x": lambda image, slope: _affine(image, 1, slope, 0, 0, 1, 0),  # columns per row, the first row stays
    "shear_y": lambda image, slope: _affine(image, 1, 0, 0, slope, 1, 0),
    "translate_x": lambda image, pixels: _affine(image, 1, 0, round(pixels), 0, 1, 0),  # to the left
    "translate_y": lambda image, pixels: _affine(image, 1, 0, 0, 0, 1, round(pixels)),  # upwards
}

# The authors' scales. A magnitude of 10 was once the most; AugReg goes on to 20 in a line.
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
    "translate_x": Scale(0, 10, signed=True),  # of a side of 224
    "translate_y": Scale(0, 10, signed=True),
    "cutout": Scale(0, 4),  # half of the box's side, also of 224
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

# The policy found on ImageNet, as the appendix of its paper lists it: two operations, one after the other, each with
# its probability and its level, from 0 to 9. Some pairs come twice.
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
    "solarize": Scale(256, -255 / 9),  # torchvision's 255 - level * 255 / 9, a hair more in float32, rounded up
    "color": Scale(1, 0.1, signed=True),
    "contrast": Scale(1, 0.1, signed=True),
    "sharpness": Scale(1, 0.1, signed=True),
    "shear_x": Scale(0, 0.3 / 9, signed=True),
}


def rand_augment(image: Image.Image, layers: int, magnitude: float, generator: np.random.Generator) -> Image.Image:
    """RandAugment (Cubuk et al., arXiv 1909.13719) as AugReg (arXiv 2106.10270) uses it.

    Checked against big_vision's pp/autoaugment.py and configs/vit_i1k.py: the operations, cutout among them; that each
    is as likely and always applied; their strengths; the gray that fills in. Theirs grow in a line without an end:
    posterize is weaker the higher the magnitude, and the threshold of solarize is a byte, which starts anew at 256
    (issue 110 there), so that 0, 10 and 20 invert the whole picture and 15 inverts its bright half. Magnitude 0 does
    something: posterize keeps one bit, and color, contrast, brightness and sharpness are at a tenth.

    What differs: contrast moves away from the picture's mean, theirs from a fixed gray, 196 for 224 x 224 pixels, by
    mistake (issue 109 there); posterize beyond a magnitude of 22 changes nothing, theirs keeps one bit; translations
    and cutout scale with the picture's size, and are the same at 224.

    Args:
        image: the picture, of the size that the model sees.
        layers: operations, one after another, each any of `RANDAUGMENT`.
        magnitude: how strong all of them are: 10, 15 or 20 in AugReg, and 0 in its lightest setting.
        generator: four numbers per layer are drawn.
    """
    for choice, sign, down, right in generator.random((layers, 4)).tolist():
        name = _chosen(RANDAUGMENT, choice)
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
    """The picture with a gray box in it (cutout: DeVries and Taylor, arXiv 1708.04552), cut off at the edges.

    Args:
        image: the picture; it is not changed.
        share: half of the box's height and width, over those of the picture.
        down: where the box's middle is: its row over the picture's height, in [0, 1).
        right: the same for its column.
    """
    x, y = int(right * image.width), int(down * image.height)
    columns, rows = round(share * image.width), round(share * image.height)
    box = (max(0, x - columns), max(0, y - rows), min(image.width, x + columns), min(image.height, y + rows))
    image = image.copy()
    image.paste(_gray(image), box)
    return image


def trivial_augment(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """TrivialAugment (Müller and Hutter, arXiv 2103.10158): one operation of any strength. Three numbers are drawn."""
    choice, level, sign = generator.random(3).tolist()
    name = _chosen(TRIVIAL_AUGMENT, choice)
    return OPERATIONS[name](image, TRIVIAL_AUGMENT[name].at(float(int(level * LEVELS)), sign))


def auto_augment(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """AutoAugment (Cubuk et al., arXiv 1805.09501): one of the pairs of `AUTO_AUGMENT_POLICY`. Five numbers are drawn.

    The policy and the strengths are those of torchvision's AutoAugmentPolicy.IMAGENET, but that torchvision's strengths
    are rounded to float32; what comes in from outside of the picture is gray.
    """
    choice, *draws = generator.random(5).tolist()
    pair = AUTO_AUGMENT_POLICY[int(choice * len(AUTO_AUGMENT_POLICY))]
    for (name, probability, level), (wanted, sign) in zip(pair, (draws[:2], draws[2:]), strict=True):
        if wanted < probability:
            image = OPERATIONS[name](image, AUTO_AUGMENT[name].at(float(level), sign))
    return image


def color_jitter(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Brightness, then contrast, then saturation times a factor each, drawn evenly from 1 - strength to 1 + strength.

    Three numbers are drawn.
    """
    for name, draw in zip(("brightness", "contrast", "color"), generator.random(3).tolist(), strict=True):
        image = OPERATIONS[name](image, 1 + strength * (2 * draw - 1))
    return image


def erased(
    view: UInt8[Tensor, "channels height width"], probability: float, generator: np.random.Generator
) -> UInt8[Tensor, "channels height width"]:
    """The view with a box of random bytes in it (random erasing: Zhong et al., arXiv 1708.04896), or as it is.

    Args:
        view: the pixels; they are not changed.
        probability: how often there is a box.
        generator: the same numbers are drawn whether there is a box or not, and of whatever size.
    """
    _, height, width = view.shape
    wanted = generator.random() < probability
    box = fitting_box(height, width, ERASED_AREA, ERASED_RATIO, generator.random((TRIES, 4)))
    noise = generator.integers(0, 256, view.shape, dtype=np.uint8)
    if not wanted or box is None:
        return view
    top, left, rows, columns = box
    place = (slice(None), slice(top, top + rows), slice(left, left + columns))
    view = view.clone()
    view[place] = torch.from_numpy(noise)[place]
    return view


def fitting_box(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], draws: np.ndarray
) -> tuple[int, int, int, int] | None:
    """The (top, left, height, width) of a random box in a picture of height x width; None where no try fits.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        area: the box's share of the picture's area is drawn evenly from (lowest, highest).
        ratio: the box's width / height is drawn from (lowest, highest), evenly in its logarithm.
        draws: "tries 4", in [0, 1): area, ratio, top, left of each try. The first box that fits is taken.
    """
    (low, high), (narrow, wide) = area, ratio
    for share, slant, down, right in draws.tolist():
        target = height * width * (low + share * (high - low))
        shape = math.exp(math.log(narrow) + slant * (math.log(wide) - math.log(narrow)))
        rows, columns = round(math.sqrt(target / shape)), round(math.sqrt(target * shape))
        if 0 < rows <= height and 0 < columns <= width:
            return int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns
    return None


def _chosen(table: dict[str, Scale], draw: float) -> str:
    """One of the names, all as likely."""
    return list(table)[int(draw * len(table))]
