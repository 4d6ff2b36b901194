"""`python -m experiments.probe DATA --model RUN`: the few-shot probe of a model's features on a folder of photos."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from experiments.results import write_facts
from vitreous.checkpoints.store import StoredModel
from vitreous.classifier import Classifier, load
from vitreous.data.sources.open import open_data
from vitreous.data.sources.splits import ImageData, Split
from vitreous.evaluation.fewshot import few_shot_accuracy
from vitreous.model.vit import VisionTransformer

SHOTS = (1, 5, 10, 25)
ALL = "all"
BATCH = 32


def parser() -> argparse.ArgumentParser:
    """The options of the program."""
    options = argparse.ArgumentParser(prog="python -m experiments.probe", description=__doc__)
    options.add_argument("data", help="a folder with train/ and test/; held-out validation images are fitted to, too")
    options.add_argument("--model", required=True, help="a run's folder, or weights as vitreous.load takes them")
    options.add_argument("--fresh", action="store_true", help="random weights instead, drawn from the seed")
    options.add_argument("--seed", type=int, default=0, help="of the draw of the photos")
    options.add_argument("--out", type=Path, default=Path("runs", "probe"), help="a folder for facts.json")
    return options


def main(arguments: list[str]) -> None:
    """Writes facts.json: the accuracy on test for each number of shots."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    classifier = load(options.model, device="cpu")
    if options.fresh:
        torch.manual_seed(options.seed)
        fresh = VisionTransformer(classifier.model.config)
        classifier = Classifier(StoredModel(fresh, classifier.preprocessing))
    data = open_data(options.data)
    assert data.test is not None, "the image set has a test split"
    shots, correct = probe(classifier, data, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    write_facts(options.out, "test", correct, len(data.test), levels=shots)
    for name, accuracy in shots.items():
        print(f"{name} of each class: {accuracy:.1%}")


def probe(classifier: Classifier, data: ImageData, seed: int) -> tuple[dict[str, float], int]:
    """The accuracy for each number of shots, and how many test images are correct with all training photos."""
    assert data.test is not None, "the image set has a test split"
    features = np.concatenate([features_of(classifier, split) for split in (data.train, data.validation)])
    labels = np.concatenate([data.train.labels, data.validation.labels])
    tested, truth, classes = features_of(classifier, data.test), data.test.labels, len(data.class_names)
    fewest = np.bincount(labels).min()
    numbers: dict[str, int | None] = {str(shots): shots for shots in SHOTS if shots <= fewest}
    accuracies = {
        name: few_shot_accuracy(features, labels, tested, truth, classes, shots, seed)
        for name, shots in (numbers | {ALL: None}).items()
    }
    return accuracies, round(accuracies[ALL] * len(truth))


def features_of(classifier: Classifier, split: Split) -> np.ndarray:
    """The representation of each image of a split, as rows."""
    return np.concatenate([classifier.features(images).numpy() for images in chunks(split)])


def chunks(split: Split) -> Iterator[list]:
    """The images of a split, in chunks."""
    for start in range(0, len(split), BATCH):
        yield [split.load(place) for place in range(start, min(start + BATCH, len(split)))]


if __name__ == "__main__":
    main(sys.argv[1:])
