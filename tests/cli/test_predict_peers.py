"""`vitreous predict` on weights of every family with a classifier gives the probabilities of the family's own code.

Each peer's model has random weights and a classifier fitted so that some photos are almost certain, others almost
undecided, and several classes win. Both sides start from the same files and use only their own code: decoding,
resizing, cropping, normalizing, the model. Photos with an EXIF rotation are also turned upright for the peer, whose
pipeline leaves that to the caller.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image, ImageOps
from torch import Tensor, nn

from tests.checkpoints.peers import filled
from tests.cli.predict_peers import (
    BIG_VISION,
    CLASSES,
    IMAGENET,
    OPENAI,
    AuthorsFile,
    Npz,
    Peer,
    Pipeline,
    TimmFolder,
    Torchvision,
    Transformers,
    deit3,
    openai,
    squashed,
    under_model,
)
from vitreous.cli.app import run

EQUAL = 2e-5  # of probabilities: the largest measured difference is 2e-6; tanh GELU in place of exact gives 5e-5
UNDECIDED, SURE, AT_MOST = 0.2, 0.95, 0.97  # probabilities of the top class, from photo to photo
BATCH = 32
DIRECTIONS = 4

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
AUGREG = {"crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic", **HALF}
SQUASH = {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic", **HALF}
DISTILLED = {"architecture": "deit_base_distilled_patch16_224"}
CLIP_TOWER = {"architecture": "vit_base_patch32_clip_quickgelu_224"}
CLASS_PROCESSOR = "ForImageClassification", "ViTImageProcessor", ("classifier",)
TEACHER = "ForImageClassificationWithTeacher", "DeiTImageProcessor", ("cls_classifier", "distillation_classifier")

# Grouped by pipeline, so that the photos go through each once.
PEERS: dict[str, Peer] = {
    "timm": TimmFolder(pretrained=AUGREG),
    "timm, squash": TimmFolder(pretrained=SQUASH | {"crop_pct": 0.9, "interpolation": "bilinear"}),
    "timm, SigLIP-like": TimmFolder(pretrained=SQUASH, global_pool="map", class_token=False, act_layer="gelu_tanh"),
    "DeiT": AuthorsFile(IMAGENET, under_model),
    "DeiT, distilled": AuthorsFile(IMAGENET, under_model, **DISTILLED),
    "DeiT-III": AuthorsFile(IMAGENET, deit3, init_values=0.1, no_embed_class=True),
    "MAE, fine-tuned": AuthorsFile(IMAGENET, under_model, global_pool="avg"),
    "Google": Npz(squashed),
    "big_vision, mean": Npz(BIG_VISION, global_pool="avg", class_token=False),
    "big_vision, attention": Npz(BIG_VISION, global_pool="map", class_token=False),
    "torchvision": Torchvision(),
    "transformers, ViT": Transformers("ViT", *CLASS_PROCESSOR),
    "transformers, DeiT": Transformers("DeiT", *TEACHER),
    "transformers, SigLIP": Transformers("Siglip", "ForImageClassification", "SiglipImageProcessor", ("classifier",)),
    "transformers, CLIP": Transformers(
        "CLIP", "VisionModelWithProjection", "CLIPImageProcessor", ("visual_projection",)
    ),
    "OpenAI's CLIP": AuthorsFile(OPENAI, openai, **CLIP_TOWER),
}


# ---- photos


@pytest.fixture(scope="module", params=["bundled", "ants and bees"])
def photos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photo files in one folder."""
    if request.param == "bundled":
        return bundled(tmp_path_factory.mktemp("photos"))
    folder = request.getfixturevalue("data_folder") / "ants_bees" / "val"
    return sorted(folder.rglob("*.jpg"))


def bundled(folder: Path) -> list[Path]:
    """Random crops of scikit-learn's two photos, one of them rotated, and some of its digits, enlarged."""
    from sklearn.datasets import load_digits, load_sample_images

    draw = np.random.default_rng(0)
    for number, values in enumerate(load_sample_images().images):
        photo = Image.fromarray(values)
        for piece in range(16):
            width, height = int(draw.integers(90, photo.width)), int(draw.integers(90, photo.height))
            left, top = int(draw.integers(photo.width - width)), int(draw.integers(photo.height - height))
            cut = photo.crop((left, top, left + width, top + height))
            cut.save(folder / f"photo {number} {piece}.{'png' if piece % 2 else 'jpg'}")
    photo.crop((100, 50, 403, 230)).save(folder / "sideways.jpg", exif=orientation(6))
    for digit, values in enumerate(load_digits().images[:4]):
        Image.fromarray((values * 15).astype(np.uint8)).resize((150 + 41 * digit, 260)).save(folder / f"{digit}.png")
    return sorted(folder.iterdir())


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.fixture(scope="module")
def seen() -> list:
    """The last pipeline and its outputs."""
    return [None, None]


def through(pipeline: Pipeline, photos: list[Path], seen: list) -> Tensor:
    """The photos after a peer's preprocessing."""
    if pipeline is not seen[0]:
        images = []
        for path in photos:
            with Image.open(path) as photo:
                images.append(pipeline(ImageOps.exif_transpose(photo).convert("RGB")))
        seen[:] = pipeline, torch.stack(images)
    return seen[1]


# ---- classifiers


@torch.no_grad()
def logits_of(peer: Peer, model: nn.Module, images: Tensor) -> Tensor:
    """The model's logits."""
    return torch.cat([peer.logits(model, batch) for batch in images.split(BATCH)])


@torch.no_grad()
def set_classifier(peer: Peer, model: nn.Module, images: Tensor) -> None:
    """Sets the heads so that the top class of the photos ranges from nearly undecided to nearly certain.

    The logits are random combinations of the features' first principal directions, centered and equally scaled.
    """
    heads = [model.get_submodule(name) for name in peer.heads]
    features: list[list[Tensor]] = [[] for _ in heads]
    hooks = [
        head.register_forward_hook(lambda _, given, __, into=into: into.append(given[0].double()))
        for head, into in zip(heads, features, strict=True)
    ]
    logits_of(peer, model, images)
    for hook in hooks:
        hook.remove()
    means = [torch.cat(parts).mean(dim=0) for parts in features]
    centered = [center(torch.cat(parts), peer.biased) for parts in features]
    white = [whitening(values) for values in centered]
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        shape = CLASSES, DIRECTIONS
        weights = [torch.randn(shape, generator=generator, dtype=torch.double) @ directions for directions in white]
        logits = torch.stack([c @ w.T for c, w in zip(centered, weights, strict=True)]).mean(dim=0)
        scale = scale_for(logits)
        if is_alive((logits * scale).softmax(dim=1)):
            break
    for head, weight, mean in zip(heads, weights, means, strict=True):
        head.weight.copy_(scale * weight)
        if peer.biased:
            head.bias.copy_(-scale * weight @ mean)


def center(features: Tensor, biased: bool) -> Tensor:
    """The features minus their mean or, if there is no bias to subtract it, minus their component along it."""
    mean = features.mean(dim=0)
    if biased:
        return features - mean
    axis = mean / mean.norm()
    return features - (features @ axis).outer(axis)


def whitening(centered: Tensor) -> Tensor:
    """The first principal directions, each divided by the spread along it: "directions width"."""
    _, spread, directions = torch.linalg.svd(centered, full_matrices=False)
    return directions[:DIRECTIONS] / spread[:DIRECTIONS, None] * len(centered) ** 0.5


def scale_for(logits: Tensor) -> float:
    """The factor that gives the most certain photo a top probability of AT_MOST."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        surest = (logits * middle).softmax(dim=1).max()
        low, high = (middle, high) if surest < AT_MOST else (low, middle)
    return low


def is_alive(probabilities: Tensor) -> bool:
    """Whether some photos are undecided, some almost certain, and more than three classes win."""
    top, winners = probabilities.max(dim=1)
    return top.min().item() < UNDECIDED and top.max().item() > SURE and len(winners.unique()) > 3


# ---- the check


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs ours on the CPU like the peers, and transformers without progress bars and warnings."""
    monkeypatch.setattr("vitreous.classifier.best_device", lambda: "cpu")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.mark.parametrize("name", PEERS)
def test_photos_have_the_probabilities_of_the_peer(name, photos, seen, tmp_path, capsys):
    peer = PEERS[name]
    path = peer.save(filled(peer.build()), tmp_path)
    model = peer.load(path).eval()
    images = through(peer.pipeline(path, model), photos, seen)
    set_classifier(peer, model, images)
    peer.save(model, tmp_path)
    expected = logits_of(peer, peer.load(path).eval(), images).softmax(dim=1)
    assert is_alive(expected)
    capsys.readouterr()
    assert run(["predict", str(path), *map(str, photos), "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)
    assert [prediction["image"] for prediction in predictions] == [str(photo) for photo in photos]
    pairs = zip(predictions, expected.tolist(), strict=True)
    assert max(difference(*pair, peer.names) for pair in pairs) < EQUAL


def difference(prediction: dict, row: list[float], names: list[str]) -> float:
    """The largest difference of the listed probabilities from the peer's, by class and by rank."""
    ranked = sorted(row, reverse=True)
    assert len(prediction["top"]) == 5
    top = [(each["probability"], names.index(each["class_name"])) for each in prediction["top"]]
    return max(max(abs(p - row[i]), abs(p - ranked[rank])) for rank, (p, i) in enumerate(top))
