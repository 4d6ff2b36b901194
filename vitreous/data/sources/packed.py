"""The names of a million samples in two pieces of memory, as a loading process has them."""

from collections.abc import Iterable

import numpy as np


class PackedNames:
    """Names as text without gaps; every process has a copy, which takes half the memory of a tuple.

    Args:
        names: in order. They may have bytes of a file name that are not UTF-8.
    """

    def __init__(self, names: Iterable[str]) -> None:
        texts = [name.encode("utf-8", "surrogatepass") for name in names]
        self.text = b"".join(texts)
        self.ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        return self.text[self.ends[index] : self.ends[index + 1]].decode("utf-8", "surrogatepass")
