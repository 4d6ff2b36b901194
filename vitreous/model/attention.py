"""Multi-head self-attention (equations 5 to 8)."""

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.config import check_heads
from vitreous.model.shapes import AttentionMap, Heads, Queries, QueryHeads, Tokens

# Gives what relative positions add to the logits q kᵀ / √D_h, of shape "batch heads queries tokens".
PositionBias = Callable[[Tensor], Tensor]


class SelfAttention(nn.Module):
    """Multi-head self-attention, MSA(z) (equations 5 to 8).

    The pass itself uses PyTorch's fused kernel and never builds the map A; `weights` computes A beside it.

    Args:
        width: D, numbers in each token.
        num_heads: k, a divisor of the width; each head works on D_h = D / k numbers.
        dropout: rate after the output projection, in training (there is none after qkv, appendix B.1).

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
        """Draws the first weights."""
        initialization.stacked_(self.qkv, parts=3)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tokens, queries: Queries | None = None, position_bias: PositionBias | None = None) -> Queries:
        """Lets tokens attend to tokens.

        Args:
            x: the tokens that keys and values come from.
            queries: the tokens that look, if not x itself (the first few of x, or a probe).
            position_bias: relative positions, added to the logits.

        Returns:
            One token for each query.
        """
        q, k, v = self.project(x, queries)
        bias = None if position_bias is None else position_bias(q)
        # softmax(q kᵀ / √D_h) v, equations 6 and 7
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        joined = heads.transpose(1, 2).flatten(2)  # batch queries (heads head_dim)
        return self.dropout(self.out(joined))

    def weights(self, x: Tokens, position_bias: PositionBias | None = None) -> AttentionMap:
        """Computes A = softmax(q kᵀ / √D_h) itself (equation 6): row i is where token i looks; it sums to 1."""
        q, k, _ = self.project(x)
        logits = q @ k.mT / math.sqrt(q.shape[-1])
        if position_bias is not None:
            logits = logits + position_bias(q)
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
