"""Multi-head self-attention (equations 5 to 8)."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.config import check_heads
from vitreous.model.shapes import AttentionMap, Heads, Queries, QueryHeads, Tokens


class BlockPositions:
    """What positions add inside one encoder block (appendix D.4); this base class adds nothing.

    Every use of positions inside the encoder goes through these methods.
    """

    def tokens(self, x: Tokens) -> Tokens:
        """Adds positions to the block's input."""
        return x

    def bias(self, q: QueryHeads) -> AttentionMap | None:
        """Computes what is added to the attention logits q kᵀ / √D_h; None for nothing."""
        return None


NO_POSITIONS = BlockPositions()


class SelfAttention(nn.Module):
    """Multi-head self-attention, MSA(z) (equations 5 to 8).

    `forward` uses PyTorch's fused kernel and never builds the map A; `weights` computes A separately.

    Args:
        width: D, numbers in each token.
        num_heads: k, a divisor of the width; each head has D_h = D / k numbers.
        dropout: rate after the output projection, in training (none after qkv, appendix B.1).

    Raises:
        InputError: the number of heads does not divide the width.
    """

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)  # U_qkv; rows: q of all heads, then k, then v
        self.out = nn.Linear(width, width)  # U_msa
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        initialization.stacked_(self.qkv, parts=3)
        initialization.stacked_(self.out, parts=1)

    def forward(self, x: Tokens, queries: Queries | None = None, positions: BlockPositions = NO_POSITIONS) -> Queries:
        """Computes MSA(x), one output token per query.

        Args:
            x: the tokens attended to: the source of keys and values.
            queries: the tokens that attend, if not x itself (the first few of x, or a probe).
            positions: may add to the logits.
        """
        q, k, v = self.project(x, queries)
        # softmax(q kᵀ / √D_h) v, equations 6 and 7
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=positions.bias(q))
        joined = heads.transpose(1, 2).flatten(2)  # batch queries (heads head_dim)
        return self.dropout(self.out(joined))

    def weights(self, x: Tokens, positions: BlockPositions = NO_POSITIONS) -> AttentionMap:
        """Computes A = softmax(q kᵀ / √D_h) (equation 6): row i is where token i looks; it sums to 1."""
        q, k, _ = self.project(x)
        logits = q @ k.mT / math.sqrt(q.shape[-1])
        if (bias := positions.bias(q)) is not None:
            logits = logits + bias
        return logits.softmax(dim=-1)

    def project(self, x: Tokens, queries: Queries | None = None) -> tuple[QueryHeads, Heads, Heads]:
        """Computes [q, k, v] = z U_qkv (equation 5), split into heads."""
        if queries is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            width = x.shape[-1]
            q = F.linear(queries, self.qkv.weight[:width], self.qkv.bias[:width])
            k, v = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(2, dim=-1)
        return self._split_heads(q), self._split_heads(k), self._split_heads(v)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # batch heads tokens head_dim
