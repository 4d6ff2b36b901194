"""The runtime checks of every vitreous function in tests: argument types, result types and tensor shapes."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Self

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Applies beartype, with two exceptions.

    `Self` is not checked, since beartype supports it only in a class that it decorates as a whole. A dataclass with
    `__post_init__` validates its own fields, with its own errors.
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
