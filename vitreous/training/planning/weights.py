"""The weights that a run starts from: which ones, and what is kept of them for the new classes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.sources.hub import fetch, is_remote
from vitreous.checkpoints.sources.pretrained import KNOWN
from vitreous.checkpoints.sources.repository import is_cached, look
from vitreous.checkpoints.store import StoredModel
from vitreous.model.adapt import adapt
from vitreous.model.config import ViTConfig
from vitreous.model.cost import on_meta
from vitreous.model.variants import variant
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.text import counted, listed, printable
from vitreous.training.recipe.sections import SHAPE, WITH_WEIGHTS, ModelSection

DEFAULT = "timm:vit_small_patch16_224.augreg_in21k_ft_in1k"
FALLBACK = (
    "training from scratch: {}; the paper's B/16 reaches 77.91 % on ImageNet alone, 83.97 % after ImageNet-21k "
    "(Table 5); choose weights with --model: a file, a run's folder or a name (vitreous list models)"
)
RATES = ("dropout", "stochastic_depth", "patch_dropout")
FIXED = tuple(name for name in ModelSection.model_fields if name not in (*WITH_WEIGHTS, "variant"))  # by the weights
LASTING = ("source", "license", "family", "adapted")  # metadata that training does not outdate
SHOWN = 5  # class names in a note


@dataclass(frozen=True)
class Start:
    """Weights to start from, adapted to the images and classes.

    Args:
        stored: the model in evaluation mode, with its own float32 parameters; its preprocessing and class names.
        notes: what was adapted, a sentence each.
        source: the weights' canonical name, or the name of their file or folder without its path.
    """

    stored: StoredModel
    notes: list[str]
    source: str


def choose_weights(section: ModelSection, notify: Callable[[str], None]) -> str | None:
    """The name of the weights that a recipe's [model] starts from; None for random ones.

    With nothing set, they are DEFAULT, downloaded if necessary; if that fails within a few seconds, the run starts from
    scratch. A variant, or any other choice of the shape, means a fresh model.

    Args:
        section: before a variant and an image size are filled in.
        notify: called with each automatic choice.

    Raises:
        InputError: the fields contradict each other, or no weights of the variant are known.
    """
    if section.init == "random":
        if section.weights is not None:
            cause = f"init is 'random', but weights are given, {section.weights!r}"
            raise InputError(cause, "leave one of them out")
        return None
    if section.weights is not None:
        return section.weights
    if section.init == "pretrained":
        return DEFAULT if section.variant == "auto" else best_weights(section.variant)
    if section.variant != "auto" or any(getattr(section, name) is not None for name in FIXED):
        return None
    return default_weights(notify)


def default_weights(notify: Callable[[str], None]) -> str | None:
    """DEFAULT if it is cached or can be downloaded, otherwise None; `notify` gets a line either way."""
    try:
        if not is_cached(DEFAULT):
            look(DEFAULT)
            fetch(DEFAULT)  # prints size and license first
    except InputError as error:
        notify(printable(FALLBACK.format(error.cause)))
        return None
    notify(f"fine-tuning {DEFAULT}, license {KNOWN[DEFAULT].license}; --model S/16 trains from scratch")
    return DEFAULT


def best_weights(name: str) -> str:
    """The AugReg weights (arXiv 2106.10270) of a variant: the smallest image size, then the best, then timm's.

    Raises:
        InputError: none are known; it names the variants that have some.
    """
    # Google's bucket has them in a folder, timm by a tag.
    augreg = (row for row in KNOWN.values() if "/augreg/" in (row.url or "") or ".augreg" in row.name)
    rows = [row for row in augreg if row.top1 is not None]
    candidates = [row for row in rows if row.variant == name]
    if not candidates:
        variants = ", ".join(dict.fromkeys(row.variant for row in rows))
        cause = f"init is 'pretrained', but no AugReg weights of the variant {name!r} are known"
        raise InputError(cause, f"choose one of {variants}; or weights by name (vitreous list models)")
    return max(candidates, key=lambda row: (-row.config.image_size[0], row.top1 or 0, row.family == "timm")).name


def load_start(
    weights: str, section: ModelSection, class_names: Sequence[str], channels: int, mask_token: bool = False
) -> Start:
    """Loads weights and adapts a copy of them to the images and classes.

    The classifier keeps the rows of classes with the same name, unless the section requests a new head. If there are
    none, the head after the pooling is new and zero (section 3.2).

    Args:
        weights: a run's folder, a file, or a name such as timm:name.tag.
        section: the recipe's [model]; without an image size the weights keep theirs.
        class_names: of the data; empty for a model without a classifier.
        channels: of the images.
        mask_token: whether the model has a mask token: the weights' own, or zeros if they have none.

    Raises:
        InputError: there are no such weights, or the section does not fit them.
    """
    names = tuple(class_names)
    stored = load_checkpoint(weights)
    check_shape(section, stored.model.config, weights)
    rows = classifier_rows(names, stored.class_names if section.head == "kept" else None)
    preprocessing = stored.preprocessing
    adapted, notes = adapt(
        stored.model,
        image_size=preprocessing.image_size if section.image_size == "auto" else section.image_size,
        patch_size=section.patch_size,
        channels=channels,
        resampling=section.position_resampling,
        kept_classes=rows,
    )
    check_fixed_fields(section, adapted.config, weights)
    rates = {name: getattr(section, name) for name in RATES}
    model = float32_copy(adapted, adapted.config.replace(**rates, mask_token=mask_token))
    if any(row is not None for row in rows):
        notes += changed_classes(names, stored.class_names or (), rows)
    source = stored.report.source if stored.report else weights
    source = source if is_remote(source) else Path(source).expanduser().absolute().name
    metadata = {key: stored.metadata[key] for key in LASTING if key in stored.metadata}
    if model.config.channels != stored.model.config.channels:
        metadata["adapted"] = f"from {counted(stored.model.config.channels, 'channel')} to {channels}"
    ready = replace(
        stored,
        model=model,
        preprocessing=preprocessing.adapted(model.config.image_size, channels),
        class_names=names or None,
        metadata={"source": source} | metadata,
    )
    return Start(ready, notes, source)


def classifier_rows(names: Sequence[str], old: Sequence[str] | None) -> list[int | None]:
    """For each class, the number of the old class with the same name, or None.

    A name that two old classes share, such as crane and maillot in ImageNet, is ambiguous and matches neither, unless
    all classes are the same.
    """
    if old is None:
        return [None] * len(names)
    if tuple(names) == tuple(old):
        return [*range(len(names))]
    count = Counter(old)
    rows: dict[str, int] = {name: row for row, name in enumerate(old) if count[name] == 1}
    return [rows.get(name) for name in names]


def changed_classes(names: Sequence[str], old: Sequence[str], rows: Sequence[int | None]) -> list[str]:
    """Notes on the new classes, and on those that are dropped, from the result of `classifier_rows`."""
    new = [name for name, row in zip(names, rows, strict=True) if row is None]
    dropped = [name for row, name in enumerate(old) if row not in rows]
    groups = ("new classes", new), ("dropped classes", dropped)
    return [f"{title}: {listed(group, SHOWN)}" for title, group in groups if group]


def check_shape(section: ModelSection, config: ViTConfig, weights: str) -> None:
    """Raises InputError if the section names a variant with another shape than the weights."""
    if section.variant == "auto":
        return
    try:
        expected = variant(section.variant)
    except InputError as error:
        raise InputError(f"the recipe's [model] is not valid: {error.cause}", error.hint) from error
    for name in SHAPE:
        if getattr(section, name) is None and getattr(expected, name) != getattr(config, name):
            has = f"{name} {getattr(config, name)} and not {getattr(expected, name)}"
            cause = f"the weights {weights!r} are not of the variant {section.variant!r}: they have {has}"
            raise InputError(cause, "leave the variant out: the shape comes from the weights")


def check_fixed_fields(section: ModelSection, config: ViTConfig, weights: str) -> None:
    """Raises InputError for the first field that contradicts the weights."""
    for name in FIXED:
        value = getattr(section, name)
        if value is not None and value != getattr(config, name):
            cause = f"{name} is {value!r}, but {getattr(config, name)!r} in the model of {weights!r}"
            raise InputError(cause, f"leave {name} out: the shape comes from the weights; or set init=random")


def float32_copy(model: VisionTransformer, config: ViTConfig) -> VisionTransformer:
    """A float32 copy that shares no memory with the model or its file, with a mask token if the config has one."""
    state = {name: tensor.to(torch.float32).clone() for name, tensor in model.state_dict().items()}
    token = state.pop("mask_token", torch.zeros(1, 1, config.width))
    copy = on_meta(config)
    copy.load_state_dict(state | {"mask_token": token} if config.mask_token else state, assign=True)
    return copy
