"""Text that came from elsewhere: file names, class names and metadata made inert for where they are shown; values."""

import html
import re
import tomllib
from collections.abc import Sequence
from numbers import Real
from typing import Any

LONGEST_NAME = 24  # characters of a class name in a figure
LISTED = 8  # names shown in one error, so that it stays readable
# A spreadsheet reads a cell that starts so as a formula; the full-width twins of the four signs too.
FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str) -> str:
    r"""The text on one line, for a terminal: what does not print becomes an escape (`\n`, `\x1b`, `\u202e`).

    So newlines, ANSI codes, marks that turn the reading direction and the undecodable bytes of a file name
    are seen and do nothing. Idempotent; printable text, of any script, is returned as it is.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def csv_cell(value: object) -> str:
    """A value as the text of a CSV cell that no spreadsheet runs as a formula; `csv.writer` does the quoting.

    Text is made printable, and a leading `'` is set before what would start a formula. Numbers are untouched,
    so that -1.5 stays a number; None is an empty cell.
    """
    if value is None or isinstance(value, Real):
        return "" if value is None else str(value)
    text = printable(str(value))
    return f"'{text}" if text.lstrip().startswith(FORMULA_STARTS) else text


def html_text(text: str) -> str:
    """The text for an HTML element or a quoted attribute: escaped and printable."""
    return html.escape(printable(text), quote=True)


def natural_key(name: str) -> tuple[tuple[str | tuple[int, str], ...], str]:
    """A key to sort as people count: class2 before class10, a before B. Different names differ."""
    # Text and numbers in turn, so that equal places hold equal types. Of two numbers the one with more digits
    # is larger; int() would refuse more than 4,300 of them.
    parts = re.split(r"0*([0-9]+)", name.casefold())
    return tuple((len(part), part) if i % 2 else part for i, part in enumerate(parts)), name


def toml_value(text: str) -> Any:
    """Reads one TOML value, such as 3, 1e-3, true or [0.5, 1]; what is none is text."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if list(table) == ["value"] else text


def shortened(name: str) -> str:
    """A class name that fits in a figure."""
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def listed(problems: Sequence[str], most: int = LISTED) -> str:
    """Joins problems into one line, the first few in full."""
    more = f" … and {len(problems) - most} more" if len(problems) > most else ""
    return ", ".join(problems[:most]) + more


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).partition("\n")[0]
