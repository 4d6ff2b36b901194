"""Text from untrusted sources, such as file and class names, made safe to show; and small helpers for text."""

import html
import re
import tomllib
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

LONGEST_NAME = 24  # characters of a class name in a figure
LISTED = 8  # names in one error message
# With these, and the full-width forms of the four signs, a spreadsheet cell becomes a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str) -> str:
    r"""The text on one line, safe for a terminal: unprintable characters are escaped (`\n`, `\x1b`, `\u202e`).

    These include newlines, ANSI codes, direction marks and the undecodable bytes of a file name. Printable text of any
    script is unchanged, so the function is idempotent.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def csv_cell(value: object) -> str:
    """A value as the text of a CSV cell that no spreadsheet runs as a formula; `csv.writer` quotes it.

    Text is made printable, and prefixed with `'` if it would start a formula, so a class named "-5" becomes `'-5`.
    Numbers such as -1.5 are unchanged; None is an empty cell.
    """
    if value is None or isinstance(value, Real):
        return "" if value is None else str(value)
    text = printable(str(value))
    return f"'{text}" if text.lstrip().startswith(FORMULA_STARTS) else text


def html_text(text: str) -> str:
    """The text escaped for an HTML element or a quoted attribute, and printable."""
    return html.escape(printable(text), quote=True)


def natural_key(name: str) -> tuple[tuple[str | tuple[int, str], ...], str]:
    """A key for natural order: class2 before class10, a before B. Different names have different keys."""
    # Text and numbers alternate, so that equal positions have equal types. Numbers compare by length, then digits;
    # int() refuses more than 4,300 digits.
    parts = re.split(r"0*([0-9]+)", name.casefold())
    return tuple((len(part), part) if i % 2 else part for i, part in enumerate(parts)), name


def toml_value(text: str) -> Any:
    """Parses a TOML value such as 3, 1e-3, true or [0.5, 1], or True or (0.5, 1) as in Python; all else is text."""
    if text in ("True", "False"):
        return text == "True"
    if text.startswith("(") and text.endswith(")"):
        items = toml_value(f"[{text[1:-1]}]")
        return items if isinstance(items, list) else text
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if list(table) == ["value"] else text


def shortened(name: str) -> str:
    """A class name that fits in a figure."""
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def listed(items: Sequence[str], most: int = LISTED) -> str:
    """The first few items on one line, and how many more there are."""
    more = f" … and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).partition("\n")[0]


def counted(number: int, noun: str) -> str:
    """A count with its noun: 1 image, 1,234 images, 2 classes, 3 copies."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}{'es' if noun.endswith('s') else 's'}"
    return f"{number:,} {noun}"


def tallied(counts: Mapping[str, int]) -> str:
    """Kinds with their counts, the most frequent first: 3 × cr2 file, 1 × pdf file."""
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
    return listed([f"{counts[kind]:,} × {kind}" for kind in kinds])


def size_in_words(count: int | float) -> str:
    """So many bytes: 0.3 MB, 12.0 GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
