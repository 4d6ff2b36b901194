"""The MLP of an encoder block: two dense layers with a GELU between them (equation 3)."""

import torch
from torch import nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.config import PAPER, BlockOptions, Gelu
from vitreous.model.norm import norm
from vitreous.model.shapes import Queries


class QuickGELU(nn.Module):
    """CLIP's approximation of GELU: x · sigmoid(1.702 x)."""

    def forward(self, x: Queries) -> Queries:
        return x * torch.sigmoid(1.702 * x)


def activation(gelu: Gelu) -> nn.Module:
    """Returns a GELU: "tanh" (the authors' code), "exact" (PyTorch ports) or "quick" (CLIP)."""
    return QuickGELU() if gelu == "quick" else nn.GELU(approximate="tanh" if gelu == "tanh" else "none")


class MLP(nn.Module):
    """Two dense layers with a GELU between, for each token (equation 3; dropout as in appendix B.1).

    Args:
        width: D, numbers in each token.
        mlp_dim: width of the hidden layer, 4 D in Table 1.
        dropout: rate after each dense layer, in training.
        options: here the GELU, biases and the inner norm.
    """

    def __init__(self, width: int, mlp_dim: int, dropout: float = 0.0, options: BlockOptions = PAPER) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, mlp_dim, bias=options.dense_bias)
        self.activation = activation(options.gelu)
        self.norm = norm(mlp_dim if options.mlp_inner_norm else None, options)
        self.fc2 = nn.Linear(mlp_dim, width, bias=options.dense_bias)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        initialization.mlp_(self.fc1)
        initialization.mlp_(self.fc2)

    def forward(self, x: Queries) -> Queries:
        x = self.dropout(self.activation(self.fc1(x)))
        return self.dropout(self.fc2(self.norm(x)))


class SwiGLU(nn.Module):
    """The gated MLP of DINOv2's giant: fc2(silu(a) · b) with a and b from fc1 (arXiv 2002.05202).

    Args:
        width: D, numbers in each token.
        mlp_dim: width of the hidden layer; fc1 has twice as many outputs.
        dropout: rate after each dense layer, in training.
        options: here biases and the inner norm.
    """

    def __init__(self, width: int, mlp_dim: int, dropout: float = 0.0, options: BlockOptions = PAPER) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * mlp_dim, bias=options.dense_bias)
        self.norm = norm(mlp_dim if options.mlp_inner_norm else None, options)
        self.fc2 = nn.Linear(mlp_dim, width, bias=options.dense_bias)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        initialization.stacked_(self.fc1, parts=2)
        initialization.mlp_(self.fc2)

    def forward(self, x: Queries) -> Queries:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.dropout(self.fc2(self.norm(self.dropout(F.silu(gate) * value))))
