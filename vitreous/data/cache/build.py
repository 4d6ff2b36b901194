"""Building a cache: what of a split is not yet in the store is decoded in parallel."""

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from filelock import FileLock, Timeout

from vitreous.data.cache.store import DIGEST, ROW, Place, Store
from vitreous.data.decoding.bands import Picture
from vitreous.data.decoding.images import BadImage
from vitreous.data.preprocessing import Pixels, Preprocessing
from vitreous.data.sources.splits import Loader, Split
from vitreous.support.errors import InputError
from vitreous.support.host import usable_cores
from vitreous.support.text import size_in_words
from vitreous.support.threads import in_order

USED = "used"  # an empty file in a cache; its time is that of the last use
UNUSED_DAYS = 90  # after which a cache is removed when another one is made
VERSION = 1  # of what is stored; another number starts another cache
SEGMENT = 2**30  # bytes of pixels, about, after which a segment is complete
MEASURED = 64  # images whose headers say how much space all of them need
UNREADABLE = 0  # the stamp of a file that cannot be looked at
SHARE = 0.95  # of the free space that a cache may take


class Use(Protocol):
    """What is stored of an image. Its `repr` is part of the cache's key."""

    def __call__(self, image: Picture) -> Picture:
        """The image to store."""

    def size(self, height: int, width: int) -> tuple[int, int, int]:
        """Its (height, width, channels), for an image of that size."""


@dataclass(frozen=True)
class Whole:
    """For random crops: the whole image, reduced if its shorter side is longer than any crop needs.

    Args:
        preprocessing: of the model; its interpolation reduces.
        side: the longest that the shorter side stays, in pixels.
    """

    preprocessing: Preprocessing
    side: int

    def __call__(self, image: Picture) -> Picture:
        image = self.preprocessing.convert(image)
        height, width, _ = self.size(image.height, image.width)
        smooth = replace(self.preprocessing, image_size=(height, width), trim=(0, 0), antialias=True)
        return image if image.size == (width, height) else smooth.resized(image)

    def size(self, height: int, width: int) -> tuple[int, int, int]:
        scale = min(1.0, self.side / min(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale)), self.preprocessing.channels


@dataclass(frozen=True)
class Fitted:
    """For evaluation: what the model sees, so that results are the same to the bit.

    Args:
        preprocessing: of the model.
    """

    preprocessing: Preprocessing

    def __call__(self, image: Picture) -> Picture:
        return self.preprocessing.fitted(image)

    def size(self, height: int, width: int) -> tuple[int, int, int]:
        return (*self.preprocessing.image_size, self.preprocessing.channels)


@dataclass(frozen=True, eq=False)
class CachedLoader(Loader):
    """Loads the images of a split from a cache; what is not in it, or is damaged there, from the source.

    Args:
        source: the loader of the same samples.
        use: what is stored of an image.
        paths: of the files of pixels.
        files: the number of each sample's file; -1 if it is not in the cache.
        rows: of type ROW, one per sample.
    """

    source: Loader
    use: Whole | Fitted
    paths: tuple[str, ...]
    files: np.ndarray
    rows: np.ndarray

    def __call__(self, index: int) -> Picture:
        file = int(self.files[index])
        stored = None if file < 0 else Place(self.paths[file], self.rows[index].item()).read()
        return self.use(self.source(index)) if stored is None else stored

    def view(self, index: int, preprocessing: Preprocessing) -> Pixels:
        if self.use == Fitted(preprocessing):
            return preprocessing.to_tensor(self(index))
        return preprocessing.pixels(self(index))

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(index)

    def content(self, index: int) -> bytes:
        return self.source.content(index)

    def stamp(self, index: int) -> bytes:
        return self.source.stamp(index)


class Decoded(NamedTuple):
    """A sample with the digest of its file, empty if it is broken; no image if it is, or is stored already."""

    index: int
    digest: bytes
    image: Picture | None


def cached(
    split: Split,
    use: Whole | Fitted,
    root: Path,
    progress: Callable[[int, int], None],
    notify: Callable[[str], None] = lambda line: None,
) -> Split:
    """A split whose images come from the cache, into which missing ones are decoded first.

    Of several processes that need the same cache, one builds it and the others wait. Broken images are not stored:
    they fail as before when they are loaded.

    Args:
        split: of the source.
        use: what to store of an image.
        root: of all caches.
        progress: called with the number of samples looked at so far, of all.
        notify: called with a line if another process builds it.

    Raises:
        InputError: the disk has too little space, or cannot be written.
    """
    folder = root / blake2b(f"{VERSION} {use!r} {split.load.settings!r}".encode(), digest_size=DIGEST).hexdigest()
    if not folder.exists():
        remove_unused(root)
    Store(folder)  # before its lock
    with _locked(folder, notify):
        store = Store.open(folder)
        places = store.find(_build(split, use, store, progress))
    files, rows = np.full(len(split), -1, np.int32), np.zeros(len(split), ROW)
    stored = places >= 0
    files[stored], rows[stored] = store.files[places[stored]], store.rows[places[stored]]
    return replace(split, load=CachedLoader(split.load, use, tuple(store.paths), files, rows))


def remove_unused(root: Path) -> None:
    """Removes the caches in a folder that no run has used for a long time, as far as this user may."""
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for folder in root.glob("[0-9a-f]" * 2 * DIGEST):
        with suppress(OSError):  # another process removes it too
            if max(path.stat().st_mtime for path in (folder, *folder.glob(USED))) < oldest:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, notify: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a cache, once no other process does. Raises InputError if it cannot be written."""
    lock = FileLock(folder / ".lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notify("another process writes to this cache; waiting until it is done")
            lock.acquire()
        (folder / USED).touch()
    except OSError as error:
        cause = f"cannot write the cache {str(folder)!r}: {error.strerror}"
        raise InputError(cause, "set cache=false, or XDG_CACHE_HOME to a folder of your own") from error
    try:
        yield
    finally:
        lock.release()


def _build(split: Split, use: Whole | Fitted, store: Store, progress: Callable[[int, int], None]) -> np.ndarray:
    """Decodes what is missing; returns the digest of each sample, of type KEY, empty if it cannot be read."""
    stamps = np.array([_stamp(split, index) for index in range(len(split))], np.uint64)
    digests = store.known(stamps)
    missing = np.flatnonzero(store.find(digests) < 0)
    if not len(missing):
        return digests
    check_space(split, missing, use, store.folder)
    done, finished = len(split) - len(missing), False

    def segment(decoded: Iterator[Decoded]) -> Iterator[tuple[bytes, Picture]]:
        """The next images, up to the size of a segment."""
        nonlocal done, finished
        size, new = 0, set()
        for index, digest, image in decoded:
            done += 1
            progress(done, len(split))
            digests[index] = digest
            if image is not None and digest not in new:
                new.add(digest)
                size += image.width * image.height * len(image.getbands())
                yield digest, image
            if size >= SEGMENT:
                return
        finished = True

    with closing(_decoded(split, use, store, missing)) as decoded:
        while not finished:
            store.append(segment(decoded))
            known = (digests != b"") & (stamps != UNREADABLE)
            store.remember(stamps[known], digests[known])
            store.write_stamps()
    return digests


def _decoded(split: Split, use: Whole | Fitted, store: Store, missing: np.ndarray) -> Generator[Decoded, None, None]:
    """What is to be stored of each missing sample, in order."""

    def work(number: np.int64) -> Decoded:
        index = int(number)
        try:
            content = split.load.content(index)
            digest = blake2b(content, digest_size=DIGEST).digest()
            return Decoded(index, digest, None if store.has(digest) else use(split.load.decode(index, content)))
        except BadImage:  # reported when it is loaded
            return Decoded(index, b"", None)

    return in_order(work, missing, usable_cores())


def _stamp(split: Split, index: int) -> int:
    """A number that changes with the name or the file of a sample; UNREADABLE if the file cannot be looked at."""
    try:
        stamp = split.load.stamp(index)
    except BadImage:
        return UNREADABLE
    name = split.names[index].encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(stamp + b"\0" + name, digest_size=8).digest(), "little")


def check_space(split: Split, missing: np.ndarray, use: Whole | Fitted, folder: Path) -> None:
    """Raises InputError if the missing images need more space than is free, by the headers of a few."""
    sizes = []
    for index in missing[:: max(1, len(missing) // MEASURED)].tolist():
        try:
            height, width, channels = use.size(*split.load.size(index))
            sizes.append(height * width * channels)
        except BadImage:
            continue
    if not sizes:
        return
    needed = sum(sizes) / len(sizes) * len(missing)
    free = shutil.disk_usage(folder).free
    if needed > SHARE * free:
        cause = f"the cache needs about {size_in_words(needed)}, and {str(folder)!r} has {size_in_words(free)}"
        raise InputError(cause, "set cache=false, or XDG_CACHE_HOME to a folder with more space")
