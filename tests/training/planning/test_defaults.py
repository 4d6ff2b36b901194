import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.checkpoints.store import StoredModel
from vitreous.data.decoding.images import Decoding
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.digits import ArrayLoader
from vitreous.data.sources.open import open_data
from vitreous.data.sources.splits import ImageData, Split
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.planning.defaults import choose_batch_size, resolve_recipe
from vitreous.training.planning.weights import Start
from vitreous.training.recipe.recipe import Recipe


def resolve(recipe: Recipe, data: ImageData) -> Recipe:
    return resolve_recipe(recipe, data)[0]


def data_of(native_size: tuple[int, int], images: int = 1000) -> ImageData:
    """A source of images that are never loaded."""

    nothing = ArrayLoader(np.zeros((0, 1, 1), dtype=np.uint8))
    train = Split("train", ("a.png",) * images, np.zeros(images, dtype=np.int64), nothing)
    return ImageData("photos", ("a", "b"), train, train, None, native_size, 3, True, {})


@pytest.mark.parametrize(
    ("native", "images", "variant", "size"),
    [
        ((8, 8), 1000, "mu/1", (8, 8)),
        ((28, 28), 1000, "mu/2", (28, 28)),
        ((32, 32), 45_000, "Ti/4", (32, 32)),
        ((64, 64), 1000, "mu/8", (64, 64)),
        ((100, 90), 1000, "mu/8", (88, 88)),
        ((375, 500), 30_000, "Ti/16", (224, 224)),
        ((3000, 4000), 1_000_000, "S/16", (224, 224)),
        ((3, 500), 1000, "mu/1", (8, 8)),
    ],
)
def test_the_model_fits_the_images(native, images, variant, size):
    model = resolve(Recipe(), data_of(native, images)).model
    assert (model.variant, model.image_size) == (variant, size)


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
def test_a_chosen_grid_is_neither_coarse_nor_costly(native: tuple[int, int]):
    config = resolve(Recipe(), data_of(native)).config(2, 3)
    assert all(8 <= side <= 15 for side in config.grid)


@pytest.mark.parametrize(
    ("settings", "variant", "size"),
    [
        ({"variant": "B/16"}, "B/16", (128, 128)),
        ({"variant": "R50+B/16"}, "R50+B/16", (128, 128)),
        ({"variant": "S/8", "patch_size": [4, 16]}, "S/8", (64, 128)),
        ({"image_size": 48}, "mu/4", 48),
        ({"image_size": [64, 128]}, "mu/8", (64, 128)),
        ({"image_size": 100}, "mu/10", 100),
        ({"image_size": [60, 100]}, "mu/4", (60, 100)),
        ({"image_size": 13}, "mu/1", 13),
        ({"image_size": 62}, "mu/2", 62),
        ({"image_size": 384}, "mu/16", 384),
        ({"image_size": 97, "patch_size": 97}, "mu/8", 97),
        ({"variant": "S/32", "image_size": 224}, "S/32", 224),
    ],
)
def test_given_values_are_kept(settings: dict, variant: str, size: object):
    model = resolve(Recipe().with_settings(settings), data_of((64, 64))).model
    assert (model.variant, model.image_size) == (variant, size)


@pytest.mark.parametrize(
    ("images", "size"), [(1, 8), (150, 8), (225, 8), (1295, 64), (2374, 64), (2560, 128), (50_000, 128)]
)
def test_a_small_set_comes_in_small_batches(images: int, size: int):
    assert choose_batch_size(images) == size


def test_a_small_set_gets_a_small_model_unless_one_is_set():
    small = resolve(Recipe().with_settings({"depth": 2}), data_of((64, 64))).config(2, 3)
    assert (small.width, small.depth, small.mlp_dim, small.num_heads) == (128, 2, 512, 4)
    other = resolve(Recipe().with_variant("S/8"), data_of((64, 64))).config(2, 3)
    assert (other.width, other.depth) == (384, 12)


def test_nothing_that_decides_the_result_is_left_open():
    recipe = resolve(Recipe(), data_of((64, 64)))
    chosen = recipe.model_dump()
    open_ones = {leaf for table in chosen.values() for leaf, value in table.items() if value == "auto"}
    assert open_ones == {"device", "precision", "threads", "workers", "check_images", "checkpoint_minutes", "parallel"}
    assert resolve(recipe, data_of((64, 64))) == recipe


def test_digits_are_never_flipped():
    digits = open_data("digits")
    assert resolve(Recipe(), digits).augmentation.flip is False
    with pytest.raises(InputError, match="set flip=false"):
        resolve(Recipe().with_settings({"flip": True}), digits)
    assert resolve(Recipe(), data_of((64, 64))).augmentation.flip is True


def test_the_range_of_16_bit_images_is_that_of_the_data():
    data = dataclasses.replace(data_of((28, 28)), decoding=Decoding(max_value=4095))
    recipe, _, preprocessing = resolve_recipe(Recipe(), data)
    assert recipe.data.max_value == preprocessing.max_value == 4095
    weights = StoredModel(
        VisionTransformer.from_variant("mu/4", image_size=28, num_classes=2), Preprocessing((28, 28), max_value=1023)
    )
    _, _, preprocessing = resolve_recipe(Recipe(), data, Start(weights, [], "a.safetensors"))
    assert preprocessing.max_value == 4095, "the data's, also for weights that were trained on another"


def test_gray_images_have_one_mean():
    gray = dataclasses.replace(data_of((8, 8)), channels=1)
    assert resolve(Recipe(), gray).data.mean == (0.5,)
    assert resolve(Recipe(), data_of((8, 8))).data.std == (0.5, 0.5, 0.5)


@given(st.integers(1, 256))
def test_a_chosen_patch_divides_the_image(side: int):
    recipe = Recipe().with_settings({"image_size": side})
    if any(side % patch == 0 and 8 <= side // patch <= 32 for patch in range(1, 17)) or side < 8:
        assert min(8, side) <= resolve(recipe, data_of((64, 64))).config(2, 3).grid[0] <= 32
    else:
        with pytest.raises(InputError, match="has no good patches"):
            resolve(recipe, data_of((64, 64)))


def test_the_warmup_leaves_epochs_to_come_down_in():
    def warmup(**settings: float) -> float:
        return resolve(Recipe().with_settings(settings), data_of((64, 64))).schedule.warmup_epochs

    assert (warmup(), warmup(epochs=3), warmup(epochs=30), warmup(epochs=100)) == (5, 0.6, 5, 5)
    assert warmup(epochs=3, warmup_epochs=2) == 2
    assert Recipe.from_dict({"schedule": {"epochs": 10}}).schedule.warmup_epochs == 2
    assert Recipe.from_dict({"schedule": {"epochs": 10, "warmup_epochs": 5.0}}).schedule.warmup_epochs == 5
    with pytest.raises(InputError, match="the warmup takes 96 of 96 steps"):
        warmup(epochs=3, warmup_epochs=3)


def test_an_impossible_model_is_rejected():
    with pytest.raises(InputError, match=r"an image of 97×97 pixels has no good patches.* such as 96×96"):
        resolve(Recipe().with_settings({"image_size": 97}), data_of((64, 64)))
    with pytest.raises(InputError, match="'Ti/257': they are too large") as error:
        resolve(Recipe().with_variant("Ti/257"), data_of((64, 64)))
    assert len(str(error.value)) < 200
    with pytest.raises(InputError, match="there is no variant"):
        resolve(Recipe().with_settings({"variant": "Tiny"}), data_of((64, 64)))
    with pytest.raises(InputError, match="does not divide width"):
        resolve(Recipe().with_settings({"num_heads": 7}), data_of((64, 64)))


def test_warmup_and_cooldown_leave_room():
    recipe = Recipe.from_dict({"schedule": {"epochs": 10, "warmup_epochs": 6, "cooldown_epochs": 5}})
    with pytest.raises(InputError, match="warmup and cooldown take 126 and 105 of 210 steps"):
        resolve(recipe, open_data("digits"))


@pytest.mark.parametrize(
    ("native", "stages", "patch", "size"),
    [
        ((64, 64), [], 2, (64, 64)),
        ((224, 300), [], 4, (224, 224)),
        ((8, 8), [], 1, (32, 32)),
        ((64, 64), [2, 2], 1, (64, 64)),
    ],
)
def test_after_a_stem_the_patches_are_of_as_many_pixels(native, stages, patch: int, size):
    recipe, config, _ = resolve_recipe(Recipe().with_settings({"stem_blocks": stages}), data_of(native))
    assert config.patch_size == (patch, patch)
    assert config.image_size == size
    assert recipe.model.stem_blocks == tuple(stages)


def test_another_variant_is_of_its_own_shape():
    base = Recipe().with_settings({"stem_blocks": [], "width": 64, "pooling": "mean"})
    other = base.with_settings({"variant": "S/8", "depth": 3})
    assert (other.model.stem_blocks, other.model.width, other.model.depth) == (None, None, 3)
    assert other.model.pooling == "mean"
