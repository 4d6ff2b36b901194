"""How many channels the images of a source have: as the user says, or as some training images have them."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from vitreous.data.decoding.images import BadImage
from vitreous.data.decoding.picture import MOST_OF_PHOTO, Stored
from vitreous.data.decoding.tiff import NEEDED, require_reader
from vitreous.data.sources.splits import Split
from vitreous.support.errors import InputError
from vitreous.support.text import counted

PHOTO = (1, 3)  # channels to which any photo can be converted


def choose_channels(source: str, split: Split, default: int, asked: int | None) -> tuple[int, list[str]]:
    """The channels that a model gets, and notes if the training images decide it, or have more.

    Args:
        source: as the user named it.
        split: to train on.
        default: of a source of photos.
        asked: by the user; None to decide here.

    Raises:
        InputError: none of the images has the channels that were asked for, or their reader is not installed.
    """
    seen: list[Stored] = []
    for index in split.sampled():
        with suppress(BadImage):  # skipped and listed when it is loaded
            if (stored := split.load.stored(index)) is not None:
                seen.append(stored)
    channels = common(seen, default) if asked is None else asked
    fitting = [stored for stored in seen if fits(stored, channels)]
    if seen and not fitting:
        counts = " and ".join(str(count) for count in sorted({max(stored.channels, stored.pages) for stored in seen}))
        raise InputError(
            f"the images of {source!r} have {counts} channels, not {channels}", f"set channels={common(seen, default)}"
        )
    if channels in PHOTO:
        return channels, [*(left_out(seen) if asked is None else []), *cut_off(seen), *reduced(seen)]
    if any(stored.in_tiff for stored in fitting):
        require_reader()
    if asked is not None or not seen:
        return channels, reduced(seen)
    return channels, [
        f"images of {channels} channels (from {counted(len(seen), 'training image')}; set channels to change it)",
        *reduced(seen),
    ]


def common(seen: Sequence[Stored], default: int) -> int:
    """The channels that most images have, where photos count as having the default."""
    counts = Counter(default if stored.is_photo else stored.channels for stored in seen)
    if not counts:
        return default
    if len(counts) > 1 and set(counts) <= {*PHOTO, default}:  # gray and color
        return max(counts)
    return counts.most_common(1)[0][0]


def fits(stored: Stored, channels: int) -> bool:
    """Whether an image can become one of `channels`."""
    return stored.channels <= MOST_OF_PHOTO if channels in PHOTO else channels in (stored.channels, stored.pages)


def left_out(seen: Sequence[Stored]) -> list[str]:
    """Notes on what reading TIFF files and arrays as photos leaves out: further pages, or a fourth channel."""
    notes, count = [], len(seen)
    pages = Counter(stored.pages for stored in seen if stored.pages > 1)
    fourth = [stored for stored in seen if stored.channels == MOST_OF_PHOTO]
    kinds = {
        "TIFF images of 4 channels are read as RGB": sum(stored.in_tiff for stored in fourth),
        "arrays of 4 channels are read as RGB and transparency": sum(stored.in_array for stored in fourth),
    }
    for most, images in pages.most_common(1):
        how = f"set channels={most}" if most not in PHOTO else "save them as one page"
        notes.append(
            f"the first of {most} pages is read ({images} of {count} training images); {how} if the pages are channels"
        )
    notes += [
        f"{how} ({images} of {count} training images); set channels=4 to use all"
        for how, images in kinds.items()
        if images
    ]
    return notes


def cut_off(seen: Sequence[Stored]) -> list[str]:
    """A note if images lose the lower of their 16 bits, with which dark ones lose nearly everything."""
    count = sum(stored.is_cut for stored in seen)
    if not count:
        return []
    images = f"{count} of {counted(len(seen), 'training image')}"
    how = f"save them as RGB TIFF, which needs {NEEDED}"
    return [f"only the upper 8 of 16 bits are read of color images ({images}); to keep all values, {how}"]


def reduced(seen: Sequence[Stored]) -> list[str]:
    """A note if the first page of TIFF files, which is read, is a thumbnail of a later one."""
    count = sum(stored.is_reduced for stored in seen)
    images = f"{count} of {counted(len(seen), 'training image')}"
    how = "to use all pixels, save the full page alone"
    return [f"only a thumbnail is read, the first page of TIFF files ({images}); {how}"] if count else []


def check_of_photos(source: str, asked: int | None) -> None:
    """Raises InputError if a source of photos is asked for channels that a photo cannot have."""
    if asked is not None and asked not in PHOTO:
        raise InputError(f"the images of {source!r} are gray or RGB, without {asked} channels", "set channels=1 or 3")
