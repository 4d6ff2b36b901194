"""Errors that a person can act on: one line of cause, one of hint."""

from collections.abc import Iterable
from difflib import get_close_matches

from vitreous.support.text import printable

FEW = 12  # choices that an error lists although it knows the one that was meant


class InputError(ValueError):
    """Something a person gave is not usable: what is wrong, and what would fix it.

    `str(error)` is always one line and safe to print, whatever file names it quotes. Commands print it and
    exit with code 2; it is never a bug of ours.

    Args:
        cause: what is wrong, naming the bad value.
        hint: what to do about it, naming the valid values; empty where nothing helps.
    """

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause, hint)  # both are arguments, so that it survives the way out of a worker process
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        return printable(f"{self.cause}; {self.hint}" if self.hint else self.cause)


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` was probably meant to be, or None where none is near."""
    folded = {choice.casefold(): choice for choice in reversed([*choices])}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """The error to raise for a name that does not exist; it tells the nearest one and all there are."""
    choices = list(choices)
    meant = nearest(name, choices)
    there_are = f"there are: {', '.join(choices)}" if choices else "there are none"
    if meant:
        there_are = f"did you mean {meant!r}? {there_are if len(choices) <= FEW else ''}".rstrip()
    return InputError(f"there is no {kind} {name!r}", there_are)
