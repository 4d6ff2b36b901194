"""Model variants by name: "B/16" is a size and a patch size, "R50+B/16" a hybrid."""

import re
from typing import Any, NamedTuple

from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError, unknown


class Size(NamedTuple):
    """One row of Table 1."""

    width: int
    depth: int
    mlp_dim: int
    num_heads: int


# fmt: off
SIZES = {
    #              width depth mlp_dim heads
    "mu":     Size(   32,    1,    128,    2),  # big_vision, for tests
    "Ti":     Size(  192,   12,    768,    3),  # arXiv 2106.10270
    "S":      Size(  384,   12,   1536,    6),  # arXiv 2106.10270
    "M":      Size(  512,   12,   2048,    8),  # big_vision
    "B":      Size(  768,   12,   3072,   12),  # arXiv 2010.11929, Table 1
    "L":      Size( 1024,   24,   4096,   16),  # arXiv 2010.11929, Table 1
    "So400m": Size( 1152,   27,   4304,   16),  # arXiv 2305.13035
    "H":      Size( 1280,   32,   5120,   16),  # arXiv 2010.11929, Table 1
    "g":      Size( 1408,   40,   6144,   16),  # arXiv 2106.04560
    "G":      Size( 1664,   48,   8192,   16),  # arXiv 2106.04560
}
# fmt: on


class Hybrid(NamedTuple):
    """A ResNet followed by the Transformer (section 3.1, "Hybrid Architecture")."""

    size: str
    stem_blocks: tuple[int, ...]
    patch_size: int  # on the feature map


HYBRIDS = {
    # Strides multiply: 4 of the root, 2 of each stage after the first.
    "R+Ti/16": Hybrid("Ti", (), 8),  # 4 × 8 = 32 pixels per token, despite its name
    "R26+S/32": Hybrid("S", (2, 2, 2, 2), 1),
    "R26+B/32": Hybrid("B", (2, 2, 2, 2), 1),
    "R50+B/16": Hybrid("B", (3, 4, 9), 1),  # stage 4 removed, its layers moved to stage 3
    "R50+B/32": Hybrid("B", (3, 4, 6, 3), 1),
    "R50+L/16": Hybrid("L", (3, 4, 9), 1),
    "R50+L/32": Hybrid("L", (3, 4, 6, 3), 1),
}

# Names for lists and suggestions; any other patch size works too.
NAMES = (
    *("mu/16", "Ti/16", "S/32", "S/16", "M/16", "B/32", "B/16", "L/32", "L/16"),
    *("So400m/14", "H/14", "g/14", "G/14"),
    *HYBRIDS,
)


def variant(name: str, **overrides: Any) -> ViTConfig:
    """Decodes a name such as "B/16" (size / patch) or "R50+B/16" (hybrid) into a config.

    Args:
        name: one of the sizes mu, Ti, S, M, B, L, So400m, H, g, G with any patch size, or a hybrid.
        **overrides: fields of ViTConfig to set differently, such as `num_classes=10`.

    Raises:
        InputError: no such variant, or an invalid override.
    """
    if name in HYBRIDS:
        hybrid = HYBRIDS[name]
        fields = SIZES[hybrid.size]._asdict() | {"stem_blocks": hybrid.stem_blocks, "patch_size": hybrid.patch_size}
    else:
        match = re.fullmatch(r"([A-Za-z0-9]+)/([1-9]\d{0,3})", name if isinstance(name, str) else "")
        if not match or match[1] not in SIZES:
            error = unknown("variant", str(name), NAMES)
            sizes = f"sizes {', '.join(SIZES)} with any patch size, as in B/16; hybrids {', '.join(HYBRIDS)}"
            raise InputError(error.cause, f"{error.hint} ({sizes})")
        fields = SIZES[match[1]]._asdict() | {"patch_size": int(match[2])}
    return ViTConfig.from_dict(fields | overrides)


def is_variant(name: str) -> bool:
    """Whether `variant` knows a name, such as "B/16"."""
    try:
        variant(name)
    except ValueError:
        return False
    return True
