"""Building a cache: what of a split is not yet in the store is decoded in parallel."""

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock, Timeout

from vitreous.data.cache.store import DIGEST, Place, Store
from vitreous.data.decoding.bands import Picture
from vitreous.data.decoding.images import BadImage
from vitreous.data.preprocessing import Pixels, Preprocessing
from vitreous.data.sources.splits import Loader, Split
from vitreous.support.errors import InputError
from vitreous.support.host import usable_cores
from vitreous.support.text import size_in_words

VERSION = 1  # of what is stored; another number starts another cache
SEGMENT = 2**30  # bytes of pixels, about, after which a segment is complete
AHEAD = 4  # images a thread may be ahead of the writer
MEASURED = 64  # images whose headers say how much space all of them need
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
        rows: offset, height, width, channels and checksum of each sample.
    """

    source: Loader
    use: Whole | Fitted
    paths: tuple[str, ...]
    files: np.ndarray
    rows: np.ndarray

    def __call__(self, index: int) -> Picture:
        file = int(self.files[index])
        stored = None if file < 0 else Place(self.paths[file], tuple(self.rows[index].tolist())).read()
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
    Store(folder)  # before its lock
    with _locked(folder, notify):
        store = Store.open(folder)
        digests = _build(split, use, store, progress)
    places = [None if digest is None else store.places.get(digest) for digest in digests]
    numbers: dict[str, int] = {}
    files = np.array([-1 if p is None else numbers.setdefault(p.path, len(numbers)) for p in places], np.int32)
    rows = np.array([(0, 0, 0, 0, 0) if p is None else p.row for p in places], np.int64).reshape(-1, 5)
    return replace(split, load=CachedLoader(split.load, use, tuple(numbers), files, rows))


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
    except OSError as error:
        cause = f"cannot write the cache {str(folder)!r}: {error.strerror}"
        raise InputError(cause, "set cache=false, or XDG_CACHE_HOME to a folder of your own") from error
    try:
        yield
    finally:
        lock.release()


def _build(split: Split, use: Whole | Fitted, store: Store, progress: Callable[[int, int], None]) -> list[bytes | None]:
    """Decodes what is missing; returns the digest of each sample, None if it cannot be read."""
    stamps = [_stamp(split, index) for index in range(len(split))]
    digests = [None if stamp is None else store.stamps.get(stamp) for stamp in stamps]
    missing = [index for index, digest in enumerate(digests) if digest is None or digest not in store.places]
    if not missing:
        return digests
    check_space(split, missing, use, store.folder)
    done = len(split) - len(missing)
    decoded = _decoded(split, use, store, missing)
    finished = False

    def segment() -> Iterator[tuple[bytes, Picture]]:
        """The next images, up to the size of a segment."""
        nonlocal done, finished
        size, new = 0, set()
        for index, digest, image in decoded:
            done += 1
            progress(done, len(split))
            digests[index] = digest
            stamp = stamps[index]
            if digest is not None and stamp is not None:
                store.stamps[stamp] = digest
            if image is not None and digest is not None and digest not in new:
                new.add(digest)
                size += image.width * image.height * len(image.getbands())
                yield digest, image
            if size >= SEGMENT:
                return
        finished = True

    while not finished:
        store.append(segment())
        store.write_stamps()
    return digests


def _decoded(
    split: Split, use: Whole | Fitted, store: Store, missing: list[int]
) -> Iterator[tuple[int, bytes | None, Picture | None]]:
    """Index, digest and image to store of each missing sample, in order; no image if it is stored or broken."""

    def work(index: int) -> tuple[int, bytes | None, Picture | None]:
        try:
            digest = blake2b(split.load.content(index), digest_size=DIGEST).digest()
            return index, digest, None if digest in store.places else use(split.load(index))
        except BadImage:  # reported when it is loaded
            return index, None, None

    threads = usable_cores()
    pending: deque[Future[tuple[int, bytes | None, Picture | None]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for index in missing:
                pending.append(pool.submit(work, index))
                if len(pending) >= AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _stamp(split: Split, index: int) -> int | None:
    """A number that changes with the name or the file of a sample; None if the file cannot be looked at."""
    try:
        stamp = split.load.stamp(index)
    except BadImage:
        return None
    name = split.names[index].encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(stamp + b"\0" + name, digest_size=8).digest(), "little")


def check_space(split: Split, missing: list[int], use: Whole | Fitted, folder: Path) -> None:
    """Raises InputError if the missing images need more space than is free, by the headers of a few."""
    sizes = []
    for index in missing[:: max(1, len(missing) // MEASURED)]:
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
