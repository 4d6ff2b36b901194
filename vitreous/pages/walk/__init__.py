"""The walk: one page that follows an image through a model, from its pixels to its classes."""

from collections.abc import Sequence

import torch

from vitreous.data.decoding.bands import Picture
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.vit import VisionTransformer
from vitreous.pages.templates import render
from vitreous.pages.walk.view import view


@torch.no_grad()
def walk_page(
    model: VisionTransformer,
    image: Picture,
    preprocessing: Preprocessing,
    class_names: Sequence[str] | None = None,
    name: str = "a Vision Transformer",
    fresh: bool = False,
) -> str:
    """Follows an image through a model, as one HTML page that loads nothing else.

    All values come from one recorded pass; attention maps are computed from its tokens. The model is left unchanged.

    Args:
        model: in evaluation mode.
        image: decoded, of any size.
        preprocessing: that the weights expect.
        class_names: one per logit; None numbers the classes.
        name: of the model, for the heading.
        fresh: whether the weights are random; the page then warns that its values mean nothing.
    """
    return render("walk", view(model, image, preprocessing, class_names, name, fresh))
