"""Sources that are names, not paths: which of them a name means."""

import re

from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.published.shard_names import find_shards
from vitreous.data.sources.published.torchvision_sets import suggested
from vitreous.data.sources.splits import ImageData
from vitreous.support.errors import InputError

HUB = "hf:"
REMOTE = re.compile(r"(https?|ftp|s3|gs|gcs|hdfs|pipe|azure|abfs):")
WEIGHTS = ("timm:", "torchvision:", "google:", "meta:")


def open_named(source: str, options: DataOptions) -> ImageData | None:
    """A set of the hub, or shards; None if the source is something else.

    Raises:
        InputError: it names weights or is on another machine, or cannot be opened.
    """
    if source.startswith(HUB):
        from vitreous.data.sources.published.hub_sets import open_hub_set

        return open_hub_set(source, options)
    if source.startswith(WEIGHTS):
        raise InputError(f"{source!r} names weights, not images", f"give images as DATA, and --model {source}")
    if REMOTE.match(source):
        cause = f"{source!r} is not on this machine"
        raise InputError(cause, "download it, and give its path; shards are a folder or train-{000..099}.tar")
    shards = find_shards(source, options.follow_links)
    if shards is not None:
        from vitreous.data.sources.published.shards import open_shards

        return open_shards(source, shards, options)
    return None


def hint_for_missing(source: str) -> str:
    """What to type instead of a source that does not exist."""
    name = suggested(source)
    if name is not None:
        return f"did you mean {name!r}? For all sets: vitreous list sources"
    return "check the path, or choose from: vitreous list sources"
