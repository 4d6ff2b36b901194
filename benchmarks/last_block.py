"""How much time it saves that the last block computes only the token that the head reads.

Both ways alternate in one process on the same model, in one thread and by processor time, which is not affected by
other work on the machine; the figure is the median of the pairs' ratios, with its quartiles.

    python -m benchmarks.last_block
"""

import statistics
from collections.abc import Callable
from functools import partial
from time import process_time

import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.model.vit import VisionTransformer
from vitreous.support.host import tune_host

PAIRS = 15
VARIANT = "Ti/16"


def seconds(call: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = process_time()
    call()
    return process_time() - start


def saved(shortcut: Callable[[], object], full: Callable[[], object]) -> list[float]:
    """The share of the time that the shortcut saves, for each of the pairs, in order of size."""
    shortcut(), full()
    shares = []
    for pair in range(PAIRS):
        order = (shortcut, full) if pair % 2 else (full, shortcut)
        times = {call: seconds(call) for call in order}
        shares.append(1 - times[shortcut] / times[full])
    return sorted(shares)


def line(what: str, shares: list[float]) -> str:
    """One row of the table."""
    low, middle, high = statistics.quantiles(shares, n=4)
    return f"{VARIANT} {what:<28} {middle:6.1%} less time (quartiles {low:.1%} to {high:.1%}, {PAIRS} pairs)"


def main() -> None:
    """Measures inference and a training step."""
    tune_host(threads=1)
    torch.manual_seed(0)
    model = VisionTransformer.from_variant(VARIANT, num_classes=1000)

    def all_tokens(images: Tensor) -> Tensor:
        return model.head(model.encoder(model.embed(images)))

    def step(forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> None:
        model.zero_grad()
        F.cross_entropy(forward(images), labels).backward()

    for batch in (1, 8):
        images, labels = torch.randn(batch, 3, 224, 224), torch.arange(batch)
        model.eval()
        with torch.inference_mode():
            shares = saved(partial(model, images), partial(all_tokens, images))
        print(line(f"inference, batch {batch}", shares))
        model.train()
        shares = saved(partial(step, model, images, labels), partial(step, all_tokens, images, labels))
        print(line(f"forward and backward, batch {batch}", shares))


if __name__ == "__main__":
    main()
