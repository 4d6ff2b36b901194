"""The paper alone: "An Image is Worth 16x16 Words" (arXiv 2010.11929), Figure 1 and equations 1 to 8, in one file.

A reading copy: no switches, no options, nothing but torch. Its state dict has vitreous's names, and a test holds it
equal to the package, so weights go from one to the other.
"""

import math

import torch
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """x_p E: cut the image into N = HW / P² patches, flatten each, project it to D numbers (equation 1)."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Linear(3 * patch_size**2, width)  # E

    def forward(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        size = self.patch_size
        x = images.reshape(batch, channels, height // size, size, width // size, size)
        x = x.permute(0, 2, 4, 1, 3, 5)  # batch, rows, columns, channels, size, size
        return self.projection(x.flatten(3).flatten(1, 2))  # batch, N, D


class PositionEmbedding(nn.Module):
    """+ E_pos: a learned vector for each of the N + 1 places (equation 1)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(1, tokens, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.embedding


class SelfAttention(nn.Module):
    """MSA: every token asks (q) every token (k) and takes from what it holds (v), k heads at once (equations 5–8)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)  # U_qkv
        self.out = nn.Linear(width, width)  # U_msa

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # batch, heads, tokens, D_h
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        attention = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1)  # A, equation 6
        heads = attention @ v  # SA, equation 7
        return self.out(heads.transpose(1, 2).flatten(2))  # joined: batch, tokens, D


class MLP(nn.Module):
    """Two dense layers with a GELU between them; the authors' code has the tanh GELU."""

    def __init__(self, width: int, mlp_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, mlp_dim)
        self.activation = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(mlp_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Norm, attention, add; norm, MLP, add (equations 2 and 3)."""

    def __init__(self, width: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, mlp_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))  # z'_l, equation 2
        return x + self.mlp(self.mlp_norm(x))  # z_l, equation 3


class Encoder(nn.Module):
    """L blocks and a final norm."""

    def __init__(self, width: int, depth: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(EncoderBlock(width, num_heads, mlp_dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(x))


class VisionTransformer(nn.Module):
    """Image to class logits. ViT-B/16 (Table 1): 224, 16, 768, 12, 12, 3072, 1000."""

    def __init__(
        self, image_size: int, patch_size: int, width: int, depth: int, num_heads: int, mlp_dim: int, num_classes: int
    ) -> None:
        super().__init__()
        patches = (image_size // patch_size) ** 2  # N
        self.patch_embedding = PatchEmbedding(patch_size, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embedding = PositionEmbedding(patches + 1, width)
        self.encoder = Encoder(width, depth, num_heads, mlp_dim)
        self.head = nn.ModuleDict({"classifier": nn.Linear(width, num_classes)})

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embedding(images)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)  # [x_class; x_p E]
        x = self.position_embedding(x)  # z_0, equation 1
        y = self.encoder(x)[:, 0]  # LN(z_L^0), equation 4
        return self.head["classifier"](y)
