"""How close vitreous is to the authors' code: logits, layers, gradients, and weights after ten updates.

The references in tests/reference were computed by google-research/vision_transformer and big_vision in JAX, at the
highest precision of matrix products, from random weights. The tests check every number against its tolerance; run as a
program, this prints the table of docs/equality.md.

    make equality
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.checkpoints.families.recognize import family_named
from vitreous.checkpoints.families.shared.key_map import Rule, to_theirs
from vitreous.checkpoints.load import load_checkpoint
from vitreous.model.vit import VisionTransformer
from vitreous.training.objectives.classification import Classification, CrossEntropy
from vitreous.training.optimization.optimizer import make_optimizer
from vitreous.training.optimization.step import train_step

REFERENCE = Path(__file__).parents[1] / "tests" / "reference"
STUDY = "vit_class_token"
KEY_BIAS = "/key/bias"  # attention does not depend on it: its true gradient is zero, AdamW amplifies rounding


class Reference(NamedTuple):
    """One file of the authors' numbers."""

    name: str
    code: str
    what: str


REFERENCES = (
    Reference("vit_class_token", "vision_transformer", "class token, learned positions"),
    Reference("vit_class_token_at_48px", "vision_transformer", "the same weights at 48 px: positions resampled"),
    Reference("vit_small_signal", "vision_transformer", "tiny residual stream: LayerNorm's eps decides"),
    Reference("vit_pre_logits", "vision_transformer", "tanh hidden layer in the head"),
    Reference("hybrid_two_stages", "vision_transformer", "ResNet stem"),
    Reference("big_vision_gap_sincos", "big_vision", "mean pooling, sincos 2-D positions, hidden layer"),
    Reference("big_vision_map", "big_vision", "attention pooling"),
)
TOLERANCES = {"logits": 1e-5, "layers": 1e-5, "gradients": 1e-5, "sgd": 1e-5, "adamw": 2e-5}


def load(name: str) -> tuple[VisionTransformer, list[Rule]]:
    """The model of a reference's weights, and the rules that read them."""
    stored = load_checkpoint(REFERENCE / f"{name.removesuffix('_at_48px')}.npz")
    family = family_named(stored.metadata["family"])
    return stored.model, family.rules(stored.model.config, family.usual_naming(stored.model.config))


def read(path: Path) -> dict[str, Tensor]:
    """The arrays of a file, as tensors."""
    with np.load(path, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def study() -> dict[str, Tensor]:
    """The study: layers, gradients and updates of one small model."""
    return read(REFERENCE / f"{STUDY}.study.npz")


def pixels(images: Tensor) -> Tensor:
    """Channels first."""
    return images.movedim(-1, -3)


@torch.no_grad()
def logits_of(name: str) -> tuple[Tensor, Tensor]:
    """The logits of vitreous and of the authors, for one reference."""
    expected = read(REFERENCE / f"{name}.expected.npz")
    model, _ = load(name)
    return model(pixels(expected["images"])), expected["logits"]


def layers() -> dict[str, tuple[Tensor, Tensor]]:
    """Each submodule's output, of vitreous and of the authors, by the authors' path; all tokens in every block."""
    expected = study()
    model, _ = load(STUDY)
    ours = _outputs(model, pixels(expected["images"][0]))
    paths = [key.removeprefix("layer/") for key in expected if key.startswith("layer/")]
    return {path: (ours[_same_output(path)], expected[f"layer/{path}"]) for path in paths}


def _same_output(path: str) -> str:
    """Dropout is off, and the encoder ends with its norm: these outputs are recorded twice."""
    if path == "Transformer":
        return "Transformer/encoder_norm"
    if path.endswith("/MlpBlock_3/Dropout_1"):
        return path.replace("Dropout_1", "Dense_1")
    if "encoderblock" in path and path.endswith("/Dropout_0") and "Mlp" not in path:
        return path.replace("Dropout_0", "MultiHeadDotProductAttention_1")
    return path


@torch.no_grad()
def _outputs(model: VisionTransformer, images: Tensor) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}

    def keep(module: torch.nn.Module, path: str, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        handles.append(module.register_forward_hook(lambda _, args, out: outputs.__setitem__(path, change(out))))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    rows, columns = model.config.grid
    keep(model.patch_embedding, "embedding", lambda x: x.unflatten(1, (rows, columns)))
    keep(model.position_embedding, "Transformer/posembed_input")
    keep(model.dropout, "Transformer/Dropout_0")
    heads = (model.config.num_heads, model.config.head_dim)
    for i, block in enumerate(model.encoder.blocks):
        path = f"Transformer/encoderblock_{i}"
        attention = f"{path}/MultiHeadDotProductAttention_1"
        keep(block, path)
        keep(block.get_submodule("attention_norm"), f"{path}/LayerNorm_0")
        for part, name in enumerate(("query", "key", "value")):
            keep(
                block.get_submodule("attention.qkv"),
                f"{attention}/{name}",
                lambda x, part=part: x.chunk(3, dim=-1)[part].unflatten(-1, heads),
            )
        keep(block.get_submodule("attention.out"), f"{attention}/out")
        keep(block.get_submodule("attention"), attention)
        keep(block.get_submodule("mlp_norm"), f"{path}/LayerNorm_2")
        keep(block.get_submodule("mlp.fc1"), f"{path}/MlpBlock_3/Dense_0")
        keep(block.get_submodule("mlp.activation"), f"{path}/MlpBlock_3/Dropout_0")
        keep(block.get_submodule("mlp.fc2"), f"{path}/MlpBlock_3/Dense_1")
        keep(block.get_submodule("mlp"), f"{path}/MlpBlock_3")
    keep(model.encoder.norm, "Transformer/encoder_norm")
    keep(model.head.pooling, "pre_logits")
    try:
        outputs["logits"] = outputs["head"] = model.head(model.encoder(model.embed(images)))
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def gradients() -> dict[str, tuple[Tensor, Tensor]]:
    """Each parameter's gradient, of vitreous and of the authors, by the authors' key."""
    expected = study()
    model, rules = load(STUDY)
    F.cross_entropy(model(pixels(expected["images"][0])), expected["labels"][0]).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    ours = to_theirs(gradients, rules)
    return {key: (ours[key], expected[f"gradient/{key}"]) for key in ours}


def updated(name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Each parameter after ten updates, and the ten losses, of vitreous and of the authors, by the authors' key.

    Args:
        name: "sgd" (momentum 0.9) or "adamw" (decay 0.1 on kernels), each clipped at global norm 1.
    """
    expected = study()
    model, rules = load(STUDY)
    if name == "adamw":
        optimizer: torch.optim.Optimizer = make_optimizer(model, lr=0.0, weight_decay=0.1)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, fused=True)
    losses = []
    for images, labels, lr in zip(expected["images"], expected["labels"], expected[f"{name}/lr"].tolist(), strict=True):
        objective = Classification(CrossEntropy(0.0))
        result = train_step(model, optimizer, objective, pixels(images), labels, lr=lr, clip_norm=1.0)
        losses.append(result.loss.double() / result.count)
    ours = to_theirs(model.state_dict(), rules) | {"losses": torch.stack(losses)}
    return {key: (ours[key], expected[f"{name}/{key}"]) for key in ours}


def largest(pairs: dict[str, tuple[Tensor, Tensor]]) -> float:
    """The largest difference of all pairs."""
    return max((ours - theirs).abs().max().item() for ours, theirs in pairs.values())


def without_key_biases(pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """All pairs except those of the key biases."""
    return {key: pair for key, pair in pairs.items() if not key.endswith(KEY_BIAS)}


def table() -> str:
    """The whole comparison, as a table in Markdown."""
    lines = ["| authors' code | reference | largest difference | tolerance |", "|---|---|---:|---:|"]
    for name, code, what in REFERENCES:
        ours, theirs = logits_of(name)
        lines.append(
            f"| {code} | logits of `{name}`: {what} | {(ours - theirs).abs().max():.1e} | {TOLERANCES['logits']:g} |"
        )
    outputs, slopes = layers(), gradients()
    steepest = max(theirs.abs().max().item() for _, theirs in slopes.values())
    sgd, adam = updated("sgd"), updated("adamw")
    rows = (
        (f"outputs of all {len(outputs)} submodules", largest(outputs), "layers"),
        (f"all {len(slopes)} gradients, relative to the largest", largest(slopes) / steepest, "gradients"),
        ("weights and losses of ten updates, SGD with momentum", largest(without_key_biases(sgd)), "sgd"),
        ("weights and losses of ten updates, AdamW", largest(without_key_biases(adam)), "adamw"),
    )
    return "\n".join(
        [*lines, *(f"| vision_transformer | {what} | {size:.1e} | {TOLERANCES[kind]:g} |" for what, size, kind in rows)]
    )


if __name__ == "__main__":
    print(table())
