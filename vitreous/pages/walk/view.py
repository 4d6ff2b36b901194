"""What the walk shows, as plain values for `walk/walk.html`; the chosen patch as it is before the script runs."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vitreous.data.preprocessing import Preprocessing
from vitreous.explain.attention_maps import readout_name
from vitreous.explain.embeddings import embedding_filters, pixel_filters
from vitreous.explain.inline import CRISP
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.pages import pictures
from vitreous.pages.pictures import LEVELS, Strip, attention_picture, strip, strip_of_levels
from vitreous.pages.walk.data import (
    FIRST,
    Choice,
    Resolution,
    Strips,
    attention_of,
    first_choice,
    head_of,
    resolution,
    script_data,
    similarity,
    strips,
)
from vitreous.pages.walk.recording import BlockValues, Walk, block_values, probabilities, probe_attention, record
from vitreous.pages.walk.source import source_of

COMPONENTS = 28  # as in Figure 7
PRODUCTS = 6  # filters that the chosen patch is multiplied with
CHANNELS = 8  # of a stem's feature map
PREFIXES = 6  # prefix tokens that are shown
CLASSES = 5
ORIGINAL_SIDE = 480  # pixels of the photo as given
BACKDROP_SIDE = 224  # of the gray photo below the maps


def view(
    model: VisionTransformer,
    image: Image.Image,
    preprocessing: Preprocessing,
    class_names: Sequence[str] | None,
    name: str,
    fresh: bool,
) -> dict[str, Any]:
    """The variables of the template; see `walk_page` for the arguments."""
    pixels = preprocessing.pixels(image)
    walk = record(model, preprocessing.normalize(pixels[None].to(next(model.parameters()).device)))
    choice, sides = first_choice(pixels.numpy(), walk), resolution(walk)
    blocks = [block_values(walk, i) for i in range(model.config.depth)]
    names = prefix_names(model.config)
    label = "class" if names == ["class token"] else "prefix"
    return {
        "title": f"A photo’s walk through {name}",  # noqa: RUF001
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
        "image": image_view(image, preprocessing, pixels.numpy()),
        "stem": stem_view(walk),
        "patch": patch_view(walk, choice, pixels.numpy()),
        "projection": projection_view(walk, choice),
        "prefix": prefix_view(walk),
        "positions": positions_view(walk, choice),
        "blocks": [block_view(walk, i, values, choice, sides) for i, values in enumerate(blocks)],
        "pooled": strip(walk.value("head.pooling")),
        "probe": probe_view(walk),
        "classes": classes(walk, class_names),
        "data": script_data(walk, choice, sides, blocks, names, label),
    }


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


def image_view(image: Image.Image, preprocessing: Preprocessing, pixels: Any) -> dict[str, Any]:
    """The photo as given and as the model sees it, and what the preprocessing does."""
    p = preprocessing
    return {
        "original": pictures.photo(image.convert("RGB"), ORIGINAL_SIDE),
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


def patch_view(walk: Walk, choice: Choice, pixels: Any) -> dict[str, Any]:
    """The chosen patch: its pixels, its channels one by one, and its first numbers."""
    c, place = walk.model.config, (choice.row, choice.column)
    planes = []
    if len(pixels) == 3 and c.stem_blocks is None:
        for i, name in enumerate(("red", "green", "blue")):
            channel = pixels * 0
            channel[i] = pixels[i]
            planes.append((name, pictures.crop(channel, place, c.token_stride)))
    return {
        "picture": pictures.crop(pixels, place, c.token_stride),
        "planes": planes,
        "numbers": walk.value("patch_embedding:patches")[choice.place, :FIRST].tolist(),
    }


def projection_view(walk: Walk, choice: Choice) -> dict[str, Any]:
    """What the chosen patch gives with the first filters, and what all filters look like."""
    token = walk.value("patch_embedding")[choice.place]
    filters = [None] * PRODUCTS
    if walk.model.config.stem_blocks is None:
        filters = [pictures.filter_picture(one) for one in pixel_filters(walk.model)[:PRODUCTS]]
    components = embedding_filters(walk.model, COMPONENTS).components
    return {
        "products": list(zip(filters, token[:PRODUCTS].tolist(), strict=False)),
        "strip": chosen_strip(strips(walk)["embedded"], choice),
        "shown": strips(walk)["embedded"].levels.shape[1],
        "components": [pictures.filter_picture(one) for one in components],
    }


def chosen_strip(vectors: Strips, choice: Choice) -> Strip:
    """The strip of the chosen patch."""
    return strip_of_levels(vectors.levels[choice.place], vectors.scale)


def prefix_view(walk: Walk) -> dict[str, Any] | None:
    """The prefix tokens and the stage that joins them; None if there are none."""
    model = walk.model
    stage = next((stage for stage in walk.trace.boxes if stage.kind == "cat"), None)
    if stage is None:
        return None
    tokens = [t for t in (model.class_token, model.distillation_token, model.registers) if t is not None]
    values = [row for token in tokens for row in token.detach()[0].float().cpu()]
    return {"path": stage.path, "strips": [strip(row) for row in values[:PREFIXES]]}


def positions_view(walk: Walk, choice: Choice) -> dict[str, Any] | None:
    """The similarity of the chosen position to all others, and the vectors that are added; None without a table."""
    similar = similarity(walk)
    if similar is None:
        return None
    return {
        "picture": attention_picture(similar.maps[choice.place].numpy() / LEVELS),
        "low": similar.low,
        "high": similar.high,
        "strips": {name: chosen_strip(vectors, choice) for name, vectors in strips(walk).items()},
    }


def block_view(walk: Walk, number: int, values: BlockValues, choice: Choice, sides: Resolution) -> dict[str, Any]:
    """One block: its attention maps and what it does to the chosen patch."""
    path = f"encoder.blocks.{number}"
    shares, prefix = attention_of(walk, number, choice, sides)
    computed = choice.token < len(values.norms)
    token = choice.token if computed else 0
    norms = values.norms[token].tolist()
    return {
        "number": number,
        "path": path,
        "computed": computed,
        "reads": readout_name(walk.model.config) if len(values.norms) < walk.tokens else "",
        "mean": share_picture(shares.mean(dim=0)),
        "heads": [
            {"picture": share_picture(share), "peak": float(share.max()), "prefix": float(prefix[i])}
            for i, share in enumerate(shares)
        ],
        "first_head": first_head_view(walk, number, choice),
        "gated": f"{path}.mlp:mul" in walk.stages,
        "added": [norms[i] / max(norms[i - 1], 1e-12) for i in (1, 3)],
        "norms": norms,
        "active": float(values.active[token]),
        "units": list(zip(values.units[token].tolist(), values.heights[token].tolist(), strict=True)),
    }


def share_picture(shares: Tensor) -> str:
    """A map of attention in the levels that the script draws."""
    return attention_picture((pictures.levels(shares) / LEVELS).numpy())


def first_head_view(walk: Walk, block: int, choice: Choice) -> list[dict[str, Any]] | None:
    """Head 0 of the chosen patch: its query, the best and worst matching keys, and the value of the best."""
    head = head_of(walk, block)
    if head is None:
        return None
    token, vectors = choice.token, head.vectors
    best, worst = int(head.best[token]), int(head.worst[token])
    best_score, worst_score = head.scores[token].tolist()

    def row(kind: str, text: str, vector: Tensor, name: str = "", score: float | None = None) -> dict[str, Any]:
        return {"kind": kind, "text": text, "strip": strip_of_levels(vector, 1.0), "name": name, "score": score}

    return [
        row("q", "q of the chosen token, head 0", vectors["q"][token]),
        row("best", "best matching k", vectors["k"][best], token_name(walk, best), best_score),
        row("worst", "worst matching k", vectors["k"][worst], token_name(walk, worst), worst_score),
        row("v", "v of the best match", vectors["v"][best]),
    ]


def probe_view(walk: Walk) -> list[str]:
    """The attention of the probe of attention pooling, by head; empty for other poolings."""
    weights = probe_attention(walk)
    return [] if weights is None else [share_picture(one) for one in weights[:, walk.prefix :].unflatten(1, walk.grid)]


def classes(walk: Walk, class_names: Sequence[str] | None) -> list[tuple[str, float]]:
    """The top classes with their probabilities; empty without a classifier."""
    shares = probabilities(walk)
    if shares is None:
        return []
    top = torch.topk(shares, min(CLASSES, len(shares)))
    names = [f"class {i}" if class_names is None else class_names[i] for i in top.indices.tolist()]
    return list(zip(names, top.values.tolist(), strict=True))
