"""Whether a box has the parameters that weights are copied into, by name and shape, and the right norms."""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from examples.build_it_yourself.learner import Fault

NAMED = 6  # parameters that one line lists


def check_parameters(box: nn.Module, wanted: Mapping[str, Tensor], name: str, parts: tuple[str, ...] = ()) -> None:
    """Compares names and shapes.

    Args:
        box: the learner's.
        wanted: the reference's parameters by name.
        name: of the box.
        parts: how the names begin that are compared; all, if empty.

    Raises:
        Fault: some are missing, too many, of another shape, or one and the same.
    """
    here = {key: value for key, value in box.named_parameters(remove_duplicate=False) if key.startswith(parts or "")}
    wanted = {key: value for key, value in wanted.items() if key.startswith(parts or "")}
    missing = [key for key in wanted if key not in here]
    extra = [key for key in here if key not in wanted]
    others = [key for key in here if key in wanted and here[key].shape != wanted[key].shape]
    lines = []
    if missing:
        lines += [f"{name}.__init__ does not make: {listed(wanted, missing)}.", *reasons(box, missing)]
    if extra:
        lines.append(f"{name} has parameters of other names: {listed(here, extra)}.")
    lines += [f"{key} is {size(here[key])}; it should be {size(wanted[key])}." for key in others[:NAMED]]
    if not lines:
        lines += shared(here)
    if lines:
        raise Fault("\n".join(lines))


def reasons(box: nn.Module, missing: Iterable[str]) -> Iterator[str]:
    """Why parameters may be missing although something of that name is there."""
    for first in dict.fromkeys(key.partition(".")[0] for key in missing):
        value = getattr(box, first, None)
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            yield f"self.{first} is a plain tensor, which is not learned: write nn.Parameter(…) around it."
        elif isinstance(value, list | tuple | dict):
            kind = "nn.ModuleDict" if isinstance(value, dict) else "nn.Sequential or nn.ModuleList"
            yield f"self.{first} is a plain {type(value).__name__}, whose layers a module does not see: use {kind}."


def shared(here: Mapping[str, Tensor]) -> Iterator[str]:
    """Says which parameters are one and the same."""
    seen: dict[int, str] = {}
    for key, value in here.items():
        first = seen.setdefault(id(value), key)
        if first != key:
            yield f"{first} and {key} are the same weights: make a new layer for each place."
            return


def check_norms(box: nn.Module, reference: nn.Module) -> None:
    """Raises Fault if a LayerNorm has another eps, which hardly shows in values of ordinary size."""
    others = dict(reference.named_modules())
    for path, norm in box.named_modules():
        other = others.get(path)
        if isinstance(norm, nn.LayerNorm) and isinstance(other, nn.LayerNorm) and norm.eps != other.eps:
            raise Fault(f"{path} has eps = {norm.eps:g}: write nn.LayerNorm(width, eps={other.eps:g}).")


def listed(tensors: Mapping[str, Tensor], keys: list[str]) -> str:
    """Names with shapes; of many the first few."""
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(f"{key} ({size(tensors[key])})" for key in keys[:NAMED]) + more


def size(tensor: Tensor) -> str:
    """A shape in words."""
    return " × ".join(map(str, tensor.shape)) or "one number"
