"""How many images fit into memory at once, so that any number can be explained in chunks.

All results of this package are per image: chunks change nothing but rounding.
"""

from vitreous.model.config import ViTConfig, grid_of

BUDGET = 2**29  # bytes: ½ GiB


def images_at_once(
    config: ViTConfig, image_size: tuple[int, int], with_gradient: bool = False, budget: int = BUDGET
) -> int:
    """Counts the images whose maps and activations fit a memory budget, besides the model; at least 1.

    `images.split(images_at_once(…))` cuts a batch into such chunks.

    Args:
        config: of the model.
        image_size: (height, width) of the images.
        with_gradient: whether all maps and activations are kept (relevance), or one block's (everything else).
        budget: in bytes.

    Raises:
        ValueError: the patch does not divide the image.
    """
    return max(1, budget // bytes_of_image(config, image_size, with_gradient))


def bytes_of_image(config: ViTConfig, image_size: tuple[int, int], with_gradient: bool = False) -> int:
    """Estimates an upper bound of the memory for one image in 32-bit floats; arguments as for `images_at_once`."""
    rows, columns = grid_of(image_size, config.token_stride)
    tokens, pixels = config.prefix_tokens + rows * columns, image_size[0] * image_size[1]
    attention = config.num_heads * tokens**2
    relative = config.position_embedding.startswith("relative")  # offsets of every pair, and their indices in 64 bits
    passing = (8 if relative else 4) * attention  # logits, A and copies of them, in one block at a time
    # A block's norms, q, k, v, outputs of the heads, sums; and the MLP's hidden layer.
    activations = tokens * (12 * config.width + 4 * config.mlp_dim)
    # Normalized q, k and heads, rotated q and k with their partners, and the inner norms' results.
    more = (3 if config.query_key_norm != "none" else 0) + config.attention_inner_norm
    more += 10 if config.rotary != "none" else 0
    activations += tokens * (more * config.width + config.mlp_inner_norm * config.mlp_dim)
    kept = (4 if relative else 2) * attention + activations  # of each block: A, its gradient, all activations
    blocks = config.depth * kept if with_gradient else activations
    return 4 * (blocks + passing + 2 * config.channels * pixels + stem_floats(config, pixels, with_gradient))


def stem_floats(config: ViTConfig, pixels: int, with_gradient: bool) -> int:
    """Estimates the values in a hybrid's feature maps: in all of them, or in those alive at one time."""
    if config.stem_blocks is None:
        return 0
    root = config.stem_width * pixels  # four maps of a quarter of the pixels
    # About 20 maps of a stage's width for each unit; each stage has twice the width and a quarter of the cells.
    units = [20 * count * config.stem_width * pixels // (16 * 2**s) for s, count in enumerate(config.stem_blocks)]
    return root + sum(units) if with_gradient else root
