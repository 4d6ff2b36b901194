"""Leaves out patches in training: fewer tokens to compute, and no two steps see the same of an image."""

import torch
from torch import nn

from vitreous.model.config import check_rate
from vitreous.model.shapes import Queries, Tokens


class PatchDropout(nn.Module):
    """Keeps a random part of each image's patches, in training (arXiv 2208.07220); in evaluation all of them.

    It stands behind the positions, so that each patch still tells where it was.

    Args:
        rate: the share of the patches that is left out; of N at least one is kept.
        prefix_tokens: tokens in front of the patches, which always stay.
    """

    def __init__(self, rate: float, prefix_tokens: int = 0) -> None:
        super().__init__()
        check_rate("patch_dropout", rate)
        self.rate = rate
        self.prefix_tokens = prefix_tokens

    def forward(self, x: Tokens) -> Queries:
        """Returns the tokens in front and round((1 - rate) · N) patches, drawn for each image, in their order."""
        if not self.training or self.rate == 0:
            return x
        batch, tokens, width = x.shape
        patches = tokens - self.prefix_tokens
        count = max(1, round(patches * (1 - self.rate)))
        kept = torch.rand(batch, patches, device=x.device).topk(count, dim=1).indices.sort(dim=1).values
        front = torch.arange(self.prefix_tokens, device=x.device).expand(batch, -1)
        rows = torch.cat([front, kept + self.prefix_tokens], dim=1)
        return x.gather(1, rows[:, :, None].expand(-1, -1, width))

    def extra_repr(self) -> str:
        """Shows the rate."""
        return f"rate={self.rate}"
