"""timm's published names: each read at full size from its keys and shapes, and computed with two blocks."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg
from timm.models._hub import save_config_for_hf
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
from vitreous.checkpoints.families.recognize import family_named, recognize
from vitreous.checkpoints.families.shared.reading import Reading, checked_fields, whole_patches
from vitreous.checkpoints.files.layout import CONFIG
from vitreous.checkpoints.load import load_checkpoint
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError
from vitreous.support.text import listed

# timm's ViTs whose names do not begin with vit_ are published under these.
BEGINNINGS = (
    *("vit_", "deit_", "deit3_", "eva_", "eva02_", "beit_", "beitv2_", "beit3_", "aimv2_"),
    *("naflexvit_", "samvit_", "flexivit_", "test_vit"),
)
DEPTH = 2
WIDEST = 1280  # computed at their own width; wider ones get HEADS heads of their own head width
HEADS = 6  # for which no gated MLP of timm has an odd width
GRID = 5  # rows and columns of patches
CLASSES = 10
SHRUNK = ("depth", "width", "num_heads", "mlp_dim", "image_size", "num_classes", "rotary_grid", "pooling_mlp_dim")
PIXELS = 1e-5  # of normalized pixels
TIMM = family_named("timm")


def published_names() -> list[str]:
    """The names of all pretrained ViTs of the installed timm."""
    return [name for name in timm.list_pretrained() if name.startswith(BEGINNINGS)]


class Kind(NamedTuple):
    """What decides the model that timm builds for a name, and the file that it publishes."""

    architecture: str
    image_size: tuple[int, int]
    has_classes: bool
    pooling: str | None


def kind_of(name: str) -> Kind:
    """The kind of a name; names that share one are computed once."""
    pretrained = get_pretrained_cfg(name)
    assert pretrained is not None
    _, height, width = pretrained.input_size
    pooling = getattr(pretrained, "global_pool", None)
    return Kind(name.partition(".")[0], (height, width), bool(pretrained.num_classes), pooling)


def by_kind(names: Iterable[str]) -> list[list[str]]:
    """The names that share a kind, together."""
    groups: dict[Kind, list[str]] = {}
    for name in names:
        groups.setdefault(kind_of(name), []).append(name)
    return list(groups.values())


def outcomes(names: list[str]) -> list[Outcome]:
    """The outcomes for names of one kind; the model is computed once, the preprocessing compared for each."""
    logging.getLogger("timm").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with torch.device("meta"):
        whole = timm.create_model(names[0], pretrained=False)
    first = judged(names[0], lambda: compare(names[0], whole))
    if first.result != "equal":
        return [first._replace(name=name) for name in names]
    return [judged(name, lambda name=name: with_preprocessing(name, whole, first)) for name in names]


def compare(name: str, whole: nn.Module) -> Outcome:
    """Reads the whole file's keys and shapes, then loads a two-block copy of the model and compares the outputs."""
    config = read_published(whole)
    theirs, size, note = shrunk(name, whole)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / FOLDER
        write(theirs, folder)
        stored = load_checkpoint(folder, num_heads=heads_of(theirs))
        if wrong := misread(whole, config, stored.model.config):
            return Outcome(name, "different", wrong)
        images = random_images(size)
        expected = outputs(theirs, images)
        largest = difference(ours(stored.model.eval(), images, tokens=expected.ndim == 3), expected)
        if largest > TOLERANCE:
            return Outcome(name, "different", f"outputs differ by {largest:.1e}", largest, note=note)
        back, why = exported_back(stored, images, expected)
        return Outcome(name, "equal", "", largest, back, "; ".join(filter(None, (note, why))))


def published_config(model: nn.Module) -> dict[str, Any]:
    """The config.json that timm publishes beside a model as it built it: without arguments that change it."""
    with tempfile.TemporaryDirectory() as folder:
        save_config_for_hf(model, str(Path(folder) / CONFIG))
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    config.pop("model_args", None)
    return config


def read_published(whole: nn.Module) -> ViTConfig:
    """What vitreous reads from the keys and shapes of a published file and the config.json beside it, as `timm:name`.

    A two-block copy is loaded as a folder, whose family is recognized from the keys.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in whole.state_dict().items()}
    config_json = published_config(whole)
    recognize(shapes, FOLDER, lambda: config_json)
    if missing := TIMM.missing_keys(shapes):
        raise InputError(f"{FOLDER} is not a checkpoint of {TIMM.title}: {listed(missing)} missing", "")
    reading = Reading(checked_fields(TIMM.fields_from(config_json)))
    TIMM.read(shapes, reading)
    return reading.config()


def misread(whole: Any, config: ViTConfig, small: ViTConfig) -> str:
    """What vitreous read otherwise than timm built it, or otherwise in the small copy; empty if nothing."""
    size = tuple(whole.pretrained_cfg["input_size"][1:])
    facts = {
        "num_heads": (config.num_heads, heads_of(whole)),
        "depth": (config.depth, len(whole.blocks)),
        "image_size": (config.image_size, whole_patches(size, config.token_stride)),
    }
    wrong = [
        f"at full size, {name} is read as {read}, not {built}" for name, (read, built) in facts.items() if read != built
    ]
    for field, value in vars(config).items():
        if field not in SHRUNK and getattr(small, field) != value:
            wrong.append(f"{field} is {value} at full size and {getattr(small, field)} with two blocks")
    return "; ".join(wrong)


def heads_of(model: Any) -> int:
    """The number of attention heads of timm's model."""
    return model.blocks[0].attn.num_heads


def shrunk(name: str, whole: Any) -> tuple[Any, tuple[int, int], str]:
    """A two-block model of few patches and random weights; its image size; a note on what else had to change."""
    arguments: dict[str, Any] = {"depth": DEPTH} | ({"num_classes": CLASSES} if whole.num_classes else {})
    note = ""
    if whole.embed_dim > WIDEST:
        width = whole.embed_dim // heads_of(whole) * HEADS
        arguments |= {"embed_dim": width, "num_heads": HEADS}
        note = f"width {width} instead of {whole.embed_dim}"
    size = small_size(whole)
    try:
        model = timm.create_model(name, pretrained=False, img_size=size, **arguments)
    except TypeError:  # an architecture without this argument
        model = timm.create_model(name, pretrained=False, **arguments)
        size = tuple(whole.pretrained_cfg["input_size"][1:])
    return fill(model), size, note


def small_size(whole: Any) -> tuple[int, int]:
    """An image size with few patches that the stride of a model divides."""
    height, width = whole.pretrained_cfg["input_size"][1:]
    embedding = getattr(whole, "patch_embed", None)
    grid = getattr(embedding, "grid_size", None)
    if grid is None:
        return height, width
    full = embedding.img_size
    return tuple(side // count * min(count, GRID) for side, count in zip(full, grid, strict=True))


def write(model: nn.Module, folder: Path) -> None:
    """Writes a folder as timm pushes it to the hub."""
    folder.mkdir()
    save_file({key: t.contiguous() for key, t in model.state_dict().items()}, folder / "model.safetensors")
    save_config_for_hf(model, str(folder / CONFIG))


@torch.no_grad()
def outputs(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What timm's model returns for images: logits, features, or all tokens."""
    return model(images)


def exported_back(stored: Any, images: Tensor, expected: Tensor) -> tuple[Result, str]:
    """Whether timm builds what vitreous exports, and computes the same; if not, why."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / FOLDER
        try:
            export_model(stored, "timm", folder)
        except InputError as error:
            return "refused", error.cause
        again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        largest = difference(outputs(again, images), expected)
        return ("equal", "") if largest <= TOLERANCE else ("different", f"its outputs differ by {largest:.1e}")


def with_preprocessing(name: str, whole: Any, outcome: Outcome) -> Outcome:
    """The outcome for a name, after comparing what its config.json makes of a photo with timm's own pipeline.

    Args:
        name: of the kind of `whole`, a model of another name; only what timm records about weights is its own.
        whole: timm's model of the kind.
        outcome: of the kind.
    """
    pretrained = get_pretrained_cfg(name)
    assert pretrained is not None
    whole.pretrained_cfg = pretrained.to_dict()
    read = TIMM.preprocessing_from(published_config(whole), {})
    if read is None:
        return outcome._replace(name=name, result="different", why="its preprocessing is not read")
    data = resolve_data_config({}, pretrained_cfg=pretrained.to_dict())
    largest = pixel_difference(read, tuple(sorted(data.items())))
    if largest > PIXELS:
        return outcome._replace(name=name, result="different", why=f"preprocessed pixels differ by {largest:.1e}")
    return outcome._replace(name=name)


@cache
def pixel_difference(read: Preprocessing, data: tuple[tuple[str, Any], ...]) -> float:
    """The largest difference of one photo's normalized pixels after our preprocessing and timm's."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image("flower.jpg")[40:340, 90:590])
    expected = create_transform(**dict(data), is_training=False)(photo)[None]
    return (read([photo]) - expected).abs().max().item()
