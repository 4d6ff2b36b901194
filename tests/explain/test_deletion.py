import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from tests.model.models import images_for, small_model
from vitreous.explain.deletion import deletion_curve, without
from vitreous.explain.relevance import relevance
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

ZEROS = torch.zeros(3, dtype=torch.int64)


class Brightness(VisionTransformer):
    """Knows what matters: the logit of class 1 is the sum of one pixel in each patch, by known weights."""

    weights = torch.tensor([[0.1, 2.0], [-1.0, 0.5]])

    def forward(self, images):
        result = (images[:, 0, ::4, ::4] * self.weights).sum(dim=(1, 2))
        return torch.stack([torch.zeros_like(result), result], dim=1)


@pytest.fixture(scope="module")
def digits():
    """A model that has learned to read most handwritten digits, in seconds, and images it has not seen."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8)
    images = (images - images.mean()) / images.std()
    labels = torch.tensor(labels, dtype=torch.int64)
    torch.manual_seed(0)
    shape = {"width": 48, "depth": 2, "num_heads": 4, "mlp_dim": 96, "image_size": 8, "patch_size": 2}
    model = VisionTransformer(ViTConfig(**shape, channels=1, num_classes=10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(12):
        for batch in torch.randperm(1500).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()
    held_out = images[1500:], labels[1500:]
    with torch.no_grad():
        right = model(held_out[0]).argmax(dim=1) == held_out[1]
    assert right.float().mean() > 0.8
    return model, held_out[0][right], held_out[1][right]


def known():
    model = Brightness(
        ViTConfig(width=8, depth=1, num_heads=1, mlp_dim=8, image_size=8, patch_size=4, channels=1, num_classes=2)
    )
    images = torch.ones(2, 1, 8, 8)
    images[1] *= 2
    return model, images


def test_each_step_deletes_the_highest_scores_that_are_left():
    model, images = known()
    scores = model.weights.expand(2, 2, 2)  # the order of deletion: 2, ½, 0.1, -1
    result = deletion_curve(model, images, scores, torch.ones(2, dtype=torch.int64), steps=5)
    sums = torch.tensor([1.6, -0.4, -0.9, -1.0, 0.0])
    torch.testing.assert_close(result, torch.stack([sums, 2 * sums]).sigmoid())
    other = deletion_curve(model, images, -scores, torch.zeros(2, dtype=torch.int64), steps=3)
    torch.testing.assert_close(other[0], 1 - torch.tensor([1.6, 2.5, 0.0]).sigmoid())  # -1 and 0.1 go first


def test_deleted_patches_have_the_mean_color():
    images = torch.randn(2, 3, 4, 6)
    deleted = torch.tensor([[[True, False, False], [False, False, True]]]).repeat(2, 1, 1)
    result = without(images, deleted)
    assert result[:, :, :2, :2].abs().max() == 0
    assert result[:, :, 2:, 4:].abs().max() == 0
    kept = (result == images).all(dim=(0, 1))
    assert kept.sum() == 24 - 8


@pytest.mark.parametrize("switch", ["the paper's", "rectangles", "hybrid", "one channel"])
def test_a_curve_goes_from_the_image_to_nothing(switch):
    model = small_model(switch)
    images = images_for(model.config)
    classes = torch.tensor([0, 3, 6])
    result = deletion_curve(model, images, torch.rand(len(images), *model.grid(images)), classes)
    assert result.shape == (3, 11)
    with torch.no_grad():
        whole, nothing = (model(x).softmax(dim=1)[torch.arange(3), classes] for x in (images, 0 * images))
    torch.testing.assert_close(result[:, 0], whole)
    torch.testing.assert_close(result[:, -1], nothing)
    assert result.std(dim=1).min() > 0


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"num_classes": 0}, {}, "this model has no classifier"),
        ({}, {"classes": ZEROS + 9}, "there is no class 9"),
        ({}, {"steps": 1}, "1 steps make no curve"),
    ],
)
def test_invalid_curves_are_errors(changes, arguments, message):
    model = small_model(**changes)
    with pytest.raises(InputError, match=message):
        deletion_curve(model, images_for(model.config), torch.rand(3, 4, 4), **{"classes": ZEROS} | arguments)


def area(curve):
    """Under each curve, over the share of deleted patches; a good order makes it small."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def test_relevant_patches_matter_more_than_random_ones(digits):
    model, images, labels = digits
    assert len(images) > 200
    classes = {"classes": labels, "steps": 17}
    generator = torch.Generator().manual_seed(0)
    orders = [torch.rand(len(images), *model.grid(images), generator=generator) for _ in range(3)]
    by_chance = torch.stack([area(deletion_curve(model, images, order, **classes)) for order in orders]).mean(dim=0)
    by_relevance = area(deletion_curve(model, images, relevance(model, images, labels), **classes))
    by_irrelevance = area(deletion_curve(model, images, -relevance(model, images, labels), **classes))
    assert by_relevance.mean() < by_chance.mean() - 0.08
    assert by_chance.mean() < by_irrelevance.mean() - 0.05
    assert (by_relevance < by_chance).float().mean() > 0.65
