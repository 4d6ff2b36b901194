"""The recipe's [objective]: what a run learns, with the options of every objective."""

from typing import Annotated, Literal

from pydantic import Field

from vitreous.training.fields import Finite, Rate, Section

Loss = Literal["softmax", "sigmoid"]
Distillation = Literal["hard", "soft"]
MaskedTarget = Literal["mean_color", "small_colors", "pixels"]


class ObjectiveSection(Section):
    """What is learned: classes, from labels and perhaps a teacher; or, without labels, what hidden patches show."""

    goal: str = "classes"  # a key of goals.OBJECTIVES
    loss: Loss = "softmax"
    class_weights: Literal["equal", "balanced"] = "equal"  # balanced: small classes count as much as large ones
    label_smoothing: Rate = 0.1
    teacher: str | None = None  # a model to learn from, named as weights are
    distillation: Distillation = "hard"
    teacher_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # of the loss
    temperature: Finite = 3.0  # of soft distillation
    masked_target: MaskedTarget = "mean_color"
    masked_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of the patches, that are corrupted
