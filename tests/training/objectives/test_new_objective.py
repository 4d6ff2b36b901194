"""A new objective is one file and a line in the table: which way up an image is (arXiv 1803.07728)."""

from typing import Self

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.checkpoints.store import load_model
from vitreous.data.loading.batches import Batch
from vitreous.data.sampling import batch_generator
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.objectives.goals import OBJECTIVES
from vitreous.training.objectives.objective import MOST_VIEWS, Objective, Setup, Targets, Verdict, View
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.run import run_training


class RotationPrediction(Objective):
    """Turns each image by a multiple of 90 degrees and predicts which."""

    classifies = False
    unused = ("teacher", "class_weights")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.decoder = nn.Linear(width, 4)

    @classmethod
    def make(cls, setup: Setup) -> Self:
        return cls(setup.config.width)

    def prepare(self, batch: Batch, setup: Setup, epoch: int, number: int) -> tuple[Images, Targets]:
        images = setup.normalized(batch)
        drawn = batch_generator(setup.seed, epoch, number).integers(0, 4, batch.part.size)
        turns = torch.from_numpy(batch.part.cut(drawn))
        turned = torch.stack([image.rot90(int(turn), (1, 2)) for image, turn in zip(images, turns, strict=True)])
        return turned, turns.to(setup.device)

    def forward(self, model: VisionTransformer, images: Images, targets: Targets) -> Verdict:
        assert isinstance(targets, Tensor)
        logits = self.decoder(model.representation(images))
        correct = (logits.argmax(1) == targets).sum().float()
        return Verdict(F.cross_entropy(logits, targets, reduction="sum"), correct)

    def views(self, images: Images, targets: Targets, setup: Setup) -> list[View]:
        assert isinstance(targets, Tensor)
        turns = [f"{90 * turn}°" for turn in targets[:MOST_VIEWS].tolist()]
        return list(zip(setup.pixels(images[:MOST_VIEWS]), turns, strict=True))


@pytest.fixture(autouse=True)
def rotation(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "rotation", RotationPrediction)


def with_a_sky(photos) -> None:
    """A white band along the top of each photo, so that it has a right way up."""
    for path in photos.rglob("*.png"):
        with Image.open(path) as image:
            image.paste((255, 255, 255), (0, 0, image.width, 4))
            image.save(path)


def test_it_trains_validates_and_leaves_its_results(photos, tmp_path, quick):
    with_a_sky(photos)
    settings = quick | {"goal": "rotation", "epochs": 40, "lr": 3e-3, "flip": False, "ema_decay": 0.9}
    run = run_training(photos, out=tmp_path / "out", settings=settings, quiet=True)
    assert run.outcome is None
    assert run.rows[0]["train_accuracy"] < 0.6
    assert run.rows[-1]["train_accuracy"] > 0.9, "it learns"
    assert run.rows[-1]["train_loss"] < 0.5 * run.rows[0]["train_loss"]
    assert 0 <= run.best["val_accuracy"] <= 1
    files = {path.name for path in run.folder.iterdir()}
    assert {"train_batch.png", "results.png", "results.csv", "metrics.jsonl", "model.safetensors"} <= files
    assert "confusion_matrix.png" not in files
    stored = load_model(run.folder / "model.safetensors")
    assert (stored.model.config.num_classes, stored.model.config.mask_token, stored.class_names) == (0, False, None)
    assert Recipe.load(run.folder / "recipe.toml").objective.goal == "rotation"


def test_its_weights_start_another_run_and_its_options_are_checked(photos, tmp_path, quick):
    first = run_training(photos, out=tmp_path / "a", settings=quick | {"goal": "rotation"}, quiet=True)
    settings = {"epochs": 1, "warmup_epochs": 0, "batch_size": 16, "threads": 1, "workers": 0}
    second = run_training(photos, str(first.folder), out=tmp_path / "b", settings=settings, quiet=True)
    assert second.outcome is not None
    with pytest.raises(InputError, match="class_weights is 'balanced', which the goal 'rotation' does not use"):
        run_training(photos, settings=quick | {"goal": "rotation", "class_weights": "balanced"}, quiet=True)


def test_a_goal_that_is_not_in_the_table_is_rejected_with_those_that_are():
    with pytest.raises(InputError, match=r"objective\.goal is 'rotate'; it should be 'classes' or .* or 'rotation'"):
        Recipe().with_settings({"goal": "rotate"})
