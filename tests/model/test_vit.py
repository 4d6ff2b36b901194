"""The whole model, under every switch."""

import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.models import SWITCHES, images_for, small_config, small_model
from vitreous.model.cost import on_meta
from vitreous.model.vit import VisionTransformer

switches = pytest.mark.parametrize("switch", SWITCHES)
ROOT = Path(__file__).parents[2]


@switches
def test_it_runs_forward_and_backward_and_every_parameter_learns(switch):
    model = small_model(switch).train()
    images = images_for(model.config)
    logits = model(images)
    assert logits.shape == (3, model.config.num_classes or model.config.width)
    assert logits.std(0).min() > 1e-3  # they vary across images
    (logits.sin() * torch.arange(1.0, logits.numel() + 1).view_as(logits)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@switches
def test_the_last_block_for_the_read_tokens_alone_equals_the_full_one(switch):
    model = small_model(switch)
    images = images_for(model.config)
    everything = model.encoder.norm(model.tokens(images, [-1])[0])
    torch.testing.assert_close(model(images), model.head(everything), rtol=1e-5, atol=1e-5)
    read = model.head.read
    assert model.encode(images).shape[1] == (model.config.num_tokens if read is None else read)
    assert (read is None) == (model.config.pooling != "class_token")


@switches
def test_attention_maps_are_those_of_the_pass_and_leave_it_alone(switch):
    model = small_model(switch)
    images = images_for(model.config)
    before = model(images)
    maps = model.attention_weights(images)
    assert torch.equal(before, model(images))
    assert list(maps) == [0, 1, 2]
    tokens = model.config.num_tokens
    for attention in maps.values():
        assert attention.shape == (3, model.config.num_heads, tokens, tokens)
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    last = model.attention_weights(images, [-1])
    assert list(last) == [2]
    assert torch.equal(last[2], maps[2])


@switches
def test_the_meta_device_builds_the_same_state(switch):
    config = small_config(switch)
    real, meta = VisionTransformer(config), on_meta(config)
    assert {k: v.shape for k, v in real.state_dict().items()} == {k: v.shape for k, v in meta.state_dict().items()}
    meta.load_state_dict(small_model(switch).state_dict(), assign=True)
    images = images_for(config)
    assert torch.equal(meta(images), small_model(switch)(images))


@switches
def test_other_sizes_run_and_the_own_size_is_not_resampled(switch):
    model = small_model(switch)
    height, width = model.config.token_stride
    images = torch.randn(2, model.config.channels, 5 * height, 3 * width)
    assert model(images).shape[0] == 2
    assert model.grid(images) == (5, 3)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), height=st.integers(1, 8), width=st.integers(1, 8))
def test_rectangles_of_rectangular_patches(rows, columns, height, width):
    size, patch = (rows * height, columns * width), (height, width)
    model = small_model(image_size=size, patch_size=patch)
    images = images_for(model.config)
    assert model.tokens(images, [0])[0].shape == (3, 1 + rows * columns, 48)
    # A rectangle keeps its 2-D positions: transposing image, patches and positions gives the same logits.
    mirrored = small_model(image_size=size[::-1], patch_size=patch[::-1])
    state = model.state_dict()
    weight = state["patch_embedding.projection.weight"].unflatten(1, (3, height, width))
    state["patch_embedding.projection.weight"] = weight.mT.flatten(1)
    positions = state["position_embedding.embedding"]
    patches = positions[:, 1:].unflatten(1, (rows, columns)).transpose(1, 2).flatten(1, 2)
    state["position_embedding.embedding"] = torch.cat([positions[:, :1], patches], dim=1)
    mirrored.load_state_dict(state)
    torch.testing.assert_close(mirrored(images.mT), model(images), rtol=1e-4, atol=1e-4)


def test_a_size_that_the_patch_does_not_divide_names_those_that_work():
    with pytest.raises(ValueError, match=r"36×32 image does not divide into 8×8 patches; .* 32×32 and 40×32"):
        small_model()(torch.zeros(1, 3, 36, 32))


@pytest.mark.parametrize("switch", ["the paper's", "hybrid"])
def test_wrong_channels_are_named(switch):
    with pytest.raises(ValueError, match="the image has 1 channels; this model takes 3"):
        small_model(switch)(torch.zeros(1, 1, 64, 64))


def test_tokens_are_those_after_each_block():
    model = small_model()
    images = images_for(model.config)
    seen = []
    handles = [b.register_forward_hook(lambda _, args, out: seen.append(out)) for b in model.encoder.blocks]
    first, last = model.tokens(images, [0, -1])
    for handle in handles:
        handle.remove()
    assert torch.equal(first, seen[0])
    assert torch.equal(last, seen[2])
    with pytest.raises(ValueError, match="there is no block 7"):
        model.tokens(images, [7])


def test_the_representation_is_what_the_classifier_reads():
    model = small_model("the paper's")
    images = images_for(model.config)
    torch.testing.assert_close(model(images), model.head.classifier(model.representation(images)))


def test_registers_stand_between_class_token_and_patches_and_have_no_position():
    model = small_model("registers")
    images = images_for(model.config)
    z0 = model.embed(images)
    assert torch.equal(z0[:, 1:5], model.registers.expand(3, -1, -1))
    position = model.position_embedding.embedding[:, 0]
    torch.testing.assert_close(z0[:, 0], (model.class_token[:, 0] + position).expand(3, -1))


def corrupted_model(**overrides):
    """A model with a mask token, images, and the embeddings of their patches without positions."""
    model = small_model("registers", mask_token=True, **overrides)
    images = images_for(model.config)
    return model, images, model.patch_embedding(images)


def positions_of(model: VisionTransformer) -> torch.Tensor:
    """E_pos, of the patches; the class token and four registers stand before them."""
    table = model.position_embedding.table((4, 4))
    assert table[5:].std(0).min() > 0.1
    return table[5:]


def test_swapped_patches_stand_at_the_positions_of_those_they_replace():
    model, images, patches = corrupted_model()
    swapped = torch.stack([torch.randperm(16) for _ in range(3)])
    swapped[1, 2] = swapped[1, 3]  # one may stand in two places
    z0 = model.embed(images, swapped=swapped)
    for image in range(3):
        for patch in range(16):
            expected = patches[image, swapped[image, patch]] + positions_of(model)[patch]
            torch.testing.assert_close(z0[image, 5 + patch], expected)
    assert torch.equal(z0[:, :5], model.embed(images)[:, :5])
    own = torch.arange(16).expand(3, -1)
    assert torch.equal(model.embed(images, swapped=own), model.embed(images))


def test_the_mask_token_stands_over_swapped_patches_and_keeps_the_position():
    model, images, patches = corrupted_model()
    hidden = torch.rand(3, 16) < 0.5
    swapped = torch.arange(16).flip(0).expand(3, -1)
    z0 = model.embed(images, hidden, swapped)[:, 5:] - positions_of(model)
    for image in range(3):
        for patch in range(16):
            expected = model.mask_token[0, 0] if hidden[image, patch] else patches[image, 15 - patch]
            torch.testing.assert_close(z0[image, patch], expected, rtol=1e-5, atol=1e-5)


def test_the_mask_token_and_the_swapped_patches_get_gradients():
    model, images, _ = corrupted_model()
    images.requires_grad_()
    hidden = torch.zeros(3, 16, dtype=torch.bool)
    hidden[:, 0] = True
    swapped = torch.arange(16).expand(3, -1).clone()
    swapped[:, 1] = 15
    model.embed(images, hidden, swapped)[:, 5:7].sum().backward()
    assert torch.equal(model.mask_token.grad, torch.full_like(model.mask_token, 3.0))
    seen = images.grad.abs().sum(1) > 0
    assert seen[:, 24:, 24:].all(), "the last patch stands in the second place"
    assert not seen[:, :24].any()
    assert not seen[:, :, :24].any()


def test_patches_cannot_be_hidden_without_a_mask_token():
    model = small_model()
    with pytest.raises(ValueError, match="no mask token; set mask_token=True"):
        model.embed(images_for(model.config), torch.ones(3, 16, dtype=torch.bool))


def test_positions_matter_and_without_them_patches_are_a_set():
    images = images_for(small_config())
    moved = images.roll(8, dims=3)  # one patch to the right, around the edge
    with_positions, without = small_model(), small_model("no positions")
    assert (with_positions(images) - with_positions(moved)).abs().max() > 1e-2
    torch.testing.assert_close(without(images), without(moved), rtol=1e-4, atol=1e-5)


@switches
def test_bfloat16_autocast_stays_near_float32(switch):
    model = small_model(switch)
    images = images_for(model.config)
    exact = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(images)
    error = (rounded.float() - exact).norm() / exact.norm()
    assert 0 < error < 0.05


def test_a_model_of_bfloat16_weights_runs():
    model = small_model("sincos").bfloat16()
    images = images_for(model.config)
    assert model(images.bfloat16()).dtype == torch.bfloat16


def test_dropout_follows_the_positions_and_is_off_in_evaluation():
    model = small_model(dropout=0.5)
    images = images_for(model.config)
    assert torch.equal(model(images), model(images))
    model.train()
    z0 = model.embed(images)
    assert 0.4 < (z0 == 0).float().mean() < 0.6
    assert not torch.equal(model(images), model(images))


@switches
def test_it_learns_after_a_look_in_inference_mode(switch):
    """What a pass keeps for the next one (the sincos table) must not carry inference mode along."""
    model = small_model(switch)
    images = images_for(model.config)
    with torch.inference_mode():
        before = model(images)
    logits = model(images)
    logits.sum().backward()
    torch.testing.assert_close(logits, before.clone(), rtol=1e-5, atol=1e-5)


COMPILED = """
import sys, json, torch
from tests.model.models import SWITCHES, images_for, small_model
errors = {}
for switch in json.loads(sys.argv[1]):
    torch._dynamo.reset()
    model = small_model(switch)
    images = images_for(model.config)
    compiled = torch.compile(model, fullgraph=True, backend="eager")  # fullgraph: a graph break is an error
    eager = model(images)
    errors[switch] = float((compiled(images) - eager).detach().abs().max())
    model.train()
    compiled(images).sum().backward()
print(json.dumps(errors))
"""


def test_no_graph_breaks_under_compile(fresh_process):
    """In a process without beartype, whose checks would break the graph."""
    code = COMPILED.replace("sys.argv[1]", repr(json.dumps(list(SWITCHES))))
    done = fresh_process(code, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    errors = json.loads(done.stdout)
    assert errors.keys() == SWITCHES.keys()
    assert max(errors.values()) < 1e-5


def test_the_reading_copy_equals_the_package():
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import paper_vit
    finally:
        sys.path.pop(0)
    model = small_model()
    c = model.config
    copy = paper_vit.VisionTransformer(32, 8, c.width, c.depth, c.num_heads, c.mlp_dim, c.num_classes)
    copy.load_state_dict(model.state_dict())  # strict: the same names and shapes
    images = images_for(c)
    torch.testing.assert_close(copy(images), model(images), rtol=1e-5, atol=1e-5)
    base = paper_vit.VisionTransformer(224, 16, 768, 1, 12, 3072, 1000)
    assert {k: v.shape for k, v in base.state_dict().items()} == {
        k: v.shape for k, v in VisionTransformer.from_variant("B/16", depth=1).state_dict().items()
    }


def test_the_reading_copy_is_short_and_needs_torch_alone():
    lines = (ROOT / "examples/paper_vit.py").read_text().splitlines()
    assert len(lines) <= 120
    assert {line.split()[1] for line in lines if line.startswith(("import", "from"))} == {"math", "torch"}
