"""How the images of a run are decoded: large ones at a reduced scale in training, and each once if there is a cache."""

from collections.abc import Callable
from dataclasses import replace

from vitreous.data.cache.build import Fitted, Whole, cached
from vitreous.data.sources.splits import ImageData
from vitreous.support.files import cache_folder
from vitreous.training.planning.plan import Plan

IMAGES = "images"  # a folder in the cache

Progress = Callable[[int, int], None]


def decoded_for(plan: Plan, begin: Callable[[str], Progress]) -> ImageData:
    """The data of a plan, to be decoded as its recipe says.

    With `reduced_decoding`, training decodes a JPEG at the smallest of its scales (1/2, 1/4 or 1/8) that leaves enough
    pixels for any crop. Validation and test are always decoded whole, as predictions are. With `cache`, the images
    come from the cache, into which missing ones are decoded first.

    Args:
        plan: of the run.
        begin: starts to show progress under a name; returns a function to call with the images done, of all.

    Raises:
        InputError: the disk has too little space for the cache, or cannot be written.
    """
    data, section, preprocessing = plan.data, plan.recipe.data, plan.preprocessing
    side = plan.augmentation.needed_side(preprocessing.image_size)
    if section.reduced_decoding:
        data = replace(data, train=replace(data.train, load=data.train.load.at_least(side)))
    if not section.cache:
        return data
    root = cache_folder() / IMAGES
    splits = {
        split.name: cached(
            split,
            Whole(preprocessing, side) if split.name == "train" else Fitted(preprocessing),
            root,
            begin(f"caching {split.name}"),
        )
        for split in data.splits
    }
    return replace(data, train=splits["train"], validation=splits["validation"], test=splits.get("test"))
