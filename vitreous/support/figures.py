"""What all matplotlib figures share."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def missing_glyphs_ignored() -> Iterator[None]:
    """Suppresses matplotlib's warnings about characters missing from the font; they become boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
