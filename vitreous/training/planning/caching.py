"""The cache of a run: its images are decoded once, and read from the disk's cache from then on."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from vitreous.data.cache.build import Fitted, Whole, cached
from vitreous.data.sources.splits import ImageData
from vitreous.support.files import cache_folder
from vitreous.training.planning.plan import Plan

IMAGES = "images"  # a folder in the cache


def with_cache(plan: Plan, show: Callable[[str, int, int], None], notify: Callable[[str], None]) -> ImageData:
    """The data of a plan, read from the cache if its recipe says so; what is not there yet is decoded into it first.

    Of training images, the cache has as many pixels as any crop needs; of the others, just what the model sees.

    Args:
        plan: of the run.
        show: called with what is done, the images done so far and how many there are.
        notify: called with the cache's folder, and a line if another run builds it.

    Raises:
        InputError: the disk has too little space for the cache, or cannot be written.
    """
    data, preprocessing = plan.data, plan.preprocessing
    if not plan.recipe.data.cache:
        return data
    root = cache_folder() / IMAGES
    notify(f"decoded images are kept in {root}; remove it to free the space")
    whole = Whole(preprocessing, plan.augmentation.needed_side(preprocessing.image_size))
    splits = {
        split.name: cached(
            split,
            whole if split.name == "train" else Fitted(preprocessing),
            root,
            partial(show, f"caching {split.name}"),
            notify,
        )
        for split in data.splits
    }
    return replace(data, train=splits["train"], validation=splits["validation"], test=splits.get("test"))
