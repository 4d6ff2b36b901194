"""The families by the names that users know them by: whose models, one name to try, and where their files come from."""

import re
from typing import NamedTuple


class FamilyRow(NamedTuple):
    """One row of the table in docs/weights.md.

    Args:
        title: what the models are known as.
        names: a pattern that the names of timm's pretrained models match from the start; "" for none.
        classes: transformers' classes.
        layouts: families of `vitreous.checkpoints` for files of the makers' own code.
        example: a published name that `vitreous.load` accepts; "" for a family that cannot be loaded.
        gated: whether the hub asks for a login and for accepting terms before the example can be downloaded.
    """

    title: str
    names: str = ""
    classes: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()
    example: str = ""
    gated: bool = False

    @property
    def line(self) -> str:
        """The line to try."""
        return f'vt.load("{self.example}")' if self.example else ""


# A name belongs to the first row whose pattern matches.
FAMILIES = (
    FamilyRow(
        "DeiT, DeiT III",
        r"deit3?_",
        ("DeiTModel", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"),
        ("deit",),
        "meta:deit_tiny_patch16_224",
    ),
    FamilyRow("DINO", r"vit_.*\.dino$", layouts=("dino",), example="meta:dino_vits16"),
    FamilyRow(
        "DINOv2, with and without registers",
        r"vit_.*_dinov2",
        (
            *("Dinov2Model", "Dinov2ForImageClassification"),
            *("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
        ),
        ("dinov2",),
        "meta:dinov2_vits14",
    ),
    FamilyRow(
        "DINOv3",
        r"vit_.*_dinov3",
        ("DINOv3ViTModel",),
        ("dinov3",),
        example="timm:vit_small_patch16_dinov3.lvd1689m",
    ),
    FamilyRow("MAE", r"vit_.*\.mae$", ("ViTMAEModel",), ("mae",), "meta:mae_pretrain_vit_base"),
    FamilyRow("ViT-MSN", classes=("ViTMSNModel", "ViTMSNForImageClassification"), example="hf:facebook/vit_msn_base"),
    FamilyRow(
        "I-JEPA",
        r"vit_.*_ijepa$",
        ("IJepaModel", "IJepaForImageClassification"),
        example="timm:vit_huge_patch14_gap_224.in1k_ijepa",
    ),
    FamilyRow(
        "CLIP, OpenCLIP, MetaCLIP, DFN, TinyCLIP",
        r"vit_.*_clip_",
        ("CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPForImageClassification"),
        ("clip",),
        "timm:vit_xsmall_patch16_clip_224.tinyclip_yfcc15m",
    ),
    FamilyRow("MobileCLIP (a convolutional stem)", r"vit_base_mci_"),
    FamilyRow("MLCD", classes=("MLCDVisionModel",), example="hf:DeepGlint-AI/mlcd-vit-bigG-patch14-336"),
    FamilyRow(
        "SigLIP, SigLIP 2, PaliGemma's tower",
        r"vit_.*_siglip_",
        ("SiglipVisionModel", "SiglipForImageClassification", "Siglip2VisionModel", "Siglip2ForImageClassification"),
        ("siglip",),
        "timm:vit_base_patch16_siglip_224.v2_webli",
    ),
    FamilyRow("TIPS v2", r"vit_.*_tipsv2", example="timm:vit_base_patch14_reg1_tipsv2.webli"),
    FamilyRow("Perception Encoder", r"vit_pe_", example="timm:vit_pe_core_tiny_patch16_384.fb"),
    FamilyRow("AIMv2", r"aimv2_", ("Aimv2VisionModel",), example="timm:aimv2_large_patch14_224.apple_pt_dist"),
    FamilyRow("EVA, EVA-02", r"eva(02)?_", example="timm:eva02_tiny_patch14_336.mim_in22k_ft_in1k"),
    FamilyRow(
        "BEiT, BEiT v2, data2vec",
        r"beit(v2)?_",
        ("BeitModel", "BeitForImageClassification", "Data2VecVisionModel", "Data2VecVisionForImageClassification"),
        example="timm:beit_base_patch16_224.in22k_ft_in22k_in1k",
    ),
    FamilyRow("BEiT-3", r"beit3_", example="timm:beit3_base_patch16_224.in22k_ft_in1k"),
    FamilyRow(
        "InternViT",
        r"vit_intern",
        ("InternVLVisionModel",),
        example="timm:vit_intern300m_patch14_448.ogvl_dist",
    ),
    FamilyRow("RADIO", r"vit_.*_radio_", example="timm:vit_base_patch16_radio_v3.c_radio"),
    FamilyRow("LingBot", r"vit_.*_lingbot", example="timm:vit_small_patch16_lingbot.robbyant"),
    FamilyRow(
        "RoPE-ViT, axial and mixed",
        r"vit_.*_rope_.*naver",
        example="timm:vit_small_patch16_rope_mixed_ape_224.naver_in1k",
    ),
    FamilyRow(
        "ResNet hybrids of the paper and AugReg",
        r"vit_.*_r\d*_s\d+",
        example="timm:vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k",
    ),
    FamilyRow(
        "ViT: the paper's, AugReg, SAM-optimized, ImageNet-21k-P",
        r"vit_(tiny|small|base|large|huge)_patch\d+_\d+(_miil)?\.",
        ("ViTModel", "ViTForImageClassification"),
        ("google",),
        "google:ViT-B_16-224",
    ),
    FamilyRow("big_vision, FlexiViT", r"flexivit_", layouts=("big_vision",), example="timm:flexivit_small.300ep_in1k"),
    FamilyRow("torchvision, SWAG", layouts=("torchvision",), example="torchvision:vit_b_16.IMAGENET1K_V1"),
    FamilyRow("timm's relative positions, made by an MLP", r"vit_s?relpos_"),
    FamilyRow(
        "timm's own: norm after the branch",
        r"vit_base_patch16_rpn_",
        example="timm:vit_base_patch16_rpn_224.sw_in1k",
    ),
    FamilyRow(
        "timm's own: wee to so150m, with registers, mean pooling, rotary positions",
        r"(vit_.*\.(sbb|sw_)|test_vit)",
        layouts=("timm",),
        example="timm:vit_wee_patch16_reg1_gap_256.sbb_in1k",
    ),
    FamilyRow("NaFlexViT, packed sequences", r"naflexvit_"),
    FamilyRow("Segment Anything's image encoder", r"samvit_"),
    FamilyRow("Sapiens 2", r"vit_.*_sapiens2"),
)


def family_of(name: str) -> FamilyRow:
    """The row of one of timm's names. Raises KeyError for a name that no row expects."""
    for row in FAMILIES:
        if row.names and re.match(row.names, name):
            return row
    raise KeyError(name)
