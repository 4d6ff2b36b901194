"""Explanation: one photo, its predicted class, and where the model looked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from vitreous.explain.attention_maps import readout_name
from vitreous.explain.drawing import KINDS, Photo, figure_bytes
from vitreous.explain.figures import photo_with_maps
from vitreous.explain.inline import uri
from vitreous.explain.relevance import relevance
from vitreous.explain.rollout import attention_rollout
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError, unknown
from vitreous.support.figures import visible
from vitreous.support.files import write_bytes
from vitreous.support.fonts import drawable
from vitreous.support.text import html_text

Pixels = UInt8[Tensor, "channels height width"]


@dataclass(frozen=True)
class Explanation:
    """Where a model looked in one photo; shows itself in notebooks.

    Attributes:
        image: the photo's name, or its index if it has none.
        class_name: the explained class: the requested one, or the top one; None if the model has no head.
        probability: of that class, in [0, 1].
        rollout: attention rollout: how much of each patch reaches what the head reads.
        relevance: how much each patch supports the class; None without a class.
        reads: what the model's head reads, such as "the class token".
        photo: the pixels that the model saw.
        number: of the class, from 0; stands for a name that no installed font can draw.
    """

    image: str
    class_name: str | None
    probability: float | None
    rollout: Float[ndarray, "rows columns"] = field(repr=False)
    relevance: Float[ndarray, "rows columns"] | None = field(repr=False)
    reads: str
    photo: Photo = field(repr=False)
    number: int | None = None

    def figure(self) -> Figure:
        """The photo and its maps side by side."""
        maps = [(f"rollout to {self.reads}", self.rollout)]
        if self.relevance is not None:
            maps.append((f"relevance for {self._drawn()}", self.relevance))
        title = self.image if self.class_name is None else f"{self._drawn()} {self.probability:.1%}"
        return photo_with_maps(self.photo, maps, title)

    def _drawn(self) -> str:
        """The class as a figure can show it."""
        return drawable(self.class_name or "", f"class {self.number}")

    def caption(self) -> str:
        """The class and its probability; without a class the photo's name."""
        return self.image if self.class_name is None else f"{self.class_name} {self.probability:.1%}"

    def save(self, path: str | Path) -> None:
        """Writes `figure`, atomically.

        Args:
            path: of a .png or .svg file.

        Raises:
            InputError: another suffix, or the file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        kind = next((kind for kind in KINDS if suffix == f".{kind}"), None)
        if kind is None:
            raise InputError(f"unknown kind of picture: {str(path)!r}", "end it in .png or .svg")
        write_bytes(path, figure_bytes(self.figure(), kind))

    def _repr_html_(self) -> str:
        figure, name = self.figure(), html_text(self.image)
        alt = html_text(f"{self.image}: {self.caption()}, and where the model looked")
        picture = uri(figure_bytes(figure, "png"), "png")
        width = f"{100 * figure.get_size_inches()[0]:.0f}px"  # two pixels of the picture are one of the screen
        style = f"max-width: min(100%, {width})"
        image = f'<img style="{style}" alt="{alt}" src="{picture}">'
        return f"<figure>{image}<figcaption>{name}</figcaption></figure>"


def explain_batch(
    model: VisionTransformer,
    images: Images,
    labels: Sequence[str],
    pixels: Sequence[Pixels],
    class_names: Sequence[str],
    class_name: str | None = None,
) -> list[Explanation]:
    """Explains a batch of photos.

    Args:
        model: any.
        images: normalized.
        labels: their names.
        pixels: the same images before normalization.
        class_names: of the model's classes; empty without a head.
        class_name: what to explain; None for each photo's top class.

    Raises:
        InputError: there is no such class.
    """
    number = class_number(class_names, class_name)
    names = shares = relevances = numbers = [None] * len(labels)
    if class_names:
        classes, probabilities = chosen_classes(model, images, number)
        numbers, shares = classes.tolist(), probabilities.tolist()
        names = [class_names[i] for i in numbers]
        relevances = relevance(model, images, classes).cpu().numpy()
    rollouts, reads = attention_rollout(model, images).cpu().numpy(), readout_name(model.config)
    columns = zip(labels, names, shares, rollouts, relevances, pixels, numbers, strict=True)
    return [
        Explanation(label, name, share, rollout, relevant, reads, as_photo(photo), i)
        for label, name, share, rollout, relevant, photo, i in columns
    ]


def class_number(class_names: Sequence[str], class_name: str | None) -> int | None:
    """The index of a class; None for None.

    Raises:
        InputError: there is no such class.
    """
    if class_name is None:
        return None
    if class_name not in class_names:
        raise unknown("class", class_name, class_names)
    return class_names.index(class_name)


def chosen_classes(
    model: VisionTransformer, images: Images, number: int | None
) -> tuple[Int64[Tensor, " batch"], Float[Tensor, " batch"]]:
    """The class `number`, or each image's top class if None, and its probability for each image."""
    with torch.inference_mode(False), torch.no_grad():  # not inference tensors, so that they can enter a backward pass
        probabilities = model(images).float().softmax(dim=-1)
        top = probabilities.argmax(dim=-1)
        classes = top if number is None else torch.full_like(top, number)
        return classes, probabilities.gather(1, classes[:, None])[:, 0]


def as_photo(pixels: Pixels) -> Photo:
    """Pixels to show, with the channels last."""
    return visible(pixels.numpy()).transpose(1, 2, 0)
