"""Multi-head self-attention (equations 5 to 8)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.config import PAPER, BlockOptions, QKVBias, check_heads
from vitreous.model.norm import norm
from vitreous.model.shapes import AttentionBias, AttentionMap, Heads, Queries, QueryHeads, Tokens


class BlockPositions:
    """What positions add inside one encoder block (appendix D.4); this base class adds nothing.

    Every use of positions inside the encoder goes through these methods.
    """

    def tokens(self, x: Tokens) -> Tokens:
        """Adds positions to the block's input."""
        return x

    def rotate(self, q: QueryHeads, k: Heads) -> tuple[QueryHeads, Heads]:
        """Rotates queries and keys by their positions; the queries are the first tokens."""
        return q, k

    def bias(self, q: QueryHeads) -> AttentionBias | None:
        """Computes what is added to the attention logits q kᵀ / √D_h; None for nothing."""
        return None


NO_POSITIONS = BlockPositions()


class QKV(nn.Linear):
    """U_qkv (equation 5): the projection to q of all heads, then k, then v; with "no_key" the bias has only q and v."""

    def __init__(self, width: int, kind: QKVBias = "all") -> None:
        super().__init__(width, 3 * width, bias=kind == "all")
        self.kind = kind
        if kind == "no_key":
            self.bias = nn.Parameter(torch.empty(2 * width))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.whole_bias())

    def whole_bias(self) -> Tensor | None:
        """Returns the bias of q, k and v; None if there is none."""
        if self.kind != "no_key":
            return self.bias
        q, v = self.bias.chunk(2)
        return torch.cat([q, torch.zeros_like(q), v])


class SelfAttention(nn.Module):
    """Multi-head self-attention, MSA(z) (equations 5 to 8).

    `forward` uses PyTorch's fused kernel and never builds the map A; `weights` computes A separately.

    Args:
        width: D, numbers in each token.
        num_heads: k, a divisor of the width; each head has D_h = D / k numbers.
        dropout: rate after the output projection, in training (none after qkv, appendix B.1).
        options: here biases, norms of q and k, and the norm of the joined heads.

    Raises:
        InputError: the number of heads does not divide the width.
    """

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0, options: BlockOptions = PAPER) -> None:
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads, self.normed = num_heads, options.query_key_norm
        self.qkv = QKV(width, options.qkv_bias)
        normed_width = {"none": None, "head": width // num_heads, "width": width}[self.normed]
        self.query_norm, self.key_norm = norm(normed_width, options), norm(normed_width, options)
        self.norm = norm(width if options.attention_inner_norm else None, options)
        self.out = nn.Linear(width, width, bias=options.dense_bias)  # U_msa
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
            positions: may rotate q and k, and add to the logits.
        """
        q, k, v = self.project(x, queries, positions)
        # softmax(q kᵀ / √D_h) v, equations 6 and 7
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=positions.bias(q))
        joined = heads.transpose(1, 2).flatten(2)  # batch queries (heads head_dim)
        return self.dropout(self.out(self.norm(joined)))

    def weights(self, x: Tokens, positions: BlockPositions = NO_POSITIONS) -> AttentionMap:
        """Computes A = softmax(q kᵀ / √D_h) (equation 6): row i is where token i looks; it sums to 1."""
        q, k, _ = self.project(x, positions=positions)
        logits = q @ k.mT / math.sqrt(q.shape[-1])
        if (bias := positions.bias(q)) is not None:
            logits = logits + bias
        return logits.softmax(dim=-1)

    def project(
        self, x: Tokens, queries: Queries | None = None, positions: BlockPositions = NO_POSITIONS
    ) -> tuple[QueryHeads, Heads, Heads]:
        """Computes [q, k, v] = z U_qkv (equation 5), split into heads; q and k normalized and rotated, if at all."""
        if queries is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            width, bias = x.shape[-1], self.qkv.whole_bias()
            first, rest = (None, None) if bias is None else (bias[:width], bias[width:])
            q = F.linear(queries, self.qkv.weight[:width], first)
            k, v = F.linear(x, self.qkv.weight[width:], rest).chunk(2, dim=-1)
        if self.normed == "width":
            q, k = self.query_norm(q), self.key_norm(k)
        q, k, v = self._split_heads(q), self._split_heads(k), self._split_heads(v)
        if self.normed == "head":
            q, k = self.query_norm(q), self.key_norm(k)
        return *positions.rotate(q, k), v

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # batch heads tokens head_dim
