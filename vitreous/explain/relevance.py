"""Which patches speak for a class: attention weighted by its gradient, block by block or through all of them.

After Chefer, Gur and Wolf 2021, "Generic attention-model explainability" (arXiv 2103.15679), section 3.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vitreous.explain.attention_maps import ExplicitAttention, at_rest, block_numbers, over_patches, readout
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

Classes = Int64[Tensor, " batch"]


def relevance(
    model: VisionTransformer, images: Images, classes: Classes | None = None
) -> Float[Tensor, "batch rows columns"]:
    """Computes how relevant each patch is for a class: what the head reads of R, which all blocks have added to.

    R begins as I, what every token knows of itself. Each block adds what its attention carries in favor of the class:
    R ← R + Ā R with Ā the mean over heads of (∇A ⊙ A)⁺, where ∇A is the gradient of the class's logit. The
    result is the row of R of the token that the head reads, or several by their shares (`readout`); under attention
    pooling it is Ā R for the probe's own Ā.

    Args:
        model: any with a classifier.
        images: as the model takes them.
        classes: the number of a class for each image; None for the likeliest.

    Returns:
        Values of at least 0, comparable within an image. Under mean pooling each contains the constant 1 / N of R = I.

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
    """Computes where what the head reads looks in one block, as far as it speaks for a class.

    Args:
        model: any with a classifier.
        images: as the model takes them.
        block: its number from 0; a negative one counts from the end.
        classes: the number of a class for each image; None for the likeliest.

    Returns:
        For the tokens that the head reads, by their shares (`readout`), their rows of Ā, the mean over heads of
        (∇A ⊙ A)⁺ with ∇A the gradient of the class's logit.

    Raises:
        InputError: there is no such block, the model has no classifier, or there is no such class.
    """
    [number] = block_numbers(model, [block])
    weighted = weighted_attention(model, images, classes)[number]
    shares = readout(model, images)[:, None, : weighted.shape[1]]  # batch 1 queries
    return over_patches(model, images, (shares @ weighted).squeeze(1))


def weighted_attention(
    model: VisionTransformer, images: Images, classes: Classes | None = None
) -> list[Float[Tensor, "batch queries tokens"]]:
    """Computes Ā, the mean over heads of (∇A ⊙ A)⁺, for every attention in the model.

    One forward pass with explicit attention and one backward pass from the logits; parameters get no gradient.

    Returns:
        One for each block, of the last one only the rows of tokens that the head reads; behind them, under attention
        pooling, that of the probe.

    Raises:
        InputError: the model has no classifier, or there is no such class.
    """
    check_classes(model, classes)
    with torch.inference_mode(False), torch.enable_grad(), at_rest(model):
        with ExplicitAttention() as explicit:
            logits = model(images.detach().clone())  # a clone takes part, also if the images are inference tensors
        chosen = logits.argmax(dim=1) if classes is None else classes.to(logits.device)
        score = logits.gather(1, chosen[:, None]).sum()  # an image's logit depends on its own attention alone
        gradients = torch.autograd.grad(score, explicit.maps)
    pairs = zip(explicit.maps, gradients, strict=True)
    return [(weights.detach().float() * gradient.float()).clamp_min(0).mean(dim=1) for weights, gradient in pairs]


def check_classes(model: VisionTransformer, classes: Classes | None) -> None:
    """Checks that a model has classes, and these.

    Raises:
        InputError: it has none, or not these.
    """
    count = model.config.num_classes
    if not count:
        raise InputError("this model has no classifier", "relevance is for a class; train a head, or use rollout")
    if classes is not None and len(bad := classes[(classes < 0) | (classes >= count)]):
        raise InputError(f"there is no class {int(bad[0])}", f"this model has classes 0 to {count - 1}")
