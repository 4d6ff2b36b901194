"""`python -m experiments.timm_script DATA`: timm's model trained with timm's parts, on one CPU thread.

timm's training script is not in its package, so this is its loop with the same parts: dataset, loader with its
augmentation, loss, optimizer and schedule. It keeps the script's defaults (crops of 8 to 100 % of the area, flips,
color jitter 0.4, label smoothing 0.1, a batch of 128, cosine after a warmup, the best weights on validation), with two
changes that favor timm in so short a run: AdamW with lr 1e-3 and weight decay 0.05 replaces SGD, and the rate changes
with every update instead of every epoch.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from experiments.results import METRICS, best_row, write_facts

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler

SIDE, PATCH, WIDTH, DEPTH, HEADS = 32, 4, 128, 6, 4
BATCH = 128
LR, WEIGHT_DECAY, SMOOTHING = 1e-3, 0.05, 0.1
WARMUP_SHARE, WARMUP_LR = 5, 1e-5  # a fifth of the epochs, as in vitreous recipes this short
SPLITS = ("train", "validation", "test")


def parser() -> argparse.ArgumentParser:
    """The options of the program."""
    options = argparse.ArgumentParser(prog="python -m experiments.timm_script", description="Trains timm's own model.")
    options.add_argument("data", type=Path, help="a folder with train/, validation/ and test/")
    options.add_argument("--epochs", type=int, required=True)
    options.add_argument("--steps", type=int, default=sys.maxsize, help="updates of an epoch, at most")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--out", type=Path, default=Path("runs", "timm"), help="a folder for facts.json and metrics.jsonl"
    )
    return options


def main(arguments: list[str]) -> None:
    """Trains, keeps the best weights on validation, and evaluates them on test."""
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import random_seed

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    random_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    train, validation, test = (make_loader(options.data / split, split == "train") for split in SPLITS)
    model = make_model(len(train.dataset.reader.class_to_idx))
    optimizer = create_optimizer_v2(model, opt="adamw", lr=LR, weight_decay=WEIGHT_DECAY)
    per_epoch = min(len(train), options.steps)
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=options.epochs, warmup_epochs=options.epochs // WARMUP_SHARE,
        warmup_lr=WARMUP_LR, step_on_epochs=False, updates_per_epoch=per_epoch,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    kept = {}
    for epoch in range(1, options.epochs + 1):
        loss = train_epoch(model, train, optimizer, schedule, first_step=(epoch - 1) * per_epoch, steps=per_epoch)
        val_loss, correct, count = evaluate(model, validation)
        row = {"epoch": epoch, "train_loss": loss, "val_loss": val_loss, "val_accuracy": correct / count}
        row["seconds"] = time.perf_counter() - started
        rows.append(row)
        with (options.out / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if best_row(rows) is row:
            kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    _, correct, count = evaluate(model, test)
    seen = options.epochs * per_epoch * BATCH  # the loader drops an epoch's last, smaller batch
    write_facts(options.out, "test", correct, count, best_epoch=best_row(rows)["epoch"], images_seen=seen)


def make_model(classes: int) -> nn.Module:
    """Timm's Vision Transformer with its defaults: a class token and learned positions."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=classes
    )


def make_loader(folder: Path, is_training: bool) -> Any:
    """Timm's loader of a folder of classes."""
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(folder), is_training=is_training)
    return create_loader(
        dataset, (3, SIDE, SIDE), BATCH, is_training=is_training, num_workers=0, device=torch.device("cpu"),
        use_prefetcher=False, interpolation="random" if is_training else "bicubic", crop_pct=1.0,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip


def train_epoch(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    schedule: "Scheduler",
    first_step: int,
    steps: int,
) -> float:
    """Makes the updates of an epoch; returns the mean loss."""
    from timm.loss import LabelSmoothingCrossEntropy

    model.train()
    objective, total, count = LabelSmoothingCrossEntropy(SMOOTHING), 0.0, 0
    for step, (images, labels) in zip(range(steps), loader, strict=False):
        loss = objective(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step_update(first_step + step + 1)
        total, count = total + loss.item() * len(labels), count + len(labels)
    return total / count


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, int, int]:
    """The mean cross-entropy on a split, its correct images, and all of them."""
    model.eval()
    total, correct, count = 0.0, 0, 0
    for images, labels in loader:
        logits = model(images)
        total += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    return total / count, correct, count


if __name__ == "__main__":
    main(sys.argv[1:])
