"""Checks that a box has the right parameters, by name and shape, and the right norms."""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from examples.build_it_yourself.learner import Fault

LISTED = 6  # the most parameters in one line


def check_parameters(box: nn.Module, expected: Mapping[str, Tensor], name: str, parts: tuple[str, ...] = ()) -> None:
    """Compares names and shapes.

    Args:
        box: the learner's box.
        expected: the reference's parameters by name.
        name: of the box.
        parts: prefixes of the parameters to compare; empty for all.

    Raises:
        Fault: parameters are missing, unexpected, of another shape, or shared.
    """
    actual = {key: value for key, value in box.named_parameters(remove_duplicate=False) if key.startswith(parts or "")}
    expected = {key: value for key, value in expected.items() if key.startswith(parts or "")}
    missing = [key for key in expected if key not in actual]
    unexpected = [key for key in actual if key not in expected]
    misshapen = [key for key in actual if key in expected and actual[key].shape != expected[key].shape]
    lines = []
    if missing:
        lines += [f"{name}.__init__ does not make: {listed(expected, missing)}.", *reasons(box, missing)]
    if unexpected:
        lines.append(f"{name} has parameters with other names: {listed(actual, unexpected)}.")
    lines += [f"{key} is {size(actual[key])}; it should be {size(expected[key])}." for key in misshapen[:LISTED]]
    if not lines:
        lines += shared(actual)
    if lines:
        raise Fault("\n".join(lines))


def reasons(box: nn.Module, missing: Iterable[str]) -> Iterator[str]:
    """Why a parameter may be missing although the box has an attribute of that name."""
    for first in dict.fromkeys(key.partition(".")[0] for key in missing):
        value = getattr(box, first, None)
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            yield f"self.{first} is a plain tensor, which does not learn: wrap it in nn.Parameter(…)."
        elif isinstance(value, list | tuple | dict):
            kind = "nn.ModuleDict" if isinstance(value, dict) else "nn.Sequential or nn.ModuleList"
            yield f"self.{first} is a plain {type(value).__name__}, whose layers PyTorch does not find: use {kind}."


def shared(parameters: Mapping[str, Tensor]) -> Iterator[str]:
    """Names the first two parameters that are the same tensor."""
    seen: dict[int, str] = {}
    for key, value in parameters.items():
        first = seen.setdefault(id(value), key)
        if first != key:
            yield f"{first} and {key} are the same weights: make a new layer for each place."
            return


def check_norms(box: nn.Module, reference: nn.Module) -> None:
    """Raises Fault if a LayerNorm has another eps, which hardly shows in values of ordinary size."""
    references = dict(reference.named_modules())
    for path, norm in box.named_modules():
        other = references.get(path)
        if isinstance(norm, nn.LayerNorm) and isinstance(other, nn.LayerNorm) and norm.eps != other.eps:
            raise Fault(f"{path} has eps = {norm.eps:g}: write nn.LayerNorm(width, eps={other.eps:g}).")


def listed(tensors: Mapping[str, Tensor], keys: list[str]) -> str:
    """Names with shapes; if there are many, the first few."""
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(f"{key} ({size(tensors[key])})" for key in keys[:LISTED]) + more


def size(tensor: Tensor) -> str:
    """A shape as text."""
    return " × ".join(map(str, tensor.shape)) or "one number"
