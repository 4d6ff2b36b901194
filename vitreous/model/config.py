"""The config of a Vision Transformer: every architectural choice, frozen and validated."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from vitreous.support.errors import InputError, unknown

PositionKind = Literal["none", "learned", "learned_2d", "sincos_2d", "relative", "relative_bias"]
PositionSite = Literal["stem", "every_layer", "shared"]
SincosExponent = Literal["big_vision", "mae"]
Resampling = Literal[
    "bilinear_aligned",
    "bilinear",
    "bilinear_antialias",
    "bicubic_aligned",
    "bicubic",
    "bicubic_antialias",
    "bicubic_offset",
]
RotaryKind = Literal["none", "eva02", "axial", "perception", "perception_giant", "mixed", "dinov3", "mlcd"]
Pooling = Literal["class_token", "mean", "attention", "class_token_and_mean"]
Gelu = Literal["tanh", "exact", "quick"]
MLPKind = Literal["mlp", "swiglu"]
NormKind = Literal["layer", "rms"]
NormSite = Literal["before", "after"]
QKVBias = Literal["all", "no_key", "none"]
QueryKeyNorm = Literal["none", "head", "width"]
StemEps = Literal["google", "timm"]

PAIRS = ("image_size", "patch_size")  # (height, width); one number stands for a square
POSITIVE = ("width", "depth", "mlp_dim", "num_heads", "channels", "stem_width")
NOT_NEGATIVE = ("num_classes", "registers")
FAR = 1000  # search distance for other numbers of heads that divide the width
RATES = ("dropout", "stochastic_depth", "patch_dropout")


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """The choices inside the encoder's blocks; the defaults are the paper's, in which later architectures differ."""

    gelu: Gelu = "tanh"  # the authors' code; PyTorch ports use "exact", CLIP "quick"
    norm_eps: float = 1e-6  # added to the variance in all norms
    mlp: MLPKind = "mlp"
    layer_scale: float | None = None  # initial value of LayerScale (arXiv 2103.17239); None for no LayerScale
    norm: NormKind = "layer"  # of the encoder's norms; "rms" has neither mean nor bias (arXiv 1910.07467)
    norm_site: NormSite = "before"  # of a branch, or after it: x + LN(MSA(x)) (arXiv 2111.09883)
    qkv_bias: QKVBias = "all"  # k's bias changes no attention map, so some have none
    query_key_norm: QueryKeyNorm = "none"  # norms of q and k, over each head or over all joined (arXiv 2302.05442)
    attention_inner_norm: bool = False  # a norm of the joined heads before U_msa (arXiv 2210.06423)
    mlp_inner_norm: bool = False  # a norm of the MLP's hidden layer (arXiv 2210.06423)
    dense_bias: bool = True  # of U_msa and the MLP

    def __post_init__(self) -> None:
        own = [field.name for field in dataclasses.fields(self)]
        for name in [name for name in CHOICES if name in own]:
            check_choice(name, getattr(self, name))
        for name in [name for name in FLAGS if name in own]:
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}", "it must be True or False")
        if not is_number(self.norm_eps) or self.norm_eps <= 0:
            raise InputError(f"norm_eps is {self.norm_eps!r}", "it must be a finite number above 0")
        if self.layer_scale is not None and not is_number(self.layer_scale):
            raise InputError(f"layer_scale is {self.layer_scale!r}", "it must be a finite number")


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BlockOptions):
    """Every architectural choice of a Vision Transformer; the defaults are the paper's ViT-B/16.

    Sizes are (height, width) in pixels; a single number stands for a square.

    Raises:
        InputError: a value is out of range, or two contradict each other; the hint names what is valid.
    """

    # The Transformer (Table 1).
    width: int = 768  # D
    depth: int = 12  # L
    mlp_dim: int = 3072
    num_heads: int = 12  # k
    pre_norm: bool = False  # a norm before the first block (CLIP)
    final_norm: bool = True  # a norm after the last

    # Image to tokens (equation 1).
    image_size: tuple[int, int] = (224, 224)  # of the positions, which are resampled for other sizes
    patch_size: tuple[int, int] = (16, 16)  # P, on the image or, in a hybrid, on the stem's feature map
    channels: int = 3  # C
    patch_bias: bool = True
    embedding_norm: bool = False  # a norm of the projected patches (AIMv2, arXiv 2411.14402)
    stem_blocks: tuple[int, ...] | None = None  # hybrid: bottleneck units per ResNet stage; () for the root alone
    stem_width: int = 64
    stem_eps: StemEps = "google"  # of the stem's norms and filters
    class_token: bool = True
    distillation_token: bool = False  # DeiT (arXiv 2012.12877), with its own classifier
    registers: int = 0  # arXiv 2309.16588
    mask_token: bool = False  # replaces hidden patches in self-supervised training (appendix B.1.2)

    # Positions (equation 1 and appendix D.4).
    position_embedding: PositionKind = "learned"
    position_site: PositionSite = "stem"
    position_class_slot: bool = True  # whether class and distillation tokens have positions; registers never do
    position_resampling: Resampling = "bilinear_aligned"  # the authors' scipy.ndimage.zoom(order=1)
    sincos_exponent: SincosExponent = "big_vision"  # i / (D/4 - 1); "mae" is i / (D/4)
    rotary: RotaryKind = "none"  # rotary positions of q and k, by the conventions of a family, beside the above
    rotary_grid: tuple[int, int] | None = None  # that every grid is scaled to; None for no scaling

    # The head.
    num_classes: int = 1000  # K; 0 for no classifier
    pooling: Pooling = "class_token"
    pooling_heads: int | None = None  # of attention pooling; None for num_heads
    pooling_mlp_dim: int | None = None  # of attention pooling; None for mlp_dim
    norm_after_pooling: bool = False  # final norm after the pooling (MAE's and timm's fc_norm)
    hidden_dim: int | None = None  # width of the head's tanh hidden layer (pre-training); None for no hidden layer
    classifier_bias: bool = True

    # Regularization in training.
    dropout: float = 0.0  # after the positions, attention's projection, and both dense layers of the MLP (B.1)
    stochastic_depth: float = 0.0  # of the last block, growing linearly from 0 at the first
    patch_dropout: float = 0.0  # share of an image's patches to drop (arXiv 2208.07220)

    def __post_init__(self) -> None:
        for name in PAIRS:
            object.__setattr__(self, name, as_pair(name, getattr(self, name)))
        if self.rotary_grid is not None:
            object.__setattr__(self, "rotary_grid", as_pair("rotary_grid", self.rotary_grid))
        if isinstance(self.stem_blocks, list):
            object.__setattr__(self, "stem_blocks", tuple(self.stem_blocks))
        super().__post_init__()
        self._check_values()
        self._check_sizes()
        self._check_tokens()

    @property
    def head_dim(self) -> int:
        """D_h = D / k."""
        return self.width // self.num_heads

    @property
    def stem_stride(self) -> int:
        """Image pixels per cell of the stem's feature map; 1 without a stem."""
        return 1 if self.stem_blocks is None else stem_stride(len(self.stem_blocks))

    @property
    def stem_channels(self) -> int:
        """Input channels of the patch embedding."""
        if self.stem_blocks is None:
            return self.channels
        return self.stem_width * 4 * 2 ** (len(self.stem_blocks) - 1) if self.stem_blocks else self.stem_width

    @property
    def token_stride(self) -> tuple[int, int]:
        """Image pixels per patch token, (height, width)."""
        return self.patch_size[0] * self.stem_stride, self.patch_size[1] * self.stem_stride

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of an image of `image_size`, (rows, columns), with product N."""
        return grid_of(self.image_size, self.token_stride)

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches: class, distillation, registers, in this order."""
        return self.class_token + self.distillation_token + self.registers

    @property
    def num_tokens(self) -> int:
        """T, the length of the sequence in the encoder."""
        return self.prefix_tokens + self.grid[0] * self.grid[1]

    @property
    def feature_width(self) -> int:
        """Numbers of a representation y (equation 4)."""
        return 2 * self.width if self.pooling == "class_token_and_mean" else self.width

    def replace(self, **changes: Any) -> Self:
        """Returns a validated copy with some fields changed."""
        return type(self).from_dict(dataclasses.asdict(self) | changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Builds a config from `to_dict`'s fields.

        Raises:
            InputError: an unknown field or an invalid value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in fields:
            if key not in known:
                raise unknown("config field", key, known)
        return cls(**fields)

    def _check_values(self) -> None:
        for names, least in ((POSITIVE, 1), (NOT_NEGATIVE, 0)):
            for name in names:
                check_count(name, getattr(self, name), least)
        for name in RATES:
            check_rate(name, getattr(self, name))
        for name in ("hidden_dim", "pooling_heads", "pooling_mlp_dim"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        stages = self.stem_blocks
        if stages is not None and not (isinstance(stages, tuple) and all(is_integer(n) and n > 0 for n in stages)):
            raise InputError(f"stem_blocks is {stages!r}", "it must be None or hold the units of each stage, 1 or more")

    def _check_sizes(self) -> None:
        grid_of(self.image_size, self.token_stride)
        check_heads(self.width, self.num_heads)
        if self.pooling_heads is not None:
            check_heads(self.width, self.pooling_heads, "pooling_heads")
        if self.rotary != "none":
            check_rotary(self.head_dim)
        if self.position_embedding == "sincos_2d":
            check_sincos(self.width)
        if self.position_embedding == "learned_2d" and self.width % 2:
            raise InputError(f"width is {self.width}", "learned_2d positions need an even width")
        if self.stem_blocks is not None and self.stem_width % 32:
            raise InputError(f"stem_width is {self.stem_width}", "group norm with 32 groups needs a multiple of 32")

    def _check_tokens(self) -> None:
        if self.pooling.startswith("class_token") and not self.class_token:
            raise InputError(f"pooling is {self.pooling!r} but class_token is False", "pool by 'mean' or 'attention'")
        if self.distillation_token and (self.pooling != "class_token" or self.hidden_dim is not None):
            raise InputError("a distillation token needs pooling 'class_token' and no hidden layer in the head")
        inside = self.position_site != "stem"
        if self.pooling == "class_token_and_mean" and self.norm_after_pooling:
            raise InputError(
                "the final norm comes before pooling 'class_token_and_mean'", "leave norm_after_pooling out"
            )
        if self.rotary == "mlcd" and self.prefix_tokens and not self.class_token:
            raise InputError("rotary 'mlcd' has angles of a class token", "set class_token=True, or registers=0")
        if self.position_embedding.startswith("relative") and not inside:
            raise InputError("relative positions act inside attention", "position_site is 'every_layer' or 'shared'")
        if inside and self.rotary != "none":
            raise InputError(
                "other positions inside the encoder cannot join rotary ones", "position_site must be 'stem'"
            )
        if self.patch_dropout and (inside or self.rotary != "none"):
            hint = "position_site must be 'stem' and rotary 'none'"
            raise InputError("patch dropout needs positions given at the stem", hint)


FIELD_TYPES = get_type_hints(ViTConfig)
CHOICES = {name: get_args(kind) for name, kind in FIELD_TYPES.items() if get_origin(kind) is Literal}
FLAGS = [name for name, kind in FIELD_TYPES.items() if kind is bool]


def stem_stride(stages: int) -> int:
    """The stride of a ResNet's feature map: 4 of the root, and 2 of each stage after the first."""
    return 4 * 2 ** max(0, stages - 1)


def grid_of(image_size: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """Counts the patches of an image, (rows, columns).

    Raises:
        InputError: the patch does not divide the image; the hint names the nearest sizes.
    """
    (height, width), (patch_height, patch_width) = image_size, stride
    if height % patch_height or width % patch_width or not height or not width:
        below = max(1, height // patch_height) * patch_height, max(1, width // patch_width) * patch_width
        above = (max(1, -(-height // patch_height)) * patch_height, max(1, -(-width // patch_width)) * patch_width)
        sizes = " and ".join(f"{h}×{w}" for h, w in dict.fromkeys((below, above)))
        raise InputError(
            f"a {height}×{width} image does not divide into {patch_height}×{patch_width} patches",
            f"the nearest sizes that do: {sizes}",
        )
    return height // patch_height, width // patch_width


def check_sincos(width: int) -> None:
    """Raises InputError for a width without room for two or more frequencies of sines and cosines of x and y."""
    if width % 4 or width < 8:
        nearest = max(8, (width + 2) // 4 * 4)
        raise InputError(
            f"sincos_2d positions need a width divisible by 4, 8 or more, got {width}", f"set width={nearest}"
        )


def check_rotary(head_dim: int) -> None:
    """Raises InputError for heads whose numbers do not divide into pairs for rows and for columns."""
    if head_dim % 4:
        raise InputError(f"rotary positions need heads of a multiple of 4 numbers, got {head_dim}", "change num_heads")


def as_pair(name: str, value: Any) -> tuple[int, int]:
    """Parses a size: a positive integer for a square, or (height, width)."""
    pair = (value, value) if is_integer(value) else value
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(is_integer(n) and n > 0 for n in pair):
        raise InputError(f"{name} is {value!r}", "it must be a positive integer or (height, width)")
    return pair[0], pair[1]


def check_choice(name: str, value: Any) -> None:
    """Raises InputError if a field of CHOICES has another value than those listed."""
    if value not in CHOICES[name]:
        raise InputError(f"{name} is {value!r}", f"it can be {', '.join(CHOICES[name])}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises InputError if a value is not an integer of at least `least`."""
    if not is_integer(value) or value < least:
        raise InputError(f"{name} is {value!r}", f"it must be an integer of at least {least}")


def check_rate(name: str, value: Any) -> None:
    """Raises InputError if a value is not a rate in [0, 1)."""
    if not is_number(value) or not 0 <= value < 1:
        raise InputError(f"{name} is {value!r}", "it must be at least 0 and below 1")


def check_heads(width: int, num_heads: int, name: str = "num_heads") -> None:
    """Raises InputError if the number of heads does not divide the width; the hint names the nearest that do."""
    check_count("width", width)
    check_count(name, num_heads)
    if width % num_heads:
        around = range(max(1, num_heads - FAR), min(width, num_heads + FAR) + 1)
        divisors = [k for k in {1, *around} if width % k == 0]
        nearest = sorted(sorted(divisors, key=lambda k: abs(k - num_heads))[:3])
        raise InputError(
            f"{name} is {num_heads}, which does not divide width {width}",
            f"the nearest that do are {', '.join(map(str, nearest))}",
        )


def is_number(value: Any) -> bool:
    """Whether a value is a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: Any) -> bool:
    """Whether a value is an int and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


PAPER = BlockOptions()  # after the checks, which it runs
