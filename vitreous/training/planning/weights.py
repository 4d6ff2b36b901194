"""Where a run starts from: which weights, and what of them is kept for the new task."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.sources.hub import fetch, is_remote
from vitreous.checkpoints.sources.pretrained import KNOWN, Pretrained
from vitreous.checkpoints.sources.repository import is_cached, look
from vitreous.checkpoints.store import StoredModel
from vitreous.model.adapt import adapt
from vitreous.model.config import ViTConfig
from vitreous.model.cost import on_meta
from vitreous.model.variants import variant
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.text import printable
from vitreous.training.recipe.sections import BESIDE_WEIGHTS, SHAPE, ModelSection

DEFAULT = "timm:vit_small_patch16_224.augreg_in21k_ft_in1k"
FALLBACK = (
    "training from scratch: {}; the paper's B/16 reaches 77.91 % on ImageNet alone, 83.97 % after ImageNet-21k "
    "(Table 5); give weights with --model: a file, a run's folder or a name (vitreous list models)"
)
RATES = ("dropout", "stochastic_depth", "patch_dropout")
OWN = tuple(name for name in ModelSection.model_fields if name not in (*BESIDE_WEIGHTS, "variant"))  # the weights' own
LASTING = ("source", "license", "family")  # metadata that stay true when the weights are trained on
SHOWN = 5  # class names in a note


@dataclass(frozen=True)
class Start:
    """A model to be trained on.

    Args:
        stored: the model for the task's images and classes, in evaluation mode, with parameters of its own in
            float32; its preprocessing and class names.
        notes: what was adapted, a sentence each.
        source: the weights' canonical name, or the name of their file or folder without where it lies.
    """

    stored: StoredModel
    notes: list[str]
    source: str


def choose_weights(section: ModelSection, say: Callable[[str], None]) -> str | None:
    """The name of the weights that a recipe's [model] starts from; None to start from random ones.

    With nothing set, they are those of DEFAULT, brought here if need be; where they cannot be had in a few seconds,
    a line says what that costs. A variant, or any other choice of the shape, asks for a fresh model.

    Args:
        section: before a variant and an image size are filled in.
        say: gets the line that tells what was chosen, where nobody chose.

    Raises:
        InputError: the fields contradict each other, or no weights are known of the variant.
    """
    if section.init == "random":
        if section.weights is not None:
            cause = f"init is 'random', and weights are given, {section.weights!r}"
            raise InputError(cause, "leave one of them out")
        return None
    if section.weights is not None:
        return section.weights
    if section.init == "pretrained":
        return DEFAULT if section.variant == "auto" else best_weights(section.variant)
    if section.variant != "auto" or any(getattr(section, name) is not None for name in OWN):
        return None
    return default_weights(say)


def default_weights(say: Callable[[str], None]) -> str | None:
    """DEFAULT if it is in the cache or could be brought there; None, and a line why, if not."""
    try:
        if not is_cached(DEFAULT):
            look(DEFAULT)
            fetch(DEFAULT)  # says size and license first
    except InputError as error:
        say(printable(FALLBACK.format(error.cause)))
        return None
    say(f"fine-tuning {DEFAULT}, license {KNOWN[DEFAULT].license}; --model S/16 trains from scratch")
    return DEFAULT


def best_weights(name: str) -> str:
    """The AugReg weights (arXiv 2106.10270) of a variant: for the smallest images, then the best, then the hub's.

    Raises:
        InputError: none are known; it names the variants that have some.
    """
    rows = [row for row in KNOWN.values() if is_augreg(row) and row.top1 is not None]
    fitting = [row for row in rows if row.variant == name]
    if not fitting:
        variants = ", ".join(dict.fromkeys(row.variant for row in rows))
        cause = f"init is 'pretrained', and no AugReg weights are known of the variant {name!r}"
        raise InputError(cause, f"there are some of {variants}; or give weights by name (vitreous list models)")
    return max(fitting, key=lambda row: (-row.config.image_size[0], row.top1 or 0, row.family == "timm")).name


def is_augreg(row: Pretrained) -> bool:
    """Tells whether weights are of the AugReg release, whose files lie in Google's bucket or with timm."""
    return ".augreg" in row.name or (row.url is not None and "/augreg/" in row.url)


def begin_from(
    weights: str, section: ModelSection, class_names: Sequence[str], channels: int, mask_token: bool = False
) -> Start:
    """Loads weights and makes them fit a task; what the file and others hold in memory stays as it is.

    The classifier keeps the rows of classes that have the same name, unless the section asks for a new head. If there
    are none, all of the head behind the pooling is new, and zero (section 3.2).

    Args:
        weights: a run's folder, a file, or a name such as timm:name.tag.
        section: the recipe's [model]; without an image size the weights' own is taken.
        class_names: of the task.
        channels: of the images.
        mask_token: to predict hidden patches: a model with a mask token, the weights' own or, where they have none,
            zeros, and without a classifier. Else the weights' mask token is dropped.

    Raises:
        InputError: there are no such weights, or what the section says does not fit them.
    """
    names = () if mask_token else tuple(class_names)
    stored = load_checkpoint(weights)
    check_variant(section, stored.model.config, weights)
    kept = kept_classes(names, stored.class_names if section.head == "kept" else None)
    preprocessing = stored.preprocessing
    adapted, notes = adapt(
        stored.model,
        image_size=preprocessing.image_size if section.image_size == "auto" else section.image_size,
        patch_size=section.patch_size,
        channels=channels,
        resampling=section.position_resampling,
        kept_classes=kept,
    )
    check_own_fields(section, adapted.config, weights)
    model = with_own_memory(adapted, regularized(adapted.config, section, mask_token))
    if any(place is not None for place in kept):
        notes += told_classes(names, stored.class_names or ())
    source = stored.report.source if stored.report else weights
    source = source if is_remote(source) else Path(source).expanduser().absolute().name
    metadata = {key: stored.metadata[key] for key in LASTING if key in stored.metadata}
    ready = replace(
        stored,
        model=model,
        preprocessing=preprocessing.adapted(model.config.image_size, channels),
        class_names=names or None,
        metadata={"source": source} | metadata,
    )
    return Start(ready, notes, source)


def kept_classes(names: Sequence[str], old: Sequence[str] | None) -> list[int | None]:
    """For each class the number of the one old class that has its name, or None; all in order if all are the same.

    ImageNet has two classes each that are called crane and maillot: such a name alone does not tell which is meant.
    """
    if old is None:
        return [None] * len(names)
    if tuple(names) == tuple(old):
        return [*range(len(names))]
    count = Counter(old)
    places: dict[str, int] = {name: place for place, name in enumerate(old) if count[name] == 1}
    return [places.get(name) for name in names]


def told_classes(names: Sequence[str], old: Sequence[str]) -> list[str]:
    """Which classes are new, and which are no more, a sentence each."""
    kept = {place for place in kept_classes(names, old) if place is not None}
    new = [name for name, place in zip(names, kept_classes(names, old), strict=True) if place is None]
    dropped = [name for place, name in enumerate(old) if place not in kept]
    return [
        f"{what}: {', '.join(which[:SHOWN])}" + (f" and {len(which) - SHOWN:,} more" if len(which) > SHOWN else "")
        for what, which in (("new classes", new), ("dropped classes", dropped))
        if which
    ]


def check_variant(section: ModelSection, config: ViTConfig, weights: str) -> None:
    """Raises InputError if the section names a variant that has another shape than the weights."""
    if section.variant == "auto":
        return
    try:
        wanted = variant(section.variant)
    except InputError as error:
        raise InputError(f"the recipe's [model] is not valid: {error.cause}", error.hint) from error
    for name in SHAPE:
        if getattr(section, name) is None and getattr(wanted, name) != getattr(config, name):
            has = f"{name} {getattr(config, name)} and not {getattr(wanted, name)}"
            cause = f"the weights {weights!r} are not of the variant {section.variant!r}: they have {has}"
            raise InputError(cause, "leave the variant out: the shape comes from the weights")


def check_own_fields(section: ModelSection, config: ViTConfig, weights: str) -> None:
    """Raises InputError for the first field that says otherwise than the model that the weights give."""
    for name in OWN:
        value = getattr(section, name)
        if value is not None and value != getattr(config, name):
            cause = f"{name} is {value!r}, and {getattr(config, name)!r} in the model of {weights!r}"
            raise InputError(cause, f"leave {name} out: the shape comes from the weights; or set init=random")


def regularized(config: ViTConfig, section: ModelSection, mask_token: bool) -> ViTConfig:
    """The config with the section's rates, and with a mask token or without. Raises InputError if they do not fit."""
    rates = {name: getattr(section, name) for name in RATES}
    return config.replace(**rates, mask_token=mask_token)


def with_own_memory(model: VisionTransformer, config: ViTConfig) -> VisionTransformer:
    """A copy in float32 that shares no memory with the model or its file; with a mask token if the config has one."""
    state = {name: tensor.to(torch.float32).clone() for name, tensor in model.state_dict().items()}
    token = state.pop("mask_token", torch.zeros(1, 1, config.width))
    copy = on_meta(config)
    copy.load_state_dict(state | {"mask_token": token} if config.mask_token else state, assign=True)
    return copy
