from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.model.models import SWITCHES, images_for, small_model
from vitreous.explain.attention_maps import attention_map, attention_maps, readout
from vitreous.explain.chunks import BUDGET, bytes_of_image, images_at_once
from vitreous.explain.deletion import deletion_curve
from vitreous.explain.distance import attention_distance
from vitreous.explain.relevance import gradient_attention, relevance
from vitreous.explain.rollout import attention_rollout
from vitreous.model.variants import variant


def curve(model, images):
    rows, columns = model.grid(images)
    scores = images.mean(dim=1)[:, :rows, :columns]  # different for each image; any numbers will do
    return deletion_curve(model, images, scores, torch.ones(len(images), dtype=torch.int64), steps=3)


ANALYSES = {
    "readout": readout,
    "attention": attention_map,
    "attention of heads": attention_maps,
    "rollout": attention_rollout,
    "distance": attention_distance,
    "relevance": relevance,
    "gradient attention": gradient_attention,
    "deletion": curve,
}
FOR_CLASSES = {"relevance", "gradient attention", "deletion"}
WITH_GRADIENT = {"relevance", "gradient attention"}
CASES = [
    (name, switch) for name in ANALYSES for switch in SWITCHES if name not in FOR_CLASSES or switch != "no classes"
]
# Larger than the small ones, so that maps and activations count and not the odds and ends.
LARGER = {"width": 96, "depth": 4, "mlp_dim": 384, "num_heads": 6, "image_size": 96, "patch_size": 8}
SHAPES = {
    "plain": LARGER,
    "long": LARGER | {"patch_size": 4},
    "SwiGLU": LARGER | {"mlp": "swiglu", "mlp_dim": 256},
    "relative": LARGER | {"position_embedding": "relative", "position_site": "shared"},
    "attention pooling": LARGER | {"pooling": "attention", "class_token": False},
    "hybrid": LARGER | {"stem_blocks": (2, 2), "stem_width": 32, "patch_size": 1},
}


def hooks(model):
    return [
        hook
        for module in model.modules()
        for kind, hooks in vars(module).items()
        if kind.endswith(("_hooks", "_with_kwargs", "_always_called"))
        for hook in hooks
    ]


def peak_bytes(call):
    """The most memory that a computation has at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


@pytest.mark.parametrize(("name", "switch"), CASES)
def test_chunks_give_the_numbers_of_the_whole(name, switch):
    model = small_model(switch)
    images = images_for(model.config, batch=5)
    whole = ANALYSES[name](model, images)
    parts = torch.cat([ANALYSES[name](model, part) for part in images.split(2)])
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)
    assert whole.isfinite().all()
    if name != "readout" or switch == "attention pooling":
        assert (whole[0] - whole[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("frozen", [True, False])
def test_a_model_stays_as_it_was(name, frozen):
    """Also one in training, and for a caller without gradients: dropout is off, the numbers are the same."""
    model = small_model("attention pooling", dropout=0.5, stochastic_depth=0.5, patch_dropout=0.5)
    images = images_for(model.config)
    expected = ANALYSES[name](model, images)
    model.train().requires_grad_(not frozen)
    model.head.eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        result = ANALYSES[name](model, images.clone())
    torch.testing.assert_close(result, expected)
    assert not result.requires_grad
    assert not ANALYSES[name](model, images).requires_grad
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad is not frozen for p in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert hooks(model) == []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["attention of heads", "rollout", "distance", "relevance"])
def test_an_image_takes_no_more_than_estimated(name, shape):
    model = small_model(**SHAPES[shape])
    images = images_for(model.config, batch=4)
    peak = peak_bytes(lambda: ANALYSES[name](model, images))
    estimated = 4 * bytes_of_image(model.config, model.config.image_size, name in WITH_GRADIENT)
    assert estimated / 4 < peak < estimated


def test_a_thousand_images_on_a_large_model_fit():
    config = variant("L/16")
    without, with_gradient = (images_at_once(config, (224, 224), gradient) for gradient in (False, True))
    assert 8 < without < 100
    assert 1 <= with_gradient < without
    assert images_at_once(config, (224, 224), budget=2 * BUDGET) in {2 * without, 2 * without + 1}
    assert images_at_once(config, (512, 512)) < without
    assert images_at_once(variant("R50+B/16"), (224, 224)) < images_at_once(variant("B/16"), (224, 224))
    assert images_at_once(variant("H/14"), (518, 518), with_gradient=True) == 1
