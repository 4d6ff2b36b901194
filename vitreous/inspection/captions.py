# ruff: noqa: RUF001 (the symbols are the paper's)
"""The name, description and equation of each stage, in the words and symbols of the paper."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from torch import nn

from vitreous.model.attention import QKV, SelfAttention
from vitreous.model.encoder import Encoder, EncoderBlock, LayerScale, PostNormBlock, StochasticDepth
from vitreous.model.head import AttentionPooling, ClassTokenAndMeanPooling, ClassTokenPooling, Head, MeanPooling
from vitreous.model.mlp import MLP, QuickGELU, SwiGLU
from vitreous.model.patch_embedding import PatchEmbedding
from vitreous.model.position_embedding import PositionEmbedding
from vitreous.model.relative_position import RelativeBias, RelativePosition
from vitreous.model.resnet_stem import Bottleneck, ResNetStem, StandardizedConv
from vitreous.model.vit import VisionTransformer


class Text(NamedTuple):
    """A stage in words: short name, description, and equation with the paper's number in brackets."""

    name: str
    what: str
    equation: str = ""


Entry = TypeVar("Entry")

IMAGE = Text("image", "the normalized pixels", "x ∈ ℝ^(H×W×C)")
NORM = "layer norm: each token gets mean 0 and variance 1, then a learned scale and shift"
RMS_NORM = "RMS norm: each token gets mean square 1, then a learned scale"
GROUP_NORM = Text("group norm", "each group of channels gets mean 0 and variance 1")
RELU = Text("ReLU", "negative values become 0", "max(x, 0)")
DROPOUT = Text("dropout", "drops values at random, in training")
MSA = "multi-head self-attention: each token gathers from all others"
BIASED = "scaled_dot_product_attention with a bias"  # a key of PARTS


def normed(attribute: str, equation: str = "", what: str = "") -> Callable[[nn.Module], Text]:
    """The caption of a norm, which is of either kind."""

    def text(parent: nn.Module) -> Text:
        rms = isinstance(getattr(parent, attribute), nn.RMSNorm)
        words = f"{'RMS' if rms else 'layer'} norm {what}" if what else RMS_NORM if rms else NORM
        return Text("norm", words, equation.replace("LN", "RMS") if rms else equation)

    return text


def in_block(name: str, what: str, equation: str) -> Callable[[nn.Module], Text]:
    """The caption of a part of a block: the equation with the block's kind of norm, and with its γ if it has one."""

    def text(parent: nn.Module) -> Text:
        assert isinstance(parent, EncoderBlock)
        own = equation.replace("LN", "RMS") if isinstance(parent.attention_norm, nn.RMSNorm) else equation
        return Text(name, what, own if isinstance(parent.attention_scale, LayerScale) else own.replace("γ ⊙ ", ""))

    return text


def mlp(equation: str) -> Callable[[nn.Module], Text]:
    """The caption of a block's MLP, which is of either kind."""

    def text(parent: nn.Module) -> Text:
        gated = isinstance(parent.get_submodule("mlp"), SwiGLU)
        what = "a gated MLP" if gated else "two dense layers with a GELU between"
        return in_block("MLP", f"{what}, for each token", equation)(parent)

    return text


def dense(attribute: str, name: str, what: str, equation: str) -> Callable[[nn.Module], Text]:
    """The caption of a dense layer: the equation ends in the bias only if the layer has one."""

    def text(parent: nn.Module) -> Text:
        bias = getattr(parent.get_submodule(attribute), "bias", None)
        return Text(name, what, equation if bias is not None else equation.partition(" + b")[0])

    return text


def prefix(parent: nn.Module) -> Text:
    """The tokens before the patches."""
    assert isinstance(parent, VisionTransformer)
    c = parent.config
    names = ["class token"] * c.class_token + ["distillation token"] * c.distillation_token
    names += [f"{c.registers} registers"] * (c.registers > 0)
    equation = "[x_class; x_p¹E; …; x_pᴺE]" if names == ["class token"] else ""
    return Text(f"+ {', '.join(names)}", "learned tokens, prepended to the patches", equation)


def positions(parent: nn.Module) -> Text:
    """The positions, and where they are added."""
    assert isinstance(parent, VisionTransformer)
    c = parent.config
    if c.position_embedding.startswith("relative"):
        where = "" if c.position_embedding == "relative_bias" else " (appendix D.4)"
        return Text("relative positions", f"not added to the tokens: they act inside each block's attention{where}")
    if c.position_site != "stem":
        return Text("positions", "not added here but before each block (appendix D.4)")
    kind = "a fixed" if c.position_embedding == "sincos_2d" else "a learned"
    tokens = "x_class; x_p¹E" if c.class_token else "x_p¹E"
    return Text("+ position", f"{kind} vector for each position is added", f"z₀ = [{tokens}; …] + E_pos (1)")


def own_parameters(parent: nn.Module) -> Text:
    """The parameters that the model reads outside its boxes."""
    if isinstance(parent, VisionTransformer) and parent.rotary is not None:
        return Text("rotary positions", "learned angles, which turn the class token's q and k in each block")
    return OPERATIONS["own"]


def gelu(parent: nn.Module) -> Text:
    """The flavor of an MLP's GELU."""
    assert isinstance(parent, MLP)
    if isinstance(parent.activation, nn.GELU) and parent.activation.approximate == "tanh":
        return Text("GELU", "tanh approximation, as in the authors' code", "x Φ(x), about")
    return by_class(WHOLE, parent.activation) or Text("activation", type(parent.activation).__name__)


def pooling(parent: nn.Module) -> Text:
    """How the head reduces the tokens to one vector."""
    assert isinstance(parent, Head)
    return by_class(WHOLE, parent.pooling) or Text("pooling", "one vector for the image")


# For each vitreous class, its parts by attribute, or by the name of an operation that its forward calls ("name.2" for
# the second call). Operations of these classes that are not listed are not stages.
PARTS: dict[type[nn.Module], dict[str, Text | Callable[[nn.Module], Text]]] = {
    VisionTransformer: {
        "stem": Text("ResNet stem", "a ResNet turns the image into a feature map (section 3.1, hybrid)"),
        "patch_embedding": Text("patch embedding", "the image becomes tokens", "x_p E"),
        "cat": prefix,
        "own": own_parameters,
        "position_embedding": positions,
        "dropout": DROPOUT,
        "encoder": Text("encoder", "L blocks of attention and MLP"),
        "head": Text("head", "from tokens to classes"),
    },
    PatchEmbedding: {
        "patches": Text("patches", "the image, cut and flattened", "x_p ∈ ℝ^(N×(P²·C))"),
        "projection": Text("embedded patches", "linear projection of flattened patches", "x_p E"),
        "norm": normed("norm", "LN(x_p E)"),
    },
    Encoder: {
        "own": Text("rotary positions", "learned frequencies, which turn q and k in each block by row and column"),
        "pre_norm": normed("pre_norm", "LN(z₀)"),
        "add": Text("+ position", "positions, added before this block (appendix D.4)", "zℓ₋₁ + E_pos"),
        "blocks": Text("block", "attention, then MLP, each with a skip connection", "(2) and (3)"),
        "norm": normed("norm", "LN(z_L) (4)"),
    },
    EncoderBlock: {
        "attention_norm": normed("attention_norm", "LN(zℓ₋₁)"),
        "attention": in_block("attention", MSA, "MSA(LN(zℓ₋₁)) (5–8)"),
        "attention_scale": in_block("scale", "a learned factor for each channel", "γ ⊙ MSA(LN(zℓ₋₁))"),
        "add": in_block("add", "skip connection around the attention", "z′ℓ = γ ⊙ MSA(LN(zℓ₋₁)) + zℓ₋₁ (2)"),
        "mlp_norm": normed("mlp_norm", "LN(z′ℓ)"),
        "mlp": mlp("MLP(LN(z′ℓ))"),
        "mlp_scale": in_block("scale", "a learned factor for each channel", "γ ⊙ MLP(LN(z′ℓ))"),
        "add.2": in_block("add", "skip connection around the MLP", "zℓ = γ ⊙ MLP(LN(z′ℓ)) + z′ℓ (3)"),
        "drop_path": Text("stochastic depth", "drops residual branches at random, in training"),
    },
    PostNormBlock: {
        "attention": in_block("attention", MSA, "MSA(zℓ₋₁) (5–8)"),
        "attention_norm": normed("attention_norm", "LN(MSA(zℓ₋₁))"),
        "attention_scale": in_block("scale", "a learned factor for each channel", "γ ⊙ LN(MSA(zℓ₋₁))"),
        "add": in_block("add", "skip connection around the attention", "z′ℓ = γ ⊙ LN(MSA(zℓ₋₁)) + zℓ₋₁"),
        "mlp": mlp("MLP(z′ℓ)"),
        "mlp_norm": normed("mlp_norm", "LN(MLP(z′ℓ))"),
        "mlp_scale": in_block("scale", "a learned factor for each channel", "γ ⊙ LN(MLP(z′ℓ))"),
        "add.2": in_block("add", "skip connection around the MLP", "zℓ = γ ⊙ LN(MLP(z′ℓ)) + z′ℓ"),
        "drop_path": Text("stochastic depth", "drops residual branches at random, in training"),
    },
    SelfAttention: {
        "qkv": Text("q, k, v", "queries, keys and values of all heads", "[q, k, v] = z U_qkv (5)"),
        "query_norm": normed("query_norm", "LN(q)", "of the queries"),
        "key_norm": normed("key_norm", "LN(k)", "of the keys"),
        "add": Text("rotary positions", "each patch's queries, turned by its row and column", "R q"),
        "add.2": Text("rotary positions", "each patch's keys, turned by its row and column", "R k"),
        "matmul": Text("relative positions", "each query times the key of each offset", "B = q rᵀ / √D_h"),
        "scaled_dot_product_attention": Text(
            "heads", "each query mixes the values it attends to", "A v, A = softmax(q kᵀ / √D_h) (6, 7)"
        ),
        BIASED: Text(
            "heads",
            "each query mixes the values it attends to; B is the relative positions' term",
            "A v, A = softmax(q kᵀ / √D_h + B) (6, 7)",
        ),
        "norm": normed("norm", what="of all heads, concatenated"),
        "out": Text("joined heads", "all heads, concatenated and projected", "[SA₁(z); …; SA_k(z)] U_msa (8)"),
        "dropout": DROPOUT,
    },
    MLP: {
        "fc1": dense("fc1", "dense 1", "to the hidden layer", "z W₁ + b₁"),
        "activation": gelu,
        "norm": normed("norm", what="of the hidden layer"),
        "fc2": dense("fc2", "dense 2", "back to the width D", "h W₂ + b₂"),
        "dropout": DROPOUT,
    },
    SwiGLU: {
        "fc1": dense("fc1", "dense 1", "gate and value", "[a, b] = z W₁ + b₁"),
        "silu": Text("SiLU", "of the gate", "a σ(a)"),
        "mul": Text("gate", "scales the value by the gate", "silu(a) ⊙ b"),
        "norm": normed("norm", what="of the hidden layer"),
        "fc2": dense("fc2", "dense 2", "back to the width D", "h W₂ + b₂"),
        "dropout": DROPOUT,
    },
    Head: {
        "pooling": pooling,
        "norm": normed("norm", "y = LN(pooled)", "after the pooling"),
        "hidden": dense("hidden", "hidden layer", "dense layer, in pre-training only", "y W + b"),
        "tanh": Text("tanh", "of the hidden layer", "tanh(y W + b)"),
        "classifier": dense("classifier", "classifier", "one logit per class", "y W + b"),
        "distillation": dense(
            "distillation", "distillation", "a second classifier, on the second token (DeiT)", "z_L¹ W + b"
        ),
        "add": Text("add", "both classifiers; the output is their mean"),
    },
    AttentionPooling: {
        "own": Text("probe", "a learned query"),
        "attention": Text("attention", "the probe attends to all tokens"),
        "norm": normed("norm"),
        "add": Text("add", "skip connection around the MLP"),
        "mlp": Text("MLP", "two dense layers with a GELU between"),
    },
    ResNetStem: {
        "conv": Text("convolution", "7×7, every second pixel"),
        "norm": GROUP_NORM,
        "relu": RELU,
        "max_pool2d": Text("max pooling", "the largest of 3×3, every second pixel"),
        "stages": Text("stage", "residual units on one size of the map"),
    },
    Bottleneck: {
        "conv1": Text("convolution", "1×1, fewer channels"),
        "conv2": Text("convolution", "3×3"),
        "conv3": Text("convolution", "1×1, four times the channels"),
        **dict.fromkeys(("norm1", "norm2", "norm3"), GROUP_NORM),
        **dict.fromkeys(("relu", "relu.2", "relu.3"), RELU),
        "shortcut": Text("shortcut", "the unit's input, in the shape of its output"),
        "add": Text("add", "skip connection around the unit"),
    },
    **{kind: {} for kind in (QKV, PositionEmbedding, ClassTokenPooling, MeanPooling, LayerScale)},
    **{kind: {} for kind in (StochasticDepth, StandardizedConv, QuickGELU)},
}

# A module on its own, or inside one of another library.
WHOLE: dict[type[nn.Module], Text] = {
    VisionTransformer: Text("Vision Transformer", "image to classes (Figure 1)"),
    PatchEmbedding: Text("patch embedding", "the image becomes tokens", "x_p E"),
    RelativePosition: Text("relative positions", "act inside attention (appendix D.4)", "q rᵀ / √D_h"),
    RelativeBias: Text("relative positions", "a number for each offset and head, added to the attention's logits"),
    PositionEmbedding: Text("+ position", "a vector for each position is added", "x + E_pos"),
    Encoder: Text("encoder", "L blocks of attention and MLP, and a norm", "(2) to (4)"),
    EncoderBlock: Text("block", "attention, then MLP, each with a skip connection", "(2) and (3)"),
    SelfAttention: Text("attention", MSA, "MSA(z) (5–8)"),
    QKV: Text("q, k, v", "queries, keys and values of all heads", "[q, k, v] = z U_qkv (5)"),
    MLP: Text("MLP", "two dense layers with a GELU between", "MLP(z)"),
    SwiGLU: Text("SwiGLU", "a gated MLP", "fc2(silu(a) ⊙ b)"),
    LayerScale: Text("scale", "a learned factor for each channel", "γ ⊙ x"),
    StochasticDepth: Text("stochastic depth", "drops residual branches at random, in training"),
    Head: Text("head", "from tokens to classes"),
    ClassTokenPooling: Text("class token", "the first token stands for the image", "z_L⁰"),
    MeanPooling: Text("mean", "the mean of the patches stands for the image"),
    ClassTokenAndMeanPooling: Text("class token and mean", "the class token, then the mean of the patches: 2D numbers"),
    AttentionPooling: Text("attention pooling", "a learned probe attends to the tokens (MAP head)"),
    ResNetStem: Text("ResNet stem", "image to feature map"),
    Bottleneck: Text("unit", "residual unit of three convolutions"),
    StandardizedConv: Text("convolution", "with standardized filters"),
    QuickGELU: Text("GELU", "CLIP's quick one", "x σ(1.702 x)"),
    nn.Linear: Text("dense layer", "linear map and bias", "x Wᵀ + b"),
    nn.LayerNorm: Text("layer norm", NORM, "(x − mean) / √(var + ε) · γ + β"),
    nn.RMSNorm: Text("RMS norm", RMS_NORM, "x / √(mean(x²) + ε) · γ"),
    nn.GroupNorm: GROUP_NORM,
    nn.Conv2d: Text("convolution", "one filter for each output channel"),
    nn.GELU: Text("GELU", "x times the standard normal CDF", "x Φ(x)"),
    nn.ReLU: RELU,
    nn.SiLU: Text("SiLU", "x times its sigmoid", "x σ(x)"),
    nn.Tanh: Text("tanh", "hyperbolic tangent", "tanh(x)"),
    nn.Dropout: DROPOUT,
    nn.MultiheadAttention: Text("attention", "multi-head attention", "MSA (5–8)"),
    nn.TransformerEncoderLayer: Text("block", "attention, then MLP, each with a skip connection"),
    nn.Softmax: Text("softmax", "shares that sum to 1"),
}

OPERATIONS = {
    "input": Text("input", "the module's input"),
    "own": Text("itself", "not in any of its parts"),
    "add": Text("add", "the sum of two tensors"),
    "mul": Text("multiply", "two tensors, element by element"),
    "cat": Text("join", "tensors, concatenated"),
    "mean": Text("mean", "over one of the axes"),
    "linear": WHOLE[nn.Linear],
    "matmul": Text("product", "of matrices"),
    "einsum": Text("product", "of tensors"),
    "bmm": Text("product", "of matrices"),
    "conv2d": WHOLE[nn.Conv2d],
    "softmax": WHOLE[nn.Softmax],
    "gelu": WHOLE[nn.GELU],
    "relu": WHOLE[nn.ReLU],
    "silu": WHOLE[nn.SiLU],
    "tanh": WHOLE[nn.Tanh],
    "layer_norm": WHOLE[nn.LayerNorm],
    "scaled_dot_product_attention": Text("heads", "attention of all heads", "softmax(q kᵀ / √D_h) v"),
    "multi_head_attention_forward": WHOLE[nn.MultiheadAttention],
}


def by_class(table: dict[type[nn.Module], Entry], module: nn.Module | None) -> Entry | None:
    """The entry of a module's class, or of the nearest class that it inherits from."""
    return next((table[c] for c in type(module).__mro__ if c in table), None)


def text_of_part(parent: nn.Module | None, key: str) -> Text | None:
    """The text of a part of one of our classes; None if there is no such part or class."""
    text = (by_class(PARTS, parent) or {}).get(key)
    if callable(text):
        assert parent is not None
        return text(parent)
    return text
