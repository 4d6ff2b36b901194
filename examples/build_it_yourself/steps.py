"""The eight steps in the paper's order, and the docstring that replaces each body in my_vit.py."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step of building a Vision Transformer.

    Attributes:
        number: from 1.
        title: what is built.
        write: the classes or functions to fill in.
        where: in the paper.
        page: of docs/paper/, to read first.
    """

    number: int
    title: str
    write: str
    where: str
    page: str

    def __str__(self) -> str:
        return f"step {self.number}, {self.title}"


@dataclass(frozen=True)
class Blank:
    """A blank body.

    Attributes:
        text: the docstring that replaces it, without quotes and not indented.
        stops: the steps for which the body raises NotImplementedError, in order; none in `__init__`, which runs while
            later steps are still blank.
    """

    text: str
    stops: tuple[int, ...] = ()


STEPS = (
    Step(1, "patch embedding", "PatchEmbedding", "equation 1", "patch_embedding.md"),
    Step(
        *(2, "class token and positions", "PositionEmbedding, and z_0 in VisionTransformer"),
        *("equation 1", "position_embedding.md"),
    ),
    Step(3, "self-attention", "SelfAttention", "equations 5 to 8", "attention.md"),
    Step(4, "MLP", "MLP", "equation 3", "mlp.md"),
    Step(5, "encoder block", "EncoderBlock", "equations 2 and 3", "encoder.md"),
    Step(6, "encoder", "Encoder", "equation 4", "encoder.md"),
    Step(7, "whole model", "the rest of VisionTransformer", "equation 4 and Figure 1", "model.md"),
    Step(8, "training", "train", "section 4.1", "training.md"),
)

MODULE = """\
Your Vision Transformer: eight steps from an empty file to a model that reads handwritten digits.

Replace each `raise NotImplementedError` by what the docstring describes, and add the layers to each `__init__`. The
names of layers and parameters matter, since weights are copied by name. After each step, and whenever you like, run

    python -m examples.build_it_yourself

to see what is right, what is still wrong, and what comes next. The guide is docs/paper/build.md; the solution is
examples/paper_vit.py and, for step 8, training_loop.py in this folder.
"""

BLANKS = {
    "PatchEmbedding.__init__": Blank("""\
Step 1: makes the projection E.

Keep patch_size, P, as self.patch_size, and make

- self.projection: nn.Linear from the 3 P² numbers of a flattened patch to D = width numbers.
"""),
    "PatchEmbedding.forward": Blank(
        """\
Step 1: maps images, batch × 3 × H × W, to x_p E, batch × N × D, with N = HW / P² (equation 1).

1. Split H into rows × P and W into columns × P: reshape to batch × 3 × rows × P × columns × P.
2. Permute the axes to batch, rows, columns, 3, P, P. (Without this, pixels of different patches get mixed.)
3. Flatten the last three axes to the 3 P² numbers of a patch, and rows and columns to N patches, row by row.
4. Project each patch.
""",
        stops=(1,),
    ),
    "PositionEmbedding.__init__": Blank("""\
Step 2: makes E_pos, one learned vector per token.

- self.embedding: nn.Parameter, 1 × tokens × width, drawn from a normal distribution with deviation 0.02.
"""),
    "PositionEmbedding.forward": Blank(
        """\
Step 2: adds E_pos to x, batch × tokens × D (equation 1).
""",
        stops=(2,),
    ),
    "SelfAttention.__init__": Blank("""\
Step 3: makes the two dense layers of attention.

Keep num_heads, k, as self.num_heads, and make

- self.qkv: nn.Linear from D = width to 3 D numbers, U_qkv: the D numbers of q, then those of k, then of v;
- self.out: nn.Linear from D to D numbers, U_msa.
"""),
    "SelfAttention.forward": Blank(
        """\
Step 3: maps x, batch × tokens × D, to MSA(x), of the same shape (equations 5 to 8).

1. Apply self.qkv, and cut the last axis into three equal parts: q, k, v (equation 5).
2. Split each into heads: the last axis into num_heads × D_h, then move the heads before the tokens:
   batch × heads × tokens × D_h.
3. A = softmax(q kᵀ / √D_h), over the keys, the last axis: batch × heads × tokens × tokens (equation 6).
4. A v: batch × heads × tokens × D_h (equation 7).
5. Move the heads back after the tokens, join them to D numbers, and apply self.out (equation 8).
""",
        stops=(3,),
    ),
    "MLP.__init__": Blank("""\
Step 4: makes two dense layers and the activation between them.

- self.fc1: nn.Linear from D = width to mlp_dim numbers;
- self.activation: the GELU in its tanh approximation, as in the authors' code;
- self.fc2: nn.Linear from mlp_dim back to D numbers.
"""),
    "MLP.forward": Blank(
        """\
Step 4: maps x, batch × tokens × D, to MLP(x), of the same shape: fc1, activation, fc2.
""",
        stops=(4,),
    ),
    "EncoderBlock.__init__": Blank("""\
Step 5: makes the four parts of a block.

- self.attention_norm and self.mlp_norm: nn.LayerNorm over width numbers, with eps=1e-6;
- self.attention: your SelfAttention;
- self.mlp: your MLP.
"""),
    "EncoderBlock.forward": Blank(
        """\
Step 5: maps x, z_(l-1), to z_l, of the same shape (equations 2 and 3).

1. z'_l = MSA(LN(z_(l-1))) + z_(l-1): norm, attention, and add the input of the norm.
2. z_l = MLP(LN(z'_l)) + z'_l: the same with the MLP.

Write x = x + …; x += … would change a tensor that another layer still needs.
""",
        stops=(5,),
    ),
    "Encoder.__init__": Blank("""\
Step 6: makes L = depth blocks and the final norm.

- self.blocks: nn.Sequential (or nn.ModuleList) of depth EncoderBlocks, each with its own weights;
- self.norm: nn.LayerNorm over width numbers, with eps=1e-6.
"""),
    "Encoder.forward": Blank(
        """\
Step 6: maps x, z_0, to LN(z_L), for all tokens: one block after the other, then the norm (equation 4).
""",
        stops=(6,),
    ),
    "VisionTransformer.__init__": Blank("""\
Steps 2 and 7: makes the parts of the model.

Step 2, for N = (image_size / patch_size)² patches:

- self.patch_embedding: your PatchEmbedding;
- self.class_token: nn.Parameter of zeros, 1 × 1 × width;
- self.position_embedding: your PositionEmbedding, for N + 1 tokens.

Step 7:

- self.encoder: your Encoder;
- self.head: nn.ModuleDict with one entry, "classifier": nn.Linear from width to num_classes numbers.
"""),
    "VisionTransformer.forward": Blank(
        """\
Steps 2 and 7: maps images, batch × 3 × H × W, to logits, batch × num_classes.

Step 2, z_0 = [x_class; x_p E] + E_pos (equation 1):

1. Embed the patches: batch × N × D.
2. Join the class token before them: expand it to batch × 1 × D, then torch.cat along dim=1.
3. Add the positions of all N + 1 tokens: self.position_embedding.

Step 7:

1. Run the encoder.
2. Take the class token, the first one, of each image: y, batch × D (equation 4).
3. Return its logits, self.head["classifier"](y). No softmax: the loss applies it.
""",
        stops=(2, 7),
    ),
    "train": Blank(
        """\
Step 8: trains the model until its logits name what the images show.

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
""",
        stops=(8,),
    ),
}
