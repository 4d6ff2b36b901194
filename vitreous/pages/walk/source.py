"""The lines of our own source that compute a stage, cut out when a page is made, so that they cannot drift."""

import ast
import inspect
import sys
import textwrap
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

from vitreous.data import preprocessing
from vitreous.model import (
    attention,
    encoder,
    head,
    mlp,
    patch_embedding,
    position_embedding,
    relative_position,
    resnet_stem,
    vit,
)


class Excerpt(NamedTuple):
    """Some lines of one function.

    Attributes:
        file: as seen from the folder that holds the package.
        line: number of the first one.
        code: the lines, not indented.
    """

    file: str
    line: int
    code: str


class Place(NamedTuple):
    """Where lines are: statements of a function that hold some words."""

    module: ModuleType
    function: str  # Class.function
    words: tuple[str, ...]  # of each statement, in the order of the source


FORWARD, BLOCK = "VisionTransformer.embed", "EncoderBlock.forward"
IN_BLOCK_2, IN_BLOCK_3 = "x = x + self.drop_path(", "self.mlp_norm(x)"

# For each stage of the page the lines that compute it; a test reads every one of them.
PLACES: dict[str, tuple[Place, ...]] = {
    "image": (Place(preprocessing, "Preprocessing.normalize", ("images.float()",)),),
    "stem": (
        Place(vit, FORWARD, ("self.stem(images)",)),
        Place(resnet_stem, "ResNetStem.forward", ("self.conv(images)", "F.max_pool2d(", "stage(x)")),
    ),
    "patches": (
        Place(patch_embedding, "PatchEmbedding.patches", ("images.reshape(", "cut.permute(", "return cut.reshape(")),
    ),
    "projection": (Place(patch_embedding, "PatchEmbedding.forward", ("self.projection(",)),),
    "prefix": (Place(vit, FORWARD, ("prefix = [", "torch.cat(")),),
    "positions": (Place(position_embedding, "PositionEmbedding.add", ("self.table(", "x + table")),),
    "relative": (Place(relative_position, "RelativePosition.bias", ("q @ keys", "logits.gather(")),),
    "encoder": (Place(encoder, "Encoder.forward", ("inside = positions(i)", "self._run(")),),
    "block": (Place(encoder, BLOCK, ("self.attention_norm(x)", "self.attention(normed", IN_BLOCK_2, IN_BLOCK_3)),),
    "pre_norm": (Place(encoder, "Encoder.forward", ("self.pre_norm(x)",)),),
    "positions in the encoder": (Place(encoder, "Encoder.forward", ("inside = positions(i)", "inside.tokens(x)")),),
    "attention_norm": (Place(encoder, BLOCK, ("self.attention_norm(x)",)),),
    "qkv": (Place(attention, "SelfAttention.project", ("self.qkv(x)",)),),
    "qkv of the tokens read": (Place(attention, "SelfAttention.project", ("F.linear(queries", "F.linear(x")),),
    "heads": (
        Place(attention, "SelfAttention.weights", ("q @ k.mT", "logits.softmax(")),
        Place(attention, "SelfAttention.forward", ("scaled_dot_product_attention(",)),
    ),
    "out": (Place(attention, "SelfAttention.forward", ("heads.transpose(", "self.out(joined)")),),
    "attention_scale": (Place(encoder, "LayerScale.forward", ("x * self.gamma",)),),
    "add": (Place(encoder, BLOCK, (IN_BLOCK_2,)),),
    "mlp_norm": (Place(encoder, BLOCK, (IN_BLOCK_3,)),),
    "fc1": (Place(mlp, "MLP.forward", ("self.fc1(x)",)),),
    "activation": (Place(mlp, "MLP.forward", ("self.activation(",)),),
    "fc2": (Place(mlp, "MLP.forward", ("self.fc2(x)",)),),
    "SwiGLU fc1": (Place(mlp, "SwiGLU.forward", ("self.fc1(x)",)),),
    "SwiGLU gate": (Place(mlp, "SwiGLU.forward", ("F.silu(gate)",)),),
    "SwiGLU fc2": (Place(mlp, "SwiGLU.forward", ("self.fc2(",)),),
    "mlp_scale": (Place(encoder, "LayerScale.forward", ("x * self.gamma",)),),
    "add.2": (Place(encoder, BLOCK, (IN_BLOCK_3,)),),
    "norm": (Place(encoder, "Encoder.forward", ("self.norm(x)",)),),
    "head": (Place(head, "Head.forward", ("self.representation(x)", "self.classifier(y)")),),
    "ClassTokenPooling": (Place(head, "ClassTokenPooling.forward", ("x[:, 0]",)),),
    "MeanPooling": (Place(head, "MeanPooling.forward", ("mean(dim=1)",)),),
    "AttentionPooling": (Place(head, "AttentionPooling.forward", ("self.attention(", "self.mlp(", "x[:, 0]")),),
    "head norm": (Place(head, "Head.representation", ("self.norm(",)),),
    "hidden": (Place(head, "Head.forward", ("torch.tanh(",)),),
    "classifier": (Place(head, "Head.forward", ("self.classifier(y)",)),),
    "distillation": (
        Place(head, "Head.both", ("self.distillation(",)),
        Place(head, "Head.forward", ("(first + second) / 2",)),
    ),
}


@lru_cache(maxsize=64)
def excerpts(stage: str) -> tuple[Excerpt, ...]:
    """The lines that compute a stage of PLACES, one excerpt for each function.

    Raises:
        LookupError: the source no longer has them; the table above must follow.
    """
    return tuple(excerpt(place) for place in PLACES[stage])


def excerpt(place: Place) -> Excerpt:
    """The first statement of a function that holds some words of a place, for each of them, in the source's order."""
    source, functions = parsed(place.module)
    nodes = [node for node in ast.walk(functions[place.function]) if isinstance(node, ast.stmt)]
    simple = {node.lineno: "\n".join(source[node.lineno - 1 : node.end_lineno]) for node in nodes if is_simple(node)}
    found: dict[int, str] = {}
    for words in place.words:
        line = next((line for line in sorted(simple) if words in simple[line]), None)
        if line is None:
            raise LookupError(f"{place.function} in {place.module.__name__} has no statement with {words!r}")
        found[line] = textwrap.dedent(simple[line])
    name = place.module.__name__.replace(".", "/")
    return Excerpt(f"{name}.py", min(found), "\n".join(found[line] for line in sorted(found)))


def is_simple(statement: ast.stmt) -> bool:
    """Tells a statement from one that holds others, such as a loop."""
    return not hasattr(statement, "body")


@lru_cache(maxsize=16)
def parsed(module: ModuleType) -> tuple[list[str], dict[str, ast.FunctionDef]]:
    """The lines of a module's source, and its classes' functions by name."""
    source = inspect.getsource(sys.modules[module.__name__])
    functions = {
        f"{part.name}.{node.name}": node
        for part in ast.parse(source).body
        if isinstance(part, ast.ClassDef)
        for node in part.body
        if isinstance(node, ast.FunctionDef)
    }
    return source.splitlines(), functions
