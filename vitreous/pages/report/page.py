"""The report's HTML, section by section. Every text from elsewhere goes through `html_text`."""

import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from vitreous.data.sources.open import ImageData
from vitreous.evaluation.metrics import Outcome, confusion_matrix, per_class
from vitreous.explain.attention_maps import readout_name
from vitreous.explain.inline import CRISP
from vitreous.model.config import ViTConfig
from vitreous.model.cost import nominal_multiply_adds, parameter_count
from vitreous.pages.report.charts import Line, line_chart
from vitreous.pages.report.pictures import heat, photo
from vitreous.support.text import html_text, printable
from vitreous.training.records.display import duration

STYLE = Path(__file__).with_name("style.css")
# The browser itself holds the page to what it says: nothing from elsewhere, and no scripts.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MOST_COLUMNS = 25  # classes up to which the confusion matrix is shown
MOST_CLASSES = 100  # classes up to which all are scored; else the ones least found
MOST_CONFUSED = 8  # pairs


@dataclass(frozen=True, eq=False)
class Example:
    """One image with what the model says of it.

    Args:
        name: of the image.
        label: its true class.
        likeliest: (class, probability), best first.
        pixels: as the model sees it.
        attention: what each head's attention gives each patch in the last block.
    """

    name: str
    label: int
    likeliest: list[tuple[int, float]]
    pixels: UInt8[ndarray, "channels height width"]
    attention: Float[ndarray, "heads rows columns"]

    @property
    def is_right(self) -> bool:
        """Whether the likeliest class is the true one."""
        return self.likeliest[0][0] == self.label


@dataclass(frozen=True, eq=False)
class Report:
    """What the page tells.

    Args:
        data: what the model was trained on.
        folder: of the run.
        split: the name of the split that was classified.
        outcome: what came of it.
        config: the model's.
        kept_epoch: the epoch whose model was kept, if known.
        rows: of metrics.jsonl, one for each epoch.
        recipe: recipe.toml.
        environment: environment.json.
        examples: images to show.
    """

    data: ImageData
    folder: Path
    split: str
    outcome: Outcome
    config: ViTConfig
    kept_epoch: int | None
    rows: list[dict[str, Any]]
    recipe: str
    environment: dict[str, Any]
    examples: list[Example]

    @property
    def title(self) -> str:
        """What the page is called."""
        return f"{Path(self.data.name).name or self.data.name}: a Vision Transformer trained from scratch"


def page(report: Report) -> str:
    """The whole page."""
    body = "".join(
        [
            headline(report),
            curves(report),
            predictions(report),
            f'<div class="pair">\n{confusion(report)}{scores(report)}</div>\n',
            model_in_numbers(report.config),
            recipe(report),
            footer(report.environment),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html_text(report.title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n"
        f"</head>\n<body>\n{body}</body>\n</html>\n"
    )


# ---- sections


def headline(report: Report) -> str:
    """The result, and what it took."""
    outcome, data = report.outcome, report.data
    low, high = outcome.interval
    found = f"{outcome.correct:,} of {len(outcome.labels):,} held-out images are named right"
    note = ""
    if data.test is None:
        note = " There is no test split: the model was chosen on these images, so new ones may do a little worse."
    facts = {
        "Classes": f"{len(data.class_names):,}",
        "Images to learn from": f"{len(data.train):,}",
        "Images to validate": f"{len(data.validation):,}",
        "Parameters": f"{parameter_count(report.config):,}",
        "Epochs": f"{len(report.rows):,}",
        "Training took": duration(report.rows[-1]["seconds"]),
    }
    return (
        f"<header>\n<h1>{html_text(report.title)}</h1>\n"
        f'<p class="result">{100 * outcome.accuracy:.1f}<small> %</small></p>\n'
        f"<p>{report.split.capitalize()} accuracy: {found}; 95 % interval {low:.1%} to {high:.1%}.{note}</p>\n"
        f"{definitions(facts, 'facts')}</header>\n<main>\n"
    )


def curves(report: Report) -> str:
    """Loss and accuracy by epoch."""
    rows = report.rows
    epochs = [float(row["epoch"]) for row in rows]
    kept = next((row for row in rows if row["epoch"] == report.kept_epoch), None)
    figures = []
    for name, ceiling, shown in (("loss", None, "{:.3g}".format), ("accuracy", 1.0, "{:.0%}".format)):
        lines = [
            Line("training", [row[f"train_{name}"] for row in rows], "train"),
            Line("validation", [row[f"val_{name}"] for row in rows], "validation"),
        ]
        value = None if kept is None else kept[f"val_{name}"]  # None too where it was not finite
        marked = None if kept is None or value is None else (float(kept["epoch"]), float(value))
        chart = line_chart(name.capitalize(), epochs, lines, shown, ceiling, marked)
        figures.append(f"<figure><figcaption>{name.capitalize()}</figcaption>{chart}</figure>\n")
    key = '<li><i></i>training, on random views of the images</li><li><i class="validation"></i>validation</li>'
    if kept is not None:
        key += f'<li><i class="kept"></i>the model that was kept: epoch {kept["epoch"]}, best on validation</li>'
    return section("How it learned", f'<div class="charts">\n{"".join(figures)}</div>\n<ul class="key">{key}</ul>\n')


def predictions(report: Report) -> str:
    """Some images, what they were taken for, and where the model looked."""
    of_class_token = report.config.pooling == "class_token"
    reader = "the class token" if of_class_token else "all patches, on average,"
    shown, mistakes = sum(not e.is_right for e in report.examples), len(report.outcome.labels) - report.outcome.correct
    which = "There is no mistake to show."
    if mistakes:
        which = f"Mistakes come first, the surest of them at the top: {shown:,} of {mistakes:,}."
    intro = (
        f"<p>Held-out images as the model sees them. {which} Beside each: where {reader} looked in the last block, "
        "over all heads; below it each head by itself.</p>\n"
        '<p class="soft">Attention: none<span class="scale" role="presentation"></span>the most in each picture. '
        "It shows what the answer was gathered from, which is not yet why it was given.</p>\n"
    )
    cards = "".join(card(example, report.data.class_names, of_class_token) for example in report.examples)
    return section("What it sees", f'{intro}<ul class="cards">\n{cards}</ul>\n')


def card(example: Example, class_names: Sequence[str], of_class_token: bool) -> str:
    """One image."""
    crisp = " pixels" if max(example.pixels.shape[1:]) <= CRISP else ""
    height, width = example.pixels.shape[1:]
    who = "the class token" if of_class_token else "the patches"
    true, guess = html_text(class_names[example.label]), html_text(class_names[example.likeliest[0][0]])
    verdict = f'<span class="right">✓ right</span><span>{guess}</span>'
    if not example.is_right:
        verdict = f'<span class="wrong">✗ wrong</span><span>{true}, taken for {guess}</span>'
    chances = "".join(
        f'<li><b>{html_text(class_names[i])}</b><span class="bar"><i style="width:{p:.1%}"></i></span>'
        f"<span>{p:.1%}</span></li>"
        for i, p in example.likeliest
    )
    shape = f"aspect-ratio:{width}/{height}"
    heads = "".join(
        f'<div class="view{crisp}" style="{shape}"><img src="{heat(head)}" alt="{looks_at(head, f"head {i}")}"></div>'
        for i, head in enumerate(example.attention, start=1)
    )
    mean = example.attention.mean(axis=0)
    return (
        f'<li class="card"><figure style="--photo:url({photo(example.pixels)})">\n'
        f'<div class="views"><div><div class="view{crisp}" style="{shape}" role="img" '
        f'aria-label="{html_text(example.name)}, of class {true}"></div><div class="under">image</div></div>'
        f'<div><div class="view{crisp}" style="{shape}"><img src="{heat(mean)}" alt="{looks_at(mean, who)}"></div>'
        f'<div class="under">attention, all heads</div></div></div>\n'
        f'<div class="heads">{heads}</div><div class="under">each head</div>\n'
        f'<figcaption><div class="verdict">{verdict}</div><ul class="chances">{chances}</ul></figcaption>\n'
        "</figure></li>\n"
    )


def looks_at(attention: Float[ndarray, "rows columns"], who: str) -> str:
    """A heat map in words."""
    rows, columns = attention.shape
    row, column = np.unravel_index(attention.argmax(), attention.shape)
    return (
        f"{who}: the most attention, {attention.max():.0%}, on the patch in row {row + 1} of {rows}, "
        f"column {column + 1} of {columns}"
    )


def confusion(report: Report) -> str:
    """The confusion matrix, and in words what it says."""
    names, outcome = [html_text(name) for name in report.data.class_names], report.outcome
    matrix = confusion_matrix(outcome.labels, outcome.predictions, len(names))
    errors = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-errors, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [(row, column) for row, column in zip(*np.unravel_index(order, errors.shape), strict=True)]
    told = [
        f"{names[row]} for {names[column]} ({errors[row, column]}×)" for row, column in pairs if errors[row, column]
    ]
    text = (
        f"<p>Most often mistaken: {', '.join(told)}.</p>\n"
        if told
        else "<p>No image was taken for another class.</p>\n"
    )
    if len(names) > MOST_COLUMNS:
        return section("What it confuses", f"{text}<p>confusion_matrix.csv in the run's folder has every count.</p>\n")
    rows = [
        (name, "".join(cell(count, counts, i == j) for j, count in enumerate(counts)))
        for i, (name, counts) in enumerate(zip(names, matrix.tolist(), strict=True))
    ]
    caption = f"Rows are the true classes, columns what they were taken for: {report.split} images."
    return section("What it confuses", text + table("matrix", caption, ["", *names], rows))


def cell(count: int, row: Sequence[int], is_hit: bool) -> str:
    """A count, shaded by its share of the row."""
    if not count:
        return "<td>·</td>" if not is_hit else "<td>0</td>"
    share = count / sum(row)
    kind = "miss" if not is_hit else "hit full" if share > 0.5 else "hit"
    return f'<td class="{kind}" style="--share:{share:.3f}">{count}</td>'


def scores(report: Report) -> str:
    """Precision and recall of each class."""
    names, outcome = report.data.class_names, report.outcome
    matrix = confusion_matrix(outcome.labels, outcome.predictions, len(names))
    scored = list(zip(names, per_class(matrix), strict=True))
    caption = "Precision: of the images named so, the share that are. Recall: of the images that are, the share found."
    if len(scored) > MOST_CLASSES:
        scored = sorted(scored, key=lambda pair: pair[1].f1 or 0.0)[:MOST_CLASSES]
        caption += f" The {MOST_CLASSES} classes with the lowest F1; per_class.csv in the run's folder has all."
    rows = [
        (
            html_text(name),
            "".join(f"<td>{value}</td>" for value in (*map(percent, (s.precision, s.recall, s.f1)), f"{s.support:,}")),
        )
        for name, s in scored
    ]
    return section("Class by class", table("scores", caption, ["Class", "Precision", "Recall", "F1", "Images"], rows))


def model_in_numbers(config: ViTConfig) -> str:
    """The shape of the model and what it costs."""
    c = config
    rows, columns = c.grid
    prefix = f" + {c.prefix_tokens}" if c.prefix_tokens else ""
    numbers = {
        "Parameters": f"{parameter_count(c):,}",
        "Multiply-adds for an image": f"{nominal_multiply_adds(c):,}",
        "Image": "×".join(map(str, c.image_size)) + " pixels",
        "Patches": f"a grid of {rows}×{columns}, each of {'×'.join(map(str, c.token_stride))} pixels",
        "Tokens": f"{rows * columns}{prefix}" + (" (class token)" if c.class_token and c.prefix_tokens == 1 else ""),
        "Width": f"{c.width:,}",
        "Blocks": f"{c.depth}",
        "Heads": f"{c.num_heads}, each of {c.head_dim}",
        "MLP": f"{c.mlp_dim:,}",
        "Position embedding": c.position_embedding.replace("_", " "),
        "Head reads": readout_name(c),
    }
    return section("The model in numbers", definitions(numbers, "numbers"))


def recipe(report: Report) -> str:
    """How it was trained, and how to do it again."""
    tables = tomllib.loads(report.recipe)
    optimizer, schedule = tables["optimizer"], tables["schedule"]
    smallest, largest = tables["augmentation"]["crop_scale"]
    flip = ", flips" if tables["augmentation"]["flip"] else ""
    essentials = {
        "Optimizer": f"AdamW, weight decay {optimizer['weight_decay']:g}",
        "Learning rate": f"{optimizer['lr']:g}, {schedule['warmup_epochs']:g} epochs of warmup, then a cosine",
        "Batch": f"{tables['data']['batch_size']:,} images",
        "Random views": f"crops of {smallest:.0%} to {largest:.0%} of the area{flip}",
        "Label smoothing": f"{tables['objective']['label_smoothing']:g}",
        "Seed": f"{tables['run']['seed']}",
    }
    return section(
        "The recipe",
        f"{definitions(essentials, 'numbers')}<details><summary>All of recipe.toml</summary>\n"
        f"<p>The same again: <code>{html_text(same_again(report))}</code></p>\n"
        f"<pre>{preformatted(report.recipe)}</pre>\n</details>\n",
    )


def same_again(report: Report) -> str:
    """A command that does the run once more, from where this one was started, in a folder beside it."""
    folder = report.folder
    is_named = folder.name not in ("", "..")
    again = (folder.parent if is_named else folder / "..") / f"{folder.resolve().name}-again"
    words = ["vitreous", "train", report.data.name, "--recipe", str(folder / "recipe.toml"), "--out", str(again)]
    return shlex.join(map(printable, words))


def footer(environment: dict[str, Any]) -> str:
    """Where and with what."""
    host = environment.get("host", {})
    parts = [
        f"vitreous {environment.get('vitreous', '')}",
        f"torch {host.get('torch', '')}",
        f"{host.get('cpu', '')}, {host.get('cores', '')} cores",
        f"on {environment.get('device', '')}",
        str(environment.get("begun", "")),
    ]
    return f"</main>\n<footer>{html_text(' · '.join(parts))}</footer>\n"


# ---- small parts


def section(title: str, content: str) -> str:
    """A part of the page under its heading."""
    return f"<section>\n<h2>{title}</h2>\n{content}</section>\n"


def definitions(pairs: dict[str, str], style: str) -> str:
    """Names and values."""
    items = "".join(f"<div><dt>{name}</dt><dd>{html_text(value)}</dd></div>\n" for name, value in pairs.items())
    return f'<dl class="{style}">\n{items}</dl>\n'


def table(style: str, caption: str, head: Sequence[str], rows: Sequence[tuple[str, str]]) -> str:
    """A table that moves sideways where it does not fit, by keyboard too; a row is its name and its cells."""
    columns = "".join(f'<th scope="col">{name}</th>' if name else "<td></td>" for name in head)
    body = "".join(f'<tr><th scope="row">{name}</th>{cells}</tr>\n' for name, cells in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0">\n<table class="{style}">\n'
        f"<caption><span>{caption}</span></caption>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def percent(share: float | None) -> str:
    """A share; a dash of nothing."""
    return "–" if share is None else f"{share:.1%}"


def preformatted(text: str) -> str:
    """Text with its lines, each inert."""
    return "\n".join(map(html_text, text.splitlines()))
