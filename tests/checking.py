"""What every function of vitreous checks in tests: its arguments, its result, its tensors' shapes."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Self

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype, with two exceptions.

    `Self` is let be, since beartype reads that only in a class that it decorates as a whole. A dataclass with
    `__post_init__` checks and converts its fields by itself, with errors of its own.
    """
    hints = getattr(function, "__annotations__", {})
    hints.update({name: Any for name, hint in hints.items() if hint is Self})
    check = beartype(function)
    if function.__name__ != "__init__":
        return check

    @wraps(function)
    def check_init(self: object, *args: object, **kwargs: object) -> None:
        if not hasattr(self, "__post_init__"):
            check(self, *args, **kwargs)

    return check_init
