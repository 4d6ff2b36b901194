"""The dtypes that weights are read from and written in, and what a cast does to their numbers."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from vitreous.support.errors import InputError
from vitreous.support.text import listed

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
EXACT = ("float16", "bfloat16", "float32")  # float32 represents all of their numbers


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype: float32."""
    return str(dtype).removeprefix("torch.")


def read_casts(dtypes: Collection[torch.dtype]) -> list[str]:
    """Notes on the lossy and the exact casts of a file's numbers to float32."""
    names = sorted(dtype_name(dtype) for dtype in dtypes if dtype != torch.float32)
    exact = " and ".join(name for name in names if name in EXACT)
    notes = [f"{exact} numbers are converted to float32, exactly"] if exact else []
    return notes + [f"{name} numbers are rounded to float32" for name in names if name not in EXACT]


def check_dtype(dtype: torch.dtype | None) -> None:
    """Raises InputError unless weights can be written in this dtype, or it is None."""
    if dtype is not None and dtype_name(dtype) not in DTYPES:
        raise InputError(f"weights cannot be written as {dtype_name(dtype)}", f"choose from {', '.join(DTYPES)}")


def write_casts(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> list[str]:
    """Notes on what casting tensors to a dtype loses.

    Raises:
        InputError: numbers are not finite, or too large for the dtype; it names the tensors.
    """
    if broken := [key for key, tensor in tensors.items() if not is_finite(tensor)]:
        raise InputError(
            f"weights are not finite: {listed(broken)}", "load an undamaged checkpoint; nothing was written"
        )
    if all(_holds(dtype, tensor) for tensor in tensors.values()):
        return []
    if large := [key for key, tensor in tensors.items() if not is_finite(tensor.to(dtype))]:
        largest = f"{torch.finfo(dtype).max:,.6g}"
        cause = f"{dtype_name(dtype)} numbers end at {largest}; larger ones are in {listed(large)}"
        raise InputError(cause, "write float32 instead: --dtype float32")
    return [f"the numbers are rounded to {dtype_name(dtype)}"]


def _holds(dtype: torch.dtype, tensor: Tensor) -> bool:
    """Whether every number of a tensor stays the same in another dtype."""
    return tensor.dtype == dtype or torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite; one pass, without a second tensor."""
    if not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))
