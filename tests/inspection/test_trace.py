import copy
import json
from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitreous.inspection.trace import inspect
from vitreous.model.attention import SelfAttention
from vitreous.model.config import ViTConfig
from vitreous.model.encoder import Encoder, EncoderBlock
from vitreous.model.initialization import fill_at_random
from vitreous.model.mlp import MLP, SwiGLU
from vitreous.model.patch_embedding import PatchEmbedding
from vitreous.model.vit import VisionTransformer

SMALL = {"width": 48, "depth": 3, "num_heads": 4, "mlp_dim": 96, "num_classes": 7}
SWITCHES = {
    "plain": {},
    "two sizes": {"image_size": (32, 48), "patch_size": (8, 16)},
    "swiglu": {"mlp": "swiglu"},
    "quick": {"gelu": "quick"},
    "layer scale": {"layer_scale": 0.1},
    "pre-norm": {"pre_norm": True, "patch_bias": False},
    "hybrid": {"stem_blocks": (1, 2), "stem_width": 32, "patch_size": 1, "image_size": 32},
    "root only": {"stem_blocks": (), "stem_width": 32, "patch_size": 4, "image_size": 32},
    "registers": {"registers": 4},
    "distillation": {"distillation_token": True},
    "no positions": {"position_embedding": "none"},
    "learned_2d": {"position_embedding": "learned_2d"},
    "every layer": {"position_embedding": "learned", "position_site": "every_layer"},
    "shared": {"position_embedding": "learned_2d", "position_site": "shared"},
    "shared sincos": {"position_embedding": "sincos_2d", "position_site": "shared"},
    "relative": {"position_embedding": "relative", "position_site": "every_layer"},
    "relative shared": {"position_embedding": "relative", "position_site": "shared", "pooling": "mean"},
    "no class slot": {"position_class_slot": False},
    "mean sincos": {"class_token": False, "pooling": "mean", "position_embedding": "sincos_2d"},
    "mean after": {"pooling": "mean", "norm_after_pooling": True},
    "attention": {"pooling": "attention", "class_token": False},
    "hidden": {"hidden_dim": 24, "classifier_bias": False},
    "headless": {"num_classes": 0},
    "training": {"dropout": 0.1, "stochastic_depth": 0.1},
}


def small(**changes):
    model = VisionTransformer(ViTConfig(**{**SMALL, "image_size": 32, "patch_size": 8} | changes))
    fill_at_random(model)
    return model.eval()


def images(model, batch=2):
    return torch.randn(batch, model.config.channels, *model.config.image_size)


def names(trace):
    return [stage.name for stage in trace.stages]


def hooks(model):
    return [
        hook
        for module in model.modules()
        for kind in vars(module)
        if kind.endswith(("_hooks", "_with_kwargs", "_always_called"))
        for hook in vars(module)[kind]
    ]


def flops(model, *inputs):
    torch.backends.mha.set_fastpath_enabled(False)  # its fused kernel has no formula, and does not run under hooks
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops()


@cache
def traced(switch):
    """A model with that switch, an input, what it returns, and the trace of the pass."""
    model = small(**SWITCHES[switch])
    x = images(model)
    with torch.no_grad():  # with gradients, attention with a bias runs by another kernel
        output = model(x)
    return model, x, output, inspect(model, x, level=4)


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_level_totals_to_the_whole(switch):
    model, x, _, trace = traced(switch)
    if switch == "training":
        trace = inspect(copy.deepcopy(model).train(), x)
    parameters = sum(p.numel() for p in model.parameters())
    assert trace.total_parameters == parameters
    assert trace.images == 2
    assert 2 * 2 * trace.total_multiply_adds == flops(model, x) > 0
    for level in range(1, 7):
        stages = trace.at_level(level).stages
        assert sum(stage.parameters for stage in stages) == parameters
        assert sum(stage.multiply_adds for stage in stages) == trace.total_multiply_adds
    assert hooks(model) == []


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_output_is_the_pass_s_to_the_bit_with_and_without_values(switch):
    model, x, expected, trace = traced(switch)
    assert torch.equal(trace.output, expected)
    assert torch.equal(inspect(model, x, values=False).output, expected)
    assert expected.std() > 0.01


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_table_begins_with_the_image_and_ends_with_the_head_s_output(switch):
    model, _, _, trace = traced(switch)
    stages = trace.stages
    assert stages[0].name == "image"
    assert stages[0].output_shape == (2, 3, *model.config.image_size)
    assert stages[-1].output_shape == tuple(trace.output.shape)
    assert not [s for s in stages if s.name == "not used"]
    assert all(stage.name and stage.what for stage in stages)
    assert all(s.statistics for s in stages if s.output_shape and s.kind != "own")


def test_the_default_rows_are_those_of_figure_1():
    block = ["norm", "attention", "add", "norm", "MLP", "add"]
    start = ["image", "patches", "embedded patches", "+ class token", "+ position"]
    model = small()
    assert names(inspect(model)) == [*start, *block * 3, "norm", "class token", "classifier"]
    assert names(inspect(model, level=1)) == [
        "image", "patch embedding", "+ class token", "+ position", "encoder", "head",
    ]  # fmt: skip
    assert names(inspect(model, level=2))[5:9] == ["block 0", "block 1", "block 2", "norm"]
    deep = names(inspect(model, level=4))
    assert deep[6:9] == ["q, k, v", "heads", "joined heads"]
    assert deep[11:14] == ["dense 1", "GELU", "dense 2"]


def test_rows_know_their_shapes_parameters_and_equations():
    rows = {stage.path: stage for stage in inspect(small(), level=4).stages}
    patches, embedded = rows["patch_embedding:patches"], rows["patch_embedding.projection"]
    assert (patches.input_shape, patches.output_shape) == ((1, 3, 32, 32), (1, 16, 192))
    assert (embedded.output_shape, embedded.parameters) == ((1, 16, 48), 193 * 48)
    assert embedded.multiply_adds == 16 * 192 * 48
    assert (rows["class_token"].parameters, rows["class_token"].output_shape) == (48, (1, 17, 48))
    assert rows["position_embedding"].parameters == 17 * 48
    assert rows["encoder.blocks.0:add"].equation == "z′ℓ = MSA(LN(zℓ₋₁)) + zℓ₋₁ (2)"  # noqa: RUF001
    assert rows["encoder.blocks.0:add.2"].equation == "zℓ = MLP(LN(z′ℓ)) + z′ℓ (3)"  # noqa: RUF001
    heads = rows["encoder.blocks.0.attention:scaled_dot_product_attention"]
    assert (heads.output_shape, heads.multiply_adds) == ((1, 4, 17, 12), 2 * 17 * 17 * 48)


def test_sums_hold_the_values_of_equations_2_and_3():
    model = small()
    x = images(model)
    rows = {stage.path: stage for stage in inspect(model, x, level=4).stages}
    z0 = model.embed(x)
    block = model.encoder.blocks[0]
    middle = z0 + block.attention(block.attention_norm(z0))
    for path, tensor in (("position_embedding", z0), ("encoder.blocks.0:add", middle)):
        result = rows[path].statistics
        assert result.mean == pytest.approx(tensor.mean().item(), abs=1e-5)
        assert result.std == pytest.approx(tensor.std(correction=0).item(), rel=1e-4)
        assert (result.min, result.max) == pytest.approx((tensor.min().item(), tensor.max().item()))
        assert result.token_norm == pytest.approx(tensor.norm(dim=-1).mean().item(), rel=1e-4)
        assert result.non_finite == 0


def test_the_last_block_s_single_token_is_seen_and_explained():
    trace = inspect(small(), level=4)
    last = {s.path: s for s in trace.stages if s.path.startswith("encoder.blocks.2")}
    qkv = last["encoder.blocks.2.attention.qkv"]
    assert qkv.parameters == 3 * 48 * 49
    assert qkv.multiply_adds == (1 + 2 * 17) * 48 * 48
    assert last["encoder.blocks.2.attention.out"].output_shape == (1, 1, 48)
    assert any("one token" in note for note in trace.notes)
    assert not any("one token" in n for n in inspect(small(pooling="mean")).notes)


def test_positions_inside_the_encoder_are_rows_of_each_block():
    rows = inspect(small(position_site="every_layer"), level=2).stages
    assert [s.name for s in rows].count("+ position") == 3
    assert next(s for s in rows if s.name == "positions").parameters == 3 * 17 * 48
    assert "relative positions" in names(inspect(small(**SWITCHES["relative"]), level=1))


def test_non_finite_values_are_counted_separately():
    model = small()
    x = images(model)
    x[0, 0, 0, 0] = torch.nan
    image = inspect(model, x).stages[0].statistics
    assert image.non_finite == pytest.approx(1 / x.numel())
    assert abs(image.mean) < 0.2
    assert "NaN, ∞" in str(inspect(model, x))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(48, 5), (2, 48)),
        (MLP(48, 96), (2, 5, 48)),
        (SwiGLU(48, 96), (2, 5, 48)),
        (SelfAttention(48, 4), (2, 5, 48)),
        (PatchEmbedding(8, 48), (2, 3, 16, 24)),
        (EncoderBlock(48, 4, 96), (2, 5, 48)),
        (Encoder(48, 2, 4, 96), (2, 5, 48)),
        (nn.TransformerEncoderLayer(48, 4, 96, batch_first=True), (2, 5, 48)),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(48, 4, 96), 2, enable_nested_tensor=False), (5, 2, 48)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)), (2, 3, 8, 8)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_layer_by_itself(layer, shape):
    layer.eval()
    x = torch.randn(shape)
    trace = inspect(layer, x)
    assert torch.equal(trace.output, layer(x))
    assert trace.total_parameters == sum(p.numel() for p in layer.parameters())
    per = trace.images or 1
    assert 2 * per * trace.total_multiply_adds == flops(layer, x)
    assert trace.stages[0].name == "input"
    assert len(trace.stages) > 1
    assert hooks(layer) == []


def test_foreign_models_get_rows_too():
    from torchvision.models import VisionTransformer as TorchvisionViT

    model = TorchvisionViT(32, 16, 2, 4, 48, 96, num_classes=7).eval()
    fill_at_random(model)
    x = torch.randn(2, 3, 32, 32)
    trace = inspect(model, x, level=6)
    assert torch.equal(trace.output, model(x))
    assert trace.total_parameters == sum(p.numel() for p in model.parameters())
    assert 4 * trace.total_multiply_adds == flops(model, x)
    paths = [stage.path for stage in trace.stages]
    assert "class_token" in paths
    assert "encoder.layers.encoder_layer_0:add" in paths


class Odd(nn.Module):
    """Products without modules, a layer that is not called, one that is called twice, one with two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.again = self.first
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.first.weight
        self.idle = nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        y = self.again(self.first(x)) * self.scale
        return self.tied(y @ y.mT @ x)


def test_each_parameter_is_counted_once_also_where_shared_or_idle():
    model = Odd()
    x = torch.randn(2, 5, 6)
    trace = inspect(model, x)
    rows = {(s.path, s.name): s for s in trace.stages}
    assert trace.total_parameters == sum(p.numel() for p in model.parameters()) == 36 + 6 + 6 + 21 + 6
    assert rows["", "not used"].parameters == 21
    assert "idle.weight" in rows["", "not used"].note
    assert [s.parameters for s in trace.stages if s.path == "first"] == [42, 0]
    assert rows["", "scale"].parameters == 6
    assert 2 * trace.total_multiply_adds == flops(model, x)


def test_the_model_is_left_as_it_was_also_after_a_failure():
    model = small().train()
    handle = model.head.register_forward_hook(lambda *_: None)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    x = torch.randn(1, 3, 30, 30)
    state = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="does not divide into"):
        inspect(model, x)
    inspect(model)
    assert len(hooks(model)) == 1
    handle.remove()
    assert hooks(model) == []
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_failure_deep_inside_leaves_no_hooks():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(Broken()))
    with pytest.raises(RuntimeError, match="broken"):
        inspect(model, torch.randn(2, 3))
    assert hooks(model) == []
    assert (torch.ones(2) + torch.ones(2)).sum() == 4  # the modes are gone as well
    assert inspect(model[0], torch.randn(2, 3)).total_parameters == 12


def test_an_error_that_the_model_catches_does_not_confuse_the_rows():
    class Catching(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong, self.right = nn.Linear(5, 3), nn.Linear(4, 3)

        def forward(self, x):
            try:
                return self.wrong(x)
            except RuntimeError:
                return self.right(x)

    trace = inspect(Catching(), torch.randn(2, 4))
    assert trace.total_parameters == 33
    assert next(s for s in trace.stages if s.path == "right").multiply_adds == 2 * 12


def test_users_hooks_are_part_of_the_pass():
    model = small()
    model.head.register_forward_hook(lambda module, args, output: output + 100)
    head = inspect(model, level=1).stages[-1]
    assert head.statistics.mean > 90


def test_inference_mode_counts_as_well():
    model = small()
    with torch.inference_mode():
        trace = inspect(model, torch.randn(1, 3, 32, 32))
    assert trace.total_multiply_adds == inspect(model).total_multiply_adds


def test_a_variant_by_name_costs_no_memory():
    trace = inspect("R26+S/32")
    assert trace.total_parameters == 36_431_912
    assert trace.output.is_meta
    assert not any(stage.statistics for stage in trace.stages)


def test_a_variant_with_an_image_has_the_same_fresh_weights_each_time():
    x = torch.randn(1, 3, 32, 32)
    one, two = inspect("mu/16", x), inspect("mu/16", x)
    assert one.stages[5].statistics == two.stages[5].statistics
    assert one.stages[5].statistics.std > 0


def test_json_holds_everything_and_the_levels_nest():
    model = small()
    x = images(model)
    x[0, 0] = torch.inf
    fields = json.loads(json.dumps(inspect(model, x).to_dict(), allow_nan=False))
    assert fields["total_parameters"] == sum(p.numel() for p in model.parameters())

    def leaves(stages):
        for stage in stages:
            yield from leaves(stage["parts"]) if stage["parts"] else [stage]

    rows = list(leaves(fields["stages"]))
    assert sum(row["parameters"] for row in rows) == fields["total_parameters"]
    assert sum(row["multiply_adds_share"] for row in rows) == pytest.approx(1)


def test_training_mode_is_noted_only_where_it_matters():
    assert not any("training mode" in note for note in inspect(small().train()).notes)
    assert any("training mode" in note for note in inspect(small(dropout=0.1).train()).notes)
    assert "dropout" in names(inspect(small(dropout=0.1).train(), level=1))
    assert "dropout" not in names(inspect(small(dropout=0.1), level=4))


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="Linear needs an input"):
        inspect(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="level is 0"):
        inspect(small(), level=0)
    with pytest.raises(ValueError, match="did you mean 'B/16'"):
        inspect("B-16")


def test_a_compiled_wrapper_is_looked_through():
    model = small()
    assert names(inspect(torch.compile(model))) == names(inspect(model))
