"""Tensor shapes in words, checked in test runs."""

from jaxtyping import Bool, Float, Int64
from torch import Tensor

Images = Float[Tensor, "batch channels image_height image_width"]
FeatureMap = Float[Tensor, "batch features map_height map_width"]
Patches = Float[Tensor, "batch patches values"]  # values = P² C: a patch, flattened
PatchMask = Bool[Tensor, "batch patches"]
PatchOrder = Int64[Tensor, "batch patches"]  # for each position the index of a patch of the same image
Tokens = Float[Tensor, "batch tokens width"]
Queries = Float[Tensor, "batch queries width"]  # all tokens, or the first few
Heads = Float[Tensor, "batch heads tokens head_dim"]
QueryHeads = Float[Tensor, "batch heads queries head_dim"]
AttentionMap = Float[Tensor, "batch heads queries tokens"]
AttentionBias = Float[Tensor, "#batch heads queries tokens"]  # added to the logits; may be one for all images
Representation = Float[Tensor, "batch features"]  # width numbers, or twice as many after ClassTokenAndMeanPooling
Logits = Float[Tensor, "batch classes"]
Grid = tuple[int, int]  # (rows, columns) of patches
Size = int | tuple[int, int]  # (height, width) in pixels; one number for a square
