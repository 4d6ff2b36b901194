"""The paper's few-shot linear probe: a least-squares classifier fit on the features of a few images per class."""

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from sklearn.linear_model import Ridge

from vitreous.support.errors import InputError

BIAS = 100.0  # the constant feature, so large that its weight is hardly regularized
TINY = 1e-5  # added to the standard deviations
SHOTS = 1000  # the purpose in the generator's key; see vitreous.data.sampling for the others


def few_shot_accuracy(
    train_features: Float[ndarray, "train_images width"],
    train_labels: Int64[ndarray, " train_images"],
    test_features: Float[ndarray, "test_images width"],
    test_labels: Int64[ndarray, " test_images"],
    classes: int,
    shots: int | None = None,
    seed: int = 0,
    l2: float = 2.0**10,
) -> float:
    """The test accuracy of the probe (section 4.1; as in big_vision).

    All features are standardized by the mean and deviation of the drawn train features; the targets are 1 for an
    image's class and -1 for the others; the weights are (XᵀX + l2 I)⁻¹ Xᵀ Y, all in float64.

    Args:
        train_features: from which the shots are drawn.
        train_labels: their class numbers.
        test_features: to classify.
        test_labels: their class numbers.
        classes: number of classes.
        shots: images per class; all of train if None.
        seed: of the draw. With one seed, the images of fewer shots are among those of more.
        l2: regularization strength.

    Raises:
        InputError: a class has fewer images than shots, or train or test is empty.
    """
    if not len(test_labels):
        raise InputError("there are no test images", "add a test split")
    indices = draw_shots(train_labels, classes, shots, seed)
    x, y = train_features[indices].astype(np.float64), train_labels[indices]
    mean, deviation = x.mean(0), x.std(0) + TINY
    probe = Ridge(alpha=l2, fit_intercept=False, solver="cholesky")
    probe.fit(with_bias((x - mean) / deviation), 2 * np.eye(classes)[y] - 1)
    scores = probe.predict(with_bias((test_features.astype(np.float64) - mean) / deviation))
    return float((scores.argmax(1) == test_labels).mean())


def draw_shots(
    labels: Int64[ndarray, " images"], classes: int, shots: int | None, seed: int
) -> Int64[ndarray, " drawn"]:
    """The indices of `shots` images per class, drawn by a counter-based generator; all if shots is None.

    Raises:
        InputError: there are no images, shots is not positive, or a class has fewer images.
    """
    counts = np.bincount(labels, minlength=classes)
    if not len(labels) or (shots is not None and not 0 < shots <= counts.min()):
        count = "any" if shots is None else shots
        cause = f"cannot draw {count} shots per class: the smallest has {counts.min()} images"
        raise InputError(cause, "use from 1 to that many shots, or add images")
    if shots is None:
        return np.arange(len(labels))
    generator = np.random.Generator(np.random.Philox(key=np.array((seed, SHOTS), dtype=np.uint64)))
    return np.concatenate([generator.permutation(np.flatnonzero(labels == label))[:shots] for label in range(classes)])


def with_bias(x: Float[ndarray, "images width"]) -> Float[ndarray, "images width_and_bias"]:
    """The features with a constant one appended."""
    return np.pad(x, ((0, 0), (0, 1)), constant_values=BIAS)
