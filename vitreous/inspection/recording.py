"""One pass of a module, recorded as it runs: modules and operations in order, with shapes, costs and values.

Hooks record which module runs, a function mode which operations its `forward` calls (a sum of two branches, a product
of two activations), a dispatch mode what the kernels cost and which parameters they read. All three are removed when
the pass ends or fails.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vitreous.model.patch_embedding import PatchEmbedding

Shape = tuple[int, ...]

# Operations that are stages although they multiply no matrices. Every operation with multiply-adds is one too.
NAMED = {
    *("add", "mul", "cat", "mean", "softmax", "layer_norm", "max_pool2d", "adaptive_avg_pool2d"),
    *("gelu", "silu", "relu", "tanh", "sigmoid"),
}
PATCHES = "patches"  # the input of a patch embedding's projection, which no module or single operation returns
INPUT = "input"


@dataclass(eq=False)
class Event:
    """One call of a module, or one operation that a module's `forward` called itself."""

    path: str  # of the module, or of the module that ran the operation
    module: nn.Module | None = None
    operation: str = ""  # name of the function; empty for a module
    inputs: tuple[Shape, ...] = ()
    outputs: tuple[Shape, ...] = ()
    seen: Any = None  # the observer's result for the first output
    multiply_adds: int = 0  # outside of its parts
    unchanged: bool = False  # whether it returned its input tensor itself
    touched: set[int] = field(default_factory=set)  # ids of the parameters that its kernels read
    parts: list["Event"] = field(default_factory=list)

    def walk(self, children_first: bool = False) -> Iterator["Event"]:
        """Yields this event and all below it, in the order in which they began or, children first, ended."""
        if not children_first:
            yield self
        for part in self.parts:
            yield from part.walk(children_first)
        if children_first:
            yield self


class Recorder:
    """Runs a module once and records the pass in `root`.

    Args:
        module: any module.
        observe: called with every stage's first output; only its result is kept.
        all_inputs: also record tensors that enter a module without being a stage's output.
    """

    def __init__(
        self, module: nn.Module, observe: Callable[[Tensor], Any] | None = None, all_inputs: bool = False
    ) -> None:
        self.module = module
        self.observe = observe
        self.all_inputs = all_inputs
        self.root = Event("", module)
        self._stack: list[Event] = []
        self._paused = False
        self._passed: dict[int, Tensor] = {}  # held, so that no other tensor gets the same id
        self._parameters: dict[int, list[int]] = {}  # by storage, so that views of a parameter are known
        for parameter in module.parameters():
            if parameter.layout == torch.strided:
                storage = parameter.untyped_storage()._cdata
                self._parameters.setdefault(storage, []).append(id(parameter))

    def run(self, *inputs: Any) -> Any:
        """Runs the module in its current mode, without gradients, and returns its result."""
        with ExitStack() as stack:
            for path, module in self.module.named_modules():
                enter = partial(self._enter, path)
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(self._leave).remove)
            stack.enter_context(torch.inference_mode(False))  # inference mode would hide composite kernels
            stack.enter_context(torch.no_grad())
            stack.enter_context(_Functions(self))
            stack.enter_context(_Kernels(self))
            return self.module(*inputs)

    def _enter(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with self._pause():
            tensors = list(tensors_in((args, kwargs)))
            if not self._stack:
                event = self.root
                for tensor in tensors:
                    self._add_tensor(event, INPUT, path, tensor)
            else:
                parent = self._stack[-1]
                self._note_inputs(parent, path, module, tensors)
                event = Event(path, module)
                parent.parts.append(event)
            event.inputs = tuple(tuple(t.shape) for t in tensors)
            event.seen = [(t, version(t)) for t in tensors[:1]]  # to see on leaving whether it returns its input
            self._stack.append(event)

    def _note_inputs(self, parent: Event, path: str, module: nn.Module, tensors: list[Tensor]) -> None:
        if isinstance(parent.module, PatchEmbedding) and module is parent.module.projection:
            self._add_tensor(parent, PATCHES, parent.path, tensors[0])
            parent.parts[-1].inputs = parent.inputs
        elif self.all_inputs:
            for tensor in tensors:
                if id(tensor) not in self._passed:
                    self._add_tensor(parent, INPUT, path, tensor)

    def _add_tensor(self, parent: Event, name: str, path: str, tensor: Tensor) -> None:
        event = Event(path, operation=name, inputs=(tuple(tensor.shape),))
        self._finish(event, tensor)
        parent.parts.append(event)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        while (event := self._stack.pop()).module is not module:
            event.seen = None  # left by an exception that was caught: no output
        with self._pause():
            event.unchanged = any(result is t and version(result) == before for t, before in event.seen)
            self._finish(event, result)

    def _finish(self, event: Event, result: Any) -> None:
        tensors = list(tensors_in(result))
        event.outputs = tuple(tuple(t.shape) for t in tensors)
        event.seen = None if self.observe is None or not tensors else self.observe(tensors[0])
        if self.all_inputs:
            self._passed |= {id(t): t for t in tensors}

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """Leaves the recorder's own computations out of the recording."""
        self._paused = True
        with torch._C.DisableTorchFunction():
            yield
        self._paused = False

    def function(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a torch function called by a `forward`, and records it if it is a stage."""
        name = getattr(call, "__name__", "").strip("_")
        if self._paused or not self._stack or name == "get":  # tensor.shape and the like
            return call(*args, **kwargs)
        parent = self._stack[-1]
        event = Event(parent.path, operation=name)
        self._stack.append(event)
        try:
            result = call(*args, **kwargs)
        finally:
            while self._stack.pop() is not event:
                pass
        with self._pause():
            if event.multiply_adds or name in NAMED:
                event.inputs = tuple(tuple(t.shape) for t in tensors_in((args, kwargs)))
            numbers = any(t.is_floating_point() for t in tensors_in(result))  # and not indices
            if event.multiply_adds or (name in NAMED and numbers and is_stage(name, event.inputs)):
                self._finish(event, result)
                parent.parts.append(event)
            else:
                parent.touched |= event.touched
                parent.parts += event.parts
        return result

    def kernel(self, mode: TorchDispatchMode, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs one kernel, and adds its multiply-adds and parameters to the running event."""
        if self._paused or not self._stack:
            return call(*args, **kwargs)
        formula = flop_registry.get(getattr(call, "_overloadpacket", call))
        if formula is None and hasattr(call, "decompose"):  # a composite kernel, as in torch's own counter
            with mode:
                result = call.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = call(*args, **kwargs)
        event = self._stack[-1]
        if formula is not None:
            event.multiply_adds += formula(*args, **kwargs, out_val=result) // 2
        for tensor in tensors_in((args, kwargs)):
            if tensor.layout == torch.strided:
                event.touched.update(self._parameters.get(tensor.untyped_storage()._cdata, ()))
        return result


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.recorder.function(func, args, kwargs or {})


class _Kernels(TorchDispatchMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.recorder.kernel(self, func, args, kwargs or {})


def is_stage(name: str, inputs: tuple[Shape, ...]) -> bool:
    """Whether an operation is a stage: sums and products of two branches are, those with a scalar or vector not."""
    if name == "add":
        return len(inputs) == 2 and min(map(len, inputs)) > 1
    if name == "mul":
        return len(inputs) == 2 and len(inputs[0]) > 1 and inputs[0] == inputs[1]
    return name != "cat" or max(map(len, inputs)) > 2


def version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; 0 for inference tensors, which have no count."""
    return 0 if tensor.is_inference() else tensor._version


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
