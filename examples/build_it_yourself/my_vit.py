"""Your Vision Transformer: eight steps from an empty file to a model that reads handwritten digits.

Replace each `raise NotImplementedError` by what the docstring describes, and add the layers to each `__init__`. The
names of layers and parameters matter, since weights are copied by name. After each step, and whenever you like, run

    python -m examples.build_it_yourself

to see what is right, what is still wrong, and what comes next. The guide is docs/paper/build.md; the solution is
examples/paper_vit.py and, for step 8, training_loop.py in this folder.
"""

import math  # noqa: F401 (your code needs it)

import torch  # noqa: F401 (your code needs it)
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """x_p E: cut the image into N = HW / P² patches, flatten each, project it to D numbers (equation 1)."""

    def __init__(self, patch_size: int, width: int) -> None:
        """Step 1: makes the projection E.

        Keep patch_size, P, as self.patch_size, and make

        - self.projection: nn.Linear from the 3 P² numbers of a flattened patch to D = width numbers.
        """
        super().__init__()

    def forward(self, images: Tensor) -> Tensor:
        """Step 1: maps images, batch × 3 × H × W, to x_p E, batch × N × D, with N = HW / P² (equation 1).

        1. Split H into rows × P and W into columns × P: reshape to batch × 3 × rows × P × columns × P.
        2. Permute the axes to batch, rows, columns, 3, P, P. (Without this, pixels of different patches get mixed.)
        3. Flatten the last three axes to the 3 P² numbers of a patch, and rows and columns to N patches, row by row.
        4. Project each patch.
        """
        raise NotImplementedError("step 1: PatchEmbedding.forward")


class PositionEmbedding(nn.Module):
    """+ E_pos: a learned vector for each of the N + 1 places (equation 1)."""

    def __init__(self, tokens: int, width: int) -> None:
        """Step 2: makes E_pos, one learned vector per token.

        - self.embedding: nn.Parameter, 1 × tokens × width, drawn from a normal distribution with deviation 0.02.
        """
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Step 2: adds E_pos to x, batch × tokens × D (equation 1)."""
        raise NotImplementedError("step 2: PositionEmbedding.forward")


class SelfAttention(nn.Module):
    """MSA: every token asks (q) every token (k) and takes from what it holds (v), k heads at once (equations 5–8)."""

    def __init__(self, width: int, num_heads: int) -> None:
        """Step 3: makes the two dense layers of attention.

        Keep num_heads, k, as self.num_heads, and make

        - self.qkv: nn.Linear from D = width to 3 D numbers, U_qkv: the D numbers of q, then those of k, then of v;
        - self.out: nn.Linear from D to D numbers, U_msa.
        """
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Step 3: maps x, batch × tokens × D, to MSA(x), of the same shape (equations 5 to 8).

        1. Apply self.qkv, and cut the last axis into three equal parts: q, k, v (equation 5).
        2. Split each into heads: the last axis into num_heads × D_h, then move the heads before the tokens:
           batch × heads × tokens × D_h.
        3. A = softmax(q kᵀ / √D_h), over the keys, the last axis: batch × heads × tokens × tokens (equation 6).
        4. A v: batch × heads × tokens × D_h (equation 7).
        5. Move the heads back after the tokens, join them to D numbers, and apply self.out (equation 8).
        """
        raise NotImplementedError("step 3: SelfAttention.forward")


class MLP(nn.Module):
    """Two dense layers with a GELU between them; the authors' code has the tanh GELU."""

    def __init__(self, width: int, mlp_dim: int) -> None:
        """Step 4: makes two dense layers and the activation between them.

        - self.fc1: nn.Linear from D = width to mlp_dim numbers;
        - self.activation: the GELU in its tanh approximation, as in the authors' code;
        - self.fc2: nn.Linear from mlp_dim back to D numbers.
        """
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Step 4: maps x, batch × tokens × D, to MLP(x), of the same shape: fc1, activation, fc2."""
        raise NotImplementedError("step 4: MLP.forward")


class EncoderBlock(nn.Module):
    """Norm, attention, add; norm, MLP, add (equations 2 and 3)."""

    def __init__(self, width: int, num_heads: int, mlp_dim: int) -> None:
        """Step 5: makes the four parts of a block.

        - self.attention_norm and self.mlp_norm: nn.LayerNorm over width numbers, with eps=1e-6;
        - self.attention: your SelfAttention;
        - self.mlp: your MLP.
        """
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Step 5: maps x, z_(l-1), to z_l, of the same shape (equations 2 and 3).

        1. z'_l = MSA(LN(z_(l-1))) + z_(l-1): norm, attention, and add the input of the norm.
        2. z_l = MLP(LN(z'_l)) + z'_l: the same with the MLP.

        Write x = x + …; x += … would change a tensor that another layer still needs.
        """
        raise NotImplementedError("step 5: EncoderBlock.forward")


class Encoder(nn.Module):
    """L blocks and a final norm."""

    def __init__(self, width: int, depth: int, num_heads: int, mlp_dim: int) -> None:
        """Step 6: makes L = depth blocks and the final norm.

        - self.blocks: nn.Sequential (or nn.ModuleList) of depth EncoderBlocks, each with its own weights;
        - self.norm: nn.LayerNorm over width numbers, with eps=1e-6.
        """
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Step 6: maps x, z_0, to LN(z_L), for all tokens: one block after the other, then the norm (equation 4)."""
        raise NotImplementedError("step 6: Encoder.forward")


class VisionTransformer(nn.Module):
    """Image to class logits. ViT-B/16 (Table 1): 224, 16, 768, 12, 12, 3072, 1000."""

    def __init__(
        self, image_size: int, patch_size: int, width: int, depth: int, num_heads: int, mlp_dim: int, num_classes: int
    ) -> None:
        """Steps 2 and 7: makes the parts of the model.

        Step 2, for N = (image_size / patch_size)² patches:

        - self.patch_embedding: your PatchEmbedding;
        - self.class_token: nn.Parameter of zeros, 1 × 1 × width;
        - self.position_embedding: your PositionEmbedding, for N + 1 tokens.

        Step 7:

        - self.encoder: your Encoder;
        - self.head: nn.ModuleDict with one entry, "classifier": nn.Linear from width to num_classes numbers.
        """
        super().__init__()

    def forward(self, images: Tensor) -> Tensor:
        """Steps 2 and 7: maps images, batch × 3 × H × W, to logits, batch × num_classes.

        Step 2, z_0 = [x_class; x_p E] + E_pos (equation 1):

        1. Embed the patches: batch × N × D.
        2. Join the class token before them: expand it to batch × 1 × D, then torch.cat along dim=1.
        3. Add the positions of all N + 1 tokens: self.position_embedding.

        Step 7:

        1. Run the encoder.
        2. Take the class token, the first one, of each image: y, batch × D (equation 4).
        3. Return its logits, self.head["classifier"](y). No softmax: the loss applies it.
        """
        raise NotImplementedError("step 2: VisionTransformer.forward")
        raise NotImplementedError("step 7: VisionTransformer.forward")


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Step 8: trains the model until its logits name what the images show.

    Make one optimizer for all the model's parameters: torch.optim.AdamW, learning rate 1e-3. Then, in each epoch, go
    through all images in a new order (torch.randperm), in batches of 64, and for each batch

    1. compute the logits;
    2. compute the loss, nn.functional.cross_entropy of logits and labels;
    3. clear the old gradients (optimizer.zero_grad);
    4. compute the new ones (backward of the loss);
    5. let the optimizer take its step.

    Args:
        model: your VisionTransformer.
        images: handwritten digits, 1,438 × 3 × 8 × 8, of values from -1 to 1.
        labels: the digits they show, 1,438 integers from 0 to 9.
        epochs: how many times each image is seen.
    """
    raise NotImplementedError("step 8: train")
