"""Reads a transformers file's keys and shapes into config fields."""

import re

from vitreous.checkpoints.families.huggingface.kinds import (
    AIMV2,
    BEIT,
    CLIP,
    DATA2VEC,
    DEIT,
    DINOV2,
    DINOV2_REGISTERS,
    DINOV3,
    GELUS,
    IJEPA,
    INTERNVL,
    KINDS,
    MLCD,
    MSN,
    SIGLIP,
    SIGLIP2,
    VIT,
)
from vitreous.checkpoints.families.huggingface.names import LAYOUTS, Names
from vitreous.checkpoints.families.huggingface.rules import HuggingFaceNaming
from vitreous.checkpoints.families.shared.family import block_count, prefixes, shape_of
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.support.errors import InputError

CLASSIFIERS = ("classifier", "cls_classifier", "visual_projection")
BODIES = tuple({kind.body: None for kind in KINDS.values() if kind.body})
DROPS = (
    (r"(text_model\.|text_projection\.|logit_scale$|logit_bias$)", "the text tower"),
    (r"(.*\.)?(position_ids|relative_position_index)$", "position indices"),
    (r"(decoder\.0|lm_head)\.(weight|bias)$", "masked pre-training"),
    (r"decoder\.(decoder_\w+\.|decoder_pos_embed$|mask_token$)", "MAE's decoder"),
)
PATCHES_MASK = (r"((vit|deit|ijepa)\.)?embeddings\.mask_token$", "masked pre-training")
UNUSED_POOLING = "a pooling layer that the classifier does not use"
UNUSED_NORM = "a norm that the classifier does not use"


def nearest_layout(shapes: Shapes) -> tuple[str, str, list[str]]:
    """The nearest layout, its prefix in the file, and the required keys that are missing."""
    candidates = [
        (layout, prefix, [key for key in names.required_keys if prefix + key not in shapes])
        for layout, names in LAYOUTS.items()
        for prefix in prefixes(shapes, names.required_keys)[:1]
    ]
    default = ("disk", "", list(LAYOUTS["disk"].required_keys))
    return min(candidates, key=lambda candidate: len(candidate[2]), default=default)


def read_file(shapes: Shapes, reading: Reading) -> HuggingFaceNaming:
    """Reads the fields of a file, the keys to drop, and how it names the others.

    Raises:
        InputError: a key is missing, or the model computes something that vitreous does not support.
    """
    layout, prefix, _ = nearest_layout(shapes)
    names = LAYOUTS[layout]
    body = next((body for body in BODIES if re.search(rf"(^|[./]){re.escape(body)}$", prefix)), "")
    root = prefix.removesuffix(body)
    plain = {key.removeprefix(prefix) for key in shapes}
    kind = kind_of(layout, plain, len(shapes[f"{prefix}{names.patch}.weight"]))
    outer_norm = bool(body) and f"{root}{names.norm}.weight" in shapes  # of BEiT's masked pre-training
    drops = _drops(kind, root, re.escape(body), shapes)
    if outer_norm and f"{prefix}{names.norm}.weight" in shapes:
        outer_norm = False
        drops.append((rf"{re.escape(names.norm)}\.", "a second final norm, of masked pre-training"))
    remaining = reading.drop(shapes, root, drops)
    inner = {key.removeprefix(body): shape for key, shape in remaining.items()}
    _read_patches(inner, names, reading)
    _read_blocks(inner, names, reading)
    _read_head(inner, names, reading, kind)
    _read_tokens(inner, names, reading, kind)
    _guess(reading, kind)
    mask = inner.get(names.mask_token)
    reading.fields["mask_token"] = mask is not None
    return HuggingFaceNaming(
        *(root, body, layout),
        positioned=names.positions in inner,
        flat_patches=len(inner[f"{names.patch}.weight"]) == 2,
        mask_shape=None if mask is None else tuple(mask),
        register_key=kind in (DINOV2_REGISTERS, DINOV3),
        after="pooler.layernorm.weight" in inner,
        outer_norm=outer_norm,
    )


def kind_of(layout: str, keys: set[str], patch_rank: int) -> str:
    """The model_type whose keys these are; of those that share a layout, the first."""
    names = LAYOUTS[layout]
    match layout:
        case "tower" if "class_pos_emb" in keys:
            return MLCD
        case "tower" if "pre_layrnorm.weight" in keys:
            return CLIP
        case "tower":
            return SIGLIP2 if patch_rank == 2 else SIGLIP
        case "dinov2" | "dinov2_memory":
            return DINOV2_REGISTERS if names.registers in keys else DINOV2
        case "dinov3" | "dinov3_memory":
            return DINOV3
        case "internvl" | "aimv2" | "msn":
            return {"internvl": INTERNVL, "aimv2": AIMV2, "msn": MSN}[layout]
    query, key, _ = (names.in_block(0, part) + ".bias" for part in names.qkv)
    if names.in_block(0, names.scales[0]) in keys or (query in keys and key not in keys):
        return BEIT
    if names.class_token not in keys:
        return IJEPA
    return DEIT if names.registers in keys else VIT


def _drops(kind: str, root: str, body: str, shapes: Shapes) -> list[tuple[str, str]]:
    """The patterns of keys to drop, and why."""
    drops = list(DROPS)
    if not KINDS[kind].mask_token:
        drops.append(PATCHES_MASK)
    classified = any(f"{root}{name}.weight" in shapes for name in CLASSIFIERS[:2])
    if classified and not KINDS[kind].mask_token:  # BEiT's classifier reads its pooling layer
        drops.append((rf"{body}(pooler|head)\.", UNUSED_POOLING))
    if classified and kind == CLIP:
        drops.append((rf"{body}post_layernorm\.", UNUSED_NORM))
    return drops


def _read_patches(inner: Shapes, names: Names, reading: Reading) -> None:
    """Patch projection and widths."""
    fields, key = reading.fields, f"{names.patch}.weight"
    if len(inner.get(key, ())) == 2:  # SigLIP 2
        fields["width"], numbers = inner[key]
        channels = reading.known.get("channels", 3)
        side = round((numbers / channels) ** 0.5)
        if side**2 * channels != numbers:
            raise InputError(f"{numbers} numbers do not make a square patch of {channels} channels", "set channels=1")
        fields["channels"], patch = channels, (side, side)
    else:
        fields["width"], fields["channels"], *patch = shape_of(inner, key, 4)
    fields["patch_size"] = tuple(patch)
    fields["patch_bias"] = f"{names.patch}.bias" in inner
    fields["embedding_norm"] = f"{names.embedding_norm}.weight" in inner


def _read_blocks(inner: Shapes, names: Names, reading: Reading) -> None:
    """Depth, and what is in a block."""
    fields, first = reading.fields, names.block.format(0)
    fields["depth"] = block_count(inner, re.escape(names.block).replace(r"\{\}", r"(\d+)"))
    gated = f"{first}{names.gated_fc2}.weight" in inner and f"{first}{names.gate[0]}.weight" in inner
    fc2 = names.gated_fc2 if gated else names.fc2
    fields["mlp"] = "swiglu" if gated else "mlp"
    fields["mlp_dim"] = shape_of(inner, f"{first}{fc2}.weight", 2)[1]
    fields["pre_norm"] = "pre_layrnorm.weight" in inner
    fields["norm"] = "layer" if f"{first}{names.attention_norm}.bias" in inner else "rms"
    fields["layer_scale"] = 1.0 if first + names.scales[0] in inner else None
    biased = tuple(f"{first}{part}.bias" in inner for part in names.qkv)
    kinds = {(True, True, True): "all", (True, False, True): "no_key", (False, False, False): "none"}
    if biased not in kinds:
        named = ", ".join(
            f"no {name}" for name, there in zip(("query", "key", "value"), biased, strict=True) if not there
        )
        raise InputError(f"the file has {named} bias but others", "biases of query and value, of all three, or none")
    fields["qkv_bias"] = kinds[biased]
    dense = {f"{first}{layer}.bias" in inner for layer in (names.out, fc2)}
    if len(dense) > 1:
        cause = "the file has biases after attention or in the MLP, but not both"
        raise InputError(cause, "vitreous can compute models with both, or with neither")
    fields["dense_bias"] = dense == {True}
    _read_qk_norms(inner, names, reading)


def _read_qk_norms(inner: Shapes, names: Names, reading: Reading) -> None:
    """InternViT's norms of query and key, which are RMSNorm with an epsilon of 1e-6 whatever the other norms are."""
    fields = reading.fields
    normed = names.in_block(0, names.qk_norms[0]) + ".weight" in inner
    fields["query_key_norm"] = "width" if normed else "none"
    if not normed:
        return
    if fields["norm"] != "rms" or reading.known.get("norm_eps", 1e-6) != 1e-6:
        cause = "InternViT's norms of query and key are RMSNorm with eps 1e-6, but its other norms are not"
        raise InputError(cause, "vitreous can compute models whose norms are all of one kind")


def _read_head(inner: Shapes, names: Names, reading: Reading, kind: str) -> None:
    """Classifier, pooling layer and final norm."""
    fields = reading.fields
    classifier = next((name for name in CLASSIFIERS if f"{name}.weight" in inner), None)
    fields["num_classes"] = 0 if classifier is None else shape_of(inner, f"{classifier}.weight", 2)[0]
    fields["classifier_bias"] = classifier is None or f"{classifier}.bias" in inner
    fields["hidden_dim"] = shape_of(inner, "pooler.dense.weight", 2)[0] if "pooler.dense.weight" in inner else None
    after = "pooler.layernorm.weight" in inner
    optional = kind in (BEIT, DATA2VEC, INTERNVL, CLIP)
    fields["final_norm"] = not optional or after or f"{names.norm}.weight" in inner
    fields["norm_after_pooling"] = after
    if fields["norm"] == "rms" and f"{names.norm}.bias" in inner:
        cause = "the norms of the blocks are RMSNorm, but the final one is LayerNorm"
        raise InputError(cause, "vitreous can compute models whose norms are all of one kind")
    fields["class_token"] = names.class_token in inner
    if "head.probe" in inner or "head.cls_token" in inner:
        fields["pooling"] = "attention"
        fields["pooling_mlp_dim"] = 1 if kind == AIMV2 else None
    elif kind in (DINOV2, DINOV2_REGISTERS) and fields["num_classes"]:
        fields["pooling"] = "class_token_and_mean"
    elif after or (fields["num_classes"] and not (fields["class_token"] and fields["final_norm"])):
        fields["pooling"] = "mean"
    elif fields["class_token"] and fields["final_norm"]:
        fields["pooling"] = "class_token"
    elif fields["class_token"]:
        reading.guess("pooling", "mean", "there is neither a head nor a final norm; transformers returns the tokens")
    else:
        reading.guess("pooling", "mean", "there is no head; transformers returns the tokens")


def _read_tokens(inner: Shapes, names: Names, reading: Reading, kind: str) -> None:
    """Tokens before the patches, positions, and image size."""
    fields = reading.fields
    extra = names.registers in inner
    fields["position_class_slot"] = fields["class_token"]
    if kind in (DINOV2_REGISTERS, DINOV3):
        fields["registers"], extra = shape_of(inner, names.registers, 3)[1], False
    else:
        is_read = "distillation_classifier.weight" in inner or not (fields["num_classes"] or fields["hidden_dim"])
        fields["distillation_token"], fields["registers"] = extra and is_read, int(extra and not is_read)
    fields["position_resampling"] = KINDS[kind].resampling
    fields["rotary"] = {DINOV3: "dinov3", MLCD: "mlcd"}.get(kind, "none")
    tables = [key for key in (names.in_block(0, names.block_biases), names.shared_biases) if key in inner]
    if names.positions is not None and names.positions in inner:
        if tables:
            cause = "the file has positions of its tokens and relative positions between them"
            raise InputError(cause, "vitreous can compute models with one of both")
        *_, length, _ = shape_of(inner, names.positions, 2 if names.flat else 3)
        reading.guess_image_size(length - fields["class_token"] - extra, fields["patch_size"])
    elif tables:
        _read_biases(inner, names, tables, reading)
    elif kind in (BEIT, DATA2VEC, INTERNVL, AIMV2, DINOV3, MLCD):
        fields["position_embedding"] = "none"
        if kind == AIMV2:
            fields["position_embedding"], fields["sincos_exponent"] = "sincos_2d", "mae"
        size = tuple(max(1, 224 // side) * side for side in fields["patch_size"])
        reading.guess("image_size", size, "the file has no positions")
    else:
        raise InputError(f"the file's key {names.positions!r} is missing", "download the file again")
    _check_grid(reading, kind)


def _read_biases(inner: Shapes, names: Names, tables: list[str], reading: Reading) -> None:
    """BEiT's relative positions: a row for each offset, and three for the class token."""
    fields = reading.fields
    if len(tables) > 1:
        cause = "the file has relative positions of each block and others that all blocks share"
        raise InputError(cause, "vitreous can compute models with one of both")
    fields["position_embedding"], fields["position_resampling"] = "relative_bias", "bilinear"
    fields["position_site"] = "shared" if tables[0] == names.shared_biases else "every_layer"
    rows, fields["num_heads"] = shape_of(inner, tables[0], 2)
    offsets = rows - 3
    side = (round(max(offsets, 0) ** 0.5) + 1) // 2
    reading.guess_image_size(side * side if (2 * side - 1) ** 2 == offsets else offsets, fields["patch_size"])


def _check_grid(reading: Reading, kind: str) -> None:
    """Raises InputError for a grid of patches that is not square, where transformers would mix up its positions."""
    fields = reading.fields
    if not KINDS[kind].square or fields.get("position_embedding") in ("none", "sincos_2d"):
        return
    rows, columns = (a // b for a, b in zip(fields["image_size"], fields["patch_size"], strict=True))
    if rows != columns:
        cause = f"images of {fields['image_size']} make {rows}×{columns} patches; {KINDS[kind].title} of transformers"
        raise InputError(f"{cause} reads its positions as a square", "set image_size to that of the weights")


def _guess(reading: Reading, kind: str) -> None:
    """Fields that only a config.json records."""
    fields, defaults = reading.fields, KINDS[kind].defaults
    if fields["mlp"] == "mlp" or (fields["pooling"] == "attention" and kind != AIMV2):
        reading.guess("gelu", GELUS[defaults["hidden_act"]], "transformers' default")
    eps = defaults.get("layer_norm_eps", defaults.get("rms_norm_eps"))
    reading.guess("norm_eps", eps, "transformers' default")
    if "num_heads" not in fields:  # a table of relative positions has a column for each
        reading.guess_heads(fields["width"], fields["depth"])
