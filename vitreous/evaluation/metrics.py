"""Accuracy with its confidence interval, metrics that weigh classes alike, the confusion matrix, scores per class."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from vitreous.support.counts import is_lopsided

Z_95 = 1.959963984540054  # the 97.5th percentile of the standard normal distribution


@dataclass(frozen=True, eq=False)
class Outcome:
    """A model's predictions on a split, from which all its metrics follow.

    Args:
        places: indices of the samples in the split; broken images are left out.
        labels: the true class numbers.
        classes: the top few for each sample, best first.
        probabilities: of these.
        loss: mean cross-entropy over the samples, in nats; nan if a logit is not finite.
    """

    places: Int64[ndarray, " samples"]
    labels: Int64[ndarray, " samples"]
    classes: Int64[ndarray, "samples top"]
    probabilities: Float[ndarray, "samples top"]
    loss: float

    @classmethod
    def empty(cls, top: int) -> Self:
        """Of no samples."""
        none = np.empty((0, top), dtype=np.int64)
        return cls(none[:, 0], none[:, 0], none, none.astype(np.float32), 0.0)

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(self.labels)

    @property
    def top(self) -> int:
        """How many classes there are for each sample."""
        return self.classes.shape[1]

    @property
    def predictions(self) -> Int64[ndarray, " samples"]:
        """The top class of each sample."""
        return self.classes[:, 0]

    @property
    def correct(self) -> int:
        """The number of correct predictions."""
        return int((self.labels == self.predictions).sum())

    @property
    def accuracy(self) -> float:
        """The share of correct predictions; nan without samples."""
        return self.correct / len(self.labels) if len(self.labels) else math.nan

    @property
    def balanced_accuracy(self) -> float:
        """The mean over classes of the share of correct predictions; nan without samples."""
        return balanced_accuracy(self.labels, self.predictions)

    @property
    def macro_f1(self) -> float:
        """The mean over classes of F1; nan without samples."""
        return macro_f1(self.labels, self.predictions)

    @property
    def is_lopsided(self) -> bool:
        """Whether the classes differ so much in size that accuracy alone misleads."""
        return is_lopsided(np.bincount(self.labels).tolist())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy."""
        return wilson_interval(self.correct, len(self.labels))


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class; None where the denominator is 0.

    Args:
        precision: the share of samples predicted as this class that are of it.
        recall: the share of samples of this class that are predicted as it.
        f1: the harmonic mean of precision and recall.
        support: number of samples of this class.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson, 1927), valid for few samples and near 0 and 1 too."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = correct / count, Z_95**2
    center = share + z2 / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, (center - half) / (1 + z2 / count)), min(1.0, (center + half) / (1 + z2 / count))


def balanced_accuracy(labels: Int64[ndarray, " samples"], predictions: Int64[ndarray, " samples"]) -> float:
    """The mean recall of the classes among the labels; nan without samples. Linear in samples and classes."""
    hits, truths, _ = _counts(labels, predictions)
    present = truths > 0
    return float((hits[present] / truths[present]).mean()) if present.any() else math.nan


def macro_f1(labels: Int64[ndarray, " samples"], predictions: Int64[ndarray, " samples"]) -> float:
    """The mean F1 of the classes among the labels or the predictions; nan without samples. Linear, as above."""
    hits, truths, predicted = _counts(labels, predictions)
    sizes = truths + predicted
    present = sizes > 0
    return float((2 * hits[present] / sizes[present]).mean()) if present.any() else math.nan


def confusion_matrix(
    labels: Int64[ndarray, " samples"], predictions: Int64[ndarray, " samples"], num_classes: int
) -> Int64[ndarray, "classes classes"]:
    """The number of samples of each true class (row) and predicted class (column)."""
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def confusions(
    labels: Int64[ndarray, " samples"], predictions: Int64[ndarray, " samples"]
) -> Int64[ndarray, "pairs 3"]:
    """The confusion matrix's entries that are not 0: (true class, predicted class, count), in the order of rows.

    There are at most as many as samples, however many classes there are.
    """
    pairs, counts = np.unique(np.stack([labels, predictions], axis=1), axis=0, return_counts=True)
    return np.column_stack([pairs, counts])


def per_class(
    labels: Int64[ndarray, " samples"], predictions: Int64[ndarray, " samples"], num_classes: int
) -> list[ClassScore]:
    """Precision, recall and F1 of each class."""
    counts = (column.tolist() for column in _counts(labels, predictions, num_classes))
    return [
        ClassScore(quotient(hit, p), quotient(hit, truth), quotient(2 * hit, p + truth), truth)
        for hit, truth, p in zip(*counts, strict=True)
    ]


def _counts(
    labels: Int64[ndarray, " samples"], predictions: Int64[ndarray, " samples"], num_classes: int = 0
) -> tuple[Int64[ndarray, " classes"], Int64[ndarray, " classes"], Int64[ndarray, " classes"]]:
    """For each class its correct predictions, its samples and its predictions; at least up to the largest number."""
    largest = max((int(numbers.max()) for numbers in (labels, predictions) if len(numbers)), default=-1)
    right = labels[labels == predictions]
    hits, truths, predicted = (
        np.bincount(numbers, minlength=max(num_classes, largest + 1)) for numbers in (right, labels, predictions)
    )
    return hits, truths, predicted


def quotient(part: int, whole: int) -> float | None:
    """The share of a part; None if the whole is 0."""
    return part / whole if whole else None
