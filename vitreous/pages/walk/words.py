"""What the page says of each stage, for someone who meets it for the first time."""

from vitreous.model.config import ViTConfig

# The longer text below a stage's heading. In what is a template, {} are filled from the pass.
STAGES = {
    "image": (
        "A model sees numbers. The photo is brought to the size that the weights were trained on, {how}. "
        "Then each byte from 0 to 255 becomes {range}: it is divided by 255, the channel's mean is taken away, "
        "and the rest is divided by its standard deviation."
    ),
    "stem": (
        "This model is a hybrid (section 3.1): a small ResNet turns the image into a feature map, and the "
        "Transformer reads the map's cells in place of pixels. Some of its {channels} channels are below; each cell "
        "stands for {height}×{width} pixels, and has seen some of their neighbors."
    ),
    "patches": (
        "A Transformer reads a sequence, so the {what} is cut into {count} patches of {height}×{width} {unit}, in "
        "reading order. Each is flattened: its {values} numbers are written one behind the other, {order}. From here "
        "on a patch is a list of numbers, and nothing in it says which of them were neighbors."
    ),
    "projection": (
        "Each of the {width} filters, the columns of E, is as large as a patch. A patch is multiplied with a filter, "
        "number by number, and all is summed: one number that says how much the patch looks like the filter. "
        "The {width} numbers together are the patch's token. All patches meet the same filters."
    ),
    "filters": (
        "The principal components of the {source}, the one that explains most first (Figure 7, left). Trained filters "
        "show flat colors, edges and waves, of which a small patch can be put together; fresh ones are noise."
    ),
    "prefix": (
        "Learned tokens are put in front of the patches: {names}. They come from no place of the image and are the "
        "same for every photo. {why}"
    ),
    "class_token": (
        "The class token starts empty-handed and gathers from the patches, block by block, what the head needs."
    ),
    "distillation_token": (
        "The distillation token does the same for a second classifier, which learned from a teacher (DeiT)."
    ),
    "registers": "Registers give the blocks a place to keep what belongs to no patch; no head reads them.",
    "unread": "In this model no head reads the class token; patches can still use it as a place to keep things.",
    "positions": (
        "So far the model could not tell one order of the patches from another. {kind} is added to each token; it "
        "says where the patch was. The map shows how alike the chosen place's vector is to those of all others "
        "(cosine similarity, Figure 7, center). In a trained model near places are alike, and often rows and columns "
        "can be seen."
    ),
    "positions: inside": (
        "Positions are not added here but before each block (appendix D.4). The map shows how alike the chosen "
        "place's vector, in the first block, is to those of all others."
    ),
    "positions: relative": (
        "This model adds nothing to the tokens. Inside each block's attention, every pair of tokens gets a term that "
        "depends on how far apart they are in reading order (appendix D.4)."
    ),
    "positions: none": (
        "This model gives no positions: to its blocks the patches are a bag without order (appendix D.4)."
    ),
    "encoder": (
        "{depth} blocks follow, all of one build and each with weights of its own. In a block every token first "
        "looks at all others and gathers from them (attention, equation 2), then thinks for itself (the MLP, "
        "equation 3). What comes out is added to what came in, so a token is changed step by step and never "
        "replaced. Open a block, choose a patch, and see where each head looks."
    ),
    "norm": (
        "A last layer norm brings every token to the same scale, so that the head can read it. It belongs to the "
        "encoder and makes deep training stable."
    ),
    "head": (
        "The head makes one vector y of the tokens, and of y one number for each class, the logits. Softmax turns "
        "them into shares that sum to 1."
    ),
    "head: none": (
        "This file has no classifier: the vector y below is what the model gives, its representation of the photo."
    ),
}

# The text of a part of a block, in its first block at length.
HEADS = (
    "In each of the {heads} heads the chosen token's query is multiplied with every token's key. Softmax turns the "
    "products into shares that sum to 1: one row of A. The head's answer is the mean of all values, each by its share."
)
QKV = (
    "Each token makes a query (what it looks for), a key (what it can be found by) and a value (what it hands on). "
    "Each head has {head_dim} numbers of each. Below, in head 0: where the query and a key have like colors in like "
    "places, their product is large."
)
GATHER, THINK = "each token gathers from all others", "each token by itself"
ADDED = "How long the chosen token's vector is, and how much each branch adds to it (L2 norms)."
HIDDEN = "The hidden layer of the chosen token: the units that answer most."
READ_ONLY = (
    "The head reads only {read}, so the pass computes no other token in this last block. Where patches would look is "
    "computed beside it; for the numbers here, choose {read}."
)
FRESH = (
    "The weights of this model are fresh and random: nothing has been learned yet. Shapes, costs and code are those of "
    "a trained model; pictures, values and classes say nothing."
)
FLOPS = "FLOPs: two for each multiply-add of a matrix product or a convolution; nothing else is counted."
KEY = (
    "In every map of attention orange marks where the chosen token looks. The strongest place of each map is as orange "
    "as can be, and the opacity grows with the square root of the share, so that faint ones are seen too. Below a map "
    "stands what its strongest place gets{front}. Attention shows what a token was gathered from, which is not yet why."
)
COARSE = (
    "To keep this page small, {what}; the numbers below the maps are those of such means. The model itself works on "
    "single patches."
)


def prefix_names(config: ViTConfig) -> list[str]:
    """The tokens in front of the patches, one by one."""
    names = ["class token"] * config.class_token + ["distillation token"] * config.distillation_token
    return names + [f"register {i}" for i in range(config.registers)]


def front_name(config: ViTConfig) -> str:
    """What the tokens in front are called where there is little room."""
    return "" if not config.prefix_tokens else "class" if prefix_names(config) == ["class token"] else "front"


def why_prefix(config: ViTConfig) -> str:
    """What the tokens in front are for."""
    read = "class_token" if config.pooling == "class_token" else "unread"
    told = [STAGES[read]] if config.class_token else []
    told += [STAGES["distillation_token"]] * config.distillation_token
    return " ".join(told + [STAGES["registers"]] * (config.registers > 0))


def position_kind(config: ViTConfig) -> str:
    """What is added, with an article."""
    return {
        "learned": "A learned vector for each place",
        "learned_2d": "A learned vector for each row and one for each column, joined,",
        "sincos_2d": "A fixed vector of sines and cosines of the row and the column",
    }.get(config.position_embedding, "A vector")


def key_text(config: ViTConfig) -> str:
    """How a map of attention is read."""
    name = front_name(config)
    others = {"class": ", and what the class token gets", "front": ", and what the tokens in front of the patches get"}
    return KEY.format(front=others.get(name, ""))


def coarse_text(keys: int, queries: int) -> str:
    """What was put together to keep the page small; empty for nothing."""
    told = []
    if keys > 1:
        told.append(f"maps of attention show {keys}×{keys} patches as one")
    if queries > 1:
        told.append(f"a chosen patch shows the mean of the {queries}×{queries} patches around it")
    return COARSE.format(what=" and ".join(told)) if told else ""
