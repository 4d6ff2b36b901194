"""A Vision Transformer in many layouts, right and wrong, each part written as a learner would write it."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from vitreous.model.vit import VisionTransformer


class Patches(nn.Module):
    """Image to tokens."""

    def __init__(self, embedding, how):
        super().__init__()
        self.how, self.size = how, embedding.patch_size
        weight, bias = embedding.projection.weight.detach(), embedding.projection.bias.detach()
        kernel = weight.unflatten(1, (embedding.channels, *self.size))
        if how in ("unfold", "pixels last"):
            self.linear = nn.Linear(weight.shape[1], len(weight))
            last = kernel.permute(0, 2, 3, 1).flatten(1)  # rows, columns, channels
            self.linear.weight.data, self.linear.bias.data = last if how == "pixels last" else weight, bias
        else:
            self.conv = nn.Conv2d(embedding.channels, len(weight), self.size, self.size)
            self.conv.weight.data, self.conv.bias.data = kernel, bias

    def forward(self, images):
        b, c, h, w = images.shape
        p, q = self.size
        if self.how == "unfold":
            return self.linear(F.unfold(images, self.size, stride=self.size).transpose(1, 2))
        if self.how == "pixels last":
            cut = images.reshape(b, c, h // p, p, w // q, q).permute(0, 2, 4, 3, 5, 1)
            return self.linear(cut.reshape(b, -1, p * q * c))
        x = self.conv(images)
        if self.how == "reshaped":
            return x.reshape(b, -1, x.shape[1])
        if self.how == "by column":
            return x.permute(0, 3, 2, 1).flatten(1, 2)
        if self.how == "channels last":
            return x.permute(0, 2, 3, 1).reshape(b, -1, x.shape[1])
        return x.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Attention with q, k and v in one layer or three, and heads in several layouts."""

    def __init__(self, ours, how):
        super().__init__()
        self.how, self.heads = how, ours.num_heads
        self.qkv = copy.deepcopy(ours.qkv)
        self.project = copy.deepcopy(ours.out)
        if how == "packed by head":
            for tensor in self.qkv.parameters():
                tensor.data = tensor.data.unflatten(0, (3, self.heads, -1)).transpose(0, 1).flatten(0, 2).contiguous()
        if how in ("separate", "einsum", "folded", "interleaved", "reshaped", "reshaped twice"):
            parts = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
            del self.qkv
            self.q, self.k, self.v = (layer_of(weight, bias) for weight, bias in parts)

    def forward(self, z):
        b, n, d = z.shape
        h = self.heads
        if hasattr(self, "q"):
            return self.project(self.mix(self.q(z), self.k(z), self.v(z)))
        qkv = self.qkv(z)
        if self.how == "packed by head":
            q, k, v = qkv.view(b, n, h, 3, d // h).permute(3, 0, 2, 1, 4)
        elif self.how == "3 first":
            q, k, v = qkv.reshape(b, 3, h, n, d // h).unbind(1)
        elif self.how == "batch second":
            q, k, v = qkv.reshape(3, b, h, n, d // h)
        elif self.how == "tokens third":
            q, k, v = qkv.reshape(b, h, n, 3 * d // h).chunk(3, dim=-1)
        else:
            q, k, v = qkv.reshape(b, n, 3, h, d // h).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        if self.how == "joined by reshape":
            return self.project(x.reshape(b, n, d))
        if self.how == "joined by channel":
            return self.project(x.permute(0, 2, 3, 1).reshape(b, n, d))
        return self.project(x.transpose(1, 2).reshape(b, n, d))

    def mix(self, q, k, v):
        b, n, d = q.shape
        h = self.heads
        if self.how == "einsum":
            q, k, v = (x.reshape(b, n, h, d // h) for x in (q, k, v))
            weights = torch.einsum("bihd,bjhd->bhij", q, k) / (d // h) ** 0.5
            return torch.einsum("bhij,bjhd->bihd", weights.softmax(-1), v).flatten(2)
        if self.how == "folded":  # heads in the axis of the batch
            q, k, v = (x.reshape(b, n, h, d // h).transpose(1, 2).flatten(0, 1) for x in (q, k, v))
            x = torch.bmm((torch.bmm(q, k.mT) / (d // h) ** 0.5).softmax(-1), v)
            return x.view(b, h, n, d // h).transpose(1, 2).flatten(2)
        if self.how == "interleaved":
            q, k, v = (x.reshape(b, n, d // h, h).permute(0, 3, 1, 2) for x in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v).permute(0, 2, 3, 1).reshape(b, n, d)
        if self.how == "separate":
            q, k, v = (x.view(b, n, h, d // h).transpose(1, 2) for x in (q, k, v))
        else:
            q, k, v = (x.view(b, h, n, d // h) for x in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v)
        return (x if self.how == "reshaped twice" else x.transpose(1, 2)).reshape(b, n, d)


class TorchAttention(nn.Module):
    """PyTorch's layer, batch or sequence first."""

    def __init__(self, ours, sequence_first):
        super().__init__()
        width = ours.out.in_features
        self.attend = nn.MultiheadAttention(width, ours.num_heads, batch_first=not sequence_first)
        self.attend.in_proj_weight.data, self.attend.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
        self.attend.out_proj.load_state_dict(ours.out.state_dict())

    def forward(self, z):
        return self.attend(z, z, z, need_weights=False)[0]


class Added(nn.Module):
    """A layer with its skip connection inside."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return x + self.layer(x)


class Normed(nn.Module):
    """A branch with norm and skip connection inside, which is right in a block that adds nothing."""

    def __init__(self, norm, layer):
        super().__init__()
        self.norm, self.layer = norm, layer

    def forward(self, x):
        return x + self.layer(self.norm(x))


class Block(nn.Module):
    """Attention, then the MLP."""

    def __init__(self, ours, attention, block, exact):
        super().__init__()
        gelu = nn.GELU() if exact else nn.GELU(approximate="tanh")
        attention = (
            TorchAttention(ours.attention, attention == "torch sequence first")
            if attention.startswith("torch")
            else Attention(ours.attention, attention)
        )
        mlp = nn.Sequential(copy.deepcopy(ours.mlp.fc1), gelu, copy.deepcopy(ours.mlp.fc2))
        one, two = copy.deepcopy(ours.attention_norm), copy.deepcopy(ours.mlp_norm)
        two = {"first norm twice": one}.get(block, two)
        one = {"second norm twice": two}.get(block, one)
        self.how = block
        if block == "branches":
            self.first, self.second = Normed(one, attention), Normed(two, mlp)
            return
        self.norm1, self.norm2 = one, two
        self.attention = Added(attention) if block in ("attention adds", "attention adds alone") else attention
        self.mlp = Added(mlp) if block == "mlp adds" else mlp

    def forward(self, x):
        if self.how == "branches":
            return self.second(self.first(x))
        x = self.attention(self.norm1(x)) + (0 if self.how == "attention adds alone" else x)
        if self.how == "dropout":
            x = F.dropout(x, 0.2)
        return x + self.mlp(self.norm2(x))


class Variant(nn.Module):
    """The whole model with the weights of ours, its parts in other layouts."""

    def __init__(self, ours: VisionTransformer, patches="conv", attention="fused", block="", model="", exact=False):
        super().__init__()
        self.model = model
        self.to_tokens = Patches(ours.patch_embedding, patches)
        rows = 2 if model == "class token per image" else 1
        token = None if ours.class_token is None else ours.class_token.detach().repeat(rows, 1, 1)
        self.cls = None if token is None else nn.Parameter(token + torch.randn(token.shape) * (rows > 1))
        self.pos = nn.Parameter(ours.position_embedding.embedding.detach().clone())
        self.sequence_first = attention == "torch sequence first"
        layers = [Block(layer, attention, block, exact) for layer in ours.encoder.blocks]
        self.layers = nn.ModuleList(layers[-1:] * len(layers) if model == "one block" else layers)
        self.norm = copy.deepcopy(ours.encoder.norm)
        self.classify = copy.deepcopy(ours.head.classifier)

    def forward(self, images):
        x = self.to_tokens(images)
        if self.cls is not None:
            cls = self.cls if len(self.cls) > 1 else self.cls.expand(len(x), -1, -1)
            x = torch.cat([cls, x], dim=1)
        x = x + self.pos
        x = x.transpose(0, 1) if self.sequence_first else x
        for layer in [self.layers[0]] * len(self.layers) if self.model == "first block" else self.layers:
            x = layer(x)
        x = x.transpose(0, 1) if self.sequence_first else x
        if self.model == "mean, then norm":
            return self.classify(self.norm(x[:, self.cls is not None :].mean(1)))
        if self.model == "mean of all, then norm":
            return self.classify(self.norm(x.mean(1)))
        x = self.norm(x)
        return self.classify(x.mean(1) if self.cls is None else x[:, 0])


def layer_of(weight, bias):
    layer = nn.Linear(weight.shape[1], len(weight))
    layer.weight.data, layer.bias.data = weight.detach().clone(), bias.detach().clone()
    return layer
