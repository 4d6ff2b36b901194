"""The files of `vitreous explain`: for each analysis a figure as PNG and SVG, and its numbers as npz and CSV."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from vitreous.explain import figures
from vitreous.explain.analyses import FOR_A_CLASS, Results
from vitreous.explain.attention_maps import Query, readout_name
from vitreous.explain.distance import CONVENTIONS
from vitreous.explain.drawing import save_figure
from vitreous.explain.embeddings import embedding_filters, position_similarity
from vitreous.model.config import ViTConfig
from vitreous.support.figures import shown_as
from vitreous.support.fonts import drawable
from vitreous.support.text import csv_cell

HEADS = "attention_heads"  # the sheet of one image that comes with attention


def write_files(results: Results, folder: Path) -> dict[str, str]:
    """Writes all results to an existing folder; returns what each group of files shows, by name without a suffix."""
    notes = {}
    for name in results.options.analyses:
        notes[name] = WRITERS.get(name, write_maps)(results, name, folder)
        if name == "attention":
            notes[HEADS] = write_heads(results, folder)
    return notes


def write_maps(results: Results, name: str, folder: Path) -> str:
    """Writes an analysis with a map per image, and returns what it shows."""
    note, maps, names = note_of(results, name), results.values(name), results.names
    photos, numbers = results.photos, {"images": np.array(names), "maps": maps}
    captions = [[drawable(image, f"image {i}")] for i, image in enumerate(names[: len(photos)])]
    header, labels = ("image",), [(image,) for image in names]
    if name in FOR_A_CLASS:
        classes = [results.explained_class(i) for i in range(len(names))]
        probabilities = np.array(results.probabilities, np.float32)
        numbers |= {"class_names": np.array(classes), "probabilities": probabilities}
        header, labels = ("image", "class_name"), list(zip(names, classes, strict=True))
        for caption, class_name, number, probability in zip(
            captions, classes, results.classes, probabilities, strict=False
        ):
            caption.append(f"{drawable(class_name, f'class {number}')} {probability:.1%}")
    note = with_channels(note, results)
    save_figure(figures.photo_sheet(photos, maps[: len(photos)], captions, note), folder / name)
    write_numbers(folder / name, numbers, (*header, "row", "column", "value"), rows_of(labels, maps))
    return note


def write_heads(results: Results, folder: Path) -> str:
    """Writes the attention of all heads and blocks for the first image."""
    maps, photo, image = results.heads, results.photos[0], results.names[0]
    assert maps is not None, "computed with the first image"
    note = f"where {subject(results.model.config, results.options.query)}, in every head of every block"
    note = with_channels(note, results)
    save_figure(figures.heads_sheet(photo, maps, image, note), folder / HEADS)
    numbers = {"image": np.array(image), "maps": maps}
    write_numbers(folder / HEADS, numbers, ("block", "head", "row", "column", "value"), rows_of(None, maps))
    return note


def write_distance(results: Results, name: str, folder: Path) -> str:
    """Writes the mean attention distances."""
    distances, count, convention = results.values(name), len(results.names), results.options.distance
    mean, spread = distances.mean(axis=0), distances.std(axis=0)
    height, width = results.photos[0].shape[:2]
    note = f"mean over {count:,} images of {height}×{width} pixels; lines: one standard deviation to each side"
    if count == 1:
        note = f"of one image of {height}×{width} pixels"
    weights = CONVENTIONS[convention] if results.model.config.prefix_tokens else ""
    save_figure(figures.distance_figure(mean, spread, note, weights), folder / name)
    numbers = {"images": np.array(results.names), "distances": distances, "mean": mean, "std": spread}
    numbers["convention"] = np.array(convention)
    rows = ((*place, value, spread[place]) for place, value in np.ndenumerate(mean))
    write_numbers(folder / name, numbers, ("block", "head", "mean", "std"), rows)
    return f"{note}; {weights}" if weights else note


def write_positions(results: Results, name: str, folder: Path) -> str:
    """Writes the similarity of the position embeddings."""
    similarity = position_similarity(results.model).cpu().numpy()
    note = "cosine similarity of each position embedding with all others"
    save_figure(figures.similarity_figure(similarity, note), folder / name)
    header = ("row", "column", "other_row", "other_column", "similarity")
    write_numbers(folder / name, {"similarity": similarity}, header, rows_of(None, similarity))
    return note


def write_filters(results: Results, name: str, folder: Path) -> str:
    """Writes the principal components of the embedding filters."""
    filters = embedding_filters(results.model)
    components, explained = filters.components.numpy(), filters.explained.numpy()
    hybrid = results.model.config.stem_blocks is not None
    what = "the filters of the stem's first convolution" if hybrid else "the embedding filters"
    note = f"{len(components)} principal components of {what}: {explained.sum():.0%} of their variance"
    note = with_channels(note, results, "filters")
    save_figure(figures.filters_figure(components, note), folder / name)
    labels = [(i, share) for i, share in enumerate(explained)]
    header = ("component", "explained", "channel", "row", "column", "value")
    numbers = {"components": components, "explained": explained}
    write_numbers(folder / name, numbers, header, rows_of(labels, components))
    return note


def write_patches(results: Results, name: str, folder: Path) -> str:
    """Writes the colors of the patches of the images shown."""
    colors, photos = results.values(name), results.photos
    names = results.names[: len(photos)]
    note = f"three principal components of the patches after block {results.options.block}, as red, green and blue"
    note = with_channels(note, results)
    save_figure(figures.photo_sheet(photos, colors, [[image] for image in names], note), folder / name)
    rows = (
        (image, row, column, *colors[i, row, column])
        for i, image in enumerate(names)
        for row, column in np.ndindex(*colors.shape[1:3])
    )
    numbers = {"images": np.array(names), "colors": colors}
    write_numbers(folder / name, numbers, ("image", "row", "column", "red", "green", "blue"), rows)
    return note


WRITERS = {
    "distance": write_distance,
    "positions": write_positions,
    "filters": write_filters,
    "patches": write_patches,
}  # all others have a map per image


def with_channels(note: str, results: Results, what: str = "images") -> str:
    """A note that also says what is shown of images, or filters, with other channels than gray and color."""
    shown = shown_as(results.model.config.channels)
    return f"{note}; {what} {shown}" if shown else note


def note_of(results: Results, name: str) -> str:
    """What the maps of an analysis show, on one line."""
    config, options = results.model.config, results.options
    heads = f"head {options.head}" if options.head is not None else f"mean of {config.num_heads} heads"
    reads = readout_name(config)
    return {
        "attention": f"where {subject(config, options.query)} in block {options.block}, {heads}",
        "rollout": f"share of each patch in {reads}, through the attention of all blocks",
        "gradient": f"where {subject(config, None)} in block {options.block}, in support of the class",
        "relevance": f"how much each patch supports the class, through {reads}",
    }[name]


def subject(config: ViTConfig, query: Query) -> str:
    """Whose attention it is, with the verb: "the class token looks"."""
    if isinstance(query, tuple):
        return f"the patch in row {query[0]}, column {query[1]} looks"
    if query is not None:
        prefix = ["the class token"] * config.class_token + ["the distillation token"] * config.distillation_token
        registers = [f"register {i}" for i in range(config.registers)]
        return f"{[*prefix, *registers][query]} looks"
    if config.pooling == "attention":
        return "the tokens, weighted by the attention pooling, look"
    if config.pooling == "mean":
        return "the patches look on average"
    if config.pooling == "class_token_and_mean":
        return "the class token and the mean of the patches look"
    return f"{readout_name(config)} look{'' if config.distillation_token and config.num_classes else 's'}"


def rows_of(labels: Sequence[tuple[object, ...]] | None, values: ndarray) -> Iterator[tuple[object, ...]]:
    """Every value of an array after its indices; labels, if given, replace the first index."""
    for place, value in np.ndenumerate(values):
        yield (*place, value) if labels is None else (*labels[place[0]], *place[1:], value)


def write_numbers(
    stem: Path, numbers: Mapping[str, ndarray], header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Writes arrays as npz, and one value per line as CSV, safe to open in a spreadsheet."""
    arrays: dict[str, Any] = dict(numbers)
    with stem.with_name(f"{stem.name}.npz").open("wb") as file:
        np.savez_compressed(file, **arrays)
    with stem.with_name(f"{stem.name}.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(header)
        lines.writerows(map(csv_cell, row) for row in rows)
