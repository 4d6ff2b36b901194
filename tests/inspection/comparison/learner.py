"""A learner's Vision Transformer: other names, other layers, the same function; and with mistakes on purpose."""

import torch
from torch import nn
from torch.nn import functional as F

from vitreous.model.vit import VisionTransformer


class Attention(nn.Module):
    """Three separate projections, everything written out."""

    def __init__(self, dim, heads, mistake):
        super().__init__()
        self.heads, self.mistake = heads, mistake
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.project = nn.Linear(dim, dim)

    def forward(self, z):
        b, n, d = z.shape
        q, k, v = (
            layer(z).view(b, n, self.heads, d // self.heads).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        scores = q @ k.transpose(-2, -1)
        if self.mistake != "no scale":
            scores = scores / (d if self.mistake == "full width" else d // self.heads) ** 0.5
        weights = scores.softmax(dim=-2 if self.mistake == "softmax over queries" else -1)
        mixed = weights @ v
        if self.mistake != "heads not moved back":
            mixed = mixed.transpose(1, 2)
        return self.project(mixed.reshape(b, n, d))


class Layer(nn.Module):
    """One block, with a sequential MLP."""

    def __init__(self, dim, heads, hidden, mistake):
        super().__init__()
        eps = 1e-3 if mistake == "eps" else 1e-6
        self.ln_a, self.ln_b = nn.LayerNorm(dim, eps), nn.LayerNorm(dim, eps)
        self.torch_attention = mistake in ("torch attention", "batch second")
        if self.torch_attention:
            self.attn = nn.MultiheadAttention(dim, heads, batch_first=mistake != "batch second")
        else:
            self.attn = Attention(dim, heads, mistake)
        gelu = nn.GELU() if mistake == "exact gelu" else nn.GELU(approximate="tanh")
        self.feed_forward = nn.Sequential(nn.Linear(dim, hidden), gelu, nn.Linear(hidden, dim))
        self.mistake = mistake

    def attend(self, z):
        return self.attn(z, z, z, need_weights=False)[0] if self.torch_attention else self.attn(z)

    def forward(self, z):
        if self.mistake == "post-norm":
            z = self.ln_a(z + self.attend(z))
            return self.ln_b(z + self.feed_forward(z))
        attended = self.attend(self.ln_a(z))
        z = attended if self.mistake == "no residual" else z + attended
        return z + self.feed_forward(self.ln_b(z))


class LearnersViT(nn.Module):
    """Patches by a strided convolution; all tokens through all blocks."""

    def __init__(self, config, mistake=""):
        super().__init__()
        self.mistake = mistake
        dim, grid = config.width, config.grid
        self.patchify = nn.Conv2d(config.channels, dim, config.patch_size, config.patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(torch.zeros(1, grid[0] * grid[1] + 1, dim))
        self.layers = nn.ModuleList(Layer(dim, config.num_heads, config.mlp_dim, mistake) for _ in range(config.depth))
        self.last_norm = nn.LayerNorm(dim, 1e-3 if mistake == "eps" else 1e-6)
        self.to_classes = nn.Linear(dim, config.num_classes)

    def forward(self, images):
        x = self.patchify(images).flatten(2).transpose(1, 2)
        cls = self.cls.expand(len(x), -1, -1)
        if self.mistake == "class token last":
            x = torch.cat([x, cls], dim=1) + self.pos
        elif self.mistake == "positions before class token":
            x = torch.cat([cls, x + self.pos[:, 1:]], dim=1)
        elif self.mistake == "no positions":
            x = torch.cat([cls, x], dim=1)
        else:
            x = torch.cat([cls, x], dim=1) + self.pos
        for layer in self.layers:
            x = layer(x)
        if self.mistake != "no final norm":
            x = self.last_norm(x)
        if self.mistake == "mean":
            pooled = x[:, 1:].mean(dim=1)
        else:
            pooled = x[:, -1 if self.mistake == "class token last" else 0]
        logits = self.to_classes(pooled)
        return F.softmax(logits, dim=-1) if self.mistake == "softmax" else logits


@torch.no_grad()
def learners_copy(ours: VisionTransformer, mistake: str = "") -> LearnersViT:
    """The learner's model with our model's weights."""
    theirs = LearnersViT(ours.config, mistake).eval()
    projection = ours.patch_embedding.projection
    theirs.patchify.weight.copy_(projection.weight.view_as(theirs.patchify.weight))
    theirs.patchify.bias.copy_(projection.bias)
    theirs.cls.copy_(ours.class_token)
    theirs.pos.copy_(ours.position_embedding.embedding)
    for theirs_layer, block in zip(theirs.layers, ours.encoder.blocks, strict=True):
        copy_block(theirs_layer, block, mistake)
    theirs.last_norm.load_state_dict(ours.encoder.norm.state_dict())
    theirs.to_classes.load_state_dict(ours.head.classifier.state_dict())
    return theirs


def copy_block(theirs, block, mistake):
    theirs.ln_a.load_state_dict(block.attention_norm.state_dict())
    theirs.ln_b.load_state_dict(block.mlp_norm.state_dict())
    weight, bias = block.attention.qkv.weight, block.attention.qkv.bias
    if theirs.torch_attention:
        theirs.attn.in_proj_weight.copy_(weight)
        theirs.attn.in_proj_bias.copy_(bias)
        theirs.attn.out_proj.load_state_dict(block.attention.out.state_dict())
    else:
        layers = [theirs.attn.to_q, theirs.attn.to_k, theirs.attn.to_v]
        if mistake == "q and v swapped":
            layers = layers[::-1]
        for layer, w, b in zip(layers, weight.chunk(3), bias.chunk(3), strict=True):
            layer.weight.copy_(w.mT if mistake == "qkv transposed" else w)
            layer.bias.copy_(b)
        theirs.attn.project.load_state_dict(block.attention.out.state_dict())
    theirs.feed_forward[0].load_state_dict(block.mlp.fc1.state_dict())
    theirs.feed_forward[2].load_state_dict(block.mlp.fc2.state_dict())
