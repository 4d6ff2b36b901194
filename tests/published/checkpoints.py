"""One small published checkpoint of each family, and who else can load it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Peer = Literal["timm", "transformers", "torchvision", "timm, this file"]


@dataclass(frozen=True)
class Published:
    """A published checkpoint.

    Args:
        title: of its family in benchmarks/coverage/families.py.
        layout: the family of vitreous that reads the file.
        name: as for `vitreous.load`, or an https address without a checksum, which is downloaded first.
        peer: the library that loads it too: the same name from the hub, or the same file.
        model: the peer's name of it.
        fields: of ViTConfig, which the file does not record.
        arguments: of the peer's model, where its own choice is another than the file's makers'.
        output: what transformers calls the features of a model without a classifier.
    """

    title: str
    layout: str
    name: str
    peer: Peer
    model: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    output: str = "pooler_output"


def on_timm(title: str, name: str) -> Published:
    """A checkpoint that timm publishes."""
    return Published(title, "timm", f"timm:{name}", "timm", name)


def on_hub(title: str, repo_id: str, output: str = "pooler_output") -> Published:
    """A checkpoint in transformers' layout."""
    return Published(title, "huggingface", f"hf:{repo_id}", "transformers", repo_id, output=output)


VIT = "ViT: the paper's, AugReg, SAM-optimized, ImageNet-21k-P"
CLIP = "CLIP, OpenCLIP, MetaCLIP, DFN, TinyCLIP"
DINOV2 = "DINOv2, with and without registers"
SIGLIP = "SigLIP, SigLIP 2, PaliGemma's tower"
AUGREG = "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224"
BIG_VISION = "https://storage.googleapis.com/big_vision"
TANH = {"act_layer": "gelu_tanh"}  # JAX's GELU, which timm approximates by the exact one

PUBLISHED = (
    Published(
        *(VIT, "google", f"google:{AUGREG}", "timm, this file", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        arguments=TANH,
    ),
    on_timm(VIT, "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
    on_hub(VIT, "google/vit-base-patch16-224"),
    Published(
        *("big_vision, FlexiViT", "big_vision", f"{BIG_VISION}/flexivit/vit_b16_i21k_300ep.npz"),
        *("timm, this file", "flexivit_base.patch16_in21k"),
        arguments=TANH | {"img_size": 224},
    ),
    on_timm("big_vision, FlexiViT", "flexivit_small.300ep_in1k"),
    Published(
        "torchvision, SWAG",
        "torchvision",
        "torchvision:vit_b_16.IMAGENET1K_V1",
        "torchvision",
        "vit_b_16.IMAGENET1K_V1",
    ),
    Published(
        *("DeiT, DeiT III", "deit", "meta:deit_tiny_patch16_224", "timm, this file", "deit_tiny_patch16_224.fb_in1k"),
    ),
    on_hub("DeiT, DeiT III", "facebook/deit-base-distilled-patch16-224"),
    Published("DINO", "dino", "meta:dino_vits16", "timm, this file", "vit_small_patch16_224.dino"),
    Published(DINOV2, "dinov2", "meta:dinov2_vits14", "timm, this file", "vit_small_patch14_dinov2.lvd142m"),
    on_hub(DINOV2, "facebook/dinov2-base"),
    on_hub(DINOV2, "facebook/dinov2-with-registers-base"),
    on_timm("DINOv3", "vit_small_patch16_dinov3.lvd1689m"),
    on_hub("DINOv3", "facebook/dinov3-vits16-pretrain-lvd1689m"),
    Published("MAE", "mae", "meta:mae_pretrain_vit_base", "timm, this file", "vit_base_patch16_224.mae"),
    on_hub("ViT-MSN", "facebook/vit_msn_base", "class token"),
    on_timm("I-JEPA", "vit_huge_patch14_gap_224.in1k_ijepa"),
    Published(
        *(CLIP, "clip", "hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K/open_clip_pytorch_model.bin"),
        *("timm", "vit_base_patch32_clip_224.laion2b"),
        fields={"gelu": "exact"},
    ),
    on_timm(CLIP, "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"),
    on_hub(CLIP, "openai/clip-vit-base-patch32"),
    on_hub("MLCD", "DeepGlint-AI/mlcd-vit-bigG-patch14-336"),
    Published(
        *(SIGLIP, "siglip", f"{BIG_VISION}/siglip/webli_en_b16_224_63724782.npz"),
        *("timm", "vit_base_patch16_siglip_224.webli"),
    ),
    on_timm(SIGLIP, "vit_base_patch16_siglip_224.v2_webli"),
    on_hub(SIGLIP, "google/siglip-base-patch16-224"),
    on_timm("TIPS v2", "vit_base_patch14_reg1_tipsv2.webli"),
    on_timm("Perception Encoder", "vit_pe_core_tiny_patch16_384.fb"),
    on_timm("AIMv2", "aimv2_large_patch14_224.apple_pt_dist"),
    on_timm("EVA, EVA-02", "eva02_tiny_patch14_336.mim_in22k_ft_in1k"),
    on_timm("BEiT, BEiT v2, data2vec", "beit_base_patch16_224.in22k_ft_in22k_in1k"),
    on_timm("BEiT-3", "beit3_base_patch16_224.in22k_ft_in1k"),
    on_timm("InternViT", "vit_intern300m_patch14_448.ogvl_dist"),
    on_timm("RADIO", "vit_base_patch16_radio_v3.c_radio"),
    on_timm("LingBot", "vit_small_patch16_lingbot.robbyant"),
    on_timm("RoPE-ViT, axial and mixed", "vit_small_patch16_rope_mixed_ape_224.naver_in1k"),
    on_timm("ResNet hybrids of the paper and AugReg", "vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k"),
    on_timm("timm's own: norm after the branch", "vit_base_patch16_rpn_224.sw_in1k"),
    on_timm(
        "timm's own: wee to so150m, with registers, mean pooling, rotary positions",
        "vit_wee_patch16_reg1_gap_256.sbb_in1k",
    ),
)
