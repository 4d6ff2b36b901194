"""The norms of the encoder: LayerNorm in the paper, RMSNorm in some later architectures."""

from torch import nn

from vitreous.model.config import PAPER, BlockOptions


def norm(width: int | None, options: BlockOptions = PAPER) -> nn.Module:
    """Returns the norm of the last axis, of this width; no norm for None."""
    if width is None:
        return nn.Identity()
    return (nn.LayerNorm if options.norm == "layer" else nn.RMSNorm)(width, eps=options.norm_eps)
