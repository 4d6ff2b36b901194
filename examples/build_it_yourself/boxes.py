"""What each of the learner's boxes is compared with, and on which inputs."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor, nn

import vitreous as vt
from examples.build_it_yourself.learner import Fault, check_is_tensor

PATCH, WIDTH, HEADS, HIDDEN = 4, 24, 4, 40  # as different as possible, so that swapped axes show
IMAGE, DEPTH, CLASSES = 16, 2, 5
TOKENS = ((2, 7, WIDTH), (3, 5, WIDTH))
IMAGES = ((2, 3, IMAGE, IMAGE), (3, 3, IMAGE, IMAGE))


@dataclass(frozen=True)
class Box:
    """One of the learner's classes, and what it is compared with.

    Attributes:
        name: of the class.
        arguments: of its constructor.
        reference: makes vitreous's own box.
        inputs: the shapes that both are run on, one after the other.
        parts: prefixes of the parameters that belong to this step; empty for all. If given, the learner's model runs
            only as far as z_0.
    """

    name: str
    arguments: tuple[int, ...]
    reference: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    parts: tuple[str, ...] = ()


class Embedding(vt.VisionTransformer):
    """Vitreous's own model, up to z_0."""

    def forward(self, images: Tensor) -> Tensor:
        """Returns z_0 (equation 1)."""
        return self.embed(images)


class Beginning(nn.Module):
    """A learner's model up to z_0, the output of its position embedding; the rest may still be blank."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name in ("patch_embedding", "class_token", "position_embedding"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self.whole = [model.forward]  # in a list, so that the rest of the model is not a submodule

    def forward(self, images: Tensor) -> Tensor:
        """Returns z_0 (equation 1).

        Raises:
            Fault: the model never adds positions.
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
    """Stops a model early and carries its tokens."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens


def check_class_token(positions: nn.Module, inputs: tuple[object, ...]) -> None:
    """Raises Fault if there is one token fewer than positions."""
    table, tokens = getattr(positions, "embedding", None), inputs[0] if inputs else None
    if not (isinstance(table, Tensor) and isinstance(tokens, Tensor) and table.ndim == tokens.ndim == 3):
        return
    if table.shape[1] == tokens.shape[1] + 1:
        raise Fault(
            f"self.position_embedding gets {tokens.shape[1]} tokens but has {table.shape[1]} positions: join the class "
            "token to the patches first."
        )


def stop(module: nn.Module, inputs: tuple[Tensor, ...], tokens: object) -> None:
    """Stops a model after a module."""
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
BOXES = {  # by number of the step
    1: Box("PatchEmbedding", (PATCH, WIDTH), lambda: vt.PatchEmbedding(PATCH, WIDTH), ((2, 3, 8, 12), (3, 3, 16, 4))),
    2: Box("VisionTransformer", MODEL, lambda: Embedding(CONFIG), IMAGES, parts=START),
    3: Box("SelfAttention", (WIDTH, HEADS), lambda: vt.SelfAttention(WIDTH, HEADS), TOKENS),
    4: Box("MLP", (WIDTH, HIDDEN), lambda: vt.MLP(WIDTH, HIDDEN), TOKENS),
    5: Box("EncoderBlock", (WIDTH, HEADS, HIDDEN), lambda: vt.EncoderBlock(WIDTH, HEADS, HIDDEN), TOKENS),
    6: Box("Encoder", (WIDTH, DEPTH, HEADS, HIDDEN), lambda: vt.Encoder(WIDTH, DEPTH, HEADS, HIDDEN), TOKENS),
    7: Box("VisionTransformer", MODEL, lambda: vt.VisionTransformer(CONFIG), IMAGES),
}
