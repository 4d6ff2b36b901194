"""A config is validated on creation, and errors name what is valid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.model.config import CHOICES, ViTConfig, grid_of
from vitreous.model.variants import HYBRIDS, NAMES, SIZES, is_variant, variant


def test_the_defaults_are_base_16():
    assert ViTConfig() == variant("B/16")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 100, "num_heads": 12}, "does not divide width 100; the nearest that do are 4, 5, 10"),
        ({"image_size": 225}, "the nearest sizes that do: 224×224 and 240×240"),
        ({"image_size": (224, 100)}, "224×96 and 224×112"),
        ({"image_size": 8}, "the nearest sizes that do: 16×16"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"patch_size": (16, 16, 3)}, "patch_size is"),
        ({"width": 0}, "width is 0; it must be an integer of at least 1"),
        ({"depth": 2.5}, "depth is 2.5"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"num_classes": True}, "num_classes is True"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0; it must be a finite number above 0"),
        ({"norm_eps": float("inf")}, "norm_eps is inf"),
        ({"norm_eps": "x"}, "norm_eps is 'x'"),
        ({"layer_scale": "a"}, "layer_scale is 'a'; it must be a finite number"),
        ({"class_token": 2}, "class_token is 2; it must be True or False"),
        ({"pre_norm": "no"}, "pre_norm is 'no'"),
        ({"dropout": "0.1"}, "dropout is '0.1'"),
        ({"stem_blocks": 5}, "stem_blocks is 5"),
        ({"hidden_dim": 0}, "hidden_dim is 0"),
        ({"class_token": False}, "pool by 'mean' or 'attention'"),
        ({"distillation_token": True, "pooling": "mean"}, "distillation token needs"),
        ({"position_embedding": "relative"}, "position_site is 'every_layer' or 'shared'"),
        (
            {"position_embedding": "sincos_2d", "width": 30, "num_heads": 2},
            "divisible by 4, 8 or more, got 30; set width=32",
        ),
        ({"position_embedding": "sincos_2d", "width": 6, "num_heads": 2}, "got 6; set width=8"),
        ({"position_embedding": "learned_2d", "width": 7, "num_heads": 1}, "even width"),
        ({"stem_blocks": (3, 0)}, "the units of each stage, 1 or more"),
        ({"stem_blocks": (1,), "stem_width": 48, "patch_size": 1}, "multiple of 32"),
        ({"pooling": "max"}, "pooling is 'max'; it can be class_token, mean, attention"),
    ],
    ids=str,
)
def test_invalid_values_are_named(fields, message):
    with pytest.raises(ValueError, match=r".") as caught:
        ViTConfig.from_dict(fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_checked(name):
    with pytest.raises(ValueError, match=f"{name} is 'nonsense'; it can be"):
        ViTConfig.from_dict({name: "nonsense"})


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(ValueError, match="there is no config field 'num_head'; did you mean 'num_heads'"):
        ViTConfig.from_dict({"num_head": 3})


def test_a_dictionary_holds_everything():
    c = ViTConfig(image_size=(128, 256), patch_size=(8, 16), stem_blocks=(1, 2), pooling="mean", class_token=False)
    assert ViTConfig.from_dict(c.to_dict()) == c
    assert c.replace(dropout=0.1).dropout == 0.1
    with pytest.raises(ValueError, match="dropout"):
        c.replace(dropout=-1)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 32), st.integers(1, 32))
def test_a_grid_counts_whole_patches(rows, columns, height, width):
    assert grid_of((rows * height, columns * width), (height, width)) == (rows, columns)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(2, 32))
def test_the_sizes_that_an_error_names_work(height, width, patch):
    try:
        grid_of((height, width), (patch, patch))
    except ValueError as error:
        sizes = str(error).partition("that do: ")[2].split(" and ")
        for size in sizes:
            assert min(grid_of(tuple(map(int, size.split("×"))), (patch, patch))) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_variant(name):
    c = variant(name)
    size, _, patch = name.rpartition("+")[2].partition("/")
    assert (c.width, c.depth, c.mlp_dim, c.num_heads) == SIZES[size]
    if name not in HYBRIDS:
        assert c.token_stride == (int(patch), int(patch))


def test_the_hybrids_see_as_many_pixels_as_their_names_say():
    strides = {name: variant(name).token_stride[0] for name in HYBRIDS}
    assert strides.pop("R+Ti/16") == 32  # despite its name
    assert all(stride == int(name.partition("/")[2]) for name, stride in strides.items())


@pytest.mark.parametrize("wrong", ["b/16", "B16", "B/16 ", "R50-B/16", "ViT-B/16", "B/0", ""])
def test_a_wrong_name_says_which_exist(wrong):
    with pytest.raises(ValueError, match="there is no variant") as caught:
        variant(wrong)
    assert "mu, Ti, S, M, B, L, So400m, H, g, G" in str(caught.value)
    assert "R50+L/16" in str(caught.value)


@pytest.mark.parametrize(("wrong", "right"), [("b/16", "B/16"), ("B16", "B/16"), ("R50-B/16", "R50+B/16")])
def test_a_wrong_name_says_the_nearest(wrong, right):
    with pytest.raises(ValueError, match=f"did you mean '{right}'".replace("+", r"\+")):
        variant(wrong)


@pytest.mark.parametrize(("name", "expected"), [("B/16", True), ("R50+B/16", True), ("B_16.npz", False)])
def test_variants_are_distinguished_from_files(name, expected):
    assert is_variant(name) is expected
