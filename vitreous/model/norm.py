"""The norms of the encoder: LayerNorm in the paper, RMSNorm in some later architectures."""

from torch import Tensor, nn

from vitreous.model.config import PAPER, BlockOptions


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the precision of its weight, as LayerNorm under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


def norm(width: int | None, options: BlockOptions = PAPER) -> nn.Module:
    """Returns the norm of the last axis, of this width; no norm for None."""
    if width is None:
        return nn.Identity()
    return (nn.LayerNorm if options.norm == "layer" else RMSNorm)(width, eps=options.norm_eps)
