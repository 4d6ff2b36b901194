"""The inputs and outputs of every stage of a model, in one real pass."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.inspection.recording import Recorder, tensors_in
from vitreous.inspection.stages import Stage, build_stages, measure
from vitreous.inspection.table import html_table, lay_out, plain_table
from vitreous.model.variants import variant
from vitreous.model.vit import VisionTransformer

DEFAULT_LEVEL = 3  # for a VisionTransformer: 1 the boxes of Figure 1, 2 blocks, 3 inside them, 4 inside their parts


@dataclass(frozen=True)
class Trace:
    """One pass of a model, stage by stage; print it, or show it in a notebook.

    Attributes:
        model: class of the inspected module.
        boxes: the outermost stages in order of execution, each with its parts.
        output: the result of the pass.
        images: size of the batch; all multiply-adds are per image. None if the input is not a batch of images or
            tokens: then they are for the whole pass.
        training: whether layers such as dropout were active.
        level: depth of the rows.
    """

    model: str
    boxes: tuple[Stage, ...]
    output: Any = field(repr=False, compare=False)
    images: int | None
    training: bool
    level: int = DEFAULT_LEVEL

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The rows of this level; their parameters and multiply-adds sum to the totals."""
        return tuple(row for box in self.boxes for row in box.at(self.level - 1))

    @property
    def total_parameters(self) -> int:
        """The number of the model's parameters."""
        return sum(box.parameters for box in self.boxes)

    @property
    def total_multiply_adds(self) -> int:
        """Executed multiply-adds of matrix products and convolutions; a FLOP count is twice that."""
        return sum(box.multiply_adds for box in self.boxes)

    @property
    def notes(self) -> list[str]:
        """Footnotes of the table."""
        per = "the whole pass" if self.images is None else "one image" if self.images == 1 else "each image"
        notes = [f"Multiply-adds are those of {per}, in matrix products and convolutions; FLOPs are twice that."]
        rows = [row for level in range(1, self.level + 1) for row in replace(self, level=level).stages]
        noted = dict.fromkeys(f"{row.path or row.name}: {row.note}." for row in rows if row.note)
        notes += noted
        if self.training:
            notes.append(
                "The model is in training mode, with dropout and the like active; model.eval() turns them off."
            )
        return notes

    def at_level(self, level: int) -> "Trace":
        """The same pass, shown at another depth.

        Raises:
            ValueError: the level is below 1.
        """
        if level < 1:
            raise ValueError(f"level is {level}; it must be 1 (outermost) or more")
        return replace(self, level=level)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the output as plain JSON values, at all levels."""
        return {
            "model": self.model,
            "images": self.images,
            "training": self.training,
            "total_parameters": self.total_parameters,
            "total_multiply_adds": self.total_multiply_adds,
            "stages": [stage_to_dict(box, self) for box in self.boxes],
            "notes": self.notes,
        }

    def __str__(self) -> str:
        return plain_table(lay_out(self))

    def _repr_html_(self) -> str:
        return html_table(lay_out(self, width=None))


def inspect(model: nn.Module | str, *inputs: Any, level: int = DEFAULT_LEVEL, values: bool = True) -> Trace:
    """Runs a model or a single layer and returns the inputs and outputs of every stage.

    It is a real pass, without gradients, in the model's current mode (training or evaluation), and leaves the model
    unchanged. Shapes, costs and statistics are kept, not the tensors.

    Args:
        model: any module, or the name of a variant such as "B/16", built with fresh weights.
        inputs: arguments of the model. By default a VisionTransformer gets a random image of its size; a variant given
            by name is then run without memory or arithmetic, for shapes and costs only.
        level: depth of the rows; see `Trace.at_level`.
        values: whether to compute statistics of each stage's output.

    Raises:
        ValueError: no input for a module other than a VisionTransformer, an unknown variant, or an error of the model.
    """
    if isinstance(model, str):
        model = named(model, on_meta=not inputs)
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper hides the modules
    inputs = inputs or (random_image(model),)
    recorder = Recorder(model, observe=measure if values else None)
    output = recorder.run(*inputs)
    images, events = batch_size(model, inputs), [*recorder.root.walk()]
    if images and all(event.multiply_adds % images == 0 for event in events):
        for event in events:
            event.multiply_adds //= images
    else:
        images = None
    return Trace(type(model).__name__, build_stages(recorder), output, images, is_training(model)).at_level(level)


def is_training(model: nn.Module) -> bool:
    """Whether some layer behaves as it would not in evaluation mode."""
    rates = ("p", "rate", "dropout")  # of nn.Dropout, StochasticDepth and nn.MultiheadAttention
    return any(
        m.training
        and (
            isinstance(m, nn.modules.batchnorm._BatchNorm)
            or any(isinstance(rate := getattr(m, name, 0), float) and rate > 0 for name in rates)
        )
        for m in model.modules()
    )


def named(name: str, on_meta: bool) -> VisionTransformer:
    """Builds a variant by name, in evaluation mode, with the same fresh weights each time."""
    config = variant(name)
    with torch.random.fork_rng(devices=[]), torch.device("meta" if on_meta else "cpu"):
        torch.manual_seed(0)
        return VisionTransformer(config).eval()


def random_image(model: nn.Module) -> Tensor:
    """One image of uniform noise in [-1, 1], of the model's image size; the same each time.

    Raises:
        ValueError: not a VisionTransformer, so the input is unknown.
    """
    if not isinstance(model, VisionTransformer):
        raise ValueError(f"{type(model).__name__} needs an input: inspect(layer, x)")
    parameter = next(model.parameters())
    shape = (1, model.config.channels, *model.config.image_size)
    if parameter.is_meta:
        return torch.empty(shape, dtype=parameter.dtype, device="meta")
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return noise.to(parameter.device, parameter.dtype)


def batch_size(model: nn.Module, inputs: Sequence[Any]) -> int | None:
    """The number of images or sequences of tokens in the input; None if it is neither."""
    batch = next(tensors_in(list(inputs)), None)
    ours = type(model).__module__.startswith("vitreous.")
    return len(batch) if batch is not None and (batch.ndim == 4 or (ours and batch.ndim == 3)) else None


def stage_to_dict(stage: Stage, trace: Trace) -> dict[str, Any]:
    """A stage as plain JSON values, with its shares of the totals and its parts; NaN and infinity become null."""
    values = {f.name: getattr(stage, f.name) for f in fields(stage) if f.name != "value"}
    for name in ("input_shape", "output_shape"):
        values[name] = None if values[name] is None else list(values[name])
    if stage.statistics:
        values["statistics"] = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in asdict(stage.statistics).items()
        }
    values["parts"] = [stage_to_dict(part, trace) for part in stage.parts]
    totals = {"parameters": trace.total_parameters, "multiply_adds": trace.total_multiply_adds}
    return values | {f"{name}_share": values[name] / total if total else 0.0 for name, total in totals.items()}
