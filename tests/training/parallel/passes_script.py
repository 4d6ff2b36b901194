"""Run by torchrun on two ranks: an update of replicas and of shards beside that of one process.

The first rank prints a line of JSON for each case: its name, the relative distance of all gradients together, those of
their norm and of the loss, how often gradients were exchanged, and whether all ranks have the same weights afterwards.
"""

import json
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from vitreous.model.variants import variant
from vitreous.model.vit import VisionTransformer
from vitreous.training.learner import compile_blocks
from vitreous.training.objectives.classification import Classification, CrossEntropy
from vitreous.training.optimization.optimizer import make_optimizer
from vitreous.training.optimization.precision import HALVES, Precision
from vitreous.training.optimization.step import StepResult, Whole, train_step
from vitreous.training.parallel.group import Group
from vitreous.training.parallel.passes import ONE_PROCESS, Passes
from vitreous.training.parallel.place import Place
from vitreous.training.parallel.replicas import Replicas
from vitreous.training.parallel.shards import Shards

COUNT, CLASSES, CLIP = 11, 10, 0.5
CPU = torch.device("cpu")
PARTS = {"shared": (6, 5), "one has none": (11, 0)}  # images of each rank


class Exchanges(TorchDispatchMode):
    """Counts the sums over processes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function.namespace in ("c10d", "_c10d_functional") and "reduce" in function.name()
        return function(*arguments, **(options or {}))


class Case(NamedTuple):
    kind: str
    parts: str = "shared"
    micro_batch: int | None = None
    option: str = ""
    precision: Precision = "float32"


CASES = [
    *(Case(kind, parts, size) for kind in ("ddp", "fsdp") for parts in PARTS for size in (None, 2)),
    *(Case(kind, "shared", 2, "checkpointed") for kind in ("ddp", "fsdp")),
    *(Case(kind, "shared", 2, "unused") for kind in ("ddp", "fsdp")),
    *(Case(kind, "shared", 2, "sgd") for kind in ("ddp", "fsdp")),
    *(Case(kind, "shared", 2, precision="bfloat16") for kind in ("ddp", "fsdp")),
    *(Case(kind, "shared", 2, "compiled") for kind in ("ddp", "fsdp")),
]


def made(option: str) -> tuple[VisionTransformer, Classification]:
    """The same model each time."""
    torch.manual_seed(0)
    model = VisionTransformer(variant("Ti/16", image_size=32, num_classes=CLASSES, depth=2, width=48, num_heads=2))
    nn.init.normal_(model.head.classifier.weight, std=0.1)
    model.encoder.checkpoint_activations = option == "checkpointed"
    if option == "unused":
        model.unused = nn.Linear(3, 3)
    return model.train(), Classification(CrossEntropy())


def update(
    case: Case, passes: Passes, model: VisionTransformer, objective: Classification, start: int, count: int
) -> tuple[StepResult, list[Tensor]]:
    """One update with some of the images, and its gradients, whole."""
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(COUNT, 3, 32, 32, generator=generator), torch.arange(COUNT) % CLASSES
    own = slice(start, start + count)
    whole = Whole(
        COUNT, COUNT if passes is ONE_PROCESS else max(PARTS[case.parts]), (torch.zeros(1, 3, 32, 32), labels[:1])
    )
    algorithm = "sgd" if case.option == "sgd" else "adamw"
    optimizer = make_optimizer(model, objective, algorithm=algorithm, lr=1e-3, weight_decay=0.1)
    gradients: list[Tensor] = []
    step = optimizer.step

    def recording(*arguments: Any) -> None:
        for parameter in model.parameters():
            gradient = parameter.grad
            if gradient is not None:
                gradients.append(
                    (gradient.full_tensor() if isinstance(gradient, DTensor) else gradient).clone().flatten()
                )
        step(*arguments)

    optimizer.step = recording  # type: ignore[method-assign]
    result = train_step(
        model, optimizer, objective, images[own], labels[own], lr=1e-3, clip_norm=CLIP, micro_batch=case.micro_batch,
        precision=case.precision, passes=passes, whole=whole,
    )  # fmt: skip
    return result, gradients


def spread(case: Case, model: VisionTransformer, objective: Classification) -> Passes:
    """The model as replicas or shards."""
    if case.kind == "ddp":
        return Replicas(model, objective, has_unused=case.option == "unused")
    return Shards(model, objective, device=CPU, precision=HALVES.get(case.precision))


def distance(case: Case, group: Group) -> dict[str, Any]:
    """What the update of two ranks differs by from that of one process."""
    alone = made(case.option)
    expected, theirs = update(case, ONE_PROCESS, *alone, 0, COUNT)
    model, objective = made(case.option)
    if case.option == "compiled":
        compile_blocks(model)
    passes = spread(case, model, objective)
    counts = PARTS[case.parts]
    with ExitStack() as stack:
        exchanged = stack.enter_context(Exchanges()) if case.option != "compiled" else None
        result, ours = update(case, passes, model, objective, sum(counts[: group.rank]), counts[group.rank])
    weights = passes.gathered(model, objective)
    numbers = torch.cat([parameter.detach().flatten() for parameter in weights[0].parameters()])
    both = torch.cat(theirs), torch.cat(ours)
    return {
        "case": "/".join(map(str, case)),
        "gradients": float((both[1] - both[0]).norm() / both[0].norm()),
        "norm": abs(float(result.grad_norm / expected.grad_norm) - 1),
        "loss": abs(float(result.loss / expected.loss) - 1),
        "count": int(result.count),
        "weights": float((numbers - torch.cat([p.detach().flatten() for p in alone[0].parameters()])).abs().max()),
        "same": len(set(group.gather(numbers.double().sum().item()))) == 1,
        "sums": 0 if exchanged is None else exchanged.count,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with Group(Place.here()) as group:
        for case in CASES:
            found = distance(case, group)
            if group.leads:
                print(json.dumps(found), flush=True)
