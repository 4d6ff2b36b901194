"""The sections of a recipe: every value that decides a run, with its type, range and default."""

from typing import Annotated, Literal, Self

from pydantic import Field

from vitreous.data.decoding.bands import MOST_CHANNELS
from vitreous.data.decoding.images import MAX_PIXELS, MAX_VALUE
from vitreous.data.precheck import How
from vitreous.data.sources.options import DataOptions
from vitreous.model.config import (
    Gelu,
    MLPKind,
    NormKind,
    NormSite,
    Pooling,
    PositionKind,
    PositionSite,
    QKVBias,
    QueryKeyNorm,
    Resampling,
    RotaryKind,
    SincosExponent,
    StemEps,
)
from vitreous.training.fields import Auto, Count, Finite, LargeCount, Positive, Range, Rate, Section, Share, Size
from vitreous.training.optimization.optimizer import Algorithm
from vitreous.training.optimization.precision import Precision
from vitreous.training.optimization.schedule import Decay

Parallel = Literal["ddp", "fsdp"]  # how several processes share a model: replicas, or shards
KeepBy = Literal["accuracy", "balanced_accuracy", "macro_f1", "loss"]  # what validation compares epochs by

WARMUPS = 5  # the default warmup is at most this fraction of the run: a fifth


class ModelSection(Section):
    """The model: weights to start from, or a variant with fresh weights and the ViTConfig fields that differ from it.

    Classes and channels come from the data. Weights bring their own shape: only image_size, patch_size,
    position_resampling and the rates of regularization may be set along with them.
    """

    init: Literal["auto", "random", "pretrained"] = "auto"  # auto: pretrained if weights are available
    weights: str | None = None  # to start from: a run's folder, a file, or a name such as timm:name.tag
    head: Literal["kept", "new"] = "kept"  # of weights: kept keeps the rows of classes with the same name
    variant: str = "auto"
    image_size: Size | Auto = "auto"  # (height, width) in pixels; one number for a square
    patch_size: Size | None = None
    width: Count | None = None
    depth: Count | None = None
    mlp_dim: Count | None = None
    num_heads: Count | None = None
    stem_blocks: tuple[Count, ...] | None = None
    stem_width: Count | None = None
    stem_eps: StemEps | None = None
    mlp: MLPKind | None = None
    gelu: Gelu | None = None
    norm_eps: Finite | None = None
    layer_scale: Finite | None = None
    norm: NormKind | None = None
    norm_site: NormSite | None = None
    pre_norm: bool | None = None
    final_norm: bool | None = None
    embedding_norm: bool | None = None
    query_key_norm: QueryKeyNorm | None = None
    attention_inner_norm: bool | None = None
    mlp_inner_norm: bool | None = None
    qkv_bias: QKVBias | None = None
    dense_bias: bool | None = None
    patch_bias: bool | None = None
    class_token: bool | None = None
    distillation_token: bool | None = None
    registers: Annotated[int, Field(ge=0)] | None = None
    position_embedding: PositionKind | None = None
    position_site: PositionSite | None = None
    position_class_slot: bool | None = None
    position_resampling: Resampling | None = None
    sincos_exponent: SincosExponent | None = None
    rotary: RotaryKind | None = None
    rotary_grid: Size | None = None  # (rows, columns)
    pooling: Pooling | None = None
    pooling_heads: Count | None = None
    pooling_mlp_dim: Count | None = None
    norm_after_pooling: bool | None = None
    hidden_dim: Count | Literal["width"] | None = None  # of the head's tanh layer; "width": the model's own
    classifier_bias: bool | None = None
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    patch_dropout: Rate = 0.0  # the share of an image's patches that a step drops


# The fields that a variant sets, and those that may be set along with weights.
SHAPE = ("patch_size", "width", "depth", "mlp_dim", "num_heads", "stem_blocks", "stem_width")
WITH_WEIGHTS = (
    *("init", "weights", "head", "image_size", "patch_size", "position_resampling"),
    *("dropout", "stochastic_depth", "patch_dropout"),
)


class DataSection(Section):
    """The images: how they are split, preprocessed and batched."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1  # of train, if there is no validation split
    max_pixels: LargeCount = MAX_PIXELS  # of an image; larger ones are listed as bad
    max_value: Annotated[int, Field(ge=1, le=MAX_VALUE)] | Auto = "auto"  # of 16-bit images; auto: from the images
    # of the images; auto: 3 for photos, 1 for sets of gray images, otherwise as many as the images have
    channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS)] | Auto = "auto"
    follow_links: bool = False  # out of the folder, to files and to folders
    path_column: str | None = None  # of a table; found by its usual names if None
    label_column: str | None = None
    split_column: str | None = None
    cache: bool = False  # decode each image once, and read it from the disk's cache from then on
    reduced_decoding: bool = True  # decode large JPEG at a reduced scale for training
    # auto: what the weights expect; for fresh ones squash, 1.0, bilinear, 0.5 and 0.5
    resize: Literal["squash", "crop"] | Auto = "auto"
    crop_fraction: Share | Auto = "auto"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] | Auto = "auto"
    mean: tuple[float, ...] | Auto = "auto"  # one per channel, of values in [0, 1]
    std: tuple[float, ...] | Auto = "auto"
    batch_size: Count | Auto = "auto"  # of one update
    micro_batch: Count | None = None  # images at once, gradients accumulated; as many as fit if None
    balanced_sampling: bool = False  # small classes are seen as often as large ones
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01  # of a split that may be broken images
    check_images: How | Auto = "auto"  # before the run; auto: decode all if that takes under a minute

    @property
    def options(self) -> DataOptions:
        """How the source is read."""
        max_value = None if self.max_value == "auto" else self.max_value
        return DataOptions(
            self.validation_fraction, self.max_pixels, max_value, self.follow_links,
            self.path_column, self.label_column, self.split_column, None if self.channels == "auto" else self.channels,
        )  # fmt: skip


class AugmentationSection(Section):
    """The random view of an image in each epoch, and mixing."""

    flip: bool | Auto = "auto"
    crop_scale: Range = (0.25, 1.0)  # the crop's share of the area
    crop_ratio: Range = (0.75, 4 / 3)  # its width over its height
    randaugment_layers: Annotated[int, Field(ge=0)] = 0  # operations of RandAugment; 0 for none
    randaugment_magnitude: Annotated[float, Field(ge=0)] = 10.0
    trivial_augment: bool = False
    auto_augment: bool = False  # the policy found on ImageNet
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    erasing: Annotated[float, Field(ge=0, le=1)] = 0.0  # how often a box is erased
    mixup: Annotated[float, Field(ge=0)] = 0.0  # alpha of MixUp; 0 for none
    cutmix: Annotated[float, Field(ge=0)] = 0.0  # alpha of CutMix
    mix_per_sample: bool = False  # each sample draws its own share, rather than the batch one


class OptimizerSection(Section):
    """The optimizer and the clipping of gradients."""

    algorithm: Algorithm = "adamw"
    lr: Finite = 1e-3  # the peak, after the warmup
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05  # of matrices; AdamW multiplies by lr
    momentum: Rate = 0.9  # of SGD
    betas: tuple[Rate, Rate] = (0.9, 0.999)  # of Adam and AdamW
    eps: Finite = 1e-8
    clip_norm: Positive = 1.0  # of all gradients together; inf does not clip
    layer_decay: Share = 1.0  # a block's lr over the next block's, towards the head; arXiv 2106.08254
    frozen: tuple[str, ...] = ()  # such as "encoder.blocks.0"; "backbone" is all but the classifiers
    max_skipped: Count = 10  # steps in a row without a finite loss and gradient that stop the run


class ScheduleSection(Section):
    """The length of the run and the learning rate schedule. Steps, if given, replace epochs.

    What is given is never changed to save minutes; what is open, of image size, variant and epochs, is.

    If a file or a setting gives epochs but no warmup_epochs, the warmup is at most a fifth of them.
    """

    epochs: Count | Auto = "auto"  # as many as fit the minutes; about 200,000 images in all, 300 epochs at most
    steps: Count | None = None  # updates of the whole run; the last epoch may end early
    # of the run at most, on this machine; 0 for no limit; auto: 15 from scratch if epochs and steps are open, else 0
    minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Auto = "auto"
    warmup_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    decay: Decay = "cosine"
    cooldown_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # linear to 0 at the end
    cooldown_steps: Annotated[int, Field(ge=0)] | None = None
    evaluate_every: Count = 1  # epochs between validations; the last epoch is always validated
    # The validation number of the kept epoch; auto: balanced_accuracy with balanced_sampling or class_weights.
    keep_by: KeepBy | Auto = "auto"
    patience: Annotated[int, Field(ge=0)] = 0  # validations without improvement that end the run; 0 for all epochs

    def total_steps(self, per_epoch: int) -> int:
        """The updates of the run, from those of an epoch; the last epoch may end early."""
        if self.steps is not None:
            return self.steps
        assert self.epochs != "auto", "the recipe is resolved"
        return self.epochs * per_epoch

    def warmup_and_cooldown(self, per_epoch: int) -> tuple[int, int]:
        """Their steps, from those of an epoch."""
        warmup = round(self.warmup_epochs * per_epoch) if self.warmup_steps is None else self.warmup_steps
        cooldown = round(self.cooldown_epochs * per_epoch) if self.cooldown_steps is None else self.cooldown_steps
        return warmup, cooldown

    def with_short_warmup(self) -> Self:
        """The same with a warmup of at most a fifth of the run."""
        if self.steps is not None:
            return self.model_copy(update={"warmup_steps": self.steps // WARMUPS})
        if self.epochs == "auto":  # later, when they are chosen
            return self
        return self.model_copy(update={"warmup_epochs": min(self.warmup_epochs, self.epochs / WARMUPS)})


class AveragingSection(Section):
    """An average of the weights; if there is one, it is what is validated and kept."""

    ema_decay: Rate = 0.0  # of the exponential moving average, such as 0.9999; 0 for none


class RunSection(Section):
    """Seed, device and speed; beyond float rounding, only the seed changes the result."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "auto"
    precision: Precision | Auto = "auto"  # of activations: bfloat16 on a GPU that has it, float32 elsewhere
    parallel: Parallel | Auto = "auto"  # under torchrun; auto: fsdp where a replica would fill half of the memory
    compile: bool = False  # by torch.compile
    checkpoint_activations: bool = False  # less memory for a second forward pass
    tensorboard: bool = False  # also write for TensorBoard; pip install '.[logging]'
    threads: Count | Auto = "auto"  # of a CPU operation
    workers: Annotated[int, Field(ge=0, le=256)] | Auto = "auto"  # processes that load images
    checkpoint_minutes: Finite | Auto = "auto"  # between two checkpoints; auto: 5 % of the run, 10 minutes at most
    worker_timeout: Finite = 300.0  # seconds without another image after which such a process is replaced
