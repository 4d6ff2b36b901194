"""The types of the numbers in a file: what they are read from and written in, and what a cast does to them."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from vitreous.support.errors import InputError
from vitreous.support.text import listed

# The types of numbers that weights are read from and written in, by name.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
REMEMBERED = "source_dtype"  # key of a model's metadata
EXACT = ("float16", "bfloat16", "float32")  # whose numbers float32 holds, so that they can go out as they came


def type_name(dtype: torch.dtype) -> str:
    """The name of a type of numbers: float32."""
    return str(dtype).removeprefix("torch.")


def stored_dtype(dtypes: Collection[torch.dtype]) -> str | None:
    """The one type of a file's tensors, by name, to be written again; None for several, or one that was rounded."""
    names = [type_name(dtype) for dtype in dtypes]
    return names[0] if len(names) == 1 and names[0] in EXACT else None


def read_casts(dtypes: Collection[torch.dtype]) -> list[str]:
    """Tells, a sentence each, what became of a file's numbers in float32."""
    names = sorted(type_name(dtype) for dtype in dtypes if dtype != torch.float32)
    exact = " and ".join(name for name in names if name in EXACT)
    told = [f"numbers of {exact} are held in float32, exactly"] if exact else []
    return told + [f"numbers of {name} are rounded to float32" for name in names if name not in EXACT]


def check_dtype(dtype: torch.dtype | None) -> None:
    """Raises InputError unless weights are written in this type; None stands for their own."""
    if dtype is not None and type_name(dtype) not in DTYPES:
        raise InputError(f"weights are not written in {type_name(dtype)}", f"valid are {', '.join(DTYPES)}")


def settle(
    tensors: Mapping[str, Tensor], wish: torch.dtype | None, metadata: Mapping[str, Any]
) -> tuple[torch.dtype, list[str]]:
    """The type to write tensors in, and what that does to their numbers, a sentence each.

    Args:
        tensors: what is to be written.
        wish: what a person said; None takes the type of the file that the weights came from where it still holds
            every number, as it does until they are changed, and float32 else.
        metadata: of the model; it may remember that type.

    Raises:
        InputError: weights are not written in this type; or numbers are not finite, or too large for it, and the
            tensors are named.
    """
    check_dtype(wish)
    if broken := [key for key, tensor in tensors.items() if not finite(tensor)]:
        raise InputError(f"the weights are damaged: not finite are {listed(broken)}", "nothing was written")
    name = metadata.get(REMEMBERED, "float32") if wish is None else type_name(wish)
    if not isinstance(name, str) or name not in DTYPES:
        raise InputError(f"the header tells a type of numbers that is not known: {name!r}", "give one: --dtype float32")
    if all(_holds(DTYPES[name], tensor) for tensor in tensors.values()):
        return DTYPES[name], []
    if wish is None and name != "float32":
        dtype, told = settle(tensors, torch.float32, {})
        return dtype, [f"{name}, which they came in, does not hold the numbers as they are now; float32 does", *told]
    if large := [key for key, tensor in tensors.items() if not finite(tensor.to(DTYPES[name]))]:
        most = f"{torch.finfo(DTYPES[name]).max:,.6g}"
        raise InputError(f"{name} ends at {most}; beyond it are numbers of {listed(large)}", "write float32 instead")
    return DTYPES[name], [f"the numbers are rounded to {name}"]


def _holds(dtype: torch.dtype, tensor: Tensor) -> bool:
    """Tells whether every number of a tensor is the same in another type."""
    return tensor.dtype == dtype or torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def finite(tensor: Tensor) -> bool:
    """Tells whether all values are finite; one pass, and no second tensor."""
    if not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))
