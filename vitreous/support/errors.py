"""User errors: one line of cause, one of hint."""

from collections.abc import Iterable
from difflib import get_close_matches

from vitreous.support.text import printable

MAX_CHOICES = 12  # to list after "did you mean"
REPORTED = "reported"  # an attribute of an error that another process of the run prints


class InputError(ValueError):
    """The user's input is not usable: what is wrong, and how to fix it.

    `str(error)` is always one line and safe to print, whatever file names it quotes. Commands print it and exit with
    code 2; it never stands for a bug.

    Args:
        cause: what is wrong, naming the bad value.
        hint: what to type or do next, naming the valid values; empty if nothing helps.
    """

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause, hint)  # both, so that it can be unpickled from a worker process
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        return printable(f"{self.cause}; {self.hint}" if self.hint else self.cause)


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice closest to `name`, or None if none is close."""
    folded = {choice.casefold(): choice for choice in reversed([*choices])}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for a name that does not exist, which suggests the nearest one and lists the choices."""
    choices = list(choices)
    suggestion = nearest(name, choices)
    hint = f"choose from: {', '.join(choices)}" if choices else "there are none"
    if suggestion:
        hint = f"did you mean {suggestion!r}? {hint if len(choices) <= MAX_CHOICES else ''}".rstrip()
    return InputError(f"there is no {kind} {name!r}", hint)
