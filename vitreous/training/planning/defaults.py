"""What a recipe leaves to the data and the weights: sizes, batches, epochs, flips and preprocessing."""

import math
from dataclasses import replace
from typing import Any

from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.splits import ImageData
from vitreous.model.config import ViTConfig, stem_stride
from vitreous.support.errors import InputError
from vitreous.training.objectives.goals import check_options
from vitreous.training.planning.selection import choose_keep_by
from vitreous.training.planning.weights import Start
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.recipe.sections import ModelSection, ScheduleSection

SMALLEST_GRID = 8  # patches along a side; fewer are too coarse, more than twice as many cost too much
LARGEST_GRID = 32  # patches along the smaller side, for image sizes without better divisors
LARGEST_SIDE = 224  # pixels
LARGEST_PATCH = 16
LARGEST_BATCH, SMALLEST_BATCH = 128, 8
STEPS_PER_EPOCH = 20
SEEN, FEWEST_EPOCHS, MOST_EPOCHS = 200_000, 30, 300  # images that a run from scratch sees, and bounds of its epochs
# From this many images on: the size, and how it differs from the size of that name. A large model memorizes a small
# set, and slowly.
Size = tuple[int, str, dict[str, int]]
SIZES: tuple[Size, ...] = (
    (200_000, "S", {}),
    (20_000, "Ti", {}),
    (0, "mu", {"width": 128, "depth": 6, "mlp_dim": 512, "num_heads": 4}),
)
PREPROCESSING = ("resize", "crop_fraction", "interpolation", "mean", "std")
ANY_SIDE = math.lcm(*range(1, 257))  # divided by every stride up to 256


def resolve_recipe(
    recipe: Recipe, data: ImageData, start: Start | None = None
) -> tuple[Recipe, ViTConfig, Preprocessing]:
    """Fills in every "auto" that affects the result, so that recipe, weights and data determine it.

    What depends on the machine (device, precision, threads, workers, micro-batch, the check of the images) stays open.

    Args:
        recipe: as requested.
        data: to learn from.
        start: the weights to start from; None for fresh ones.

    Returns:
        The recipe, with the model's config and preprocessing.

    Raises:
        InputError: the model's fields contradict each other, no patch fits the image size, warmup and cooldown take
            the whole run, an option would do nothing, the objective has no such score, or the images must not be
            flipped.
    """
    check_options(recipe.objective)
    if recipe.objective.class_weights == "balanced" and recipe.data.balanced_sampling:
        cause = "class_weights is 'balanced' and balanced_sampling is true: small classes would count twice as much"
        raise InputError(cause, "set one of them")
    tables = recipe.model_dump(exclude_none=True)
    if start is None:
        tables["model"] = choose_shape(recipe.model, data) | {"init": "random"}
    else:
        tables["model"]["image_size"] = start.stored.model.config.image_size
    if recipe.data.batch_size == "auto":
        tables["data"]["batch_size"] = choose_batch_size(len(data.train))
    if recipe.augmentation.flip == "auto":
        tables["augmentation"]["flip"] = data.flip_ok
    elif recipe.augmentation.flip and not data.flip_ok:
        raise InputError(f"flip is true, but flipping {data.name} changes their meaning", "set flip=false or flip=auto")
    tables["data"] |= {"max_value": data.decoding.max_value, "channels": data.channels}
    tables["schedule"] = resolve_schedule(recipe.schedule, len(data.train), tables["data"]["batch_size"])
    tables["schedule"]["keep_by"] = choose_keep_by(recipe)
    if start is None:
        config = Recipe.from_dict(tables).config(len(data.class_names), data.channels)
        gray = (0.5,) * data.channels
        preprocessing = Preprocessing(config.image_size, mean=gray, std=gray, channels=data.channels)
    else:
        config, preprocessing = start.stored.model.config, start.stored.preprocessing
    given = {name: value for name in PREPROCESSING if (value := tables["data"][name]) != "auto"}
    preprocessing = replace(preprocessing, max_value=data.decoding.max_value, **given)
    tables["data"] |= {name: getattr(preprocessing, name) for name in PREPROCESSING}
    return Recipe.from_dict(tables), config, preprocessing


def resolve_schedule(schedule: ScheduleSection, images: int, batch_size: int) -> dict[str, Any]:
    """The schedule's table with its epochs: those of its steps, or as many as suit the number of images.

    Minutes that are still open limit nothing; `budget.fit` comes before.

    Raises:
        InputError: warmup and cooldown take the whole run.
    """
    per_epoch = math.ceil(images / batch_size)
    if schedule.steps is None and schedule.epochs == "auto":
        schedule = schedule.model_copy(update={"epochs": suitable_epochs(images)}).with_short_warmup()
    total = schedule.total_steps(per_epoch)
    warmup, cooldown = schedule.warmup_and_cooldown(per_epoch)
    if warmup >= total:
        cause = f"the warmup takes {warmup} of {total} steps, so the learning rate would never fall"
        raise InputError(cause, "shorten it, or set epochs alone: the warmup is then at most a fifth of them")
    if warmup + cooldown > total:
        raise InputError(f"warmup and cooldown take {warmup} and {cooldown} of {total} steps", "make them shorter")
    minutes = 0.0 if schedule.minutes == "auto" else schedule.minutes
    return schedule.model_dump(exclude_none=True) | {"epochs": math.ceil(total / per_epoch), "minutes": minutes}


def suitable_epochs(images: int) -> int:
    """The epochs that suit a number of images where time does not matter."""
    return min(max(round(SEEN / images), FEWEST_EPOCHS), MOST_EPOCHS)


def choose_size(images: int) -> Size:
    """The model's size for a number of images to train on."""
    return next(size for size in SIZES if images >= size[0])


def choose_shape(
    model: ModelSection, data: ImageData, side: int = LARGEST_SIDE, size: Size | None = None
) -> dict[str, Any]:
    """The model's table with variant and image size filled in, if they are open.

    An image keeps its own size, up to `side` pixels. The patch is the largest power of two that leaves 8 patches along
    a side. A given size must be a multiple of the patch; for a given patch, the image has at least 8 of them along a
    side. After a ResNet stem, which shrinks the image, the patch is smaller by the same factor.

    Args:
        model: as requested.
        data: to learn from.
        side: pixels that a chosen image has at most, unless its patches need more.
        size: of a chosen variant; by default that for the number of images.
    """
    native = min(*data.native_size, side)
    if model.variant == "auto":
        if model.image_size != "auto" and model.patch_size is None:
            patch = dividing_patch(model.image_size)
        else:
            patch = min(LARGEST_PATCH, 2 ** int(math.log2(max(1, native // SMALLEST_GRID))))
        if model.stem_blocks is not None:
            patch = max(1, patch // stem_stride(len(model.stem_blocks)))
        _, name, shape = size or choose_size(len(data.train))
        given = model.model_dump(exclude_none=True)
        model = model.model_copy(update=shape | given | {"variant": f"{name}/{patch}"})
    chosen = model.model_dump(exclude_none=True)
    if model.image_size != "auto":
        return chosen
    any_size = model.model_copy(update={"image_size": ANY_SIDE})
    try:
        strides = Recipe(model=any_size).config(len(data.class_names), data.channels).token_stride
    except InputError as error:
        if str(ANY_SIDE) not in error.cause:
            raise
        cause = f"no image size can be chosen for the patches of {model.variant!r}: they are too large"
        raise InputError(cause, "set smaller patches, or image_size too") from error
    sides = tuple(max(native // stride, SMALLEST_GRID) * stride for stride in strides)
    return chosen | {"image_size": sides}


def choose_batch_size(images: int) -> int:
    """A power of two that gives an epoch about 20 updates or more, since a small set needs many."""
    fitting = 2 ** int(math.log2(max(1, images // STEPS_PER_EPOCH)))
    return min(max(fitting, SMALLEST_BATCH), LARGEST_BATCH)


def dividing_patch(size: int | tuple[int, int]) -> int:
    """The side of a square patch that divides an image of that size and leaves at least 8 patches along each side.

    It is the largest such power of two if that divides the image, otherwise the largest such number.

    Raises:
        InputError: only tiny, costly patches divide the image, such as one with a prime number of pixels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    side, common = min(height, width), math.gcd(height, width)
    largest = min(LARGEST_PATCH, max(1, side // SMALLEST_GRID))
    step = 2 ** int(math.log2(largest))
    patch = next(patch for patch in (step, *range(largest, 0, -1)) if common % patch == 0)
    if side // patch > LARGEST_GRID and patch < LARGEST_PATCH // 2:
        near = "×".join(str(round(pixels / step) * step) for pixels in (height, width))
        cause = f"an image of {height}×{width} pixels has no good patches: the largest that fit are {patch}×{patch}"
        raise InputError(cause, f"set another image_size, such as {near}, or a variant with its patch")
    return patch
