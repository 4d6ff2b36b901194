"""One page on which an image is walked through a model in pictures, from its pixels to its classes."""

from collections.abc import Sequence

import torch
from PIL import Image

from vitreous.data.preprocessing import Preprocessing
from vitreous.model.vit import VisionTransformer
from vitreous.pages.walk.data import all_blocks, first_choice
from vitreous.pages.walk.packing import pack_maps
from vitreous.pages.walk.page import page_html
from vitreous.pages.walk.sections import Page
from vitreous.pages.walk.values import record


@torch.no_grad()
def walk_page(
    model: VisionTransformer,
    image: Image.Image,
    preprocessing: Preprocessing,
    class_names: Sequence[str] | None = None,
    name: str = "a Vision Transformer",
    fresh: bool = False,
) -> str:
    """Walks an image through a model, and tells it as one HTML page that needs nothing else, not even a network.

    All of it comes from one pass, recorded as it runs; attention maps are computed beside it, from its tokens. The
    model is as before when it is over.

    Args:
        model: in evaluation mode.
        image: decoded, in RGB or gray, of any size.
        preprocessing: what the weights expect.
        class_names: one for each logit; None gives them numbers.
        name: of the model, for the heading.
        fresh: whether the weights are random; the page then says that its values mean nothing.
    """
    pixels = preprocessing.pixels(image)
    device = next(model.parameters()).device
    walk = record(model, preprocessing.normalize(pixels[None].to(device)))
    choice = first_choice(pixels.numpy(), walk)
    names = None if class_names is None else tuple(class_names)
    page = Page(
        *(walk, name, image, preprocessing, pixels.numpy(), names, fresh, choice),
        *(pack_maps(walk), all_blocks(walk)),
    )
    return page_html(page)
