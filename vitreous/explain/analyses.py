"""The analyses of `vitreous explain`: their numbers for any number of images, a few at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vitreous.explain.attention_maps import Query, attention, attention_of_heads, block_numbers
from vitreous.explain.chunks import images_at_once
from vitreous.explain.distance import attention_distance
from vitreous.explain.drawing import Photo
from vitreous.explain.embeddings import Filters, embedding_filters, patch_colors, position_similarity
from vitreous.explain.explanation import Pixels, as_photo, chosen_classes
from vitreous.explain.relevance import check_classes, gradient_attention, relevance
from vitreous.explain.rollout import rollout
from vitreous.model.config import ViTConfig
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

# What each shows, for the command's help and its documents.
ANALYSES = {
    "attention": "where a token looks in one block; and, of the first image, in every head of every block",
    "rollout": "what the attention of all blocks together brings from each patch (Figures 6 and 14)",
    "gradient": "attention of one block as far as it speaks for a class",
    "relevance": "how much each patch speaks for a class",
    "distance": "how far each head looks, in pixels (Figures 7 right and 11)",
    "positions": "how alike the position embeddings of all places are (Figure 7 center)",
    "filters": "principal components of the embedding filters (Figure 7 left)",
    "patches": "principal components of the patches after one block, as colors",
}
OF_THE_MODEL = ("positions", "filters")  # these need no images
FOR_A_CLASS = ("gradient", "relevance")
FROM_THE_HEAD = ("attention", "rollout", "gradient", "relevance")  # these ask what the head reads, unless told


@dataclass(frozen=True)
class Wishes:
    """What is to be computed.

    Attributes:
        analyses: names from ANALYSES.
        block: for attention, gradient and patches; a negative number counts from the end.
        head: for attention; None for the mean of all.
        query: for attention, as `vitreous.explain.attention_maps.attention` takes it.
        class_number: for gradient and relevance; the likeliest class of each image if None.
        shown: images that a sheet shows, and whose patches are colored.
    """

    analyses: tuple[str, ...]
    block: int = -1
    head: int | None = None
    query: Query = None
    class_number: int | None = None
    shown: int = 12


@dataclass
class Findings:
    """The numbers of some analyses of one model; `add` gives it images.

    Attributes:
        model: the model.
        wishes: what is computed.
        class_names: of the model's classes; none if it has no head.
        names: of the images so far.
        photos: the pixels of the first of them, as many as are shown.
        classes: for each image the number of the class that is explained, where there are such analyses.
        probabilities: of these classes.
        heads: attention of the first image, in every head of every block.
    """

    model: VisionTransformer
    wishes: Wishes
    class_names: Sequence[str] = ()
    names: list[str] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    heads: Float[ndarray, "blocks heads rows columns"] | None = None
    _parts: dict[str, list[ndarray]] = field(default_factory=dict)

    def add(self, names: Sequence[str], pixels: Sequence[Pixels], images: Images) -> None:
        """Computes the numbers of more images.

        Args:
            names: of these.
            pixels: of these, as they are shown.
            images: the same, as the model takes them; at least one.

        Raises:
            InputError: there is no such block, head, query or class.
        """
        wishes, classes = self.wishes, None
        shown = max(0, wishes.shown - len(self.photos))
        self.photos += [as_photo(image) for image in pixels[:shown]]
        self.names += names
        if any(name in FOR_A_CLASS for name in wishes.analyses):
            classes, probabilities = chosen_classes(self.model, images, wishes.class_number)
            self.classes += classes.tolist()
            self.probabilities += probabilities.tolist()
        for name in wishes.analyses:
            few = images[:shown] if name == "patches" else images
            if name not in OF_THE_MODEL and len(few):
                self._parts.setdefault(name, []).append(self._numbers(name, few, classes).cpu().numpy())
        if "attention" in wishes.analyses and self.heads is None:
            self.heads = attention_of_heads(self.model, images[:1], None, wishes.query)[0].cpu().numpy()

    def _numbers(self, name: str, images: Images, classes: Tensor | None) -> Tensor:
        model, wishes = self.model, self.wishes
        match name:
            case "attention":
                return attention(model, images, wishes.block, wishes.head, wishes.query)
            case "rollout":
                return rollout(model, images)
            case "gradient":
                return gradient_attention(model, images, wishes.block, classes)
            case "relevance":
                return relevance(model, images, classes)
            case "distance":
                return attention_distance(model, images)
            case "patches":
                with torch.no_grad():
                    [tokens] = model.tokens(images, [self.block])
                return tokens[:, model.config.prefix_tokens :].float().unflatten(1, model.grid(images))
        raise ValueError(f"{name!r} is no analysis of images")

    def values(self, name: str) -> ndarray:
        """The numbers of an analysis of images: for each a map; for distance "blocks heads"; for patches colors."""
        found = np.concatenate(self._parts[name])
        return patch_colors(torch.from_numpy(found)).numpy() if name == "patches" else found

    def similarity(self) -> Float[ndarray, "rows columns other_rows other_columns"]:
        """The similarity of the model's position embeddings. Raises InputError where it has none."""
        return position_similarity(self.model).cpu().numpy()

    def filters(self) -> Filters:
        """The principal components of the filters that see pixels."""
        return embedding_filters(self.model)

    def explained_class(self, index: int) -> str:
        """The class that is explained for an image."""
        return self.class_names[self.classes[index]]

    @property
    def block(self) -> int:
        """The number of the block that is looked at, from 0."""
        return block_numbers(self.model, [self.wishes.block])[0]


def images_a_step(config: ViTConfig, image_size: tuple[int, int], analyses: Sequence[str]) -> int:
    """How many images to give `Findings.add` at once, so that half a gigabyte of memory is enough beside the model."""
    return images_at_once(config, image_size, with_gradient=any(name in FOR_A_CLASS for name in analyses))


def reason_against(name: str, model: VisionTransformer) -> InputError | None:
    """Why a model cannot give an analysis; None if it can."""
    try:
        if name in FOR_A_CLASS:
            check_classes(model, None)
        elif name == "positions":
            position_similarity(model)
    except InputError as error:
        return error
    return None
