"""Distillation: learning from the labels and from a teacher (DeiT, arXiv 2012.12877)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.shapes import Images, Logits
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.text import listed
from vitreous.training.objectives.objective import CrossEntropy, Objective, Targets, Verdict, count_correct

Distillation = Literal["hard", "soft"]
FEW = 5  # class names that an error lists


@dataclass(frozen=True, eq=False)
class Rescale:
    """Makes a teacher's images of ours: images · scale + shift, and another size by bilinear interpolation.

    Args:
        scale: for each channel.
        shift: for each channel.
        image_size: (height, width) that the teacher expects, in pixels.
    """

    scale: Float[Tensor, "channels 1 1"]
    shift: Float[Tensor, "channels 1 1"]
    image_size: tuple[int, int]

    def __call__(self, images: Images) -> Float[Tensor, "batch channels teacher_height teacher_width"]:
        """Normalized and sized as the teacher expects."""
        images = torch.addcmul(self.shift, images, self.scale)
        if images.shape[2:] == self.image_size:
            return images
        return F.interpolate(images, self.image_size, mode="bilinear", antialias=True)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained model that is asked about our images, in our classes; it is no module, and does not learn.

    Args:
        model: on the device of the images.
        order: the teacher's logit for each of our classes; None if its classes are ours.
        rescale: makes its images of ours.
    """

    model: VisionTransformer
    order: Int64[Tensor, " classes"] | None
    rescale: Rescale

    @torch.no_grad()
    def __call__(self, images: Images) -> Logits:
        """What it says of our images, computed at the precision of the training; the numbers are of 32 bits or more.

        Autocast keeps no copy of its weights: they are used once in a step.
        """
        device = images.device.type
        dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        with torch.autocast(device, dtype, enabled, cache_enabled=False):
            logits = self.model(self.rescale(images))
        return at_least_float32(logits if self.order is None else logits[:, self.order])


class Distilled(Objective):
    """Learns the classes from labels and from a teacher, which sees the same images, mixed ones too.

    Labels are told to the class token's classifier and the teacher's word to the distillation token's, or both to the
    only classifier where the student has no distillation token. With share s, the loss of an image is

        hard: (1 - s) · CE(labels) + s · CE(the teacher's most likely class), which is not smoothed
        soft: (1 - s) · CE(labels) + s · τ² · KL(teacher ‖ student), both softmax(logits / τ)    (DeiT's equation 1)

    Class weights are those of CE alone; the soft part has none.

    Args:
        loss: CE, of the logits.
        teacher: is set to evaluation mode; its model is no part of this module, nor are its parameters.
        kind: "hard" or "soft".
        share: of the teacher, in [0, 1].
        temperature: τ of soft distillation.

    Raises:
        InputError: soft distillation beside a sigmoid loss, whose logits make no softmax.
    """

    def __init__(
        self, loss: CrossEntropy, teacher: Teacher, kind: Distillation, share: float, temperature: float
    ) -> None:
        super().__init__()
        if kind == "soft" and loss.loss == "sigmoid":
            cause = "distillation is soft and loss is sigmoid, but it compares probabilities of a softmax"
            raise InputError(cause, "set distillation=hard or loss=softmax")
        teacher.model.eval()
        self.loss, self.teacher = loss, teacher
        self.kind, self.share, self.temperature = kind, share, temperature

    def forward(self, model: VisionTransformer, images: Images, targets: Targets) -> Verdict:
        """Targets are as in `Classification`; the mean logits of both tokens are what counts as correct."""
        assert isinstance(targets, Tensor), "classes are told by a tensor"
        taught = self.teacher(images)
        if model.head.distillation is None:
            of_labels = of_teacher = logits = model(images)
        else:
            of_labels, of_teacher = model.head.both(model.encode(images))
            logits = (of_labels + of_teacher) / 2
        loss = (1 - self.share) * self.loss(of_labels, targets) + self.share * self._from_teacher(of_teacher, taught)
        return Verdict(loss, count_correct(logits, targets))

    def _from_teacher(self, logits: Logits, taught: Logits) -> Float[Tensor, ""]:
        """The sum over the batch, in nats."""
        if self.kind == "hard":
            return replace(self.loss, label_smoothing=0.0)(logits, taught.argmax(dim=1))
        said, wanted = ((x / self.temperature).log_softmax(dim=1) for x in (at_least_float32(logits), taught))
        return self.temperature**2 * F.kl_div(said, wanted, reduction="sum", log_target=True)


def at_least_float32(logits: Logits) -> Logits:
    """The same numbers, where they are of 16 bits in float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def match_teacher(
    stored: StoredModel, class_names: Sequence[str], preprocessing: Preprocessing, device: torch.device
) -> Teacher:
    """Makes a teacher of our classes from any trained model that knows them by the same names.

    Args:
        stored: the teacher's; its model is moved to the device.
        class_names: ours.
        preprocessing: of our images.
        device: of the training.

    Raises:
        InputError: it has no head or no class names, takes another number of channels, or does not know each of our
            classes by exactly one name.
    """
    names, theirs = stored.class_names, stored.preprocessing
    if stored.model.config.num_classes == 0 or names is None:
        lack = "has no head" if stored.model.config.num_classes == 0 else "does not know the names of its classes"
        raise InputError(f"the teacher {lack}", "give a model that was trained to classify these classes")
    if stored.model.config.channels != preprocessing.channels:
        cause = f"the teacher takes {stored.model.config.channels} channels, the images have {preprocessing.channels}"
        raise InputError(cause, f"give a teacher of {preprocessing.channels} channels")
    order = None if tuple(class_names) == names else places_of(class_names, names)
    model = stored.model.to(device)
    # ours = (x - m) / s and theirs = (x - M) / S, so that theirs = ours · s / S + (m - M) / S
    mean, std, their_mean, their_std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
        for values in (preprocessing.mean, preprocessing.std, theirs.mean, theirs.std)
    )
    scale, shift = ((x / their_std).float().to(device) for x in (std, mean - their_mean))
    rescale = Rescale(scale, shift, theirs.image_size)
    return Teacher(model, None if order is None else torch.tensor(order, device=device), rescale)


def places_of(class_names: Sequence[str], known: Sequence[str]) -> list[int]:
    """The place of each class among those that are known. Raises InputError for names that are not there just once."""
    counts = Counter(known)
    for what, wrong in (
        ("does not know", [name for name in class_names if name not in counts]),
        ("knows more than once", [name for name in class_names if counts[name] > 1]),
    ):
        if wrong:
            cause = f"the teacher {what} {len(wrong)} of {len(class_names)} classes: {listed(wrong, FEW)}"
            raise InputError(cause, "give a teacher that knows each of them by the same name")
    places = {name: place for place, name in enumerate(known)}
    return [places[name] for name in class_names]
