"""A test of explanations: delete the most important patches first, and measure how fast the class is lost."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitreous.explain.chunks import images_at_once
from vitreous.explain.relevance import Classes, check_classes
from vitreous.inspection.mode import evaluation_mode
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError


def deletion_curve(
    model: VisionTransformer,
    images: Images,
    scores: Float[Tensor, "batch rows columns"],
    classes: Classes,
    steps: int = 11,
) -> Float[Tensor, "batch steps"]:
    """Computes the probability of a class as an image's patches are deleted, the highest scores first.

    Deleted pixels are set to 0, the mean color of the training images.

    Args:
        model: any with a classifier.
        images: normalized.
        scores: one per patch; of equal ones the first in raster order goes first.
        classes: one class index per image.
        steps: points on the curve, from no patch deleted to all.

    Raises:
        InputError: the model has no classifier, there is no such class, or there are fewer than 2 steps.
    """
    check_classes(model, classes)
    if steps < 2:
        raise InputError(f"{steps} steps make no curve", "it needs 2 steps or more: none deleted and all")
    order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).unflatten(1, scores.shape[1:])  # batch rows columns: 0 goes first
    counts = torch.linspace(0, order.shape[1], steps).round().to(images.device)
    pairs = torch.arange(len(images) * steps, device=images.device)
    at_once = images_at_once(model.config, (images.shape[2], images.shape[3]))
    parts = []
    with torch.no_grad(), evaluation_mode(model):
        for part in pairs.split(at_once):
            image, step = part // steps, part % steps
            deleted = rank.to(images.device)[image] < counts[step][:, None, None]
            logits = model(without(images[image], deleted)).float()
            parts.append(logits.softmax(dim=1).gather(1, classes.to(images.device)[image][:, None])[:, 0])
    return torch.cat(parts).unflatten(0, (len(images), steps))


def without(images: Images, deleted: Bool[Tensor, "batch rows columns"]) -> Images:
    """Sets the pixels of deleted patches to 0."""
    height, width = images.shape[2] // deleted.shape[1], images.shape[3] // deleted.shape[2]
    pixels = deleted.repeat_interleave(height, dim=1).repeat_interleave(width, dim=2)
    return images.masked_fill(pixels[:, None], 0)
