"""From tokens to classes: pooling and the MLP head (equation 4 and section 3.1)."""

import torch
from torch import nn

from vitreous.model import initialization
from vitreous.model.attention import SelfAttention
from vitreous.model.config import PAPER, BlockOptions
from vitreous.model.mlp import MLP
from vitreous.model.norm import norm
from vitreous.model.shapes import Logits, Queries, Representation, Tokens
from vitreous.support.errors import InputError


class ClassTokenPooling(nn.Module):
    """The class token, z_L^0 (equation 4)."""

    def forward(self, x: Queries) -> Representation:
        return x[:, 0]


class MeanPooling(nn.Module):
    """The mean of the patches, without the prefix tokens (appendix D.3)."""

    def __init__(self, prefix_tokens: int = 0) -> None:
        super().__init__()
        self.prefix_tokens = prefix_tokens

    def forward(self, x: Tokens) -> Representation:
        return x[:, self.prefix_tokens :].mean(dim=1)


class ClassTokenAndMeanPooling(MeanPooling):
    """The class token and the mean of the patches, joined: 2D numbers (DINOv2's linear classifiers)."""

    def forward(self, x: Tokens) -> Representation:
        return torch.cat([x[:, 0], super().forward(x)], dim=1)


class AttentionPooling(nn.Module):
    """A learned probe attends to all tokens, followed by an MLP with a skip connection (arXiv 2106.04560, MAP head).

    Args:
        width: D.
        num_heads: k.
        mlp_dim: width of the MLP's hidden layer.
        options: here the MLP's GELU, and the norm before it.
    """

    def __init__(self, width: int, num_heads: int, mlp_dim: int, options: BlockOptions = PAPER) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.attention = SelfAttention(width, num_heads, options=options)
        self.norm = norm(width, options)
        self.mlp = MLP(width, mlp_dim, options=options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        initialization.probe_(self.probe)

    def forward(self, x: Tokens) -> Representation:
        """Returns one vector per image."""
        x = self.attention(x, queries=self.probe.to(x.dtype).expand(x.shape[0], -1, -1))
        x = x + self.mlp(self.norm(x))
        return x[:, 0]


class Head(nn.Module):
    """Pooling, an optional hidden layer with tanh (pre-training only), and the linear classifier.

    Args:
        width: D, or 2D after ClassTokenAndMeanPooling.
        num_classes: K; 0 for no classifier.
        pooling: tokens to one vector; the class token if None.
        norm: the final norm, if it comes after the pooling.
        hidden_dim: width of the tanh hidden layer; None for no hidden layer.
        bias: whether the classifier has a bias.
        distillation: adds a second classifier, on the second token (arXiv 2012.12877).
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        pooling: nn.Module | None = None,
        norm: nn.Module | None = None,
        hidden_dim: int | None = None,
        bias: bool = True,
        distillation: bool = False,
    ) -> None:
        super().__init__()
        self.pooling = ClassTokenPooling() if pooling is None else pooling
        self.norm = nn.Identity() if norm is None else norm
        self.hidden = None if hidden_dim is None else nn.Linear(width, hidden_dim)
        features = hidden_dim or width
        self.classifier = nn.Linear(features, num_classes, bias=bias) if num_classes else None
        with_second = distillation and num_classes
        self.distillation = nn.Linear(features, num_classes, bias=bias) if with_second else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zeros the classifiers and draws the hidden layer."""
        for classifier in (self.classifier, self.distillation):
            if classifier is not None:
                for parameter in classifier.parameters():
                    initialization.zeros_(parameter)
        if self.hidden is not None:
            initialization.dense_(self.hidden)

    @property
    def read(self) -> int | None:
        """The number of leading tokens that the head reads; None for all."""
        if not isinstance(self.pooling, ClassTokenPooling):
            return None
        return 1 if self.distillation is None else 2

    def representation(self, x: Queries) -> Representation:
        """Computes y (equation 4)."""
        return self.norm(self.pooling(x))

    def forward(self, x: Queries) -> Logits:
        """Computes the logits; with a distillation token, the mean of both classifiers' logits.

        Without a classifier, returns its input.
        """
        if self.distillation is not None:
            first, second = self.both(x)
            return (first + second) / 2
        y = self.representation(x)
        if self.hidden is not None:
            y = torch.tanh(self.hidden(y))
        return y if self.classifier is None else self.classifier(y)

    def both(self, x: Queries) -> tuple[Logits, Logits]:
        """Computes the logits of the class token and of the distillation token.

        Raises:
            InputError: there is no distillation token.
        """
        if self.classifier is None or self.distillation is None:
            raise InputError("this head has no distillation token", "set distillation_token=True in the config")
        return self.classifier(self.representation(x)), self.distillation(self.norm(x[:, 1]))
