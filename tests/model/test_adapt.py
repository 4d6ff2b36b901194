"""Adapting a model: to another image size, patch size, number of channels and set of classes, with nothing unsaid."""

import pytest
import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.models._manipulate import adapt_input_conv
from torch.nn import functional as F

from tests.model.models import SWITCHES, images_for, small_model
from vitreous.data.preprocessing import MAX_SIDE
from vitreous.model.adapt import LIMITS, adapt, resize_patches
from vitreous.model.config import CHOICES
from vitreous.support.errors import InputError


def differs(logits):
    """Whether the images of a batch get different answers."""
    return (logits - logits[:1]).abs()[1:].max() > 1e-3


def upsampled(images, size):
    return F.interpolate(images, size=size, mode="bilinear")


@pytest.mark.parametrize("size", [(48, 80), (16, 48), (96, 96)])
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_new_image_size_equals_the_old_model_run_at_it(switch, size):
    model = small_model(switch)
    adapted, notes = adapt(model, image_size=size)
    assert adapted.config == model.config.replace(image_size=size)
    images = torch.randn(3, model.config.channels, *size)
    expected = model(images)
    assert differs(expected)
    torch.testing.assert_close(adapted(images), expected, rtol=0, atol=1e-6)
    old = "×".join(map(str, model.config.image_size))
    assert f"image size changed from {old} to {size[0]}×{size[1]}" in notes
    tables = model.config.position_embedding in ("learned", "learned_2d", "relative", "relative_bias")
    assert sum("resampled" in note for note in notes) == tables


@pytest.mark.parametrize("method", CHOICES["position_resampling"])
@pytest.mark.parametrize("switch", ["registers", "2-D at every layer"])
def test_positions_are_resampled_by_the_configs_method_or_the_given_one(switch, method):
    by_config = small_model(switch, position_resampling=method)
    images = torch.randn(3, 3, 48, 40)
    expected = by_config(images)
    adapted, notes = adapt(by_config, image_size=(48, 40))
    torch.testing.assert_close(adapted(images), expected, rtol=0, atol=1e-6)
    assert any(note.startswith("positions") and f"from 4×4 to 6×5 ({method})" in note for note in notes)

    asked, notes = adapt(small_model(switch), image_size=(48, 40), resampling=method)
    torch.testing.assert_close(asked(images), expected, rtol=0, atol=1e-6)
    assert asked.config.position_resampling == method
    message = f"resampling of positions changed from bilinear_aligned to {method}"
    assert (message in notes) == (method != "bilinear_aligned")
    small = torch.randn(3, 3, 16, 24)
    assert torch.equal(asked(small), adapted(small))  # it goes on that way while it runs


def test_the_notes_say_each_thing_once():
    _, notes = adapt(
        small_model(), image_size=96, patch_size=16, num_classes=10, channels=1, resampling="bicubic_antialias"
    )
    assert notes == [
        "patch projection averaged from 3 channels to 1, scaled by 3/1",
        "patch projection resized from 8×8 to 16×16 pixels (pseudo-inverse of the bilinear resize)",
        "image size changed from 32×32 to 96×96",
        "resampling of positions changed from bilinear_aligned to bicubic_antialias",
        "positions resampled from 4×4 to 6×6 (bicubic_antialias)",
        "new classifier for 10 classes, all zero",
    ]


@pytest.mark.parametrize("switch", SWITCHES)
def test_without_arguments_nothing_changes(switch):
    model = small_model(switch)
    c = model.config
    for changes in ({}, {"image_size": c.image_size, "patch_size": c.patch_size, "channels": c.channels}):
        adapted, notes = adapt(model, **changes)
        assert not notes
        assert adapted.config == c
        assert torch.equal(adapted(images_for(c)), model(images_for(c)))


def test_the_original_is_not_changed_and_the_new_model_can_be_trained():
    model = small_model("distillation").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config
    changes = {"image_size": 48, "patch_size": 6, "num_classes": 3, "channels": 2, "resampling": "bicubic"}
    adapted, _ = adapt(model, **changes)
    assert model.config is config
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert adapted.training
    assert not adapt(model.eval(), **changes)[0].training
    assert adapted.config == config.replace(**{n: v for n, v in changes.items() if n != "resampling"}).replace(
        position_resampling="bicubic"
    )
    adapted(torch.randn(2, 2, 48, 48)).sum().backward()
    assert all(p.grad is not None for p in adapted.parameters())


def test_a_model_of_low_precision_stays_so():
    model = small_model("distillation").bfloat16()
    adapted, _ = adapt(model, image_size=64, patch_size=4, num_classes=3, channels=1)
    assert {p.dtype for p in adapted.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 2**40}, "image_size is 1099511627776; 8,192 is the most"),
        ({"image_size": (32, 8200)}, r"image_size is \(32, 8200\); 8,192 is the most"),
        ({"image_size": 2**40, "patch_size": 2**40}, "; 8,192 is the most"),
        ({"num_classes": 10**30}, "num_classes is 1000000000000000000000000000000; 1,000,000 is the most"),
        ({"channels": 10**12}, "channels is 1000000000000; 1,024 is the most"),
    ],
)
def test_sizes_that_would_exhaust_memory_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        adapt(small_model(), **changes)


@pytest.mark.parametrize("classes", [3, 7, 1])
@pytest.mark.parametrize("switch", ["the paper's", "distillation", "hidden layer", "no classes", "mean pooling"])
def test_new_classifiers_are_zero_also_for_as_many_classes(switch, classes):
    model = small_model(switch)
    adapted, notes = adapt(model, num_classes=classes)
    assert adapted.config == model.config.replace(num_classes=classes, hidden_dim=None)
    images = images_for(model.config)
    assert torch.equal(adapted(images), torch.zeros(3, classes))
    torch.testing.assert_close(adapted.representation(images), model.representation(images))
    second = " and distillation classifier" if switch == "distillation" else ""
    new = f"new classifier{second} for {classes} {'class' if classes == 1 else 'classes'}, all zero"
    assert notes == (["hidden layer of the head removed"] if switch == "hidden layer" else []) + [new]


def test_a_new_classifier_has_a_bias():
    switch = "quick GELU, pre-norm, no patch bias, no classifier bias"
    adapted, _ = adapt(small_model(switch), num_classes=3)
    assert torch.equal(adapted.head.classifier.bias, torch.zeros(3))


WITH_CLASSIFIERS = (
    *("the paper's", "distillation", "hidden layer", "mean pooling", "attention pooling"),
    "quick GELU, pre-norm, no patch bias, no classifier bias",
)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([0, 1, 2, 3, 4, 5, 6, None], "for 8 classes: 7 rows kept, 1 new and zero"),
        ([0, 1, 2, 4, 5, 6], "for 6 classes: 6 rows kept, 1 dropped"),
        ([6, 5, 4, 3, 2, 1, 0], "for 7 classes: 7 rows kept"),
        ([None, 3, None], "for 3 classes: 1 row kept, 2 new and zero, 6 dropped"),
        ([2], "for 1 class: 1 row kept, 6 dropped"),
    ],
    ids=["added", "dropped", "reordered", "one of three", "one alone"],
)
@pytest.mark.parametrize("switch", WITH_CLASSIFIERS)
def test_kept_classes_keep_their_logits_and_new_ones_are_zero(switch, kept, message):
    model = small_model(switch)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted, notes = adapt(model, kept_classes=kept)
    assert adapted.config == model.config.replace(num_classes=len(kept))
    images = images_for(model.config)
    expected, found = model(images), adapted(images)
    assert differs(expected)
    for new, old in enumerate(kept):
        answer = torch.zeros(3) if old is None else expected[:, old]
        torch.testing.assert_close(found[:, new], answer, rtol=0, atol=1e-5)
    second = " and distillation classifier" if switch == "distillation" else ""
    assert notes == [f"classifier{second} {message}"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("switch", WITH_CLASSIFIERS)
def test_the_same_classes_in_the_same_order_keep_their_logits_bit_for_bit(switch):
    model = small_model(switch)
    adapted, notes = adapt(model, kept_classes=range(7), num_classes=7)
    assert torch.equal(adapted(images_for(model.config)), model(images_for(model.config)))
    assert (adapted.config, notes) == (model.config, [])


@pytest.mark.parametrize("switch", ["distillation", "hidden layer", "no classes"])
@pytest.mark.parametrize("classes", [0, 3])
def test_where_no_class_is_kept_the_head_is_new(switch, classes):
    adapted, notes = adapt(small_model(switch), kept_classes=[None] * classes)
    expected, expected_notes = adapt(small_model(switch), num_classes=classes)
    assert (adapted.config, notes) == (expected.config, expected_notes)
    assert all(torch.equal(tensor, adapted.state_dict()[name]) for name, tensor in expected.state_dict().items())


@pytest.mark.parametrize(
    ("switch", "changes", "message"),
    [
        ("the paper's", {"kept_classes": [0, 7]}, "there is no class 7 to keep; the classes are 0 to 6"),
        ("the paper's", {"kept_classes": [-1]}, "there is no class -1 to keep"),
        ("no classes", {"kept_classes": [0]}, "there is no class 0 to keep; the model has no classes"),
        (
            "the paper's",
            {"kept_classes": [0, 1], "num_classes": 3},
            "kept_classes has 2 entries, num_classes is 3; leave num_classes out",
        ),
    ],
)
def test_unknown_classes_to_keep_are_refused(switch, changes, message):
    with pytest.raises(InputError, match=message):
        adapt(small_model(switch), **changes)


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_new_head_fits_every_representation(switch):
    adapted, _ = adapt(small_model(switch), num_classes=3)
    logits = adapted(images_for(adapted.config))
    assert logits.shape == (3, 3)
    assert not logits.any()


@pytest.mark.parametrize("switch", ["the paper's", "distillation", "no classes"])
def test_no_classes_leave_the_representation(switch):
    model = small_model(switch)
    adapted, notes = adapt(model, num_classes=0)
    assert adapted.head.classifier is None
    assert adapted.head.distillation is None
    images = images_for(model.config)
    torch.testing.assert_close(adapted(images), model.representation(images))
    which = "classifier and distillation classifier" if switch == "distillation" else "classifier"
    assert notes == ([] if switch == "no classes" else [f"{which} removed"])


@pytest.mark.parametrize(
    ("switch", "channels", "method"),
    [
        ("the paper's", 1, "average"),
        ("rectangles", 1, "average"),
        ("the paper's", 2, "repeat"),
        ("rectangles", 5, "repeat"),
        ("one channel", 4, "repeat"),
        ("one channel", 4, "average"),
        ("five channels", 1, "average"),
        ("hybrid", 1, "average"),
        ("hybrid root", 7, "repeat"),
    ],
)
def test_channels_are_adapted_as_timm_does(switch, channels, method):
    """Its sum for one channel is the average, its cycle for more is the repetition."""
    model = small_model(switch)
    adapted, (note,) = adapt(model, channels=channels, channel_method=method)
    if model.config.stem_blocks is None:
        linear, shape = (m.patch_embedding.projection.weight for m in (model, adapted)), (-1, *model.config.patch_size)
        old, new = (weight.unflatten(1, shape) for weight in linear)
    else:
        old, new = model.stem.conv.weight, adapted.stem.conv.weight
        assert "standardizes" in note
    torch.testing.assert_close(new, adapt_input_conv(channels, old, old.shape[1]))
    how = "averaged" if method == "average" else "repeated"
    assert f"{how} from {old.shape[1]} channel{'s' * (old.shape[1] > 1)} to {channels}" in note


@pytest.mark.parametrize(("channels", "method"), [(1, "average"), (2, "average"), (5, "average"), (6, "repeat")])
def test_equal_channels_get_the_same_answer_as_before(channels, method):
    model = small_model("rectangles")
    adapted, _ = adapt(model, channels=channels, channel_method=method)
    gray = torch.randn(3, 1, 32, 48)
    expected = model(gray.expand(-1, 3, -1, -1))
    assert differs(expected)
    torch.testing.assert_close(adapted(gray.expand(-1, channels, -1, -1)), expected, rtol=1e-4, atol=1e-5)


def test_repeated_channels_of_a_hybrid_get_the_same_answer_as_before():
    """Its filters are standardized, so their number of channels is a factor, which the group norm behind takes out."""
    model = small_model("hybrid")
    images = torch.randn(3, 3, 64, 64)
    expected = model(images)
    assert differs(expected)
    answer = adapt(model, channels=6, channel_method="repeat")[0](torch.cat([images, images], dim=1))
    torch.testing.assert_close(answer, expected, rtol=1e-3, atol=1e-3)


def test_averaged_channels_of_a_hybrid_keep_each_filters_shape():
    model = small_model("hybrid")
    adapted, _ = adapt(model, channels=1)
    gray = torch.randn(3, 1, 64, 64)
    before, after = model.stem.conv(gray.expand(-1, 3, -1, -1)), adapted.stem.conv(gray)
    shapes = [x.transpose(0, 1).flatten(1) for x in (before, after)]
    torch.testing.assert_close(F.cosine_similarity(*shapes), torch.ones(32))


@pytest.mark.parametrize("size", [(16, 16), (5, 5), (12, 6), (6, 12), (3, 20), (8, 4)])
def test_patches_are_resized_as_timm_does(size):
    filters = torch.randn(10, 3, 8, 8)
    expected = resample_patch_embed(filters, list(size), interpolation="bilinear", antialias=True)
    torch.testing.assert_close(resize_patches(filters, size), expected, rtol=0, atol=1e-5)
    model = small_model(channels=2)
    adapted, _ = adapt(model, patch_size=size, image_size=(size[0] * 4, size[1] * 4))
    old, new = model.patch_embedding.projection.weight, adapted.patch_embedding.projection.weight
    expected = resample_patch_embed(old.unflatten(1, (2, 8, 8)), list(size), "bilinear")
    torch.testing.assert_close(new.unflatten(1, (2, *size)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (11, 16), (8, 13)])
def test_enlarged_patches_give_the_same_tokens(size):
    """The defining property of FlexiViT's resize; each patch is enlarged by itself."""
    model = small_model()
    patches = torch.randn(3, 3, 4, 4, 8, 8)  # images channels rows columns height width
    large = upsampled(patches.flatten(0, 2), size).unflatten(0, (3, 3, 4))
    small, large = (x.transpose(3, 4).flatten(4).flatten(2, 3) for x in (patches, large))
    adapted, notes = adapt(model, patch_size=size, image_size=(size[0] * 4, size[1] * 4))
    assert large.shape[2:] == adapted.config.image_size
    assert not any("positions" in note for note in notes)  # the grid is the old one
    assert torch.equal(adapted.position_embedding.embedding, model.position_embedding.embedding)
    torch.testing.assert_close(adapted.embed(large), model.embed(small), rtol=0, atol=1e-4)
    assert differs(model(small))
    torch.testing.assert_close(adapted(large), model(small), rtol=0, atol=1e-3)


def test_a_new_patch_size_alone_resamples_the_positions():
    model = small_model()
    adapted, notes = adapt(model, patch_size=4)
    assert adapted.config == model.config.replace(patch_size=4)
    assert adapted.config.grid == (8, 8)
    assert torch.equal(adapted.position_embedding.embedding[0], model.position_embedding.table((8, 8)))
    assert "positions resampled from 4×4 to 8×8 (bilinear_aligned)" in notes


@pytest.mark.parametrize(
    ("switch", "changes", "message"),
    [
        ("the paper's", {"image_size": 33}, "the nearest sizes that do: 32×32 and 40×40"),
        ("rectangles", {"image_size": (32, 50)}, "the nearest sizes that do: 32×48 and 32×52"),
        ("hybrid", {"image_size": (64, 70)}, "the nearest sizes that do: 64×64 and 64×72"),
        ("the paper's", {"patch_size": 7}, "the nearest sizes that do: 28×28 and 35×35"),
        ("the paper's", {"image_size": 0}, "image_size is 0"),
        ("the paper's", {"num_classes": -1}, "num_classes is -1"),
        ("the paper's", {"channels": 0}, "channels is 0"),
        ("hybrid", {"patch_size": 2}, "the patch size of a hybrid stays 1×1"),
    ],
)
def test_invalid_arguments_are_refused_with_the_valid_ones(switch, changes, message):
    with pytest.raises(InputError) as error:
        adapt(small_model(switch), **changes)
    assert message in str(error.value)


def test_the_largest_image_is_that_of_the_preprocessing():
    assert LIMITS["image_size"] == LIMITS["patch_size"] == MAX_SIDE
