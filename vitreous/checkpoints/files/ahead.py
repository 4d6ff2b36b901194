"""Reading tensors ahead of their use, in threads: most of the time goes into pages of memory and of the file."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

THREADS = 2
WINDOW = 4  # tensors that are read or waiting at a time, so that a file is never in memory twice


class ReadAhead(Mapping[str, Tensor]):
    """Tensors that are used once each, about in a known order; use it in a `with` block.

    Args:
        tensors: whose access reads from a file, from several threads.
        keys: in the order of use.
    """

    def __init__(self, tensors: Mapping[str, Tensor], keys: Sequence[str]) -> None:
        self._tensors, self._waiting = tensors, iter(keys)
        self._pool = ThreadPoolExecutor(THREADS)
        self._futures: dict[str, Future[Tensor]] = {}

    def __enter__(self) -> "ReadAhead":
        for _ in range(WINDOW):
            self._read_next()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __getitem__(self, key: str) -> Tensor:
        future = self._futures.pop(key, None)
        if future is None:  # used before its turn, or again
            return self._tensors[key]
        tensor = future.result()
        self._read_next()
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _read_next(self) -> None:
        if (key := next(self._waiting, None)) is not None:
            self._futures[key] = self._pool.submit(self._tensors.__getitem__, key)
