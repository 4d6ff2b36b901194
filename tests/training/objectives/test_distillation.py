"""Distillation: values by hand, and what the teacher sees."""

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tests.model.models import images_for, small_config, small_model
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.objectives.classification import Classification, CrossEntropy
from vitreous.training.objectives.distillation import Distilled, Rescale, Teacher, match_teacher
from vitreous.training.optimization.step import train_step

CPU = torch.device("cpu")
CLASSES = ("cat", "dog", "emu", "fox", "gnu", "hen", "ibis")
OURS = Preprocessing((32, 32))
SAME = Rescale(torch.ones(3, 1, 1), torch.zeros(3, 1, 1), (32, 32))
LABELS = torch.tensor([4, 0, 2])
TOKENS = pytest.mark.parametrize("switch", ["the paper's", "distillation"])


def stored(model: VisionTransformer, names=CLASSES, preprocessing=OURS) -> StoredModel:
    return StoredModel(model, preprocessing, names)


def teacher(seed: int = 5, order=None, rescale: Rescale = SAME, **overrides) -> Teacher:
    return Teacher(small_model(seed=seed, **overrides), order, rescale)


def word(teacher: Teacher, images: torch.Tensor) -> torch.Tensor:
    """The teacher's logits, which differ from image to image and from the labels."""
    logits = teacher.model(images).detach()
    assert logits.std(0).min() > 1e-2
    assert (logits.argmax(1) != LABELS).any()
    return logits


def both_logits(model: VisionTransformer, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that learn from the labels, and those that learn from the teacher."""
    if model.head.distillation is None:
        return model(images), model(images)
    first, second = model.head.both(model.encode(images))
    assert (first - second).abs().max() > 0.1
    return first, second


def probabilities(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in row]
    return [x / sum(powers) for x in powers]


def by_hand(of_labels, of_teacher, taught, kind: str, share: float, temperature: float) -> float:
    """The loss of a batch, number by number."""
    total = 0.0
    for ours, theirs, target, label in zip(
        of_labels.tolist(), of_teacher.tolist(), taught.tolist(), LABELS, strict=True
    ):
        total -= (1 - share) * math.log(probabilities(ours, 1)[label])
        if kind == "hard":
            total -= share * math.log(probabilities(theirs, 1)[target.index(max(target))])
        else:
            pairs = zip(probabilities(target, temperature), probabilities(theirs, temperature), strict=True)
            total += share * temperature**2 * sum(p * math.log(p / q) for p, q in pairs)
    return total


@TOKENS
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("kind", "temperature"), [("hard", 3.0), ("soft", 1.0), ("soft", 3.0)])
def test_the_loss_by_hand(switch, kind, share, temperature):
    model, ask = small_model(switch), teacher()
    images = images_for(model.config)
    first, second = both_logits(model, images)
    verdict = Distilled(CrossEntropy(), ask, kind, share, temperature)(model, images, LABELS)
    expected = by_hand(first, second, word(ask, images), kind, share, temperature)
    assert verdict.loss.item() == pytest.approx(expected, rel=1e-4)
    assert verdict.correct == ((first + second).argmax(1) == LABELS).sum()


def test_numbers_that_a_person_can_check():
    """Two classes: the student predicts 1:3, the teacher 3:1, which is 9:1 at half the temperature."""

    def loss_of(kind: str, temperature: float) -> float:
        class Fixed(VisionTransformer):
            def forward(self, images):
                return torch.tensor(self.probabilities).log().expand(len(images), -1)

        student, model = (Fixed(small_config(num_classes=2)) for _ in range(2))
        student.probabilities, model.probabilities = [0.25, 0.75], [0.75, 0.25]
        objective = Distilled(CrossEntropy(), Teacher(model, None, SAME), kind, 0.5, temperature)
        return objective(student, torch.zeros(1, 3, 32, 32), torch.tensor([1])).loss.item()

    assert loss_of("hard", 1.0) == pytest.approx(0.5 * math.log(4 / 3) + 0.5 * math.log(4))
    assert loss_of("soft", 1.0) == pytest.approx(0.5 * math.log(4 / 3) + 0.5 * 0.5 * math.log(3))
    kl = 0.9 * math.log(9) + 0.1 * math.log(1 / 9)
    assert loss_of("soft", 0.5) == pytest.approx(0.5 * math.log(4 / 3) + 0.5 * 0.25 * kl)


def test_labels_are_smoothed_and_the_teacher_s_classes_are_not():
    model, ask = small_model("distillation"), teacher()
    images = images_for(model.config)
    first, second = both_logits(model, images)
    loss = Distilled(CrossEntropy(0.1), ask, "hard", 0.5, 1.0)(model, images, LABELS).loss
    labels = F.cross_entropy(first, LABELS, label_smoothing=0.1, reduction="sum")
    taught = F.cross_entropy(second, word(ask, images).argmax(1), reduction="sum")
    torch.testing.assert_close(loss, (labels + taught) / 2)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_mixed_images_have_shares_and_the_teacher_sees_them_mixed(kind):
    model, ask = small_model("distillation"), teacher()
    images = images_for(model.config)
    mixed = 0.6 * images + 0.4 * images.flip(0)
    shares = 0.6 * F.one_hot(LABELS, 7) + 0.4 * F.one_hot(LABELS.flip(0), 7)
    verdict = Distilled(CrossEntropy(), ask, kind, 1.0, 2.0)(model, mixed, shares)
    _, second = both_logits(model, mixed)
    assert verdict.loss.item() == pytest.approx(by_hand(second, second, word(ask, mixed), kind, 1.0, 2.0), rel=1e-4)
    first, second = both_logits(model, mixed)
    assert verdict.correct == ((first + second).argmax(1) == LABELS).sum()
    labels = Distilled(CrossEntropy(), ask, kind, 0.0, 2.0)(model, mixed, shares).loss
    torch.testing.assert_close(labels, -(shares * first.log_softmax(1)).sum())


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_sigmoid_loss_learns_from_a_hard_teacher_alone(kind):
    loss = CrossEntropy(loss="sigmoid")
    if kind == "soft":
        with pytest.raises(InputError, match="distillation is soft and loss is sigmoid"):
            Distilled(loss, teacher(), kind, 0.5, 1.0)
        return
    model, ask = small_model(), teacher()
    images = images_for(model.config)
    taught = word(ask, images).argmax(1)
    found = Distilled(loss, ask, kind, 1.0, 1.0)(model, images, LABELS).loss
    torch.testing.assert_close(found, loss(model(images), taught))


def test_classes_are_matched_by_name():
    model = small_model(seed=5)
    images = images_for(model.config)
    ours = ("hen", "cat", "ibis")
    matched = match_teacher(stored(model), ours, OURS, CPU)
    assert matched.order.tolist() == [5, 0, 6]
    torch.testing.assert_close(matched(images), word(matched, images)[:, [5, 0, 6]])
    assert match_teacher(stored(model), list(CLASSES), OURS, CPU).order is None
    student = small_model(num_classes=3)
    verdict = Distilled(CrossEntropy(), matched, "hard", 1.0, 1.0)(student, images, torch.tensor([0, 1, 2]))
    best = model(images)[:, [5, 0, 6]].argmax(1)
    torch.testing.assert_close(verdict.loss, F.cross_entropy(student(images), best, reduction="sum"))


def test_a_teacher_of_these_classes_may_have_two_of_one_name():
    names = ("crane", "crane", *CLASSES[2:])
    assert match_teacher(stored(small_model(), names), names, OURS, CPU).order is None
    with pytest.raises(InputError, match="the teacher has more than one class for 1 of 2 classes: crane"):
        match_teacher(stored(small_model(), names), ("crane", "emu"), OURS, CPU)


@pytest.mark.parametrize(
    ("given", "names", "match"),
    [
        (stored(small_model()), ("cat", "yak", "zebu"), "lacks 2 of 3 classes: yak, zebu"),
        (stored(small_model()), tuple(f"n{i}" for i in range(9)), "9 of 9 classes: n0, .*, n4 … and 4 more"),
        (stored(small_model(num_classes=0), None), CLASSES, "the teacher has no head"),
        (stored(small_model(), None), CLASSES, "has no class names"),
        (
            stored(small_model(channels=1), CLASSES, OURS.adapted((32, 32), 1)),
            CLASSES,
            "takes 1 channels, the images have 3",
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_rejected(given, names, match):
    with pytest.raises(InputError, match=match):
        match_teacher(given, names, OURS, CPU)


THEIRS = Preprocessing((32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def seen_by(model: VisionTransformer, ask: Teacher, images: torch.Tensor) -> torch.Tensor:
    """The images that get to the teacher's model."""
    seen = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ask(images)
    handle.remove()
    return seen[0]


def test_the_teacher_s_images_are_what_its_own_preprocessing_gives():
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    ours = Preprocessing((32, 32), mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.25))
    model = small_model(seed=5)
    ask = match_teacher(stored(model, CLASSES, THEIRS), CLASSES, ours, CPU)
    seen = seen_by(model, ask, ours.normalize(pixels.clone()))
    expected = THEIRS.normalize(pixels.clone())
    assert (expected - ours.normalize(pixels.clone())).abs().max() > 0.5
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ask(ours.normalize(pixels.clone())), model(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (24, 48), (64, 40)])
def test_another_size_is_near_what_its_own_preprocessing_gives(size):
    """Pillow rounds to bytes after each direction: one level in 255 is 0.018 of these stds."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    theirs = Preprocessing(size, mean=THEIRS.mean, std=THEIRS.std)
    model = small_model(seed=5)
    ask = match_teacher(stored(model, CLASSES, theirs), CLASSES, OURS, CPU)
    seen = seen_by(model, ask, OURS([image]))
    assert seen.shape[2:] == size
    torch.testing.assert_close(seen, theirs([image]), rtol=0, atol=0.03)


def test_the_teacher_stays_as_it_is_and_is_no_part_of_what_is_trained():
    student, ask = VisionTransformer(small_config("distillation")), teacher(dropout=0.5)
    ask.model.train()
    before = copy.deepcopy(ask.model.state_dict())
    objective = Distilled(CrossEntropy(), ask, "soft", 0.5, 2.0).train()
    assert not list(objective.parameters())
    assert not objective.state_dict()
    assert not ask.model.training
    images = images_for(student.config)
    assert torch.equal(ask(images), ask(images)), "no dropout"
    assert not ask(images).requires_grad
    optimizer = adamw_of(student, objective)
    for _ in range(3):
        train_step(student.train(), optimizer, objective, images, LABELS, lr=1e-2, clip_norm=1.0)
    assert not ask.model.training
    assert all(parameter.grad is None for parameter in ask.model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in ask.model.state_dict().items())


def test_a_student_that_is_its_own_teacher_gets_gradients_under_autocast():
    """The teacher's pass, without gradients, comes first and has the same weights cast to 16 bits."""
    model = small_model(seed=5)
    images = images_for(model.config)
    objective = Distilled(CrossEntropy(), Teacher(model, None, SAME), "soft", 0.5, 2.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(model, images, LABELS).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert model.encoder.blocks[0].mlp.fc1.weight.grad.abs().max() > 0


def test_autocast_keeps_no_copy_of_the_teacher_s_weights():
    ask, seen = teacher(), []
    ask.model.register_forward_pre_hook(
        lambda *_: seen.append((torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()))
    )
    images = images_for(ask.model.config)
    ask(images)
    with torch.autocast("cpu", torch.bfloat16):
        ask(images)
        assert torch.is_autocast_cache_enabled(), "the student's are kept"
    assert seen == [(False, False), (True, False)]


def test_the_teacher_computes_in_the_precision_of_the_training():
    ask = teacher()
    images = images_for(ask.model.config)
    with torch.autocast("cpu", torch.bfloat16):
        halved = ask(images)
    assert halved.dtype == torch.float32
    error = (halved - ask(images)).norm() / ask(images).norm()
    assert 0 < error < 0.05


def adamw_of(student: VisionTransformer, objective: Distilled) -> torch.optim.Optimizer:
    return torch.optim.AdamW([*student.parameters(), *objective.parameters()], lr=3e-3, weight_decay=0.0, fused=True)


@TOKENS
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_one_batch_can_be_overfitted(switch, kind):
    student, ask = VisionTransformer(small_config(switch)), teacher()
    images = images_for(student.config, batch=6)
    labels = ask(images).argmax(1)
    assert len(labels.unique()) > 1
    objective = Distilled(CrossEntropy(), ask, kind, 0.5, 1.0)
    optimizer = adamw_of(student, objective)
    least = 0.0 if kind == "hard" else teacher_entropy(ask(images), labels)
    for _ in range(60):
        result = train_step(student, optimizer, objective, images, labels, lr=3e-3, clip_norm=1.0)
    assert result.correct == 6
    assert result.loss / 6 < least + 0.05


def teacher_entropy(taught: torch.Tensor, labels: torch.Tensor) -> float:
    """A bound of the best loss of one classifier that learns labels and probabilities, half and half, at τ = 1.

    That is what the mean of both as its probabilities costs.
    """
    target = (taught.softmax(1) + F.one_hot(labels, 7)) / 2
    kl = (taught.softmax(1) * (taught.log_softmax(1) - target.log())).sum(1)
    return ((kl - target[torch.arange(6), labels].log()) / 2).mean().item()


@TOKENS
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_student_of_the_teacher_alone_learns_the_teacher_s_classes(switch, kind):
    student, ask = VisionTransformer(small_config(switch)), teacher()
    images = images_for(student.config, batch=6)
    taught = ask(images).argmax(1)
    wrong = (taught + 1) % 7
    objective = Distilled(CrossEntropy(), ask, kind, 1.0, 1.0)
    optimizer = adamw_of(student, objective)
    for _ in range(60):
        result = train_step(student, optimizer, objective, images, wrong, lr=3e-3, clip_norm=1.0)
    assert torch.equal(student(images).argmax(1), taught)
    assert result.correct == 0
    assert result.loss / 6 < 0.05


def test_without_a_share_it_is_classification():
    model, ask = small_model(), teacher()
    images = images_for(model.config)
    loss = CrossEntropy(0.1)
    with_teacher = Distilled(loss, ask, "hard", 0.0, 1.0)(model, images, LABELS)
    torch.testing.assert_close(with_teacher.loss, Classification(loss)(model, images, LABELS).loss)


@TOKENS
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_gradients_of_micro_batches_add_up(switch, kind):
    ask = teacher()
    ask.model.double()
    ask = Teacher(ask.model, None, Rescale(SAME.scale.double(), SAME.shift.double(), (32, 32)))
    whole = small_model(switch).double()
    parts = copy.deepcopy(whole)
    images = images_for(whole.config, batch=5).double()
    labels = torch.tensor([4, 0, 2, 1, 1])
    for model, size in ((whole, None), (parts, 2)):
        objective = Distilled(CrossEntropy(0.1), ask, kind, 0.4, 2.0)
        optimizer = adamw_of(model, objective)
        for _ in range(10):
            train_step(model, optimizer, objective, images, labels, lr=1e-2, clip_norm=1.0, micro_batch=size)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
