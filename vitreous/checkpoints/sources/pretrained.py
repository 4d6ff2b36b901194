"""Published weights: name, address, license, accuracy and checksum, as published.

`list models` shows this table; `hub.fetch` reads it. Other `hf:`, `timm:` and https names work without a row.
Accuracy is ImageNet top-1 in percent, of the classifier in the file. Sources:

- google: the README of google-research/vision_transformer, arXiv 2010.11929 (Table 5), and for AugReg, SAM and the
  hybrid the accuracies of the same weights in timm's results/results-imagenet.csv.
- meta: the READMEs of facebookresearch/{deit,dino,dinov2,mae} (README_deit, README_revenge, FINETUNE), and timm's
  results for DeiT III's M. The digits at the end of DeiT's file names are the first ones of their SHA-256; MAE
  publishes the first ones of the MD5.
- torchvision: its own weights enums, which a test compares with the rows here.
- hf, timm: the model cards, and timm's results-imagenet.csv.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vitreous.model.config import ViTConfig
from vitreous.model.variants import variant
from vitreous.support.errors import InputError, nearest

GOOGLE = "https://storage.googleapis.com/vit_models"
META = "https://dl.fbaipublicfiles.com"
APACHE, NON_COMMERCIAL = "Apache-2.0", "CC-BY-NC-4.0"
SEE_TORCHVISION = "see torchvision"  # its code is BSD-3-Clause; no license is given for these weights


@dataclass(frozen=True)
class Pretrained:
    """One row: the weights of a name.

    Args:
        name: with its scheme, as typed.
        family: of the file.
        variant: the shape, a name for `variant`.
        image_size: height and width of the images, in pixels.
        num_classes: of the classifier; 0 for none.
        license: SPDX if there is an identifier; None if unknown.
        top1: in percent, None if not published.
        url: of the file; None for hubs and torchvision.
        checksum: "sha256:" or "md5:" and the published first hex digits, at least 6.
        size: of the file in bytes, if published.
        other: fields of ViTConfig that differ from the variant's.
    """

    name: str
    family: str
    variant: str
    image_size: int
    num_classes: int
    license: str | None = None
    top1: float | None = None
    url: str | None = None
    checksum: str | None = None
    size: int | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> ViTConfig:
        """The shape, for counting parameters and FLOPs; the file itself decides the rest."""
        sizes = {"image_size": self.image_size, "num_classes": self.num_classes}
        return variant(self.variant, **sizes, **self.other)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of ViTConfig that PyTorch files do not record: heads and image size."""
        return {"num_heads": self.config.num_heads, "image_size": self.config.image_size}

    @property
    def suffix(self) -> str:
        """The file's suffix, such as ".npz"; empty without an address."""
        return "." + self.url.rpartition(".")[2] if self.url else ""


# The first release: file in the bucket, pixels, classes, top-1. The name leaves out the folder if it is unambiguous.
ORIGINAL = (
    ("imagenet21k/ViT-B_16", 224, 21843, None),
    ("imagenet21k/ViT-B_32", 224, 21843, None),
    ("imagenet21k/ViT-L_16", 224, 21843, None),
    ("imagenet21k/ViT-L_32", 224, 21843, None),
    ("imagenet21k/ViT-H_14", 224, 21843, None),
    ("imagenet21k/R50+ViT-B_16", 224, 21843, None),
    ("imagenet21k/R26+ViT-B_32", 224, 21843, None),
    ("imagenet21k/R50+ViT-L_32", 224, 21843, None),
    ("imagenet21k+imagenet2012/ViT-B_16-224", 224, 1000, 81.2),
    ("imagenet21k+imagenet2012/ViT-L_16-224", 224, 1000, 82.7),
    ("imagenet21k+imagenet2012/ViT-B_16", 384, 1000, 83.97),
    ("imagenet21k+imagenet2012/ViT-B_32", 384, 1000, 81.28),
    ("imagenet21k+imagenet2012/ViT-L_16", 384, 1000, 85.15),
    ("imagenet21k+imagenet2012/ViT-L_32", 384, 1000, 80.99),
    ("imagenet21k+imagenet2012/R50+ViT-B_16", 384, 1000, 84.98),
    ("sam/ViT-B_16", 224, 1000, 80.24),
    ("sam/ViT-B_32", 224, 1000, 73.69),
)

# arXiv 2106.10270: the name has the shape, the data and the recipe.
AUGREG = (
    ("Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0", None),
    ("S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0", None),
    ("S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0", None),
    ("B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0", None),
    ("B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0", None),
    ("B_8-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0", None),
    ("L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1", None),
    ("R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0", None),
    ("R26_S_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.03-do_0.0-sd_0.0", None),
    ("R50_L_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0", None),
    ("Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224", 75.45),
    ("Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384", 78.42),
    ("S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224", 75.99),
    ("S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384", 80.49),
    ("S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224", 81.38),
    ("S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384", 83.80),
    ("B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224", 80.72),
    ("B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384", 83.35),
    ("B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224", 84.53),
    ("B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384", 86.00),
    ("B_8-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224", 85.80),
    ("L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_224", 85.83),
    ("L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_384", 87.08),
    ("R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224", 71.80),
    ("R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384", 75.96),
    ("R26_S_32-i21k-300ep-lr_0.001-aug_light0-wd_0.03-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.03-res_224", 81.86),
    ("R26_S_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384", 84.05),
    ("R50_L_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_224", 84.42),
    ("R50_L_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384", 86.18),
    ("S_16-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224", 78.85),
    ("S_16-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384", 81.12),
    ("B_32-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_224", 74.89),
    ("B_32-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_384", 78.75),
    ("B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_224", 79.15),
    ("B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_384", 81.10),
)
AUGREG_NAME = re.compile(
    r"(?P<stem>R\d*_)?(?P<size>Ti|S|B|L)_(?P<patch>\d+)-(?P<data>i1k|i21k)-\d+ep-lr_[\d.]+-aug_\w+-wd_[\d.]+-do_[\d.]+"
    r"-sd_[\d.]+(--(?P<task>imagenet2012|cifar100|cifar10)-steps_\d+k-lr_[\d.]+-res_(?P<pixels>\d+))?"
)
CLASSES = {"i1k": 1000, "i21k": 21843, "imagenet2012": 1000, "cifar10": 10, "cifar100": 100}

# File, shape, pixels, top-1; the digits after the dash are the checksum.
DEIT = (
    ("deit_tiny_patch16_224-a1311bcf", "Ti/16", 224, 72.2),
    ("deit_small_patch16_224-cd65a155", "S/16", 224, 79.9),
    ("deit_base_patch16_224-b5f2ef4d", "B/16", 224, 81.8),
    ("deit_base_patch16_384-8de9b5d1", "B/16", 384, 82.9),
    ("deit_tiny_distilled_patch16_224-b40b3cf7", "Ti/16", 224, 74.5),
    ("deit_small_distilled_patch16_224-649709d9", "S/16", 224, 81.2),
    ("deit_base_distilled_patch16_224-df68dfff", "B/16", 224, 83.4),
    ("deit_base_distilled_patch16_384-d0272ac0", "B/16", 384, 85.2),
)
DEIT_3 = (
    ("deit_3_small_224_1k", "S/16", 224, 81.4),
    ("deit_3_small_384_1k", "S/16", 384, 83.4),
    ("deit_3_medium_224_1k", "M/16", 224, 83.1),
    ("deit_3_base_224_1k", "B/16", 224, 83.8),
    ("deit_3_base_384_1k", "B/16", 384, 85.0),
    ("deit_3_large_224_1k", "L/16", 224, 84.9),
    ("deit_3_large_384_1k", "L/16", 384, 85.8),
    ("deit_3_huge_224_1k", "H/14", 224, 85.2),
    ("deit_3_small_224_21k", "S/16", 224, 83.1),
    ("deit_3_small_384_21k", "S/16", 384, 84.8),
    ("deit_3_medium_224_21k", "M/16", 224, 84.6),
    ("deit_3_base_224_21k", "B/16", 224, 85.7),
    ("deit_3_base_384_21k", "B/16", 384, 86.7),
    ("deit_3_large_224_21k", "L/16", 224, 87.0),
    ("deit_3_large_384_21k", "L/16", 384, 87.7),
    ("deit_3_huge_224_21k_v1", "H/14", 224, 87.2),
)
# The name of the model, its file below dino/, shape.
DINO = (
    ("dino_vits16", "dino_deitsmall16_pretrain/dino_deitsmall16_pretrain", "S/16"),
    ("dino_vits8", "dino_deitsmall8_pretrain/dino_deitsmall8_pretrain", "S/8"),
    ("dino_vitb16", "dino_vitbase16_pretrain/dino_vitbase16_pretrain", "B/16"),
    ("dino_vitb8", "dino_vitbase8_pretrain/dino_vitbase8_pretrain", "B/8"),
)
GIANT = {"width": 1536, "num_heads": 24, "mlp_dim": 4096, "mlp": "swiglu"}  # wider than arXiv 2106.04560's g
DINOV2 = (("s", "S/14", {}), ("b", "B/14", {}), ("l", "L/14", {}), ("g", "g/14", GIANT))
# File, shape, MD5, top-1.
MAE = (
    ("pretrain/mae_pretrain_vit_base", "B/16", "8cad7c", None),
    ("pretrain/mae_pretrain_vit_large", "L/16", "b8b06e", None),
    ("pretrain/mae_pretrain_vit_huge", "H/14", "9bdbb0", None),
    ("finetune/mae_finetuned_vit_base", "B/16", "1b25e9", 83.66),
    ("finetune/mae_finetuned_vit_large", "L/16", "51f550", 85.95),
    ("finetune/mae_finetuned_vit_huge", "H/14", "2541f2", 86.93),
)

# Name, pixels, top-1, size in MiB; SWAG's license is its repository's.
TORCHVISION = (
    ("vit_b_16.IMAGENET1K_V1", 224, 81.072, 330.285),
    ("vit_b_16.IMAGENET1K_SWAG_E2E_V1", 384, 85.304, 331.398),
    ("vit_b_16.IMAGENET1K_SWAG_LINEAR_V1", 224, 81.886, 330.285),
    ("vit_b_32.IMAGENET1K_V1", 224, 75.912, 336.604),
    ("vit_l_16.IMAGENET1K_V1", 224, 79.662, 1161.023),
    ("vit_l_16.IMAGENET1K_SWAG_E2E_V1", 512, 88.064, 1164.258),
    ("vit_l_16.IMAGENET1K_SWAG_LINEAR_V1", 224, 85.146, 1161.023),
    ("vit_l_32.IMAGENET1K_V1", 224, 76.972, 1169.449),
    ("vit_h_14.IMAGENET1K_SWAG_E2E_V1", 518, 88.552, 2416.643),
    ("vit_h_14.IMAGENET1K_SWAG_LINEAR_V1", 224, 85.708, 2411.209),
)

DISTILLED = {"distillation_token": True}
CLIP = {"pre_norm": True, "patch_bias": False, "gelu": "quick", "norm_eps": 1e-5}
SIGLIP = {"class_token": False, "position_class_slot": False, "pooling": "attention"}
# Name, family, shape, pixels, classes, license, top-1, other fields.
HUB = (
    ("hf:google/vit-base-patch16-224", "huggingface", "B/16", 224, 1000, APACHE, None, {}),
    ("hf:google/vit-base-patch16-384", "huggingface", "B/16", 384, 1000, None, None, {}),
    ("hf:facebook/deit-base-patch16-224", "huggingface", "B/16", 224, 1000, APACHE, 81.8, {}),
    ("hf:facebook/deit-base-distilled-patch16-224", "huggingface", "B/16", 224, 1000, APACHE, 83.4, DISTILLED),
    ("hf:facebook/deit-base-distilled-patch16-384", "huggingface", "B/16", 384, 1000, APACHE, 85.2, DISTILLED),
    ("hf:openai/clip-vit-base-patch32", "huggingface", "B/32", 224, 0, None, None, CLIP),
    ("hf:google/siglip-base-patch16-224", "huggingface", "B/16", 224, 0, APACHE, None, SIGLIP),
    ("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", "timm", "Ti/16", 224, 1000, APACHE, 75.45, {}),
    ("timm:vit_small_patch16_224.augreg_in21k_ft_in1k", "timm", "S/16", 224, 1000, APACHE, 81.38, {}),
    ("timm:vit_base_patch32_224.augreg_in21k_ft_in1k", "timm", "B/32", 224, 1000, APACHE, 80.72, {}),
    ("timm:vit_base_patch16_224.augreg_in21k_ft_in1k", "timm", "B/16", 224, 1000, APACHE, 84.53, {}),
    ("timm:vit_base_patch16_224.augreg2_in21k_ft_in1k", "timm", "B/16", 224, 1000, APACHE, 85.10, {}),
    ("timm:vit_base_patch8_224.augreg2_in21k_ft_in1k", "timm", "B/8", 224, 1000, APACHE, 86.22, {}),
    ("timm:vit_large_patch16_384.augreg_in21k_ft_in1k", "timm", "L/16", 384, 1000, APACHE, 87.08, {}),
    ("timm:vit_base_patch16_224.augreg_in21k", "timm", "B/16", 224, 21843, APACHE, None, {}),
)


def originals() -> Iterator[Pretrained]:
    """Google's first release and its SAM-trained models."""
    for path, pixels, classes, top1 in ORIGINAL:
        folder, file = path.split("/")
        shape = file.removesuffix("-224").replace("ViT-", "").replace("_", "/")
        hidden = {"hidden_dim": variant(shape).width} if classes == 21843 else {}
        alone = folder == "imagenet21k" or file.endswith("-224")
        name = f"google:{file if alone else path}"
        address = f"{GOOGLE}/{path}.npz".replace("+", "%2B")
        yield Pretrained(name, "google", shape, pixels, classes, APACHE, top1, address, other=hidden)


def augreg(file: str, top1: float | None = None) -> Pretrained | None:
    """The row of any of the thousands of AugReg files in the bucket; None for other names."""
    match = AUGREG_NAME.fullmatch(file)
    if not match:
        return None
    stem = (match["stem"] or "").replace("_", "+")
    pixels, classes = int(match["pixels"] or 224), CLASSES[match["task"] or match["data"]]
    shape, address = f"{stem}{match['size']}/{match['patch']}", f"{GOOGLE}/augreg/{file}.npz"
    return Pretrained(f"google:{file}", "google", shape, pixels, classes, APACHE, top1, address)


def metas() -> Iterator[Pretrained]:
    """Meta's DeiT, DeiT III, DINO, DINOv2 and MAE."""
    for file, shape, pixels, top1 in DEIT:
        name, digits = file.split("-")
        address, checksum = f"{META}/deit/{file}.pth", f"sha256:{digits}"
        other = DISTILLED if "distilled" in name else {}
        yield Pretrained(f"meta:{name}", "deit", shape, pixels, 1000, APACHE, top1, address, checksum, other=other)
    other = {"layer_scale": 1e-6, "position_class_slot": False}
    for name, shape, pixels, top1 in DEIT_3:
        address = f"{META}/deit/{name}.pth"
        yield Pretrained(f"meta:{name}", "deit", shape, pixels, 1000, APACHE, top1, address, other=other)
    for name, path, shape in DINO:
        yield Pretrained(f"meta:{name}", "dino", shape, 224, 0, APACHE, url=f"{META}/dino/{path}.pth")
    for registers in (0, 4):
        for letter, shape, giant in DINOV2:
            model, ending = f"dinov2_vit{letter}14", "_reg" if registers else ""
            address = f"{META}/dinov2/{model}/{model}{ending and '_reg4'}_pretrain.pth"
            other = {"layer_scale": 1e-5, "registers": registers} | giant
            yield Pretrained(f"meta:{model}{ending}", "dinov2", shape, 518, 0, APACHE, url=address, other=other)
    for path, shape, digits, top1 in MAE:
        name, address, checksum = f"meta:{path.split('/')[1]}", f"{META}/mae/{path}.pth", f"md5:{digits}"
        other = {"pooling": "mean", "norm_after_pooling": True} if top1 else {}
        classes = 1000 if top1 else 0
        yield Pretrained(name, "mae", shape, 224, classes, NON_COMMERCIAL, top1, address, checksum, other=other)


def torchvisions() -> Iterator[Pretrained]:
    """Torchvision's ViTs."""
    for name, pixels, top1, mebibytes in TORCHVISION:
        shape = name.partition(".")[0].removeprefix("vit_").replace("_", "/").capitalize()
        license, size = NON_COMMERCIAL if "SWAG" in name else SEE_TORCHVISION, round(mebibytes * 2**20)
        yield Pretrained(f"torchvision:{name}", "torchvision", shape, pixels, 1000, license, top1, size=size)


AUGREGS = [row for file, top1 in AUGREG if (row := augreg(file, top1))]
HUBS = [Pretrained(*row[:7], other=row[7]) for row in HUB]
KNOWN = {row.name: row for row in (*originals(), *AUGREGS, *metas(), *torchvisions(), *HUBS)}


def row_for(name: str) -> Pretrained:
    """The row of a `google:` or `meta:` name.

    Raises:
        InputError: there is none; the hint is the nearest name.
    """
    scheme, _, file = name.partition(":")
    row = KNOWN.get(name) or KNOWN.get(f"{scheme}:{file.removeprefix('imagenet21k/')}")
    row = row or (augreg(file) if scheme == "google" else None)
    if row is None:
        raise InputError(f"there are no weights {name!r}", suggestion(name))
    return row


def suggestion(name: str) -> str:
    """A hint for a name that does not exist: the nearest one."""
    scheme, _, rest = name.partition(":")
    choices = [known.removeprefix(f"{scheme}:") for known in KNOWN if known.startswith(f"{scheme}:")]
    closest = nearest(rest, choices)
    return f"did you mean '{scheme}:{closest}'?" if closest else "`vitreous list models` shows the names"
