"""What each box of the learner's is compared with, and on which inputs."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor, nn

import vitreous as vt
from examples.build_it_yourself.learner import Fault, check_is_tensor

PATCH, WIDTH, HEADS, HIDDEN = 4, 24, 4, 40  # numbers that differ, so that no two axes can be taken for each other
IMAGE, DEPTH, CLASSES = 16, 2, 5
TOKENS = ((2, 7, WIDTH), (3, 5, WIDTH))
IMAGES = ((2, 3, IMAGE, IMAGE), (3, 3, IMAGE, IMAGE))


@dataclass(frozen=True)
class Box:
    """A class of the learner's, and what it is compared with.

    Attributes:
        name: of the class.
        arguments: to make it.
        reference: makes vitreous's own.
        inputs: shapes of what both are run on, one after the other.
        parts: how the names of those of its parameters begin that belong to this step, if it is not all; then the
            learner's runs only as far as z_0.
    """

    name: str
    arguments: tuple[int, ...]
    reference: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    parts: tuple[str, ...] = ()


class Embedding(vt.VisionTransformer):
    """Vitreous's own model as far as z_0."""

    def forward(self, images: Tensor) -> Tensor:
        """Returns z_0 (equation 1)."""
        return self.embed(images)


class Beginning(nn.Module):
    """A learner's model as far as z_0, what its position embedding gives; what comes behind may still be blank."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name in ("patch_embedding", "class_token", "position_embedding"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self.whole = [model.forward]  # in a list, so that no other part of the model is a part of this

    def forward(self, images: Tensor) -> Tensor:
        """Returns z_0 (equation 1).

        Raises:
            Fault: the model goes on, or ends, without positions.
        """
        positions = getattr(self, "position_embedding", None)
        with ExitStack() as stack:
            if isinstance(positions, nn.Module):
                stack.enter_context(positions.register_forward_pre_hook(check_class_token))
                stack.enter_context(positions.register_forward_hook(stop))
            try:
                self.whole[0](images)
            except Reached as reached:
                return reached.tokens
            except NotImplementedError as error:
                if "step 7" not in str(error):
                    raise
        raise Fault("VisionTransformer.forward never calls self.position_embedding: its tokens have no positions.")


class Reached(Exception):
    """Carries the tokens out of a model that is not to run to its end."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens


def check_class_token(positions: nn.Module, inputs: tuple[object, ...]) -> None:
    """Raises Fault if there is one token less than positions."""
    places, tokens = getattr(positions, "embedding", None), inputs[0] if inputs else None
    if not (isinstance(places, Tensor) and isinstance(tokens, Tensor) and places.ndim == tokens.ndim == 3):
        return
    if places.shape[1] == tokens.shape[1] + 1:
        raise Fault(
            f"self.position_embedding is given {tokens.shape[1]} tokens, and has {places.shape[1]} positions: the "
            "class token is not joined to the patches before."
        )


def stop(module: nn.Module, inputs: tuple[Tensor, ...], tokens: object) -> None:
    """Ends a model behind a module."""
    raise Reached(check_is_tensor(tokens, type(module).__name__))


CONFIG = vt.ViTConfig(
    image_size=(IMAGE, IMAGE),
    patch_size=(PATCH, PATCH),
    width=WIDTH,
    depth=DEPTH,
    num_heads=HEADS,
    mlp_dim=HIDDEN,
    num_classes=CLASSES,
)
MODEL = (IMAGE, PATCH, WIDTH, DEPTH, HEADS, HIDDEN, CLASSES)
START = ("patch_embedding.", "class_token", "position_embedding.")
BOXES = {  # by step
    1: Box("PatchEmbedding", (PATCH, WIDTH), lambda: vt.PatchEmbedding(PATCH, WIDTH), ((2, 3, 8, 12), (3, 3, 16, 4))),
    2: Box("VisionTransformer", MODEL, lambda: Embedding(CONFIG), IMAGES, parts=START),
    3: Box("SelfAttention", (WIDTH, HEADS), lambda: vt.SelfAttention(WIDTH, HEADS), TOKENS),
    4: Box("MLP", (WIDTH, HIDDEN), lambda: vt.MLP(WIDTH, HIDDEN), TOKENS),
    5: Box("EncoderBlock", (WIDTH, HEADS, HIDDEN), lambda: vt.EncoderBlock(WIDTH, HEADS, HIDDEN), TOKENS),
    6: Box("Encoder", (WIDTH, DEPTH, HEADS, HIDDEN), lambda: vt.Encoder(WIDTH, DEPTH, HEADS, HIDDEN), TOKENS),
    7: Box("VisionTransformer", MODEL, lambda: vt.VisionTransformer(CONFIG), IMAGES),
}
