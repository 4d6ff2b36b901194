"""The authors' own files: Google's npz (original, AugReg, hybrid, tanh head) and big_vision's npz.

Both store kernels input-first, q, k and v apart and by head. They differ in the prefix of the keys, in how layers
are numbered, and in where positions stand; a Dialect holds that, so that export writes the same keys again.
"""

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitreous.checkpoints.key_map import (
    HWIO,
    SAME,
    TRANSPOSED,
    Layout,
    Rule,
    first_line,
    heads_bias,
    heads_in,
    heads_out,
    patch_kernel,
    reshaped,
    to_ours,
    to_theirs,
)
from vitreous.model.config import ViTConfig
from vitreous.model.cost import on_meta
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.files import atomic_file

PREFIXES = ("opt/target/", "params/img/", "params/", "")
POSITIONS = ("Transformer/posembed_input/pos_embedding", "pos_embedding")
BLOCK = "Transformer/encoderblock_{}/"
MAP_HEAD = "MAPHead_0/"
SLACK, INFLATION = 2**24, 4  # bytes that any file may unpack into, and how many times its own size besides


@dataclass(frozen=True)
class Dialect:
    """How one file spells its keys.

    Args:
        prefix: in front of every key.
        numbering: suffixes of a block's first norm, attention, second norm and MLP.
        position_key: where the position table stands.
        norm_ones: leading axes of length 1 on the stem's norms (the first hybrid files).
    """

    prefix: str = ""
    numbering: tuple[int, int, int, int] = (0, 1, 2, 3)
    position_key: str = POSITIONS[0]
    norm_ones: int = 0


LINEN = (0, 0, 1, 0)


def is_jax(keys: Mapping[str, Any]) -> bool:
    """Tells whether these are the keys of such a file."""
    return any(key.endswith("embedding/kernel") for key in keys) and any("encoderblock" in key for key in keys)


def recognize(source: Mapping[str, Tensor], image_size: tuple[int, int] | None = None) -> tuple[ViTConfig, Dialect]:
    """Reads the config and the dialect off the keys and shapes.

    Heads and sizes are all in the shapes; what is not, is the authors' own: eps 1e-6, tanh GELU. A square number of
    positions is a square grid.

    Args:
        source: the tensors by their keys.
        image_size: (height, width), where the positions do not tell.

    Raises:
        InputError: not such a file, or the grid cannot be told.
    """
    prefix = next((p for p in PREFIXES if f"{p}embedding/kernel" in source), None)
    first = None if prefix is None else prefix + BLOCK.format(0)
    if prefix is None or f"{first}LayerNorm_0/scale" not in source:
        raise InputError("these are not the keys of a Google or big_vision ViT", "there is no embedding/kernel")
    inner = {key.removeprefix(prefix): tensor for key, tensor in source.items() if key.startswith(prefix)}
    try:
        return _recognize(inner, prefix, image_size)
    except KeyError as error:
        raise InputError(f"the file's key {error.args[0]!r} is missing", "nothing was loaded") from error
    except (IndexError, ValueError) as error:
        raise InputError(f"the file's shapes make no ViT: {first_line(error)}", "nothing was loaded") from error


def _recognize(
    inner: Mapping[str, Tensor], prefix: str, image_size: tuple[int, int] | None
) -> tuple[ViTConfig, Dialect]:
    linen = f"{BLOCK.format(0)}LayerNorm_1/scale" in inner
    positions = next((key for key in POSITIONS if key in inner), None)
    gn_root = inner.get("gn_root/scale")
    dialect = Dialect(
        prefix,
        LINEN if linen else Dialect.numbering,
        positions or POSITIONS[1],
        0 if gn_root is None else gn_root.ndim - 1,
    )
    return ViTConfig.from_dict(_shape_fields(inner, dialect) | _token_fields(inner, positions, image_size)), dialect


def _shape_fields(inner: Mapping[str, Tensor], dialect: Dialect) -> dict[str, Any]:
    _, attention, _, mlp = dialect.numbering
    patch = inner["embedding/kernel"].shape
    block = BLOCK.format(0)
    blocks = {match[1] for key in inner if (match := re.match(r"Transformer/encoderblock_(\d+)/", key))}
    head, hidden = inner.get("head/bias"), inner.get("pre_logits/bias")
    fields = {
        "width": patch[3],
        "depth": len(blocks),
        "num_heads": inner[f"{block}MultiHeadDotProductAttention_{attention}/query/bias"].shape[0],
        "mlp_dim": inner[f"{block}MlpBlock_{mlp}/Dense_0/bias"].shape[0],
        "patch_size": tuple(patch[:2]),
        "channels": patch[2],
        "num_classes": 0 if head is None else len(head),
        "hidden_dim": None if hidden is None else len(hidden),
    }
    if "conv_root/kernel" in inner:
        units = [re.match(r"block(\d+)/unit(\d+)/conv1", key) for key in inner]
        stages = [int(m[1]) for m in units if m]
        fields["stem_blocks"] = tuple(stages.count(s) for s in range(1, max(stages, default=0) + 1))
        fields["stem_width"], fields["channels"] = (
            inner["conv_root/kernel"].shape[3],
            inner["conv_root/kernel"].shape[2],
        )
    return fields


def _token_fields(
    inner: Mapping[str, Tensor], positions: str | None, image_size: tuple[int, int] | None
) -> dict[str, Any]:
    class_token = "cls" in inner
    fields: dict[str, Any] = {"class_token": class_token}
    fields["pooling"] = "class_token" if class_token else "mean"
    if f"{MAP_HEAD}probe" in inner:
        fields["pooling"] = "attention"
    stride = _stride(inner)
    if positions is None:
        fields["position_embedding"] = "sincos_2d"
        fallback = tuple(max(1, 224 // s) * s for s in stride)
        return fields | {"image_size": image_size or fallback, "position_class_slot": False}
    count = inner[positions].shape[1]
    # With a class token, N + 1 rows hold a slot for it, N rows do not: only one of them makes the grid.
    slot = class_token and (positions == POSITIONS[0] or math.isqrt(count) ** 2 != count)
    fields["position_class_slot"] = slot
    if image_size is None:
        side = math.isqrt(count - slot)
        if side**2 != count - slot:
            raise InputError(f"{count - slot} positions are no square grid", "give image_size=(height, width)")
        image_size = side * stride[0], side * stride[1]
    return fields | {"image_size": image_size}


def _stride(inner: Mapping[str, Tensor]) -> tuple[int, int]:
    height, width = inner["embedding/kernel"].shape[:2]
    stages = {key.partition("/")[0] for key in inner if re.match(r"block\d+/", key)}
    stem = 4 * 2 ** max(0, len(stages) - 1) if "conv_root/kernel" in inner else 1
    return height * stem, width * stem


def rules(c: ViTConfig, dialect: Dialect) -> list[Rule]:
    """The table for one model: a rule for each parameter.

    Raises:
        InputError: the config holds something that these formats have no key for.
    """
    lacking = [
        name
        for name, used in {
            "a distillation token": c.distillation_token,
            "registers": c.registers,
            "LayerScale": c.layer_scale is not None,
            "a norm before the encoder": c.pre_norm,
            "SwiGLU": c.mlp == "swiglu",
            f"{c.gelu} GELU": c.gelu != "tanh",
            f"eps {c.norm_eps:g}": c.norm_eps != 1e-6,
            f"{c.position_embedding} positions": c.position_embedding not in ("learned", "sincos_2d"),
            "mae's sincos exponent": c.position_embedding == "sincos_2d" and c.sincos_exponent != "big_vision",
            "positions inside the encoder": c.position_site != "stem",
            "the norm after pooling": c.norm_after_pooling,
            "a patch projection without bias": not c.patch_bias,
            "a classifier without bias": not c.classifier_bias,
        }.items()
        if used
    ]
    if lacking:
        raise InputError(
            f"Google's and big_vision's files cannot hold {', '.join(lacking)}", "export to another family"
        )
    table = [
        *_stem_rules(c, dialect),
        *_embedding_rules(c, dialect),
        *_encoder_rules(c, dialect),
        *_head_rules(c),
    ]
    return [rule._replace(theirs=tuple(dialect.prefix + key for key in rule.theirs)) for rule in table]


def _dense(ours: str, theirs: str, kernel: Layout = TRANSPOSED) -> Iterator[Rule]:
    yield Rule(f"{ours}.weight", (f"{theirs}/kernel",), kernel)
    yield Rule(f"{ours}.bias", (f"{theirs}/bias",), SAME)


def _norm(ours: str, theirs: str, layout: Layout = SAME) -> Iterator[Rule]:
    yield Rule(f"{ours}.weight", (f"{theirs}/scale",), layout)
    yield Rule(f"{ours}.bias", (f"{theirs}/bias",), layout)


def _attention(ours: str, theirs: str, heads: int) -> Iterator[Rule]:
    parts = [f"{theirs}/{name}" for name in ("query", "key", "value")]
    yield Rule(f"{ours}.qkv.weight", tuple(f"{part}/kernel" for part in parts), heads_out(heads))
    yield Rule(f"{ours}.qkv.bias", tuple(f"{part}/bias" for part in parts), heads_bias(heads))
    yield from _dense(f"{ours}.out", f"{theirs}/out", heads_in(heads))


def _mlp(ours: str, theirs: str) -> Iterator[Rule]:
    yield from _dense(f"{ours}.fc1", f"{theirs}/Dense_0")
    yield from _dense(f"{ours}.fc2", f"{theirs}/Dense_1")


def _stem_rules(c: ViTConfig, dialect: Dialect) -> Iterator[Rule]:
    if c.stem_blocks is None:
        return
    ones = (1,) * dialect.norm_ones
    layout = reshaped((-1,), (*ones, -1))
    yield Rule("stem.conv.weight", ("conv_root/kernel",), HWIO)
    yield from _norm("stem.norm", "gn_root", layout)
    for s, units in enumerate(c.stem_blocks):
        for u in range(units):
            ours, theirs = f"stem.stages.{s}.{u}", f"block{s + 1}/unit{u + 1}"
            for i in (1, 2, 3):
                yield Rule(f"{ours}.conv{i}.weight", (f"{theirs}/conv{i}/kernel",), HWIO)
                yield from _norm(f"{ours}.norm{i}", f"{theirs}/gn{i}", layout)
            if u == 0:
                yield Rule(f"{ours}.shortcut.conv.weight", (f"{theirs}/conv_proj/kernel",), HWIO)
                yield from _norm(f"{ours}.shortcut.norm", f"{theirs}/gn_proj", layout)


def _embedding_rules(c: ViTConfig, dialect: Dialect) -> Iterator[Rule]:
    yield from _dense("patch_embedding.projection", "embedding", patch_kernel(*c.patch_size, c.stem_channels))
    if c.class_token:
        yield Rule("class_token", ("cls",), SAME)
    if c.position_embedding == "learned":
        yield Rule("position_embedding.embedding", (dialect.position_key,), SAME)


def _encoder_rules(c: ViTConfig, dialect: Dialect) -> Iterator[Rule]:
    first_norm, attention, second_norm, mlp = dialect.numbering
    for i in range(c.depth):
        ours, theirs = f"encoder.blocks.{i}.", BLOCK.format(i)
        yield from _norm(f"{ours}attention_norm", f"{theirs}LayerNorm_{first_norm}")
        yield from _attention(f"{ours}attention", f"{theirs}MultiHeadDotProductAttention_{attention}", c.num_heads)
        yield from _norm(f"{ours}mlp_norm", f"{theirs}LayerNorm_{second_norm}")
        yield from _mlp(f"{ours}mlp", f"{theirs}MlpBlock_{mlp}")
    yield from _norm("encoder.norm", "Transformer/encoder_norm")


def _head_rules(c: ViTConfig) -> Iterator[Rule]:
    if c.pooling == "attention":
        yield Rule("head.pooling.probe", (f"{MAP_HEAD}probe",), SAME)
        yield from _attention("head.pooling.attention", f"{MAP_HEAD}MultiHeadDotProductAttention_0", c.num_heads)
        yield from _norm("head.pooling.norm", f"{MAP_HEAD}LayerNorm_0")
        yield from _mlp("head.pooling.mlp", f"{MAP_HEAD}MlpBlock_0")
    if c.hidden_dim is not None:
        yield from _dense("head.hidden", "pre_logits")
    if c.num_classes:
        yield from _dense("head.classifier", "head")


def read_npz(path: Path) -> dict[str, Tensor]:
    """Reads the arrays of an npz file; never anything but arrays, and never much more than the file's own size.

    Raises:
        InputError: not an npz file, damaged, it holds objects, or it is small and would unpack into much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked, allowed = sum(e.file_size for e in entries), SLACK + INFLATION * path.stat().st_size
            if unpacked > allowed:
                raise InputError(
                    f"{path} would unpack into {unpacked:,} bytes", f"{allowed:,} are allowed for its size"
                )
            return {entry.filename.removesuffix(".npy"): read_array(archive, entry) for entry in entries}
    except InputError:
        raise
    # What damaged archives raise: the last three are an encrypted entry, an unknown compression, broken data.
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
        zlib.error,
    ) as error:
        raise InputError(
            f"{path} is not a readable npz file: {first_line(error)}", "copy or download it again"
        ) from error


def read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Tensor:
    """Reads one array, after a look at whether its header promises what the entry holds.

    Raises:
        ValueError: it does not, or the array is of objects.
    """
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
            raise ValueError(f"{entry.filename} is not the array of numbers that its header promises")
    with archive.open(entry) as file:
        return torch.from_numpy(np.ascontiguousarray(np.lib.format.read_array(file, allow_pickle=False)))


def write_npz(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as an npz file, atomically."""
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, tensor in tensors.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, tensor.detach().cpu().numpy(), allow_pickle=False)


def load_npz(path: Path, image_size: tuple[int, int] | None = None) -> tuple[VisionTransformer, Dialect]:
    """Loads a model from a Google or big_vision npz file, in float32 whatever the file has.

    Args:
        path: of the file.
        image_size: (height, width) the positions were made for, where they are no square grid.

    Raises:
        InputError: not such a file, or it does not fit; nothing is loaded in part.
    """
    source = read_npz(path)
    config, dialect = recognize(source, image_size)
    model = on_meta(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = to_ours(source, rules(config, dialect), shapes, str(path))
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return model, dialect


def save_npz(path: Path, model: VisionTransformer, dialect: Dialect | None = None) -> None:
    """Writes a model as the authors' code stores it: the inverse of `load_npz`, bit for bit.

    Args:
        path: of the file, replaced atomically.
        model: whose config these formats can hold.
        dialect: the spelling; Google's own where None, big_vision's for models of its kind.

    Raises:
        InputError: the formats cannot hold the model; nothing is written.
    """
    c = model.config
    if dialect is None:
        slotted = c.position_embedding == "learned" and (c.position_class_slot or not c.class_token)
        google = slotted and c.pooling != "attention"
        dialect = Dialect() if google else Dialect("params/", LINEN, POSITIONS[1])
    write_npz(path, to_theirs(model.state_dict(), rules(c, dialect)))
