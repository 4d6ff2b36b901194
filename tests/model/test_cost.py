"""Parameter counts are the paper's, exactly; FLOPs are its formula's."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.model.models import SWITCHES, small_config, small_model
from vitreous.model.config import ViTConfig
from vitreous.model.cost import executed_multiply_adds, nominal_multiply_adds, on_meta, parameter_count
from vitreous.model.variants import HYBRIDS, NAMES, SIZES, variant

# Parameters at 224 px: without a head, with 1,000 classes, with 21,843 classes.
COUNTS = {
    "Ti/16": (5_524_416, 5_717_416, 9_740_115),
    "S/32": (22_493_952, 22_878_952, 30_903_507),
    "S/16": (21_665_664, 22_050_664, 30_075_219),
    "B/32": (87_455_232, 88_224_232, 104_252_499),
    "B/16": (85_798_656, 86_567_656, 102_595_923),
    "L/32": (305_510_400, 306_535_400, 327_899_475),
    "L/16": (303_301_632, 304_326_632, 325_690_707),
    "H/14": (630_764_800, 632_045_800, 658_745_683),
    "g/14": (1_011_202_432, 1_012_611_432, 1_041_979_219),
    "G/14": (1_842_775_680, 1_844_440_680, 1_879_144_275),
}
COUNTS_1000 = {
    "mu/16": 76_712,
    "M/16": 38_837_736,
    "So400m/14": 413_597_656,
    "R+Ti/16": 6_337_704,
    "R26+S/32": 36_431_912,
    "R26+B/32": 101_383_976,
    "R50+B/16": 98_659_112,
    "R50+L/32": 328_994_856,
}
# The authors' list has no count for these two; they follow from the parts, see the test.
UNLISTED = ("R50+B/32", "R50+L/16")
COUNTS_LARGE = {  # 1,000 classes at other sizes
    ("Ti/16", 384): 5_790_376,
    ("S/16", 384): 22_196_584,
    ("B/16", 384): 86_859_496,
    ("B/32", 384): 88_297_192,
    ("L/16", 384): 304_715_752,
    ("L/32", 384): 306_632_680,
    ("L/16", 512): 305_174_504,
    ("H/14", 518): 633_470_440,
}
GFLOPS = {  # at 224 and 384 px
    "mu/16": (0.02, 0.09),
    "Ti/16": (2.51, 9.36),
    "S/32": (2.29, 6.89),
    "S/16": (9.20, 30.98),
    "M/16": (15.98, 52.20),
    "B/32": (8.82, 26.09),
    "B/16": (35.13, 110.97),
    "L/32": (30.76, 90.55),
    "L/16": (123.11, 382.13),
    "So400m/14": (219.86, None),
    "H/14": (334.59, None),
    "g/14": (534.06, None),
    "G/14": (967.50, None),
}


def test_every_name_has_a_count():
    assert set(NAMES) == {*COUNTS, *COUNTS_1000, *UNLISTED}
    assert {name.partition("/")[0] for name in NAMES if name not in HYBRIDS} == set(SIZES)


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_count_is_that_of_the_model(switch):
    config = small_config(switch)
    assert parameter_count(config) == sum(p.numel() for p in small_model(switch).parameters())


@pytest.mark.parametrize("name", ["B/16", "R50+L/32"])
def test_the_count_is_that_of_a_named_model(name):
    assert parameter_count(variant(name)) == sum(p.numel() for p in on_meta(variant(name)).parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_the_plain_variants(name):
    counts = tuple(parameter_count(variant(name, num_classes=classes)) for classes in (0, 1000, 21_843))
    assert counts == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS_1000)
def test_parameters_with_1000_classes(name):
    assert parameter_count(variant(name)) == COUNTS_1000[name]


@pytest.mark.parametrize("case", COUNTS_LARGE, ids=str)
def test_parameters_at_larger_sizes(case):
    name, size = case
    assert parameter_count(variant(name, image_size=size)) == COUNTS_LARGE[case]


def test_parameters_of_the_unlisted_hybrids():
    """The ResNet of R50+L/32 is that of R50+B/32, that of R50+B/16 is that of R50+L/16; the rest is the formula."""

    def without_stem(name):
        model = on_meta(variant(name))
        return sum(p.numel() for n, p in model.named_parameters() if not n.startswith("stem."))

    def stem(name):
        return parameter_count(variant(name)) - without_stem(name)

    assert stem("R50+B/32") == stem("R50+L/32")
    assert stem("R50+L/16") == stem("R50+B/16")
    assert parameter_count(variant("R50+B/32")) == stem("R50+L/32") + without_stem("R50+B/32")
    for name, width, tokens, depth in (("R50+B/32", 768, 50, 12), ("R50+L/16", 1024, 197, 24)):
        c = variant(name)
        body = c.stem_channels * width + width + width + tokens * width + 2 * width
        blocks = depth * (4 * width**2 + 2 * width * c.mlp_dim + 9 * width + c.mlp_dim)
        assert without_stem(name) == body + blocks + 1000 * width + 1000


@pytest.mark.parametrize("name", GFLOPS)
def test_nominal_flops(name):
    for size, expected in zip((224, 384), GFLOPS[name], strict=True):
        if expected is not None:
            flops = 2e-9 * nominal_multiply_adds(variant(name, image_size=size))
            assert flops == pytest.approx(expected, rel=1e-3, abs=0.005)  # the list has two decimals


@pytest.mark.parametrize("name", ["Ti/16", "R50+B/16", "R+Ti/16"])
def test_nominal_counts_what_runs_when_all_tokens_are_read(name):
    c = variant(name, pooling="mean")
    assert executed_multiply_adds(c) == nominal_multiply_adds(c)


@pytest.mark.parametrize(
    "switches",
    [{"mlp": "swiglu"}, {"hidden_dim": 40}, {"pooling": "attention"}, {"registers": 3, "class_token": False}],
    ids=str,
)
def test_nominal_counts_every_switch(switches):
    fields = {"width": 48, "depth": 2, "mlp_dim": 96, "num_heads": 3, "image_size": 64, "pooling": "mean"}
    c = ViTConfig.from_dict(fields | switches)
    assert executed_multiply_adds(c) == nominal_multiply_adds(c)


def test_reading_only_the_class_token_saves_multiply_adds():
    """The last block computes one query, one attention row and one MLP instead of T."""
    c = variant("Ti/16")
    t, d, m = c.num_tokens, c.width, c.mlp_dim
    saved = (t - 1) * (2 * d * d + 2 * t * d + 2 * d * m)
    assert nominal_multiply_adds(c) - executed_multiply_adds(c) == saved
    assert saved / nominal_multiply_adds(c) == pytest.approx(0.069, abs=0.003)


def test_executed_is_what_pytorch_counts_on_a_real_pass():
    c = variant("mu/16", image_size=(64, 96), num_classes=5)
    model = on_meta(c).to_empty(device="cpu")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 64, 96))
    assert executed_multiply_adds(c) == counter.get_total_flops() // 2


def test_building_on_meta_does_not_import_torchs_compiler(fresh_process):
    """Drawing numbers there would, for two seconds of every load."""
    code = "import sys; from vitreous.model.cost import on_meta; from vitreous.model.variants import variant; "
    done = fresh_process(code + "on_meta(variant('B/16', registers=4)); print('torch._dynamo' in sys.modules)")
    assert done.stdout == "False\n", done.stderr
