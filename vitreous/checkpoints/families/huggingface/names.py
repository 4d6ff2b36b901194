"""The names of transformers' keys: one table for each layout of a body (embeddings, encoder, final norm)."""

from typing import NamedTuple


class Names(NamedTuple):
    """The names of a body's keys; those of a block's layers follow `block`, which has {} for the block's number.

    Args:
        patch: the projection of the patches.
        block: the prefix of a block.
        attention_norm: the norm before attention.
        qkv: query, key and value.
        out: the projection after attention.
        mlp_norm: the norm before the MLP.
        fc1: the MLP's first layer.
        fc2: the MLP's second layer.
        norm: the final norm.
        class_token: its key.
        positions: the table of positions; None if the layout has none.
        registers: their key; DeiT's distillation token if a model reads it from no head.
        mask_token: its key.
        embedding_norm: the norm of the projected patches.
        gate: the first layer of a gated MLP: gate and value in one, or one of each.
        gated_fc2: the second layer of a gated MLP.
        scales: LayerScale after attention and after the MLP.
        qk_norms: the norms of query and key.
        block_biases: the table of relative positions of a block.
        shared_biases: the table of relative positions that all blocks share.
        flat: whether class token and table have no leading axis of 1.
    """

    patch: str
    block: str
    attention_norm: str
    qkv: tuple[str, str, str]
    out: str
    mlp_norm: str
    fc1: str
    fc2: str
    norm: str
    class_token: str = "embeddings.cls_token"
    positions: str | None = "embeddings.position_embeddings"
    registers: str = "embeddings.register_tokens"
    mask_token: str = "embeddings.mask_token"
    embedding_norm: str = "embeddings.rms_norm"
    gate: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    gated_fc2: str = "mlp.down_proj"
    scales: tuple[str, str] = ("lambda_1", "lambda_2")
    qk_norms: tuple[str, str] = ("attention.q_norm", "attention.k_norm")
    block_biases: str = "relative_position_bias.relative_position_bias_table"
    shared_biases: str = "shared_position_bias.relative_position_bias_table"
    flat: bool = False

    def in_block(self, i: int, name: str) -> str:
        """The key of a layer in block i."""
        return self.block.format(i) + name

    @property
    def required_keys(self) -> tuple[str, ...]:
        """Keys that every file with these names has."""
        layers = (self.attention_norm, self.qkv[0], self.out)
        return (f"{self.patch}.weight", *(f"{self.in_block(0, layer)}.weight" for layer in layers))


def _projections(name: str) -> tuple[str, str, str]:
    """The names of query, key and value from a template."""
    return name.format("q"), name.format("k"), name.format("v")


# ViT, DeiT, MAE, MSN, I-JEPA, BEiT and data2vec, on disk.
DISK = Names(
    patch="embeddings.patch_embeddings.projection",
    block="encoder.layer.{}.",
    attention_norm="layernorm_before",
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    out="attention.output.dense",
    mlp_norm="layernorm_after",
    fc1="intermediate.dense",
    fc2="output.dense",
    norm="layernorm",
    registers="embeddings.distillation_token",
    block_biases="attention.attention.relative_position_bias.relative_position_bias_table",
    shared_biases="encoder.relative_position_bias.relative_position_bias_table",
)
# The same in memory, since transformers 5.9.
MEMORY = DISK._replace(
    block="layers.{}.",
    qkv=_projections("attention.{}_proj"),
    out="attention.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    block_biases="relative_position_bias.relative_position_bias_table",
    shared_biases="shared_position_bias.relative_position_bias_table",
)
# ViTMSNForImageClassification as transformers 5 saves it: its blocks have lost the prefix "vit.".
MSN_CLASSIFIER = DISK._replace(
    patch=f"vit.{DISK.patch}",
    norm=f"vit.{DISK.norm}",
    class_token=f"vit.{DISK.class_token}",
    positions=f"vit.{DISK.positions}",
    mask_token=f"vit.{DISK.mask_token}",
)
DINOV2_DISK = DISK._replace(
    attention_norm="norm1",
    mlp_norm="norm2",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    registers="embeddings.register_tokens",
    gate=("mlp.weights_in",),
    gated_fc2="mlp.weights_out",
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
)
DINOV2_MEMORY = DINOV2_DISK._replace(
    qkv=MEMORY.qkv, out=MEMORY.out, gate=("mlp.gate_proj", "mlp.up_proj"), gated_fc2="mlp.down_proj"
)
DINOV3_DISK = DINOV2_MEMORY._replace(
    patch="embeddings.patch_embeddings",
    block="layer.{}.",
    fc1="mlp.up_proj",
    fc2="mlp.down_proj",
    norm="norm",
    positions=None,
)
DINOV3_MEMORY = DINOV3_DISK._replace(block="model.layer.{}.")
# CLIP, SigLIP, SigLIP 2 and MLCD.
TOWER = Names(
    patch="embeddings.patch_embedding",
    block="encoder.layers.{}.",
    attention_norm="layer_norm1",
    qkv=_projections("self_attn.{}_proj"),
    out="self_attn.out_proj",
    mlp_norm="layer_norm2",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    norm="post_layernorm",
    class_token="embeddings.class_embedding",
    positions="embeddings.position_embedding.weight",
    flat=True,
)
INTERNVL_BODY = DISK._replace(
    qkv=_projections("attention.{}_proj"), out="attention.projection_layer", fc1="mlp.fc1", fc2="mlp.fc2"
)
AIMV2_BODY = TOWER._replace(
    patch="embeddings.patch_embed",
    attention_norm="rms_norm1",
    qkv=_projections("attention.{}_proj"),
    out="attention.out_proj",
    mlp_norm="rms_norm2",
    norm="rms_norm",
    gate=("ffn.gate_proj", "ffn.up_proj"),
    gated_fc2="ffn.down_proj",
)

# By the name that a naming records.
LAYOUTS = {
    "disk": DISK,
    "memory": MEMORY,
    "msn": MSN_CLASSIFIER,
    "dinov2": DINOV2_DISK,
    "dinov2_memory": DINOV2_MEMORY,
    "dinov3": DINOV3_DISK,
    "dinov3_memory": DINOV3_MEMORY,
    "tower": TOWER,
    "internvl": INTERNVL_BODY,
    "aimv2": AIMV2_BODY,
}
