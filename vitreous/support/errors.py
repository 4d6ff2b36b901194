"""Errors that a person can act on: one line of cause, one of mend."""

from collections.abc import Iterable
from difflib import get_close_matches

from vitreous.support.text import printable

FEW = 12  # choices that an error lists although it knows the one that was meant


class InputError(ValueError):
    """Something a person gave is not usable: what is wrong, and what would mend it.

    `str(error)` is always one line and safe to print, whatever file names it quotes. Commands print it and
    exit with code 2; it is never a bug of ours.

    Args:
        cause: what is wrong, naming the bad value.
        mend: what to do about it, naming the valid values; empty where nothing helps.
    """

    def __init__(self, cause: str, mend: str = "") -> None:
        super().__init__(cause, mend)  # both are arguments, so that it survives the way out of a worker process
        self.cause = cause
        self.mend = mend

    def __str__(self) -> str:
        return printable(f"{self.cause}; {self.mend}" if self.mend else self.cause)


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` was probably meant to be, or None where none is near."""
    folded = {choice.casefold(): choice for choice in choices}
    close = get_close_matches(name.casefold(), folded, n=1)
    return folded[close[0]] if close else None


def unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """The error to raise for a name that does not exist; it tells the nearest one and all there are."""
    choices = list(choices)
    meant = nearest(name, choices)
    there_are = f"there are: {', '.join(choices)}" if choices else "there are none"
    if meant:
        there_are = f"did you mean {meant!r}? {there_are if len(choices) <= FEW else ''}".rstrip()
    return InputError(f"there is no {kind} {name!r}", there_are)
