"""Later architectures in every view: inspect, its costs, explain, the walk and compare, on one tiny model of each."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.model.models import NO_CLASS, SMALL, SWITCHES, images_for
from vitreous.data.preprocessing import Preprocessing
from vitreous.explain.attention_maps import ExplicitAttention, attention_maps, readout, readout_name
from vitreous.explain.distance import attention_distance
from vitreous.explain.relevance import gradient_attention, relevance
from vitreous.explain.rollout import attention_rollout
from vitreous.inspection.comparison.compare import compare
from vitreous.inspection.trace import inspect
from vitreous.model.config import ViTConfig
from vitreous.model.cost import executed_multiply_adds, nominal_multiply_adds, parameter_count
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer
from vitreous.pages.walk import walk_page
from vitreous.pages.walk.numbers import block_numbers, resolution
from vitreous.pages.walk.recording import block_attention, record

FIRST_LATER = "hybrid, timm's epsilons"
SINGLE = [*SWITCHES][[*SWITCHES].index(FIRST_LATER) :]
SWIGLU = {"mlp": "swiglu", "mlp_inner_norm": True}
FAMILIES: dict[str, dict[str, object]] = {
    "EVA-02": NO_CLASS
    | SWIGLU
    | {"class_token": True, "rotary": "eva02", "rotary_grid": (2, 2), "qkv_bias": "no_key", "norm_after_pooling": True},
    "EVA-02 CLIP": SWIGLU | {"rotary": "eva02", "attention_inner_norm": True, "norm_site": "after"},
    "DINOv3": {"position_embedding": "none", "rotary": "dinov3", "registers": 4, "qkv_bias": "no_key"}
    | {"layer_scale": 0.1, "mlp": "swiglu", "num_classes": 0},
    "AIMv2": NO_CLASS
    | {"norm": "rms", "embedding_norm": True, "qkv_bias": "none", "dense_bias": False, "mlp": "swiglu"},
    "BEiT": {"position_embedding": "relative_bias", "position_site": "every_layer", "qkv_bias": "no_key"}
    | {"layer_scale": 0.1, "pooling": "mean", "norm_after_pooling": True},
    "Perception Encoder": {"pooling": "attention", "pooling_heads": 4, "rotary": "perception", "pre_norm": True}
    | {"layer_scale": 0.1},
    "InternViT": {"norm": "rms", "query_key_norm": "width", "qkv_bias": "none", "final_norm": False}
    | {"layer_scale": 0.1, "pooling": "mean"},
    "rpn": {"position_embedding": "relative_bias", "position_site": "shared", "norm_site": "after"} | NO_CLASS,
    "rotary, mixed": NO_CLASS | {"rotary": "mixed", "position_embedding": "none", "query_key_norm": "head"},
    "DINOv2's classifier": {"pooling": "class_token_and_mean", "registers": 2, "layer_scale": 0.1},
}
TABLE = {name: SWITCHES[name] for name in SINGLE} | FAMILIES


@pytest.fixture(params=TABLE, scope="module")
def model(request: pytest.FixtureRequest) -> VisionTransformer:
    config = ViTConfig.from_dict(SMALL | {"depth": 2, "mlp_dim": 64} | TABLE[request.param])
    model = VisionTransformer(config)
    fill_at_random(model, 0)
    return model.eval()


def rows_of(stages):
    for stage in stages:
        yield stage
        yield from rows_of(stage.parts)


def test_inspect_counts_and_names_everything(model):
    config, images = model.config, images_for(model.config)
    trace = inspect(model, images)
    with torch.no_grad():
        torch.testing.assert_close(trace.output, model(images))
    assert trace.output.std(dim=0).mean() > 1e-3, "the outputs vary across images"
    assert trace.total_parameters == sum(p.numel() for p in model.parameters()) == parameter_count(config)
    executed, nominal = executed_multiply_adds(config), nominal_multiply_adds(config)
    assert trace.total_multiply_adds == executed <= nominal
    assert (executed == nominal) == (model.head.read is None)
    for level in range(1, 6):
        rows = replace(trace, level=level).stages
        assert sum(row.parameters for row in rows) == trace.total_parameters
        assert sum(row.multiply_adds for row in rows) == executed
    for row in rows_of(trace.boxes):
        assert "operation of the module" not in row.what
        assert "not in any of its parts" not in row.what, row.path
        assert row.what != row.kind, row.path
        assert row.what != "parameters that this pass never read", row.note
        assert row.kind != "RMSNorm" or ("RMS" in row.what and "LN" not in row.equation)
    assert str(trace)
    assert trace._repr_html_()


def test_each_new_part_has_its_row(model):
    config = model.config
    rows = {row.path: row for row in rows_of(inspect(model).boxes)}
    inner = "encoder.blocks.0"
    expected = {
        "patch_embedding.norm": config.embedding_norm,
        f"{inner}.attention.query_norm": config.query_key_norm != "none",
        f"{inner}.attention.key_norm": config.query_key_norm != "none",
        f"{inner}.attention:add": config.rotary != "none",
        f"{inner}.attention:add.2": config.rotary != "none",
        f"{inner}.attention.norm": config.attention_inner_norm,
        f"{inner}.mlp.norm": config.mlp_inner_norm,
        "encoder.norm": config.final_norm and not config.norm_after_pooling,
        "head.norm": config.final_norm and config.norm_after_pooling,
    }
    assert {path: path in rows for path in expected} == expected
    order = [path for path in rows if path in (f"{inner}.attention", f"{inner}.attention_norm")]
    assert order[0].endswith("_norm") == (config.norm_site == "before")
    assert ("LN(MSA" in rows[f"{inner}:add"].equation) == (config.norm_site == "after")


def test_attention_maps_are_those_of_the_pass(model):
    images = images_for(model.config)
    maps = model.attention_weights(images)
    with torch.no_grad(), ExplicitAttention() as explicit:
        logits = model(images)
    torch.testing.assert_close(logits, model(images).detach(), rtol=1e-4, atol=1e-4)
    for number, weights in maps.items():
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
        used = explicit.maps[number]
        torch.testing.assert_close(weights[:, :, : used.shape[2]], used, rtol=1e-4, atol=1e-6)
        assert weights.std(dim=0).mean() > 1e-6, "the maps vary across images"
    shown = attention_maps(model, images)
    assert shown.shape == (3, 2, model.config.num_heads, *model.config.grid)
    shares = readout(model, images)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))
    expected = torch.einsum("bq,bhqt->bht", shares, maps[1])[..., model.config.prefix_tokens :]
    torch.testing.assert_close(shown[:, 1].flatten(2), expected)


def test_class_token_and_mean_are_read_in_equal_parts():
    config = ViTConfig.from_dict(SMALL | {"depth": 1} | FAMILIES["DINOv2's classifier"])
    model = VisionTransformer(config).eval()
    shares = readout(model, images_for(config))[0]
    assert shares[0] == 0.5
    assert shares[1:3].tolist() == [0, 0]
    assert shares[3:].tolist() == pytest.approx([0.5 / 16] * 16)
    assert readout_name(config) == "the class token and the mean of the patches"


def test_rollout_distance_and_relevance_hold(model):
    config, images = model.config, images_for(model.config)
    rollout = attention_rollout(model, images)
    assert rollout.shape == (3, *config.grid)
    assert rollout.min() > 0
    total = rollout.flatten(1).sum(dim=1)
    assert (total <= 1 + 1e-5).all()
    if not config.prefix_tokens:
        torch.testing.assert_close(total, torch.ones(3))
    far, between = attention_distance(model, images), attention_distance(model, images, "patches")
    assert (between >= far - 1e-4).all()
    assert (far > 0).all()
    assert between.max() < math.hypot(*config.image_size)
    if not config.num_classes:
        return
    classes = torch.tensor([0, 1, 2])
    for maps in (relevance(model, images, classes), gradient_attention(model, images, 0, classes)):
        assert maps.shape == (3, *config.grid)
        assert maps.min() >= 0
        assert maps.std(dim=0).mean() > 0, "the maps vary across images"


def test_gradients_of_attention_are_those_of_finite_differences(model):
    """The gradient that relevance uses, at the largest entry of the first block's map, in float64."""
    if not model.config.num_classes:
        return
    double = copy.deepcopy(model).double()
    images = images_for(model.config, batch=1).double()
    with ExplicitAttention() as explicit:
        score = double(images)[0, 1]
    [gradient] = torch.autograd.grad(score, explicit.maps[:1])
    place = np.unravel_index(int(gradient.abs().argmax()), gradient.shape)

    class Changed(ExplicitAttention):
        def attend(self, q, k, v, attn_mask=None):
            attended = super().attend(q, k, v, attn_mask)
            if len(self.maps) > 1:
                return attended
            change = torch.zeros_like(self.maps[0])
            change[place] = 1e-6
            return attended + change @ v

    with torch.no_grad(), Changed():
        changed = double(images)[0, 1]
    assert (changed - score).item() / 1e-6 == pytest.approx(gradient[place].item(), rel=1e-3)


def test_the_walk_shows_the_pass(model):
    config = model.config
    gray = (0.5,) * config.channels
    preprocessing = Preprocessing(config.image_size, mean=gray, std=gray, channels=config.channels)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    page = walk_page(model, photo, preprocessing)
    assert ("are rotary" in page) == (config.rotary != "none")
    assert ("This model has no positions" in page) == (config.position_embedding == config.rotary == "none")
    images = images_for(config, batch=1)
    with torch.no_grad():
        walk = record(model, images)
        tokens, maps = model.tokens(images, [0]), model.attention_weights(images)
        for number in range(config.depth):
            torch.testing.assert_close(block_attention(walk, number), maps[number].float())
        numbers = block_numbers(walk, 0, resolution(walk))
        block = model.encoder.blocks[0]
        positions = model.positions(model.grid(images))(0)
        x = positions.tokens(model.encoder.pre_norm(model.embed(images)))
        q, k, _ = block.attention.project(block.attention_input(x), positions=positions)
        scores = (q @ k.mT)[0, 0] / math.sqrt(config.head_dim)
    best = numbers["matches"][:, 0].long()
    torch.testing.assert_close(numbers["matches"][:, 2], scores.gather(1, best[:, None])[:, 0], rtol=1e-4, atol=1e-5)
    # z_{l-1} and what each branch adds.
    torch.testing.assert_close(numbers["norms"][:, 0], x[0].norm(dim=-1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(numbers["norms"][:, 4], tokens[0][0].norm(dim=-1), rtol=1e-4, atol=1e-5)


def test_compare_finds_it_equal_to_itself(model):
    assert compare(copy.deepcopy(model), model, images_for(model.config)).equal
