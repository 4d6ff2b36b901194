"""Which patches support a class: attention weighted by its gradient, in one block or through all of them.

After Chefer, Gur and Wolf 2021, "Generic attention-model explainability" (arXiv 2103.15679), section 3.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vitreous.explain.attention_maps import ExplicitAttention, over_patches, readout
from vitreous.inspection.mode import evaluation_mode
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

Classes = Int64[Tensor, " batch"]


def relevance(
    model: VisionTransformer, images: Images, classes: Classes | None = None
) -> Float[Tensor, "batch rows columns"]:
    """Computes how relevant each patch is for a class, accumulated over all blocks.

    R starts as I. Each block adds the attention that supports the class: R ← R + Ā R with Ā the mean over heads of
    (∇A ⊙ A)⁺, where ∇A is the gradient of the class's logit. The result is the row of R of the token that the head
    reads, or the mean of several weighted by `readout`; under attention pooling it is Ā R for the probe's Ā.

    Args:
        model: any with a classifier.
        images: normalized.
        classes: one class index per image; None for the top class.

    Returns:
        Values of at least 0, comparable within an image. Under mean pooling each includes 1 / N from R = I.

    Raises:
        InputError: the model has no classifier, or there is no such class.
    """
    weighted = weighted_attention(model, images, classes)
    tokens = weighted[0].shape[-1]
    total = torch.eye(tokens, device=images.device).repeat(len(images), 1, 1)
    for block in weighted[: model.config.depth]:
        queries = block.shape[1]  # in the last block only the tokens that the head reads
        total = torch.cat([total[:, :queries] + block @ total, total[:, queries:]], dim=1)
    probe = weighted[-1] if model.config.pooling == "attention" else readout(model, images)[:, None]
    return over_patches(model, images, (probe @ total).squeeze(1))


def gradient_attention(
    model: VisionTransformer, images: Images, block: int = -1, classes: Classes | None = None
) -> Float[Tensor, "batch rows columns"]:
    """Computes the attention in one block that supports a class.

    Args:
        model: any with a classifier.
        images: normalized.
        block: from 0; negative numbers count from the end.
        classes: one class index per image; None for the top class.

    Returns:
        The rows of Ā of the tokens that the head reads, weighted by `readout`; Ā is the mean over heads of (∇A ⊙ A)⁺,
        with ∇A the gradient of the class's logit.

    Raises:
        InputError: there is no such block, the model has no classifier, or there is no such class.
    """
    [number] = model.encoder.block_indices([block])
    weighted = weighted_attention(model, images, classes)[number]
    shares = readout(model, images)[:, None, : weighted.shape[1]]  # batch 1 queries
    return over_patches(model, images, (shares @ weighted).squeeze(1))


def weighted_attention(
    model: VisionTransformer, images: Images, classes: Classes | None = None
) -> list[Float[Tensor, "batch queries tokens"]]:
    """Computes Ā, the mean over heads of (∇A ⊙ A)⁺, for every attention in the model.

    Takes one forward pass with explicit attention and one backward pass; parameters get no gradient.

    Returns:
        One per block, the last with only the rows of tokens that the head reads; then, under attention pooling, the
        probe's.

    Raises:
        InputError: the model has no classifier, or there is no such class.
    """
    check_classes(model, classes)
    with torch.inference_mode(False), torch.enable_grad(), evaluation_mode(model):
        with ExplicitAttention() as explicit:
            logits = model(images.detach().clone())  # a clone works even if the images are inference tensors
        chosen = logits.argmax(dim=1) if classes is None else classes.to(logits.device)
        score = logits.gather(1, chosen[:, None]).sum()  # an image's logit depends on its own attention alone
        gradients = torch.autograd.grad(score, explicit.maps)
    pairs = zip(explicit.maps, gradients, strict=True)
    return [(weights.detach().float() * gradient.float()).clamp_min(0).mean(dim=1) for weights, gradient in pairs]


def check_classes(model: VisionTransformer, classes: Classes | None) -> None:
    """Checks class indices.

    Raises:
        InputError: the model has no classifier, or there is no such class.
    """
    count = model.config.num_classes
    if not count:
        raise InputError("this model has no classifier", "relevance needs a class; train a head, or use rollout")
    if classes is not None and len(bad := classes[(classes < 0) | (classes >= count)]):
        raise InputError(f"there is no class {int(bad[0])}", f"this model has classes 0 to {count - 1}")
