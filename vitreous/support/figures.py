"""What all matplotlib figures share."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def missing_glyphs_ignored() -> Iterator[None]:
    """Suppresses matplotlib's warnings about characters missing from the font; they become boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def shown_as(channels: int) -> str:
    """What `visible` shows of images with so many channels, for captions; nothing for gray and color."""
    return "" if channels in (1, 3) else f"shown as the mean of {channels} channels"


def visible(values: np.ndarray) -> np.ndarray:
    """The channels to show of values "channels height width": three as color, one as gray, the mean of others."""
    return values if len(values) in (1, 3) else values.mean(axis=0, keepdims=True).astype(values.dtype)
