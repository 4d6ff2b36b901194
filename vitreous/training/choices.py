"""What a recipe leaves to the data: sizes, batches, flips."""

import math
from typing import Any

from vitreous.data.sources import ImageData
from vitreous.support.errors import InputError
from vitreous.training.recipe import ModelSection, Recipe

SMALLEST_GRID = 8  # patches along a side; fewer see too little, more than twice as many cost too much
LARGEST_SIDE = 224  # pixels
LARGEST_PATCH = 16
LARGEST_BATCH, SMALLEST_BATCH = 128, 8
STEPS_PER_EPOCH = 20
# From so many images on, this size, and how it differs from the size of that name: a large model learns a small
# set by heart, and slowly.
SIZES: tuple[tuple[int, str, dict[str, int]], ...] = (
    (200_000, "S", {}),
    (20_000, "Ti", {}),
    (0, "mu", {"width": 128, "depth": 6, "mlp_dim": 512, "num_heads": 4}),
)
ANY_SIDE = math.lcm(*range(1, 257))  # divided by every stride up to 256


def resolve(recipe: Recipe, data: ImageData) -> Recipe:
    """Fills in every "auto" that decides the result, so that the recipe and the data alone say what happens.

    Where a run takes place (device, threads, workers) stays open: it is chosen anew on each machine.

    Raises:
        InputError: the model's fields contradict each other, or images would be flipped that must not be.
    """
    tables = recipe.model_dump(exclude_none=True)
    tables["model"] = choose_shape(recipe.model, data)
    if recipe.data.batch_size == "auto":
        tables["data"]["batch_size"] = choose_batch_size(len(data.train))
    for name in ("mean", "std"):
        if tables["data"][name] == "auto":
            tables["data"][name] = (0.5,) * data.channels
    if recipe.augmentation.flip == "auto":
        tables["augmentation"]["flip"] = data.flip_ok
    elif recipe.augmentation.flip and not data.flip_ok:
        raise InputError(f"flip is true, but flipped {data.name} are other ones", "set flip=false or flip=auto")
    resolved = Recipe.from_dict(tables)
    resolved.config(len(data.class_names), data.channels)
    return resolved


def choose_shape(model: ModelSection, data: ImageData) -> dict[str, Any]:
    """The model's table with variant and image size filled in, where they are open.

    An image keeps its own size, up to 224 pixels. The patch is the largest power of two that leaves 8
    patches along a side; where a patch is asked for, the image is at least 8 of them.
    """
    native = min(*data.native_size, LARGEST_SIDE)
    if model.variant == "auto":
        side = native if model.image_size == "auto" else smaller_side(model.image_size)
        patch = min(LARGEST_PATCH, 2 ** int(math.log2(max(1, side // SMALLEST_GRID))))
        size, shape = next((size, shape) for least, size, shape in SIZES if len(data.train) >= least)
        given = model.model_dump(exclude_none=True)
        model = model.model_copy(update=shape | given | {"variant": f"{size}/{patch}"})
    chosen = model.model_dump(exclude_none=True)
    if model.image_size != "auto":
        return chosen
    any_size = model.model_copy(update={"image_size": ANY_SIDE})
    strides = Recipe(model=any_size).config(len(data.class_names), data.channels).token_stride
    sides = tuple(max(native // stride, SMALLEST_GRID) * stride for stride in strides)
    return chosen | {"image_size": sides}


def choose_batch_size(images: int) -> int:
    """A power of two that gives an epoch some 20 updates or more: a small set needs many of them."""
    fitting = 2 ** int(math.log2(max(1, images // STEPS_PER_EPOCH)))
    return min(max(fitting, SMALLEST_BATCH), LARGEST_BATCH)


def smaller_side(size: int | tuple[int, int]) -> int:
    """The smaller of height and width."""
    return size if isinstance(size, int) else min(size)
