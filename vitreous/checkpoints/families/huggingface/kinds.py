"""The image models of transformers, by model_type: layout, defaults, and which models are exported as each."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vitreous.checkpoints.families.shared.holds import Holds
from vitreous.model.config import ViTConfig

VIT, DEIT, MAE, MSN, IJEPA = "vit", "deit", "vit_mae", "vit_msn", "ijepa"
BEIT, DATA2VEC = "beit", "data2vec-vision"
DINOV2, DINOV2_REGISTERS, DINOV3 = "dinov2", "dinov2_with_registers", "dinov3_vit"
CLIP, SIGLIP, SIGLIP2, MLCD = "clip_vision_model", "siglip_vision_model", "siglip2_vision_model", "mlcd_vision_model"
INTERNVL, AIMV2 = "internvl_vision", "aimv2_vision_model"

# Image-text models, and the image tower of each.
TOWERS = {"clip": CLIP, "siglip": SIGLIP, "siglip2": SIGLIP2, "aimv2": AIMV2, "internvl": INTERNVL}
# Image towers that compute what CLIP's does.
CLIP_ALIKE = ("metaclip_2_vision_model", "chinese_clip_vision_model", "altclip_vision_model", "clipseg_vision_model")

GELUS = {"gelu": "exact", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "quick_gelu": "quick"}


@dataclass(frozen=True)
class Kind:
    """One model_type.

    Args:
        title: for messages.
        classes: how the names of its classes begin; those of its body end in "Model".
        body: prefix of the body's keys in a model with a head.
        layout: of its files, see `names.LAYOUTS`.
        defaults: of the fields that a config.json may leave out.
        resampling: of positions.
        processor: its image processor, without "ImageProcessor".
        required: fields of a config.json that must have one of these values.
        square: whether positions for a grid that is not square are wrong in transformers' own code.
        mask_token: whether its files have a mask token.
        holds: the models exported as this kind.
        written: whether any are; the models of some kinds are exported as another, which computes the same.
    """

    title: str
    classes: str
    body: str
    layout: str
    defaults: Mapping[str, Any]
    resampling: str = "bicubic"
    processor: str = "ViT"
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    square: bool = False
    mask_token: bool = False
    holds: Holds = field(default_factory=Holds)
    written: bool = True


def _defaults(act: str, eps: float, **others: Any) -> dict[str, Any]:
    """Defaults of a config.json; most kinds have 12 heads and images of 224 × 224."""
    return {"hidden_act": act, "layer_norm_eps": eps, "num_attention_heads": 12, "image_size": 224} | others


ANY = Holds(gelu=None, norm_eps=None)
WITHOUT_CLASSES = (False,)
BIASES = ("all", "none")  # of query, key and value

_VIT = Kind(
    "ViT", "ViT", "vit.", "disk", _defaults("gelu", 1e-12), holds=replace(ANY, qkv_bias=BIASES, hidden=(False, True))
)
_BEIT = Kind(
    *("BEiT", "Beit", "beit.", "disk", _defaults("gelu", 1e-12, patch_size=16)),
    processor="Beit",
    square=True,
    mask_token=True,
    holds=replace(
        ANY,
        qkv_bias=("no_key",),
        layer_scale=(False, True),
        patch_bias=(True,),
        positions=("learned", "none", "relative_bias"),
        pooling=("class_token", "mean"),
        norm_after_pooling=(True,),
        rectangles=(False,),
    ),
)
_DINOV2 = Kind(
    *("DINOv2", "Dinov2", "dinov2.", "dinov2", _defaults("gelu", 1e-6)),
    processor="Bit",
    square=True,
    mask_token=True,
    holds=replace(
        ANY,
        qkv_bias=BIASES,
        mlp=("mlp", "swiglu"),
        layer_scale=(True,),
        pooling=("class_token", "class_token_and_mean"),
        rectangles=(False,),
    ),
)
_CLIP = Kind(
    *("CLIP", "CLIP", "vision_model.", "tower", _defaults("quick_gelu", 1e-5)),
    processor="CLIP",
    holds=replace(
        ANY,
        pre_norm=(True,),
        patch_bias=(False,),
        pooling=("class_token", "mean"),
        final_norm=(True, False),
        rectangles=(False,),
    ),
)
_SIGLIP = Kind(
    *("SigLIP", "Siglip", "vision_model.", "tower", _defaults("gelu_pytorch_tanh", 1e-6)),
    processor="Siglip",
    holds=replace(ANY, class_token=(False,), pooling=("attention", "mean"), rectangles=(False,)),
)

# By model_type; of those that hold a model, the first is written.
KINDS = {
    VIT: _VIT,
    DEIT: replace(
        _VIT,
        **{"title": "DeiT", "classes": "DeiT", "body": "deit.", "processor": "DeiT"},
        holds=replace(_VIT.holds, distillation_token=(False, True), registers=(False, True)),
    ),
    CLIP: _CLIP,
    SIGLIP: _SIGLIP,
    IJEPA: replace(
        _VIT,
        **{"title": "I-JEPA", "classes": "IJepa", "body": "ijepa."},
        holds=replace(ANY, qkv_bias=BIASES, class_token=(False,), pooling=("mean",)),
    ),
    DINOV2: _DINOV2,
    DINOV2_REGISTERS: replace(
        _DINOV2,
        **{"title": "DINOv2 with registers", "classes": "Dinov2WithRegisters", "body": "dinov2_with_registers."},
        resampling="bicubic_antialias",
        holds=replace(_DINOV2.holds, registers=(False, True)),
    ),
    DINOV3: Kind(
        *("DINOv3", "DINOv3ViT", "", "dinov3", _defaults("gelu", 1e-5, num_attention_heads=6)),
        processor="DINOv3ViT",
        required={"rope_theta": (100.0,)},
        mask_token=True,
        holds=replace(
            ANY,
            qkv_bias=("all", "no_key", "none"),
            mlp=("mlp", "swiglu"),
            layer_scale=(True,),
            registers=(False, True),
            positions=("none",),
            rotary=("dinov3",),
            classifier=WITHOUT_CLASSES,
        ),
    ),
    BEIT: _BEIT,
    DATA2VEC: replace(
        _BEIT,
        **{"title": "data2vec", "classes": "Data2VecVision", "body": "data2vec_vision."},
        holds=replace(
            _BEIT.holds, pooling=("mean",), norm_after_pooling=None, final_norm=(False,), classifier=WITHOUT_CLASSES
        ),
    ),
    INTERNVL: Kind(
        *("InternViT", "InternVLVision", "", "internvl"),
        _defaults("gelu", 1e-6, num_attention_heads=16, image_size=[448, 448]),
        processor="GotOcr2",
        square=True,
        mask_token=True,
        holds=replace(
            ANY,
            qkv_bias=BIASES,
            norm=("layer", "rms"),
            query_key_norm=("none", "width"),
            layer_scale=(True,),
            final_norm=(True, False),
            pooling=("class_token", "mean"),
            classifier=WITHOUT_CLASSES,
            rectangles=(False,),
        ),
    ),
    MLCD: Kind(
        *("MLCD", "MLCDVision", "vision_model.", "tower"),
        _defaults("gelu", 1e-5, num_attention_heads=16, image_size=336),
        processor="CLIP",
        required={"rope_theta": (10000.0,), "rope_type": ("axial",), "num_key_value_groups": (1,)},
        holds=replace(
            _CLIP.holds,
            pooling=("class_token",),
            final_norm=(True,),
            positions=("none",),
            rotary=("mlcd",),
            classifier=WITHOUT_CLASSES,
        ),
    ),
    AIMV2: Kind(
        *("AIMv2", "Aimv2Vision", "vision_model.", "aimv2"),
        {"hidden_act": "silu", "rms_norm_eps": 1e-5, "num_attention_heads": 8, "image_size": 224},
        processor="CLIP",
        required={"hidden_act": ("silu",)},
        square=True,
        holds=replace(
            ANY,
            qkv_bias=BIASES,
            norm=("rms",),
            embedding_norm=(True,),
            dense_bias=(True, False),
            mlp=("swiglu",),
            class_token=(False,),
            pooling=("mean",),
            classifier=WITHOUT_CLASSES,
            rectangles=(False,),
        ),
    ),
    MAE: replace(_VIT, title="MAE", written=False),
    MSN: replace(_VIT, title="MSN", defaults=_defaults("gelu", 1e-6), written=False),
    SIGLIP2: replace(
        _SIGLIP, title="SigLIP 2", resampling="bilinear_antialias", processor="Siglip2", square=True, written=False
    ),
}


def kind_for(c: ViTConfig) -> str:
    """The model_type that a config is exported as: one that holds it, with its own GELU if possible, or the nearest."""

    def distance(kind: str) -> tuple[int, bool, bool]:
        gelu = GELUS.get(KINDS[kind].defaults["hidden_act"], c.gelu)
        return len(unsupported_by(kind, c)), c.pre_norm not in KINDS[kind].holds.pre_norm, gelu != c.gelu

    return min((kind for kind in KINDS if KINDS[kind].written), key=distance)


def unsupported_by(kind: str, c: ViTConfig) -> list[str]:
    """Names the parts of a model that a kind cannot hold."""
    unsupported = KINDS[kind].holds.unsupported(c)
    return unsupported + [why for why, applies in _combinations(kind, c, c.num_classes > 0) if applies]


def _combinations(kind: str, c: ViTConfig, classes: bool) -> list[tuple[str, bool]]:
    """Combinations of parts that a kind cannot hold, and whether a config has them."""
    mean, both = c.pooling == "mean", c.pooling == "class_token_and_mean"
    headless = ("mean pooling without a classifier", mean and not classes)
    normless = ("no final norm", not mean and not c.final_norm)
    normed = ("a final norm before mean pooling", mean and c.final_norm)
    if kind in (VIT, DEIT):
        return [
            ("a tanh hidden layer before a classifier", c.hidden_dim is not None and classes),
            (f"{c.registers} registers", c.registers > 1),
            ("registers with a distillation token", c.distillation_token and c.registers > 0),
        ]
    if kind == CLIP:
        return [
            ("a bias of the classifier", not mean and classes and c.classifier_bias),
            *(normed, normless, headless),
        ]
    if kind == SIGLIP:
        return [("a classifier after attention pooling", c.pooling == "attention" and classes), headless]
    if kind in (DINOV2, DINOV2_REGISTERS):
        return [
            ("a classifier of the class token alone", classes and not both),
            ("class token and mean without a classifier", both and not classes),
            (f"an MLP of width {c.mlp_dim}", mlp_ratio(c) is None),
        ]
    if kind == INTERNVL:
        other_norms = c.query_key_norm != "none" and (c.norm, c.norm_eps) != ("rms", 1e-6)
        mixed = ("a final RMSNorm", c.norm == "rms" and c.final_norm)
        return [normed, normless, mixed, ("norms of query and key that are not RMSNorm with eps 1e-6", other_norms)]
    if kind == AIMV2:
        return [("biases in attention but not in the MLP, or the reverse", (c.qkv_bias == "all") != c.dense_bias)]
    return []


def mlp_ratio(c: ViTConfig) -> int | None:
    """DINOv2's ratio of the MLP's width to the model's, which must be whole; None if there is none."""
    for ratio in range(1, 17):
        hidden = c.width * ratio
        if (hidden if c.mlp == "mlp" else (hidden * 2 // 3 + 7) // 8 * 8) == c.mlp_dim:
            return ratio
    return None
