"""Adapting a trained model to another image size, patch size, number of channels or set of classes."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitreous.model.config import Resampling, ViTConfig
from vitreous.model.cost import on_meta
from vitreous.model.position_embedding import Learned2DPosition, LearnedPosition, PositionEmbedding, resample_grid
from vitreous.model.relative_position import RelativeBias, RelativePosition
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError, unknown

ChannelMethod = Literal["average", "repeat"]
State = dict[str, Tensor]  # a state dict, which each step below changes in place, returning notes on its changes

# Above any real use, and low enough not to exhaust memory.
LIMITS = {"image_size": 8192, "patch_size": 8192, "num_classes": 10**6, "channels": 1024}

PROJECTION = "patch_embedding.projection.weight"
STEM = "stem.conv.weight"


@torch.no_grad()
def adapt(
    model: VisionTransformer,
    *,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    resampling: Resampling | None = None,
    channel_method: ChannelMethod = "average",
    kept_classes: Sequence[int | None] | None = None,
) -> tuple[VisionTransformer, list[str]]:
    """Returns a model for other images or classes, with the weights of a trained one.

    The given model is not changed, but both share the memory of unchanged parameters: copy one of them before you
    train it while the other is in use. Arguments that are None keep the model's value.

    Args:
        model: with its weights.
        image_size: (height, width) in pixels, or one number for a square. Positions are resampled as the model does
            for images of another size, so both models give equal outputs at this size.
        patch_size: as image_size. The projection is resized so that bilinearly enlarged patches give the same tokens
            (FlexiViT, arXiv 2212.08013, section 3.4). Unless image_size grows in proportion, the positions are
            resampled to the new grid.
        num_classes: replaces everything after the pooling, including a hidden layer, by a linear classifier of zeros
            (section 3.2), even if the number is unchanged; 0 for no classifier.
        channels: of the images.
        resampling: method of resampling positions, here and in the new model.
        channel_method: "average" gives every new channel the mean of the old ones, "repeat" the old ones in turn;
            both are scaled by old / new channels.
        kept_classes: alternative to num_classes: for each new class the index of the old class whose classifier row it
            keeps, or None for a row of zeros. If any row is kept, so is the hidden layer, and no bias is added.

    Returns:
        The new model, and one note per change.

    Raises:
        InputError: a value is invalid, the patch does not divide the image, a hybrid's patch size is to change, or
            there is no such class to keep.
    """
    if channel_method not in get_args(ChannelMethod):
        raise unknown("channel method", str(channel_method), get_args(ChannelMethod))
    if kept_classes is not None:
        num_classes = _count_of(kept_classes, num_classes, model.config.num_classes)
    kept = kept_classes or ()
    keeps_head = any(index is not None for index in kept)
    sizes = {"image_size": image_size, "patch_size": patch_size, "num_classes": num_classes, "channels": channels}
    old, new = model.config, _changed(model.config, sizes | {"position_resampling": resampling}, keeps_head)
    state = model.state_dict()
    notes = [
        *_adapt_channels(state, old, new, channel_method),
        *_adapt_patches(state, old, new),
        *_adapt_positions(state, model.position_embedding, old, new),
    ]
    if keeps_head:
        notes += _keep_rows(state, kept, old.num_classes)
    elif num_classes is not None:
        notes += _new_classifiers(state, old, new)
    adapted = on_meta(new)
    adapted.load_state_dict(state, assign=True)
    return adapted.train(model.training), notes


def resize_patches(
    filters: Float[Tensor, "width channels old_height old_width"], size: tuple[int, int]
) -> Float[Tensor, "width channels new_height new_width"]:
    """Resizes a patch projection so that bilinearly resized patches give the same tokens.

    w' = (Bᵀ)⁺ w, with B the matrix that resizes a patch (FlexiViT, arXiv 2212.08013, section 3.4). B is the product of
    a matrix for the rows and one for the columns, and so is its pseudo-inverse.

    Args:
        filters: w, one per number of a token.
        size: (height, width) of the new patches.
    """
    rows, columns = (_pseudo_inverse(old, new) for old, new in zip(filters.shape[2:], size, strict=True))
    wide = filters.float()
    return (rows.to(wide) @ wide @ columns.to(wide).mT).to(filters.dtype)


def _pseudo_inverse(old: int, new: int) -> Float[Tensor, "new old"]:
    pixels = torch.eye(old, dtype=torch.float64)[None, None]
    resize = F.interpolate(pixels, size=(new, old), mode="bilinear", antialias=True)[0, 0]  # B: new × old
    return torch.linalg.pinv(resize.mT)


def _count_of(kept: Sequence[int | None], num_classes: int | None, old: int) -> int:
    """Counts the new classes. Raises InputError for an invalid kept_classes."""
    if num_classes not in (None, len(kept)):
        raise InputError(f"kept_classes has {len(kept)} entries, num_classes is {num_classes}", "leave num_classes out")
    for index in kept:
        if index is not None and not 0 <= index < old:
            valid = f"the classes are 0 to {old - 1}" if old else "the model has no classes"
            raise InputError(f"there is no class {index} to keep", f"{valid}; None stands for a new one")
    return len(kept)


def _changed(old: ViTConfig, changes: dict[str, Any], keeps_head: bool) -> ViTConfig:
    """Returns the new config; None keeps a field. Raises InputError for an invalid value."""
    new = old.replace(**{name: value for name, value in changes.items() if value is not None})
    for name, most in LIMITS.items():
        value = getattr(new, name)
        if changes[name] is not None and max(value if isinstance(value, tuple) else (value,)) > most:
            raise InputError(f"{name} is {changes[name]}", f"{most:,} is the most")
    if new.patch_size != old.patch_size and old.stem_blocks is not None:
        raise InputError(
            f"the patch size of a hybrid stays {_by(old.patch_size)}: its patches are not cut from the image",
            "leave patch_size out, or use a model without a ResNet stem",
        )
    if keeps_head or changes["num_classes"] is None:
        return new
    return new.replace(hidden_dim=None, classifier_bias=True)


def _adapt_channels(state: State, old: ViTConfig, new: ViTConfig, method: ChannelMethod) -> list[str]:
    if new.channels == old.channels:
        return []
    key = PROJECTION if old.stem_blocks is None else STEM
    weight = state[key]
    filters = weight.float().reshape(len(weight), old.channels, -1)  # width channels pixels
    if method == "average":
        filters = filters.mean(dim=1, keepdim=True).expand(-1, new.channels, -1)
    else:
        filters = filters[:, torch.arange(new.channels) % old.channels]
    filters = (filters * (old.channels / new.channels)).to(weight.dtype)
    state[key] = filters.reshape(len(weight), -1, *weight.shape[2:])
    how = "averaged" if method == "average" else "repeated"
    numbers = f"{how} from {_count(old.channels, 'channel')} to {new.channels}, scaled by {old.channels}/{new.channels}"
    if old.stem_blocks is None:
        return [f"patch projection {numbers}"]
    return [f"stem convolution {numbers}; it standardizes its filters, so the scale of its output changes"]


def _adapt_patches(state: State, old: ViTConfig, new: ViTConfig) -> list[str]:
    if new.patch_size == old.patch_size:
        return []
    filters = state[PROJECTION].unflatten(1, (new.channels, *old.patch_size))
    state[PROJECTION] = resize_patches(filters, new.patch_size).flatten(1)
    sizes = f"from {_by(old.patch_size)} to {_by(new.patch_size)} pixels"
    return [f"patch projection resized {sizes} (pseudo-inverse of the bilinear resize)"]


def _adapt_positions(state: State, position: PositionEmbedding, old: ViTConfig, new: ViTConfig) -> list[str]:
    notes = []
    if new.image_size != old.image_size:
        notes.append(f"image size changed from {_by(old.image_size)} to {_by(new.image_size)}")
    if new.position_resampling != old.position_resampling:
        methods = f"{old.position_resampling} to {new.position_resampling}"
        notes.append(f"resampling of positions changed from {methods}")
    if new.grid == old.grid:
        return notes
    method, (rows, columns) = new.position_resampling, new.grid
    grids = f"from {_by(old.grid)} to {_by(new.grid)}"
    match position:
        case Learned2DPosition():
            x = [resample_grid(table, (1, old.grid[1]), (1, columns), method) for table in position.x]
            y = [resample_grid(table, (old.grid[0], 1), (rows, 1), method) for table in position.y]
            state["position_embedding.x"], state["position_embedding.y"] = torch.stack(x), torch.stack(y)
            notes.append(f"positions of rows and of columns resampled {grids} ({method})")
        case LearnedPosition():
            slots = position.embedding[:, : position.slots]
            patches = [resample_grid(t[position.slots :], old.grid, new.grid, method) for t in position.embedding]
            state["position_embedding.embedding"] = torch.cat([slots, torch.stack(patches)], dim=1)
            notes.append(f"positions resampled {grids} ({method})")
        case RelativePosition():
            keys, offsets = position.offset_keys, 2 * rows * columns - 1
            tables = [resample_grid(t, (1, len(t)), (1, offsets), "bilinear_aligned") for t in keys]
            state["position_embedding.offset_keys"] = torch.stack(tables)
            notes.append(f"keys of relative positions resampled from {keys.shape[1]} offsets to {offsets} (linear)")
        case RelativeBias():
            state["position_embedding.biases"] = torch.stack(
                [position.resampled(t, new.grid, method) for t in position.biases]
            )
            notes.append(f"biases of relative positions resampled {grids} ({method})")
    return notes


def _keep_rows(state: State, kept: Sequence[int | None], old: int) -> list[str]:
    if list(kept) == list(range(old)):
        return []
    places = [i for i, index in enumerate(kept) if index is not None]
    rows = [index for index in kept if index is not None]
    for name in ("classifier.weight", "classifier.bias", "distillation.weight", "distillation.bias"):
        if (before := state.get(f"head.{name}")) is not None:
            after = before.new_zeros(len(kept), *before.shape[1:])
            after[places] = before[rows]
            state[f"head.{name}"] = after
    second = " and distillation classifier" if "head.distillation.weight" in state else ""
    note = f"classifier{second} for {_count(len(kept), 'class', 'classes')}: {_count(len(rows), 'row')} kept"
    new, dropped = len(kept) - len(rows), old - len(set(rows))
    return [note + (f", {new} new and zero" if new else "") + (f", {dropped} dropped" if dropped else "")]


def _new_classifiers(state: State, old: ViTConfig, new: ViTConfig) -> list[str]:
    for layer in ("classifier", "distillation", "hidden"):
        for name in ("weight", "bias"):
            state.pop(f"head.{layer}.{name}", None)
    notes = [] if old.hidden_dim is None else ["hidden layer of the head removed"]
    second = " and distillation classifier" if new.distillation_token else ""
    if not new.num_classes:
        return notes + ([f"classifier{second} removed"] if old.num_classes else [])
    like = state[PROJECTION]
    for layer in ("classifier", "distillation") if new.distillation_token else ("classifier",):
        state[f"head.{layer}.weight"] = like.new_zeros(new.num_classes, new.feature_width)
        state[f"head.{layer}.bias"] = like.new_zeros(new.num_classes)
    return [*notes, f"new classifier{second} for {_count(new.num_classes, 'class', 'classes')}, all zero"]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
