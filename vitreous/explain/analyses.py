"""The analyses of `vitreous explain`: their numbers for any number of images, a few at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vitreous.explain.attention_maps import Query, attention_map, attention_maps
from vitreous.explain.distance import Convention, attention_distance
from vitreous.explain.drawing import Photo
from vitreous.explain.embeddings import patch_colors, position_similarity
from vitreous.explain.explanation import Pixels, as_photo, chosen_classes
from vitreous.explain.relevance import check_classes, gradient_attention, relevance
from vitreous.explain.rollout import attention_rollout
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer

OF_THE_MODEL = ("positions", "filters")  # these need no images
FOR_A_CLASS = ("gradient", "relevance")
FROM_THE_HEAD = ("attention", "rollout", "gradient", "relevance")  # these start from what the head reads


@dataclass(frozen=True)
class Options:
    """What to compute.

    Attributes:
        analyses: names, as in `vitreous.cli.explain.NAMES`.
        block: for attention, gradient and patches, from 0.
        head: for attention; None for the mean over heads.
        query: for attention; see `attention_map`.
        class_index: for gradient and relevance; None for each image's top class.
        shown: the most images on a sheet, and in the analysis of patches.
        distance: the convention of the attention distance.
    """

    analyses: tuple[str, ...]
    block: int
    head: int | None = None
    query: Query = None
    class_index: int | None = None
    shown: int = 12
    distance: Convention = "paper"


@dataclass
class Results:
    """The numbers of a model's analyses; `add` extends them by more images.

    Attributes:
        model: the model.
        options: what is computed.
        class_names: of the model's classes; empty without a head.
        names: of the images so far.
        photos: pixels of the first `options.shown` images.
        classes: index of the explained class per image, for analyses of a class.
        probabilities: of these classes.
        heads: attention of the first image, in every head of every block.
    """

    model: VisionTransformer
    options: Options
    class_names: Sequence[str] = ()
    names: list[str] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    heads: Float[ndarray, "blocks heads rows columns"] | None = None
    _parts: dict[str, list[ndarray]] = field(default_factory=dict)

    def add(self, names: Sequence[str], pixels: Sequence[Pixels], images: Images) -> None:
        """Computes the numbers of more images, at least one, as raw pixels and normalized.

        Raises:
            InputError: there is no such block, head, query or class.
        """
        options, classes = self.options, None
        shown = max(0, options.shown - len(self.photos))
        self.photos += [as_photo(image) for image in pixels[:shown]]
        self.names += names
        if any(name in FOR_A_CLASS for name in options.analyses):
            classes, probabilities = chosen_classes(self.model, images, options.class_index)
            self.classes += classes.tolist()
            self.probabilities += probabilities.tolist()
        for name in options.analyses:
            batch = images[:shown] if name == "patches" else images
            if name not in OF_THE_MODEL and len(batch):
                self._parts.setdefault(name, []).append(self._compute(name, batch, classes).cpu().numpy())
        if "attention" in options.analyses and self.heads is None:
            self.heads = attention_maps(self.model, images[:1], None, options.query)[0].cpu().numpy()

    def _compute(self, name: str, images: Images, classes: Tensor | None) -> Tensor:
        model, options = self.model, self.options
        match name:
            case "attention":
                return attention_map(model, images, options.block, options.head, options.query)
            case "rollout":
                return attention_rollout(model, images)
            case "gradient":
                return gradient_attention(model, images, options.block, classes)
            case "relevance":
                return relevance(model, images, classes)
            case "distance":
                return attention_distance(model, images, options.distance)
            case "patches":
                with torch.no_grad():
                    [tokens] = model.tokens(images, [options.block])
                return tokens[:, model.config.prefix_tokens :].float().unflatten(1, model.grid(images))
        raise ValueError(f"{name!r} is not an analysis of images")

    def values(self, name: str) -> ndarray:
        """The numbers of an analysis of images: a map per image; for distance "blocks heads"; for patches colors."""
        values = np.concatenate(self._parts[name])
        return patch_colors(torch.from_numpy(values)).numpy() if name == "patches" else values

    def explained_class(self, index: int) -> str:
        """The name of the class that is explained for an image."""
        return self.class_names[self.classes[index]]


def check_support(name: str, model: VisionTransformer) -> None:
    """Raises InputError if a model does not support an analysis."""
    if name in FOR_A_CLASS:
        check_classes(model, None)
    elif name == "positions":
        position_similarity(model)
