# ruff: noqa: RUF001 (the symbols are the paper's)
"""What the walk shows, as plain values for `walk/walk.html`; the initially chosen patch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from vitreous.data.decoding.bands import Picture, shown
from vitreous.data.preprocessing import Preprocessing
from vitreous.explain.attention_maps import readout_name
from vitreous.explain.embeddings import embedding_filters, pixel_filters
from vitreous.explain.inline import CRISP, HEAT, STRONGEST
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.pages import pictures
from vitreous.pages.pictures import COLD, LEVELS, STRIP, ZERO, Strip, level_picture, levels, strip, strip_of_levels
from vitreous.pages.templates import equation
from vitreous.pages.walk.numbers import (
    Resolution,
    Similarity,
    Strips,
    block_numbers,
    coarse,
    packed,
    resolution,
    similarity,
    strips,
)
from vitreous.pages.walk.recording import Walk, probabilities, probe_attention, record
from vitreous.pages.walk.source import source_of

FIRST = 8  # numbers of a patch and of its token that are written out
COMPONENTS = 28  # as in Figure 7
PRODUCTS = 6  # filters that the chosen patch is multiplied with
CHANNELS = 8  # of a stem's feature map
CLASSES = 5
NORMS = ("zℓ₋₁", "attention adds", "z′ℓ", "the MLP adds", "zℓ")
ORIGINAL_SIDE = 480  # pixels of the photo as given
BACKDROP_SIDE = 224  # of the gray photo below the maps

Pixels = UInt8[ndarray, "channels height width"]


class Choice(NamedTuple):
    """A patch: its row and column, its index among the patches, and among all tokens."""

    row: int
    column: int
    place: int
    token: int


def view(
    model: VisionTransformer,
    image: Picture,
    preprocessing: Preprocessing,
    class_names: Sequence[str] | None,
    name: str,
    fresh: bool,
) -> dict[str, Any]:
    """The variables of the template; see `walk_page` for the arguments."""
    tensor = preprocessing.pixels(image)
    walk = record(model, preprocessing.normalize(tensor[None].to(next(model.parameters()).device)))
    pixels = tensor.numpy()
    choice, sides = first_choice(pixels, walk), resolution(walk)
    vectors, similar = strips(walk), similarity(walk)
    numbers = [block_numbers(walk, i, sides) for i in range(model.config.depth)]
    names = prefix_names(model.config)
    label = "class" if names == ["class token"] else "prefix"
    return {
        "title": f"A photo’s path through {name}",
        "fresh": fresh,
        "config": model.config,
        "trace": walk.trace,
        "stages": walk.stages,
        "code": source_of(model, preprocessing),
        "grid": walk.grid,
        "choice": choice,
        "prefix_names": names,
        "prefix_label": label,
        "sides": sides,
        "image": image_view(image, preprocessing, pixels),
        "stem": stem_view(walk),
        "flattened_values": walk.value("patch_embedding:patches")[choice.place, :FIRST].tolist(),
        "projection": projection_view(walk, choice),
        "strips": {kind: strip_of_levels(one.levels[choice.place], one.scale) for kind, one in vectors.items()},
        "similarity": similar and (level_picture(similar.maps[choice.place]), similar.low, similar.high),
        "prefix": prefix_view(walk),
        "blocks": [block_view(walk, i, of_block, choice, sides) for i, of_block in enumerate(numbers)],
        "pooled": strip(walk.value("head.pooling")),
        "probe": probe_view(walk),
        "classes": classes(walk, class_names),
        "data": {
            "prefix": names,
            "prefixLabel": label,
            "chosen": choice.place,
            **script_data(walk, sides, vectors, similar, numbers),
        },
    }


def first_choice(pixels: Pixels, walk: Walk) -> Choice:
    """The patch with the most contrast."""
    (rows, columns), (height, width) = walk.grid, walk.model.config.token_stride
    cut = torch.from_numpy(pixels).float().unflatten(2, (columns, width)).unflatten(1, (rows, height))
    place = int(cut.permute(1, 3, 0, 2, 4).flatten(2).std(dim=-1).argmax())
    return Choice(place // columns, place % columns, place, walk.prefix + place)


def prefix_names(config: ViTConfig) -> list[str]:
    """The names of the prefix tokens."""
    names = ["class token"] * config.class_token + ["distillation token"] * config.distillation_token
    return names + [f"register {i}" for i in range(config.registers)]


def token_name(walk: Walk, token: int) -> str:
    """The name of a token; the script writes the same."""
    if token < walk.prefix:
        return prefix_names(walk.model.config)[token]
    row, column = divmod(token - walk.prefix, walk.grid[1])
    return f"patch ({row}, {column})"


def image_view(image: Picture, preprocessing: Preprocessing, pixels: Pixels) -> dict[str, Any]:
    """The photo as given and as the model sees it, and what the preprocessing does."""
    p = preprocessing
    return {
        "original": pictures.photo(shown(image).convert("RGB"), ORIGINAL_SIDE),
        "original_size": (image.height, image.width),
        "input": pictures.model_input(pixels),
        "backdrop": pictures.photo(pictures.backdrop(pixels), BACKDROP_SIDE),
        "size": pixels.shape[1:],
        "channels": len(pixels),
        "crisp": max(pixels.shape[1:]) <= CRISP,
        "resizing": p.summary().partition(", mean")[0],
        "low": min(-mean / std for mean, std in zip(p.mean, p.std, strict=True)),
        "high": max((1 - mean) / std for mean, std in zip(p.mean, p.std, strict=True)),
    }


def stem_view(walk: Walk) -> dict[str, Any] | None:
    """The feature map of a hybrid's ResNet; None for other models."""
    if "stem" not in walk.stages:
        return None
    features, c = walk.value("stem"), walk.model.config
    return {
        "channels": len(features),
        "cell": tuple(stride // patch for stride, patch in zip(c.token_stride, c.patch_size, strict=True)),
        "pictures": [pictures.channel_picture(channel) for channel in features[:CHANNELS]],
    }


def projection_view(walk: Walk, choice: Choice) -> dict[str, Any]:
    """What the chosen patch gives with the first filters, and what all filters look like."""
    token = walk.value("patch_embedding.projection")[choice.place]
    filters = [None] * PRODUCTS
    if walk.model.config.stem_blocks is None:
        filters = [pictures.filter_picture(one) for one in pixel_filters(walk.model)[:PRODUCTS]]
    components = embedding_filters(walk.model, COMPONENTS).components
    return {
        "products": list(zip(filters, token[:PRODUCTS].tolist(), strict=False)),
        "components": [pictures.filter_picture(one) for one in components],
    }


def prefix_view(walk: Walk) -> dict[str, Any] | None:
    """The prefix tokens and the stage that joins them; None if there are none."""
    model = walk.model
    stage = next((stage for stage in walk.trace.boxes if stage.kind == "cat"), None)
    if stage is None:
        return None
    tokens = [t for t in (model.class_token, model.distillation_token, model.registers) if t is not None]
    values = [row for token in tokens for row in token.detach()[0].float().cpu()]
    return {"path": stage.path, "strips": [strip(row) for row in values]}


def block_view(
    walk: Walk, number: int, numbers: dict[str, Tensor], choice: Choice, sides: Resolution
) -> dict[str, Any]:
    """One block: its attention maps and what it does to the chosen patch."""
    path, columns = f"encoder.blocks.{number}", coarse(walk.grid, sides.queries)[1]
    query = walk.prefix + choice.row // sides.queries * columns + choice.column // sides.queries
    steps, peaks, prefix = (numbers[name][:, query] for name in ("maps", "peaks", "prefix"))
    mean = ((steps / LEVELS) ** 2 * peaks[:, None, None]).mean(dim=0)
    computed = choice.token < len(numbers["norms"])
    norms, active, units, heights = (
        numbers[name][choice.token if computed else 0].tolist() for name in ("norms", "active", "units", "heights")
    )
    return {
        "number": number,
        "path": path,
        "computed": computed,
        "reads": readout_name(walk.model.config) if len(numbers["norms"]) < len(numbers["maps"][0]) else "",
        "mean": level_picture(levels(mean)),
        "heads": [
            {"picture": level_picture(one), "peak": peak, "prefix": share}
            for one, peak, share in zip(steps, peaks.tolist(), prefix.tolist(), strict=True)
        ],
        "first_head": first_head_view(walk, numbers, choice.token) if "q" in numbers else [],
        "gated": f"{path}.mlp:mul" in walk.stages,
        "added": [norms[i] / max(norms[i - 1], 1e-12) for i in (1, 3)],
        "norms": list(zip(map(equation, NORMS), norms, strict=True)),
        "active": active,
        "units": [(f"unit {unit}", height) for unit, height in zip(units, heights, strict=True)],
    }


def first_head_view(
    walk: Walk, numbers: dict[str, Tensor], token: int
) -> list[tuple[str, str, Strip, str, float | None]]:
    """Head 0 of a token: its query, the best and worst matching keys with their scores, and the value of the best."""
    matches = numbers["matches"][token].tolist()
    best, worst = int(matches[0]), int(matches[1])
    rows = [
        ("q", "q of the chosen token, head 0", "q", token, None),
        ("best", "best matching k", "k", best, matches[2]),
        ("worst", "worst matching k", "k", worst, matches[3]),
        ("v", "v of the best match", "v", best, None),
    ]
    return [
        (kind, text, strip_of_levels(numbers[vector][index], 1.0), token_name(walk, index), score)
        for kind, text, vector, index, score in rows
    ]


def probe_view(walk: Walk) -> list[str]:
    """The attention of the probe of attention pooling, by head; empty for other poolings."""
    weights = probe_attention(walk)
    if weights is None:
        return []
    return [level_picture(one) for one in levels(weights[:, walk.prefix :].unflatten(1, walk.grid))]


def classes(walk: Walk, class_names: Sequence[str] | None) -> list[tuple[str, float]]:
    """The top classes with their probabilities; empty without a classifier."""
    shares = probabilities(walk)
    if shares is None:
        return []
    top = shares.topk(min(CLASSES, len(shares)))
    names = [f"class {i}" if class_names is None else class_names[i] for i in top.indices.tolist()]
    return list(zip(names, top.values.tolist(), strict=True))


def script_data(
    walk: Walk,
    sides: Resolution,
    vectors: dict[str, Strips],
    similar: Similarity | None,
    numbers: list[dict[str, Tensor]],
) -> dict[str, Any]:
    """The numbers of every token for the script, ready for JSON."""
    config = walk.model.config
    written = {
        "patches": "patch_embedding:patches",
        "tokens": "patch_embedding.projection",
    }  # JSON has no NaN, so it becomes 0
    return {
        "grid": walk.grid,
        "heads": config.num_heads,
        "headDim": config.head_dim,
        "colors": {"heat": HEAT, "cold": COLD, "strongest": STRONGEST, "levels": LEVELS, "zero": ZERO, "strip": STRIP},
        "keys": {"side": sides.keys, "grid": coarse(walk.grid, sides.keys)},
        "queries": {"side": sides.queries, "grid": coarse(walk.grid, sides.queries)},
        **{name: walk.value(path)[:, :FIRST].nan_to_num().tolist() for name, path in written.items()},
        "shown": vectors["embedded"].levels.shape[1],
        "strips": {name: packed(one.levels) for name, one in vectors.items()},
        "similarity": similar and {"grid": list(similar.maps.shape[1:]), "maps": packed(similar.maps)},
        "blocks": [{name: packed(values) for name, values in block.items()} for block in numbers],
    }
