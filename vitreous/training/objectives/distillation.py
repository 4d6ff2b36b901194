"""Distillation: learning from the labels and from a teacher (DeiT, arXiv 2012.12877)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.shapes import Images, Logits
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.text import listed
from vitreous.training.objectives.classification import Classification, CrossEntropy, count_correct, make_loss
from vitreous.training.objectives.objective import Setup, Targets, Verdict, at_least_float32
from vitreous.training.objectives.section import Distillation

FEW = 5  # class names that an error lists


@dataclass(frozen=True, eq=False)
class Rescale:
    """Turns the student's images into the teacher's: images · scale + shift, resized bilinearly if need be.

    Args:
        scale: for each channel.
        shift: for each channel.
        image_size: (height, width) that the teacher expects, in pixels.
    """

    scale: Float[Tensor, "channels 1 1"]
    shift: Float[Tensor, "channels 1 1"]
    image_size: tuple[int, int]

    def __call__(self, images: Images) -> Float[Tensor, "batch channels teacher_height teacher_width"]:
        """The images normalized and sized as the teacher expects."""
        images = torch.addcmul(self.shift, images, self.scale)
        if images.shape[2:] == self.image_size:
            return images
        return F.interpolate(images, self.image_size, mode="bilinear", antialias=True)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained model that classifies the student's images into the student's classes. It does not learn.

    Args:
        model: on the device of the images.
        order: the teacher's logit for each of the student's classes; None if the classes are the same.
        rescale: turns the student's images into the teacher's.
    """

    model: VisionTransformer
    order: Int64[Tensor, " classes"] | None
    rescale: Rescale

    @torch.no_grad()
    def __call__(self, images: Images) -> Logits:
        """The logits, computed at the precision of training and returned in float32 or better.

        Autocast caches no copy of the weights, since a step uses them once.
        """
        device = images.device.type
        dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        with torch.autocast(device, dtype, enabled, cache_enabled=False):
            logits = self.model(self.rescale(images))
        return at_least_float32(logits if self.order is None else logits[:, self.order])


class Distilled(Classification):
    """Learns the classes from labels and from a teacher, which sees the same images, mixed ones included.

    The class token's classifier learns from the labels, the distillation token's from the teacher; a student without
    a distillation token learns both with its only classifier. With share s, the loss of an image is

        hard: (1 - s) · CE(labels) + s · CE(the teacher's top class), the latter without label smoothing
        soft: (1 - s) · CE(labels) + s · τ² · KL(teacher ‖ student), both softmax(logits / τ)    (DeiT's equation 1)

    Class weights apply to CE alone.

    Args:
        loss: CE, of the logits.
        teacher: is set to evaluation mode; its model is not a submodule.
        kind: "hard" or "soft".
        share: of the teacher, in [0, 1].
        temperature: τ of soft distillation.

    Raises:
        InputError: soft distillation with a sigmoid loss, whose logits form no softmax.
    """

    one_pass = False

    def __init__(
        self, loss: CrossEntropy, teacher: Teacher, kind: Distillation, share: float, temperature: float
    ) -> None:
        super().__init__(loss)
        if kind == "soft" and loss.loss == "sigmoid":
            cause = "distillation is soft and loss is sigmoid, but it compares probabilities of a softmax"
            raise InputError(cause, "set distillation=hard or loss=softmax")
        teacher.model.eval()
        self.teacher = teacher
        self.kind, self.share, self.temperature = kind, share, temperature

    @classmethod
    def make(cls, setup: Setup) -> Self:
        """Loads the teacher. Raises InputError if it cannot be loaded or lacks one of the classes."""
        options = setup.options
        assert options.teacher is not None
        teacher = match_teacher(load_checkpoint(options.teacher), setup.class_names, setup.preprocessing, setup.device)
        return cls(make_loss(setup), teacher, options.distillation, options.teacher_share, options.temperature)

    def forward(self, model: VisionTransformer, images: Images, targets: Targets) -> Verdict:
        """Targets are as in `Classification`; the mean logits of both tokens decide what counts as correct."""
        assert isinstance(targets, Tensor), "class targets must be a tensor"
        teacher_logits = self.teacher(images)
        if model.head.distillation is None:
            class_logits = distillation_logits = logits = model(images)
        else:
            class_logits, distillation_logits = model.head.both(model.encode(images))
            logits = (class_logits + distillation_logits) / 2
        labels_loss, teacher_loss = self.loss(class_logits, targets), self._distill(distillation_logits, teacher_logits)
        loss = (1 - self.share) * labels_loss + self.share * teacher_loss
        return Verdict(loss, count_correct(logits, targets))

    def _distill(self, logits: Logits, teacher_logits: Logits) -> Float[Tensor, ""]:
        """The teacher's part of the loss: the sum over the batch, in nats."""
        if self.kind == "hard":
            return replace(self.loss, label_smoothing=0.0)(logits, teacher_logits.argmax(dim=1))
        student, teacher = (
            (x / self.temperature).log_softmax(dim=1) for x in (at_least_float32(logits), teacher_logits)
        )
        return self.temperature**2 * F.kl_div(student, teacher, reduction="sum", log_target=True)


def match_teacher(
    stored: StoredModel, class_names: Sequence[str], preprocessing: Preprocessing, device: torch.device
) -> Teacher:
    """Builds a teacher from any trained model that has the student's classes by the same names.

    Args:
        stored: the teacher's; its model is moved to the device.
        class_names: the student's.
        preprocessing: of the student's images.
        device: of the training.

    Raises:
        InputError: the model has no head or no class names, takes another number of channels, or does not have each of
            the classes exactly once.
    """
    names, theirs = stored.class_names, stored.preprocessing
    if stored.model.config.num_classes == 0 or names is None:
        problem = "has no head" if stored.model.config.num_classes == 0 else "has no class names"
        raise InputError(f"the teacher {problem}", "choose a model trained to classify these classes")
    if stored.model.config.channels != preprocessing.channels:
        cause = f"the teacher takes {stored.model.config.channels} channels, the images have {preprocessing.channels}"
        raise InputError(cause, f"choose a teacher with {preprocessing.channels} channels")
    order = None if tuple(class_names) == names else torch.tensor(positions(class_names, names), device=device)
    # student = (x - m) / s and teacher = (x - M) / S, so that teacher = student · s / S + (m - M) / S
    mean, std, their_mean, their_std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
        for values in (preprocessing.mean, preprocessing.std, theirs.mean, theirs.std)
    )
    scale, shift = ((x / their_std).float().to(device) for x in (std, mean - their_mean))
    rescale = Rescale(scale, shift, theirs.image_size)
    return Teacher(stored.model.to(device), order, rescale)


def positions(class_names: Sequence[str], teacher_names: Sequence[str]) -> list[int]:
    """The position of each class in the teacher's list. Raises InputError for names that are not there exactly once."""
    counts = Counter(teacher_names)
    for problem, names in (
        ("lacks", [name for name in class_names if name not in counts]),
        ("has more than one class for", [name for name in class_names if counts[name] > 1]),
    ):
        if names:
            cause = f"the teacher {problem} {len(names)} of {len(class_names)} classes: {listed(names, FEW)}"
            raise InputError(cause, "choose a teacher that has each of them once, by the same name")
    by_name = {name: position for position, name in enumerate(teacher_names)}
    return [by_name[name] for name in class_names]
