"""From a recorded pass to the rows of its table: each stage's name, shapes, parameters and multiply-adds.

Rows are nested, and each parameter and each multiply-add is counted in exactly one row of each level.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vitreous.inspection.captions import BIASED, IMAGE, OPERATIONS, PARTS, WHOLE, Text, by_class, text_of_part
from vitreous.inspection.recording import INPUT, Event, Recorder, Shape
from vitreous.model.encoder import Encoder
from vitreous.model.vit import VisionTransformer

OWN = "own"  # a row for the parameters and multiply-adds of a module outside of its parts


@dataclass(frozen=True)
class Statistics:
    """Statistics of a tensor; all but `non_finite` are over its finite values."""

    mean: float
    std: float
    min: float
    max: float
    non_finite: float  # share of NaN and infinity
    token_norm: float | None  # mean L2 norm of the tokens, for "batch tokens width" and "batch width"


@dataclass(frozen=True)
class Stage:
    """One row: a step from input to output, and its parts.

    Attributes:
        path: of the module; for an operation, the path of its module and its own name.
        name: short, in the paper's words.
        kind: class of the module, or name of the operation.
        what: description.
        equation: in the paper's symbols, with the paper's number in brackets.
        input_shape: of its first input.
        output_shape: of its first output.
        parameters: number of parameters, including its parts'; shared ones count at their first use.
        multiply_adds: of matrix products and convolutions, including its parts'.
        statistics: of the output, if measured.
        note: what is special in this pass.
        parts: the rows of the next level.
        value: the output itself, if the recording kept it.
    """

    path: str
    name: str
    kind: str
    what: str
    equation: str = ""
    input_shape: Shape | None = None
    output_shape: Shape | None = None
    parameters: int = 0
    multiply_adds: int = 0
    statistics: Statistics | None = None
    note: str = ""
    parts: tuple["Stage", ...] = ()
    value: Tensor | None = field(default=None, repr=False, compare=False)

    def at(self, level: int) -> Iterator["Stage"]:
        """The rows of this stage in a table `level` levels deeper."""
        if level <= 0 or not self.parts:
            yield self
        for part in self.parts if level > 0 else ():
            yield from part.at(level - 1)


def measure(tensor: Tensor) -> Tensor | None:
    """Computes a tensor's statistics on its device, without a transfer; None if it has no values."""
    if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
        return None
    x = tensor.float()
    finite = x.isfinite()
    count = finite.sum()
    kept = x.where(finite, 0)
    mean = kept.sum() / count
    variance = (kept - mean).where(finite, 0).square().sum() / count
    norm = kept.norm(dim=-1).mean() if x.ndim in (2, 3) else mean.new_tensor(torch.nan)
    low, high = x.where(finite, torch.inf).min(), x.where(finite, -torch.inf).max()
    return torch.stack([mean, variance.sqrt(), low, high, (x.numel() - count) / x.numel(), norm])


def build_stages(recorder: Recorder, keep: bool = False) -> tuple[Stage, ...]:
    """Builds the outermost rows of a finished recording, in order of execution.

    Args:
        recorder: after its pass.
        keep: whether its observer kept the tensors, for `Stage.value`, instead of measuring them.
    """
    root = recorder.root
    builder = _Builder(recorder, keep)
    image = IMAGE if isinstance(root.module, VisionTransformer) else OPERATIONS[INPUT]
    rows = [builder.stage(event, image) for event in root.parts if event.operation == INPUT]
    if builder.shown[root]:
        rows += builder.parts_of(root)
    else:
        whole = by_class(WHOLE, root.module) or Text("output", type(root.module).__name__)
        rows.append(builder.stage(root, whole))
    if builder.unused:
        names = ", ".join(builder.unused)
        what, total = "parameters that this pass never read", sum(builder.unused.values())
        rows.append(Stage("", "not used", "Parameter", what, parameters=total, note=names))
    return tuple(rows)


class _Builder:
    """Decides which events become rows, and in which row each parameter is counted."""

    def __init__(self, recorder: Recorder, keep: bool) -> None:
        self.root = recorder.root
        self.events = list(self.root.walk())
        self.keep = keep
        self.statistics = dict.fromkeys(self.events) if keep else read_statistics(self.events)
        self.shown: dict[Event, list[Event]] = {}
        self._host: dict[Event, Event] = {}  # the row in which an event is counted
        self._show(self.root, self.root)
        self.parameters: dict[Event, int] = {}
        self.unused: dict[str, int] = {}
        self._owned_names: dict[Event, list[str]] = {}
        self._assign_parameters(recorder.module)
        self._parameters_by_path = {
            path: {id(p) for p in module.parameters(recurse=False)} for path, module in recorder.module.named_modules()
        }
        self._add_own_rows()

    def _show(self, event: Event, host: Event) -> None:
        self._host[event] = host
        parts = [part for part in event.parts if is_row(event, part)]
        if sum(2 if part.module else part.operation != INPUT for part in parts) < 2:
            parts = []  # one operation is the module itself
        self.shown[event] = parts
        for part in event.parts:
            inside = host is event and part in parts
            self._show(part, part if inside else host)

    def _assign_parameters(self, module: nn.Module) -> None:
        """Counts each parameter where its module runs, or where it is read."""
        owners: dict[int, set[nn.Module]] = {}
        for m in module.modules():
            for parameter in m.parameters(recurse=False):
                owners.setdefault(id(parameter), set()).add(m)
        for name, parameter in module.named_parameters():
            mine = owners[id(parameter)]
            event = next((e for e in self.events if e.module in mine), None)
            event = event or next((e for e in self.events if id(parameter) in e.touched), None)
            if event is None:
                self.unused[name] = parameter.numel()
                continue
            host = self._host[event]
            beside = {id(p) for m in mine for p in m.parameters(recurse=False)}  # a bias read in parts, by its weight
            operations = [p for p in self.shown[host] if not p.module]
            row = next((p for p in operations if id(parameter) in p.touched), None)
            row = row or next((p for p in operations if beside & p.touched), host)
            self.parameters[row] = self.parameters.get(row, 0) + parameter.numel()
            self._owned_names.setdefault(row, []).append(name)

    def _add_own_rows(self) -> None:
        """Adds a row for the parameters and multiply-adds of a module outside of its parts."""
        for event, parts in list(self.shown.items()):
            if parts and self._host[event] is event and (event.multiply_adds or event in self.parameters):
                own = Event(event.path, operation=OWN, multiply_adds=event.multiply_adds)
                self.shown[event] = [own, *parts]
                self.shown[own] = []
                self.statistics[own] = None
                self._owned_names[own] = self._owned_names.get(event, [])
                if event in self.parameters:
                    self.parameters[own] = self.parameters.pop(event)

    def parts_of(self, event: Event) -> list[Stage]:
        """The rows of an event's parts."""
        stages: list[Stage] = []
        calls: dict[str, int] = {}
        for part in self.shown[event]:
            if part.operation == INPUT:
                continue
            key = key_of(event, part)
            calls[key] = calls.get(key, 0) + 1
            stage = self._part(event, part, key, calls[key])
            if stages and stage.path == stages[-1].path and not part.module and part.operation != OWN:
                stages[-1] = merged_products(stages[-1], stage)
            else:
                stages.append(stage)
        return stages

    def _part(self, parent: Event, part: Event, key: str, call: int) -> Stage:
        owner = self._owner_below(parent, part)
        if owner:
            key = owner.removeprefix(parent.path).lstrip(".")
        name, _, index = key.partition(".")
        numbered = f"{name}.{call}" if call > 1 and not part.module else name
        if part.operation == "scaled_dot_product_attention" and len(part.inputs) > len("qkv"):
            text = text_of_part(parent.module, BIASED)
        else:
            text = text_of_part(parent.module, numbered) or text_of_part(parent.module, name)
        if text is None:
            text = self._generic_text(part, key)
        if index.isdigit():
            text = text._replace(name=f"{text.name} {index}")
        path = owner or part.path
        if not part.module and not owner and part.operation != OWN:
            names = self._owned_names.get(part)  # class_token, where it joins the patches
            path = names[0] if names else f"{path}:{numbered}".lstrip(":")
        return dataclasses.replace(self.stage(part, text), path=path)

    def _generic_text(self, part: Event, key: str) -> Text:
        if part.module is None:
            text = OPERATIONS.get(part.operation, Text(part.operation, "an operation of the module"))
            names = ", ".join(name.rpartition(".")[2] for name in self._owned_names.get(part, []))
            return text._replace(name=names or text.name)
        known = by_class(WHOLE, part.module)
        kind = type(part.module).__name__
        name = f"{known.name if known else kind} {key}" if key.isdigit() else key
        return Text(name, known.what, known.equation) if known else Text(name, kind)

    def _owner_below(self, parent: Event, part: Event) -> str:
        """The path of a module that was not called itself, but whose parameters the operation read."""
        if part.module or not part.touched:
            return ""
        below = f"{parent.path}." if parent.path else ""
        for path, parameters in self._parameters_by_path.items():
            if path != parent.path and path.startswith(below) and parameters & part.touched:
                return path
        return ""

    def stage(self, event: Event, text: Text) -> Stage:
        """The row of an event, with its parts."""
        parts = tuple(self.parts_of(event)) if self.shown[event] and event is not self.root else ()
        own_work = 0 if parts else sum(e.multiply_adds for e in event.walk())
        input_shape = next(iter(event.inputs), None)
        if event.operation == "cat":  # the patches, not the class token
            input_shape = max(reversed(event.inputs), key=math.prod, default=None)
        return Stage(
            path=event.path,
            name=text.name,
            kind=type(event.module).__name__ if event.module else event.operation,
            what=text.what,
            equation=text.equation,
            input_shape=input_shape,
            output_shape=next(iter(event.outputs), None),
            parameters=self.parameters.get(event, 0) + sum(part.parameters for part in parts),
            multiply_adds=own_work + sum(part.multiply_adds for part in parts),
            statistics=self.statistics[event],
            note=note_on(event),
            parts=parts,
            value=event.seen if self.keep else None,
        )


def is_row(parent: Event, part: Event) -> bool:
    """Whether a part gets a row: modules that change something, and operations that are stages."""
    if part.module is not None:
        return not part.unchanged or any(True for _ in part.module.parameters())
    ours = by_class(PARTS, parent.module)
    return ours is None or bool(part.multiply_adds) or part.operation in ours or part.operation == INPUT


def key_of(parent: Event, part: Event) -> str:
    """The name of a part inside its parent: blocks.3, or the name of the operation."""
    if part.module is None:
        return part.operation
    return part.path.removeprefix(parent.path).lstrip(".") if part.path.startswith(parent.path) else part.path


def merged_products(one: Stage, two: Stage) -> Stage:
    """One row for two products with the weight of one layer, such as q, then k and v."""
    wide = max(one, two, key=lambda stage: math.prod(stage.output_shape or ()))
    shapes = " and ".join("×".join(map(str, (stage.output_shape or ())[1:])) for stage in (one, two))
    return dataclasses.replace(
        wide,
        parameters=one.parameters + two.parameters,
        multiply_adds=one.multiply_adds + two.multiply_adds,
        note=f"in two products, of {shapes}",
    )


def note_on(event: Event) -> str:
    """What is special about an event in this pass, in words."""
    if isinstance(event.module, Encoder) and event.inputs and event.outputs:
        tokens, read = event.inputs[0][1], event.outputs[0][1]
        if read < tokens:
            what = "the one token" if read == 1 else f"the {read} tokens"
            return f"its last block computes only {what} that the head reads, from keys and values of all {tokens}"
    return ""


def read_statistics(events: list[Event]) -> dict[Event, Statistics | None]:
    """Copies all statistics from the device at once."""
    fetched: dict[Event, Statistics | None] = dict.fromkeys(events)
    seen = [event for event in events if isinstance(event.seen, Tensor)]
    if not seen:
        return fetched
    device = seen[0].seen.device
    for event, row in zip(seen, torch.stack([e.seen.to(device) for e in seen]).tolist(), strict=True):
        norm = None if math.isnan(row[-1]) else row[-1]
        fetched[event] = Statistics(*row[:-1], token_norm=norm)
    return fetched
