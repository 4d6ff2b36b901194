"""One pass over all images: what each file is, its digest, and a fingerprint of its pixels."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vitreous.data.check.contents import digest
from vitreous.data.check.fingerprints import DECODED, Fingerprint, fingerprint
from vitreous.data.check.samples import Samples
from vitreous.data.decoding.bands import shown
from vitreous.data.decoding.images import BadImage, Header, remarks
from vitreous.data.decoding.picture import picture_header
from vitreous.data.sources.splits import Loader
from vitreous.data.sources.trees.tree import ImageLoader
from vitreous.support.host import usable_cores
from vitreous.support.threads import in_order

CHUNK = 64  # images of one task
MODES = (  # Pillow's, and "" for unknown
    *("", "RGB", "L", "RGBA", "LA", "P", "PA", "1", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La"),
    *("I;16", "I;16B", "I;16L", "I;16N", "I", "F"),
)
GRAY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # more than 8 bits
ROW = np.dtype(
    [
        ("height", "i4"),
        ("width", "i4"),
        ("mode", "u1"),
        ("transparent", "?"),
        ("digest", "i8", (2,)),
        ("hashes", "u8", (2,)),
        ("readable", "?"),
        ("decoded", "?"),
        ("flat", "?"),
    ]
)


class Fault(NamedTuple):
    """What is wrong with a sample."""

    number: int
    reason: str


@dataclass(frozen=True, eq=False)
class Scan:
    """What a pass over all images has found.

    Args:
        rows: one of type ROW for each sample, in the numbers of `Samples`; sizes are upright, in pixels.
        bad: the images that cannot be used.
        repaired: the images that decoding has repaired.
    """

    rows: np.ndarray
    bad: tuple[Fault, ...]
    repaired: tuple[Fault, ...]


class Look(NamedTuple):
    """What one look at a sample has found."""

    header: Header
    digest: tuple[int, int]
    fingerprint: Fingerprint | None
    remarks: tuple[str, ...]


def scan(samples: Samples, decoded: np.ndarray, show: Callable[[int], None]) -> Scan:
    """Looks at all samples.

    Args:
        samples: of all splits.
        decoded: a mask over the samples: those to decode. Of the others only the header is read.
        show: called with the number of samples done.
    """
    rows = np.zeros(len(samples), ROW)
    faults: list[list[tuple[Fault, bool]]] = []

    def chunk(start: int) -> list[tuple[Fault, bool]]:
        return [
            fault
            for number in range(start, min(start + CHUNK, len(samples)))
            for fault in _fill(rows, samples, number, bool(decoded[number]))
        ]

    starts = range(0, len(samples), CHUNK)
    with closing(in_order(chunk, starts, usable_cores())) as results:
        for done, more in enumerate(results, 1):
            faults.append(more)
            show(min(done * CHUNK, len(samples)))
    everything = [fault for more in faults for fault in more]
    bad = tuple(fault for fault, is_bad in everything if is_bad)
    return Scan(rows, bad, tuple(fault for fault, is_bad in everything if not is_bad))


def _fill(rows: np.ndarray, samples: Samples, number: int, decode: bool) -> list[tuple[Fault, bool]]:
    """Fills the row of a sample; returns what is wrong with it, and whether it is unusable."""
    load, index = samples.loader(number)
    try:
        seen = look(load, index, samples.name(number), decode)
    except BadImage as error:
        return [(Fault(number, error.reason), True)]
    header, found = seen.header, seen.fingerprint
    mode = MODES.index(header.mode) if header.mode in MODES else 0
    hashes = (0, 0) if found is None else (found.frequencies, found.gradients)
    flat = found is not None and found.flat
    rows[number] = (
        header.height,
        header.width,
        mode,
        header.transparent,
        seen.digest,
        hashes,
        True,
        found is not None,
        flat,
    )
    return [(Fault(number, remark), False) for remark in seen.remarks]


def look(load: Loader, index: int, name: str, decode: bool) -> Look:
    """Reads one sample.

    Raises:
        BadImage: it cannot be used.
    """
    content = load.content(index)
    if isinstance(load, ImageLoader):
        header, picture = picture_header(content, name, load.decoding), None
        if decode:
            picture = load.at_least(DECODED).decode(index, content)
    elif decode:
        picture = load(index)
        image = shown(picture)
        header = Header(image.height, image.width, image.mode, image.has_transparency_data)
    else:
        header, picture = Header(*load.size(index), "", False), None
    if picture is None:
        return Look(header, digest(content), None, ())
    return Look(header, digest(content), fingerprint(shown(picture)), remarks(picture))
