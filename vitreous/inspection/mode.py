"""Evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from vitreous.model.encoder import Encoder


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode with all activations kept, and restores every module's state afterwards."""
    training = [module for module in model.modules() if module.training]
    checkpointing = [m for m in model.modules() if isinstance(m, Encoder) and m.checkpoint_activations]
    try:
        for module in training:
            module.training = False
        for encoder in checkpointing:
            encoder.checkpoint_activations = False
        yield
    finally:
        for module in training:
            module.training = True
        for encoder in checkpointing:
            encoder.checkpoint_activations = True
