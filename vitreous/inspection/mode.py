"""Context manager: evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from vitreous.model.encoder import Encoder


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode with all activations kept, and restores every module's state afterwards."""
    modules = list(model.modules())
    switches = [(m, "training") for m in modules if m.training]
    switches += [(m, "checkpoint_activations") for m in modules if isinstance(m, Encoder) and m.checkpoint_activations]
    try:
        for module, name in switches:
            setattr(module, name, False)
        yield
    finally:
        for module, name in switches:
            setattr(module, name, True)
