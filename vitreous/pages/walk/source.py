"""The methods that compute each stage, read from their source when a page is made."""

import ast
import inspect
from collections.abc import Callable
from textwrap import dedent
from typing import NamedTuple

from vitreous.data.preprocessing import Preprocessing
from vitreous.model.encoder import EncoderBlock
from vitreous.model.position_embedding import PositionEmbedding
from vitreous.model.vit import VisionTransformer


class Excerpt(NamedTuple):
    """A method: its file, the line where it starts, and its code without indentation and docstring."""

    file: str
    line: int
    code: str


def excerpt(method: Callable[..., object]) -> Excerpt:
    """The source of a method without its docstring: the page explains it."""
    method = inspect.unwrap(method)
    lines, line = inspect.getsourcelines(method)
    code = dedent("".join(lines))
    lines = code.splitlines()
    [function] = ast.parse(code).body
    assert isinstance(function, ast.FunctionDef)
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return Excerpt(f"{method.__module__.replace('.', '/')}.py", line, "\n".join(lines))


def position_methods(model: VisionTransformer) -> list[Callable[..., object]]:
    """The methods that compute the positions: those added, those in the attention's logits, and the rotary angles."""
    kind, methods = type(model.position_embedding), list[Callable[..., object]]()
    if kind is not PositionEmbedding:
        methods.append(kind.table if kind.bias is PositionEmbedding.bias else kind.bias)
    if model.rotary is not None:
        methods.append(type(model.rotary).angles)
    return methods


def source_of(model: VisionTransformer, preprocessing: Preprocessing) -> dict[str, list[Excerpt]]:
    """For each part of the page, the methods that compute it."""
    block, head = model.encoder.blocks[0], model.head
    assert isinstance(block, EncoderBlock)
    methods: dict[str, list[Callable[..., object]]] = {
        "image": [type(preprocessing).normalize],
        "stem": [type(model.stem).forward],
        "patches": [type(model.patch_embedding).patches],
        "projection": [type(model.patch_embedding).forward],
        "prefix": [type(model).embed],
        "positions": position_methods(model),
        "encoder": [type(model.encoder).forward],
        "block": [type(block).forward],
        "qkv": [type(block.attention).project],
        "heads": [type(block.attention).forward, type(block.attention).weights],
        "scale": [type(block.attention_scale).forward],
        "mlp": [type(block.mlp).forward],
        "head": [type(head).forward],
        "pooling": [type(head).representation, type(head.pooling).forward],
        "distillation": [type(head).both],
    }
    return {
        part: [excerpt(method) for method in used if method.__module__.startswith("vitreous.")]
        for part, used in methods.items()
    }
