"""transformers' image classes: small random models with the options that change them, saved and compared."""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

from benchmarks.coverage.outcome import (
    FOLDER,
    TOLERANCE,
    Outcome,
    Result,
    difference,
    fill,
    judged,
    ours,
    random_images,
)
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.files.layout import CONFIG
from vitreous.checkpoints.load import load_checkpoint
from vitreous.support.errors import InputError

SIDE, PATCH, CLASSES = 40, 8, 7
SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH}
MLP = {"intermediate_size": 320}
UNMASKED = {"ViTMAEModel": {"mask_ratio": 0.0}}


class Tower(NamedTuple):
    """A class, and how its outputs are compared.

    Args:
        output: the field of its outputs; all tokens for a class that pools nothing.
        options: one model for each, with these options of the config.
        packed: whether it takes patches with a mask and a shape instead of images.
        nested: whether the config is an image-text model's, with the image tower's in it.
    """

    output: str
    options: tuple[dict[str, Any], ...] = ({},)
    packed: bool = False
    nested: bool = False


LOGITS, POOLED, TOKENS = "logits", "pooler_output", "last_hidden_state"
VIT = ({}, {"hidden_act": "gelu_new", "layer_norm_eps": 1e-6}, {"qkv_bias": False})
BEIT = (
    {"use_relative_position_bias": True},
    {"use_shared_relative_position_bias": True, "use_mean_pooling": False},
    {"use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0},
)
DINOV2 = ({}, {"use_swiglu_ffn": True}, {"use_mask_token": False, "qkv_bias": False})
NO_HEAD = {"vision_use_head": False}

TOWERS = {
    "ViTModel": Tower(POOLED, VIT),
    "ViTForImageClassification": Tower(LOGITS, VIT),
    "ViTMAEModel": Tower(TOKENS, (UNMASKED["ViTMAEModel"], UNMASKED["ViTMAEModel"] | {"layer_norm_eps": 1e-6})),
    "ViTMSNModel": Tower(TOKENS, VIT),
    "ViTMSNForImageClassification": Tower(LOGITS, VIT),
    "DeiTModel": Tower(POOLED, VIT),
    "DeiTForImageClassification": Tower(LOGITS, VIT),
    "DeiTForImageClassificationWithTeacher": Tower(LOGITS, VIT),
    "BeitModel": Tower(POOLED, BEIT),
    "BeitForImageClassification": Tower(LOGITS, BEIT),
    "Data2VecVisionModel": Tower(TOKENS, BEIT),
    "Data2VecVisionForImageClassification": Tower(LOGITS, BEIT),
    "Dinov2Model": Tower(POOLED, DINOV2),
    "Dinov2ForImageClassification": Tower(LOGITS, DINOV2),
    "Dinov2WithRegistersModel": Tower(POOLED, DINOV2[:2]),
    "Dinov2WithRegistersForImageClassification": Tower(LOGITS, DINOV2[:2]),
    "DINOv3ViTModel": Tower(
        POOLED, ({"num_register_tokens": 4}, {"use_gated_mlp": True, "hidden_act": "silu"}, {"key_bias": True})
    ),
    "CLIPVisionModel": Tower(POOLED, ({}, {"hidden_act": "gelu"})),
    "CLIPVisionModelWithProjection": Tower("image_embeds", ({}, {"projection_dim": 48})),
    "CLIPForImageClassification": Tower(LOGITS, nested=True),
    "SiglipVisionModel": Tower(POOLED),
    "SiglipForImageClassification": Tower(LOGITS, (NO_HEAD,), nested=True),
    "Siglip2VisionModel": Tower(POOLED, packed=True),
    "Siglip2ForImageClassification": Tower(LOGITS, (NO_HEAD,), packed=True, nested=True),
    "IJepaModel": Tower(TOKENS, VIT),
    "IJepaForImageClassification": Tower(LOGITS, VIT),
    "MLCDVisionModel": Tower(POOLED),
    "InternVLVisionModel": Tower(TOKENS, ({"attention_bias": True}, {"use_qk_norm": True}, {"norm_type": "rms_norm"})),
    "Aimv2VisionModel": Tower(POOLED, ({}, {"is_native": True}, {"qkv_bias": True, "mlp_bias": True})),
}


def outcome_of(name: str) -> Outcome:
    """The outcome for a class: that of the first of its models which is not equal, else the largest difference."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tower = TOWERS[name]
    found = [judged(name, lambda options=options: compare(name, tower, options)) for options in tower.options]
    usual = found[0]
    if usual.result != "equal":
        return usual
    if different := [outcome for outcome in found if outcome.result == "different"]:
        return different[0]
    largest = max(found, key=lambda outcome: outcome.difference)
    backs = [outcome for outcome in found if outcome.back == "different"] or [usual]
    refused = [
        f"{', '.join(f'{key}={value}' for key, value in options.items())}: refused, {outcome.why}"
        for options, outcome in zip(tower.options, found, strict=True)
        if outcome.result == "refused"
    ]
    return backs[0]._replace(
        difference=largest.difference, note="; ".join([*refused, backs[0].note]).removesuffix("; ")
    )


def compare(name: str, tower: Tower, options: dict[str, Any]) -> Outcome:
    """Saves one random model of the class, loads it, and compares the outputs in both directions."""
    theirs = build(name, tower, options)
    images = random_images((SIDE, SIDE))
    expected = outputs(theirs, tower, images)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / FOLDER
        theirs.save_pretrained(folder)
        stored = load_checkpoint(folder)
        largest = difference(ours(stored.model.eval(), images, tokens=tower.output == TOKENS), expected)
        if largest > TOLERANCE:
            return Outcome(name, "different", f"outputs differ by {largest:.1e}", largest)
        back, note = exported_back(tower, stored, images, expected)
        return Outcome(name, "equal", "", largest, back, note)


def build(name: str, tower: Tower, options: dict[str, Any]) -> Any:
    """A random model of a class, with these options."""
    kind = getattr(transformers, name)
    values = SIZES | options
    config_class = kind.config_class
    if tower.packed:
        values = {key: value for key, value in values.items() if key != "image_size"}
        values |= {"num_patches": (SIDE // PATCH) ** 2}
    if "Dinov2" not in name:  # whose MLP is 4 times as wide as the tokens
        values |= MLP
    if tower.nested:
        config = config_class(vision_config=values, num_labels=CLASSES)
    else:
        config = config_class(**values, **({"num_labels": CLASSES} if tower.output == LOGITS else {}))
    config._attn_implementation = "eager"
    model = kind(config)
    return fill(model)


@torch.no_grad()
def outputs(model: nn.Module, tower: Tower, images: Tensor) -> Tensor:
    """The outputs that are compared, for images."""
    given: dict[str, Tensor] = {"pixel_values": images}
    if tower.packed:
        rows, columns = (side // PATCH for side in images.shape[2:])
        patches = images.unflatten(2, (rows, PATCH)).unflatten(4, (columns, PATCH))  # batch channels rows p columns p
        given = {
            "pixel_values": patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2),
            "pixel_attention_mask": torch.ones(len(images), rows * columns, dtype=torch.long),
            "spatial_shapes": torch.tensor([[rows, columns]] * len(images)),
        }
    if type(model).__name__ == "ViTMAEModel":  # without masking, in the order of the grid
        given["noise"] = torch.arange((SIDE // PATCH) ** 2).float().expand(len(images), -1)
    result = model(**given)
    return getattr(result, tower.output)


def exported_back(tower: Tower, stored: Any, images: Tensor, expected: Tensor) -> tuple[Result, str]:
    """Whether transformers builds what vitreous exports, by its config.json, and computes the same; if not, why."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / FOLDER
        try:
            export_model(stored, "huggingface", folder)
        except InputError as error:
            return "refused", error.cause
        [name] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["architectures"]
        written = Tower(tower.output, packed=name in TOWERS and TOWERS[name].packed)
        again = getattr(transformers, name).from_pretrained(folder, **UNMASKED.get(name, {})).eval()
        largest = difference(outputs(again, written, images), expected)
        return ("equal", "") if largest <= TOLERANCE else ("different", f"as {name}, outputs differ by {largest:.1e}")
