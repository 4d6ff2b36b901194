"""`python -m experiments.deletion DATA --model RUN --scores NAME`: does deleting important patches hurt?"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from experiments.probe import chunks
from experiments.results import write_facts
from vitreous.classifier import Classifier, load
from vitreous.data.sources.open import open_data
from vitreous.data.sources.splits import Split
from vitreous.explain.attention_maps import attention_map
from vitreous.explain.deletion import deletion_curve
from vitreous.explain.relevance import gradient_attention, relevance
from vitreous.explain.rollout import attention_rollout
from vitreous.model.vit import VisionTransformer

STEPS = 11  # from none to all of the patches
# (model, images, classes) -> a score for each patch
SCORES: dict[str, Callable[[VisionTransformer, Tensor, Tensor], Tensor]] = {
    "relevance": relevance,
    "gradient": lambda model, images, classes: gradient_attention(model, images, classes=classes),
    "rollout": lambda model, images, classes: attention_rollout(model, images),
    "attention": lambda model, images, classes: attention_map(model, images),
    "least-relevant": lambda model, images, classes: -relevance(model, images, classes),
    "random": lambda model, images, classes: torch.rand(len(images), *model.grid(images)).to(images.device),
}


def parser() -> argparse.ArgumentParser:
    """The options of the program."""
    options = argparse.ArgumentParser(prog="python -m experiments.deletion", description=__doc__)
    options.add_argument("data", help="a folder with test/")
    options.add_argument("--model", required=True, help="a run's folder, or weights as vitreous.load takes them")
    options.add_argument("--scores", required=True, choices=SCORES, help="what ranks the patches")
    options.add_argument("--seed", type=int, default=0, help="of random scores")
    options.add_argument("--out", type=Path, default=Path("runs", "deletion"), help="a folder for facts.json")
    return options


def main(arguments: list[str]) -> None:
    """Writes facts.json: the mean probability of the true class at each share of deleted patches."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    data = open_data(options.data)
    assert data.test is not None, "the image set has a test split"
    curves = curves_of_correct(load(options.model, device="cpu"), data.test, options.scores)
    shares = torch.linspace(0, 100, STEPS)
    levels = {f"{share:.0f}": value for share, value in zip(shares.tolist(), curves.mean(0).tolist(), strict=True)}
    options.out.mkdir(parents=True, exist_ok=True)
    write_facts(options.out, "test", len(curves), len(curves), levels=levels)
    for share, probability in levels.items():
        print(f"{share} % deleted: {probability:.3f}")


def curves_of_correct(classifier: Classifier, split: Split, scores: str) -> Tensor:
    """The deletion curves of the correctly classified images, "images steps"."""
    model, preprocessing, curves, place = classifier.model, classifier.preprocessing, [], 0
    for chunk in chunks(split):
        images = preprocessing(chunk)
        labels = torch.from_numpy(split.labels[place : place + len(chunk)]).long()
        place += len(chunk)
        with torch.inference_mode():
            correct = model(images).argmax(1) == labels
        images, labels = images[correct], labels[correct]
        if len(images):
            order = SCORES[scores](model, images, labels)
            curves.append(deletion_curve(model, images, order, labels, steps=STEPS))
    return torch.cat(curves)


if __name__ == "__main__":
    main(sys.argv[1:])
