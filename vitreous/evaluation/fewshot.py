"""The paper's few-shot linear probe: how good features are, by a least-squares fit to a few images of each class."""

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from vitreous.support.errors import InputError

BIAS = 100.0  # the constant feature: so large that its weight is hardly regularized
TINY = 1e-5  # added to the standard deviations
SHOTS = 1000  # the purpose in the generator's key, beside those of vitreous.data.sampling


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
    """The share of test images that the probe gets right (section 4.1; as in big_vision).

    The features of the images that are fitted to are standardized by their own mean and deviation, and so are those of
    the test; the targets are 1 for an image's class and -1 for the others; the weights are (XᵀX + l2 I)⁻¹ Xᵀ Y, all in
    float64.

    Args:
        train_features: to draw the few images from.
        train_labels: class numbers below `classes`.
        test_features: to be classified.
        test_labels: class numbers below `classes`.
        classes: how many there are.
        shots: images of each class; all of train if None.
        seed: of the draw. With the same seed, more shots add to the fewer ones.
        l2: the regularization.

    Raises:
        InputError: a class has fewer images than shots, or there is nothing to fit to or to test on.
    """
    if not len(test_labels):
        raise InputError("there are no test images", "give some")
    chosen = few(train_labels, classes, shots, seed)
    x, y = train_features[chosen].astype(np.float64), train_labels[chosen]
    mean, deviation = x.mean(0), x.std(0) + TINY
    weights = least_squares(with_bias((x - mean) / deviation), 2 * np.eye(classes)[y] - 1, l2)
    scores = with_bias((test_features.astype(np.float64) - mean) / deviation) @ weights
    return float((scores.argmax(1) == test_labels).mean())


def few(labels: Int64[ndarray, " images"], classes: int, shots: int | None, seed: int) -> Int64[ndarray, " chosen"]:
    """The places of so many images of each class, drawn by a counter-based generator; all if shots is None.

    Raises:
        InputError: shots is not above 0, or a class has fewer images; or there are none.
    """
    counts = np.bincount(labels, minlength=classes)
    if not len(labels) or (shots is not None and not 0 < shots <= counts.min()):
        cause = f"there cannot be {shots if shots is not None else 'any'} shots of each class"
        raise InputError(cause, f"the smallest class has {counts.min()} images")
    if shots is None:
        return np.arange(len(labels))
    generator = np.random.Generator(np.random.Philox(key=np.array((seed, SHOTS), dtype=np.uint64)))
    return np.concatenate([generator.permutation(np.flatnonzero(labels == label))[:shots] for label in range(classes)])


def with_bias(x: Float[ndarray, "images width"]) -> Float[ndarray, "images width_and_bias"]:
    """The features and a constant one."""
    return np.pad(x, ((0, 0), (0, 1)), constant_values=BIAS)


def least_squares(
    x: Float[ndarray, "images features"], y: Float[ndarray, "images classes"], l2: float
) -> Float[ndarray, "features classes"]:
    """The regularized least-squares weights, by the smaller of the two systems of equations that give them."""
    images, features = x.shape
    if images >= features:
        return np.linalg.solve(x.T @ x + l2 * np.eye(features), x.T @ y)
    return x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(images), y)
