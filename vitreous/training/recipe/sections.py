"""The sections of a recipe: every value that decides a run, with its type, its range and its default."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from vitreous.model.config import (
    Gelu,
    MLPKind,
    Pooling,
    PositionKind,
    PositionSite,
    Resampling,
    SincosExponent,
)
from vitreous.training.objectives.distillation import Distillation
from vitreous.training.objectives.masked_patch import MaskedTarget
from vitreous.training.objectives.objective import Loss
from vitreous.training.optimization.optimizer import Algorithm
from vitreous.training.optimization.precision import Precision
from vitreous.training.optimization.schedule import Decay

LEAST_WARMUPS = 5  # that the epochs are, where only these are given

Auto = Literal["auto"]  # chosen from the data; recipe.toml of a run holds what was chosen
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]  # nan is not above 0
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
ImageSide = Annotated[int, Field(gt=0, le=8192)]
Size = ImageSide | tuple[ImageSide, ImageSide]
Range = tuple[Finite, Finite]


class Section(BaseModel):
    """A table of a recipe; no other keys, and no value of another type, is let through."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSection(Section):
    """The model: a variant with fresh weights, and the fields of ViTConfig that are to differ from it; or weights.

    Classes and channels come from the data. Weights bring their own shape: then only image_size, patch_size,
    position_resampling and the rates of regularization may be set beside them.
    """

    init: Literal["auto", "random", "pretrained"] = "auto"  # auto: pretrained where weights are at hand
    weights: str | None = None  # what to start from: a run's folder, a file, or a name such as timm:name.tag
    head: Literal["kept", "new"] = "kept"  # of weights: kept are the rows of classes that have the same name
    variant: str = "auto"
    image_size: Size | Auto = "auto"  # (height, width) in pixels; one number for a square
    patch_size: Size | None = None
    width: Count | None = None
    depth: Count | None = None
    mlp_dim: Count | None = None
    num_heads: Count | None = None
    stem_blocks: tuple[Count, ...] | None = None
    stem_width: Count | None = None
    mlp: MLPKind | None = None
    gelu: Gelu | None = None
    norm_eps: Finite | None = None
    layer_scale: Finite | None = None
    pre_norm: bool | None = None
    patch_bias: bool | None = None
    class_token: bool | None = None
    distillation_token: bool | None = None
    registers: Annotated[int, Field(ge=0)] | None = None
    position_embedding: PositionKind | None = None
    position_site: PositionSite | None = None
    position_class_slot: bool | None = None
    position_resampling: Resampling | None = None
    sincos_exponent: SincosExponent | None = None
    pooling: Pooling | None = None
    norm_after_pooling: bool | None = None
    hidden_dim: Count | Literal["width"] | None = None  # of the head's tanh layer; "width" is the model's own
    classifier_bias: bool | None = None
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    patch_dropout: Rate = 0.0  # the share of an image's patches that a step leaves out


# What a variant says, and what may be said of weights.
SHAPE = ("patch_size", "width", "depth", "mlp_dim", "num_heads", "stem_blocks", "stem_width")
BESIDE_WEIGHTS = (
    *("init", "weights", "head", "image_size", "patch_size", "position_resampling"),
    *("dropout", "stochastic_depth", "patch_dropout"),
)


class DataSection(Section):
    """The images: how they are split, made fit for the model, and put into batches."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1  # of train, where there is no validation split
    # auto is what the weights expect, and for fresh ones squash, 1.0, bilinear, 0.5 and 0.5
    resize: Literal["squash", "crop"] | Auto = "auto"
    crop_fraction: Share | Auto = "auto"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] | Auto = "auto"
    mean: tuple[float, ...] | Auto = "auto"  # one for each channel, of values in [0, 1]
    std: tuple[float, ...] | Auto = "auto"
    batch_size: Count | Auto = "auto"  # of one update
    micro_batch: Count | None = None  # images at once, whose gradients are added up; as many as fit if not given
    balanced_sampling: bool = False  # small classes are seen as often as large ones
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01  # of a split that may be broken images


class AugmentationSection(Section):
    """The random view of an image that an epoch sees."""

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
    mix_per_sample: bool = False  # each sample draws its own share, or the batch one


class ObjectiveSection(Section):
    """What is learned: the classes, from labels and perhaps a teacher; or, without labels, what hidden patches show."""

    goal: Literal["classes", "masked_patch"] = "classes"
    loss: Loss = "softmax"
    class_weights: Literal["equal", "balanced"] = "equal"  # balanced: small classes count as much as large ones
    label_smoothing: Rate = 0.1
    teacher: str | None = None  # a model to learn from, named as weights are
    distillation: Distillation = "hard"
    teacher_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # of the loss
    temperature: Finite = 3.0  # of soft distillation
    masked_target: MaskedTarget = "mean_color"
    masked_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of the patches, that are corrupted


class OptimizerSection(Section):
    """The optimizer and the clipping of gradients."""

    algorithm: Algorithm = "adamw"
    lr: Finite = 1e-3  # the highest, which warmup leads to
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05  # on matrices; AdamW's is times the lr
    momentum: Rate = 0.9  # of SGD
    betas: tuple[Rate, Rate] = (0.9, 0.999)  # of Adam and AdamW
    eps: Finite = 1e-8
    clip_norm: Positive = 1.0  # of all gradients together; inf does not clip
    layer_decay: Share = 1.0  # a block's lr over that of the next one towards the head; arXiv 2106.08254
    frozen: tuple[
        str, ...
    ] = ()  # parts that stay as they are, such as "encoder.blocks.0"; "backbone": all but classifiers
    max_skipped: Count = 10  # steps in a row without a finite loss and gradient, after which the run stops


class ScheduleSection(Section):
    """How long, and how the learning rate moves: up in a line, then down. Steps, where given, count instead of epochs.

    Whoever gives epochs without warmup_epochs, in a file or as a setting, gets at most a fifth of them as warmup.
    """

    epochs: Count | Auto = "auto"  # so many that some 200,000 images are seen, from 30 to 300
    steps: Count | None = None  # updates of the whole run; the last epoch may end early
    warmup_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    decay: Decay = "cosine"
    cooldown_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # a line to 0 at the end
    cooldown_steps: Annotated[int, Field(ge=0)] | None = None
    evaluate_every: Count = 1  # epochs between two looks at validation; the last epoch is always looked at
    patience: Annotated[int, Field(ge=0)] = 0  # looks without a better one after which the run ends; 0 for all epochs

    def total_steps(self, per_epoch: int) -> int:
        """The updates of the run, where an epoch has so many; its last epoch may end early."""
        if self.steps is not None:
            return self.steps
        assert self.epochs != "auto", "the recipe is resolved"
        return self.epochs * per_epoch

    def line_steps(self, per_epoch: int) -> tuple[int, int]:
        """The steps of warmup and of cooldown, where an epoch has so many."""
        warmup = round(self.warmup_epochs * per_epoch) if self.warmup_steps is None else self.warmup_steps
        cooldown = round(self.cooldown_epochs * per_epoch) if self.cooldown_steps is None else self.cooldown_steps
        return warmup, cooldown

    def with_short_warmup(self) -> Self:
        """The same with a warmup of at most a fifth of the run."""
        if self.steps is not None:
            return self.model_copy(update={"warmup_steps": self.steps // LEAST_WARMUPS})
        if self.epochs == "auto":  # once they are chosen
            return self
        return self.model_copy(update={"warmup_epochs": min(self.warmup_epochs, self.epochs / LEAST_WARMUPS)})


class AveragingSection(Section):
    """An average of the weights, which is then what is validated and kept."""

    ema_decay: Rate = 0.0  # of the exponential moving average, such as 0.9999; 0 for none


class RunSection(Section):
    """Where, how and with which random numbers; only the seed changes the result, beyond float rounding."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "auto"
    precision: Precision | Auto = "auto"  # of activations: bfloat16 on a GPU that has it, float32 elsewhere
    compile: bool = False  # by torch.compile
    checkpoint_activations: bool = False  # less memory for a second forward pass
    tensorboard: bool = False  # also write what TensorBoard shows; pip install 'vitreous[logging]'
    threads: Count | Auto = "auto"  # for one operation on a CPU
    workers: Annotated[int, Field(ge=0, le=256)] | Auto = "auto"  # processes that load images
