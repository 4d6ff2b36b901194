"""The files of `vitreous explain`: for each analysis its figure as PNG and SVG, its numbers as npz and CSV."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from vitreous.explain import figures
from vitreous.explain.analyses import FOR_A_CLASS, Findings
from vitreous.explain.attention_maps import Query, readout_name
from vitreous.explain.drawing import save
from vitreous.model.config import ViTConfig
from vitreous.support.text import csv_cell

HEADS = "attention_heads"  # the sheet of one image that comes with attention


def write_all(findings: Findings, folder: Path) -> dict[str, str]:
    """Writes all that was found.

    Args:
        findings: with at least one image, unless its analyses need none.
        folder: is there already; its files are replaced.

    Returns:
        What each group of files shows, by their name without a suffix.
    """
    shows = {}
    for name in findings.wishes.analyses:
        writer = WRITERS.get(name, write_maps)
        shows[name] = writer(findings, name, folder)
        if name == "attention":
            shows[HEADS] = write_heads(findings, folder)
    return shows


def write_maps(findings: Findings, name: str, folder: Path) -> str:
    """Writes an analysis that has a map for each image, and returns what it shows."""
    note, maps, names = note_of(findings, name), findings.values(name), findings.names
    photos, numbers = findings.photos, {"images": np.array(names), "maps": maps}
    captions = [[image] for image in names[: len(photos)]]
    header, labels = ("image",), [(image,) for image in names]
    if name in FOR_A_CLASS:
        classes = [findings.explained_class(i) for i in range(len(names))]
        probabilities = np.array(findings.probabilities, np.float32)
        numbers |= {"class_names": np.array(classes), "probabilities": probabilities}
        header, labels = ("image", "class_name"), list(zip(names, classes, strict=True))
        for caption, chosen, probability in zip(captions, classes, probabilities, strict=False):
            caption.append(f"{chosen} {probability:.1%}")
    save(figures.map_sheet(photos, maps[: len(photos)], captions, note), folder / name)
    write_numbers(folder / name, numbers, (*header, "row", "column", "value"), rows_of(labels, maps))
    return note


def write_heads(findings: Findings, folder: Path) -> str:
    """Writes the attention of all heads and blocks of the first image."""
    maps, photo, image = findings.heads, findings.photos[0], findings.names[0]
    assert maps is not None, "it is computed with the first image"
    note = f"where {who_looks(findings.model.config, findings.wishes.query)}, in every head of every block"
    save(figures.heads_sheet(photo, maps, image, note), folder / HEADS)
    numbers = {"image": np.array(image), "maps": maps}
    write_numbers(folder / HEADS, numbers, ("block", "head", "row", "column", "value"), rows_of(None, maps))
    return note


def write_distance(findings: Findings, name: str, folder: Path) -> str:
    """Writes the mean attention distances."""
    distances, count = findings.values(name), len(findings.names)
    mean, spread = distances.mean(axis=0), distances.std(axis=0)
    height, width = findings.photos[0].shape[:2]
    note = f"mean over {count:,} images of {height}×{width} pixels; lines: one standard deviation to each side"
    if count == 1:
        note = f"of one image of {height}×{width} pixels"
    save(figures.distance_figure(mean, spread, note), folder / name)
    numbers = {"images": np.array(findings.names), "distances": distances, "mean": mean, "std": spread}
    rows = ((*place, value, spread[place]) for place, value in np.ndenumerate(mean))
    write_numbers(folder / name, numbers, ("block", "head", "mean", "std"), rows)
    return note


def write_positions(findings: Findings, name: str, folder: Path) -> str:
    """Writes the similarity of the position embeddings."""
    similarity = findings.similarity()
    note = "how alike the position embedding of each place is to those of all places (cosine similarity)"
    save(figures.similarity_figure(similarity, note), folder / name)
    header = ("row", "column", "other_row", "other_column", "similarity")
    write_numbers(folder / name, {"similarity": similarity}, header, rows_of(None, similarity))
    return note


def write_filters(findings: Findings, name: str, folder: Path) -> str:
    """Writes the principal components of the embedding filters."""
    found = findings.filters()
    components, explained = found.components.numpy(), found.explained.numpy()
    hybrid = findings.model.config.stem_blocks is not None
    what = "the filters of the stem's first convolution" if hybrid else "the embedding filters"
    note = f"{len(components)} principal components of {what}: {explained.sum():.0%} of their variance"
    save(figures.filters_figure(components, note), folder / name)
    labels = [(i, share) for i, share in enumerate(explained)]
    header = ("component", "explained", "channel", "row", "column", "value")
    numbers = {"components": components, "explained": explained}
    write_numbers(folder / name, numbers, header, rows_of(labels, components))
    return note


def write_patches(findings: Findings, name: str, folder: Path) -> str:
    """Writes the colors of the patches of the images that are shown."""
    colors, photos = findings.values(name), findings.photos
    names = findings.names[: len(photos)]
    note = f"three principal components of the patches after block {findings.block}, as red, green and blue"
    save(figures.color_sheet(photos, colors, [[image] for image in names], note), folder / name)
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
}  # all others have a map for each image


def note_of(findings: Findings, name: str) -> str:
    """What the maps of an analysis are, on one line."""
    config, wishes = findings.model.config, findings.wishes
    heads = f"head {wishes.head}" if wishes.head is not None else f"mean of {config.num_heads} heads"
    reading, reads = who_looks(config, None), readout_name(config)
    return {
        "attention": f"where {who_looks(config, wishes.query)} in block {findings.block}, {heads}",
        "rollout": f"what the attention of all blocks brings to {reads}",
        "gradient": f"where {reading} in block {findings.block}, as far as it speaks for the class",
        "relevance": f"how much each patch speaks for the class, by way of {reads}",
    }[name]


def who_looks(config: ViTConfig, query: Query) -> str:
    """Whose attention it is, as "the class token looks"."""
    if isinstance(query, tuple):
        return f"the patch in row {query[0]}, column {query[1]} looks"
    if query is not None:
        in_front = ["the class token"] * config.class_token + ["the distillation token"] * config.distillation_token
        registers = [f"register {i}" for i in range(config.registers)]
        return f"{[*in_front, *registers][query]} looks"
    if config.pooling == "attention":
        return "the tokens look, weighted by the attention pooling,"
    if config.pooling == "mean":
        return "the patches look on average"
    return f"{readout_name(config)} look{'' if config.distillation_token and config.num_classes else 's'}"


def rows_of(labels: Sequence[tuple[object, ...]] | None, values: ndarray) -> Iterator[tuple[object, ...]]:
    """Every value of an array after its indices; in place of the first of these the labels, if there are any."""
    for place, value in np.ndenumerate(values):
        yield (*place, value) if labels is None else (*labels[place[0]], *place[1:], value)


def write_numbers(
    stem: Path, numbers: Mapping[str, ndarray], header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Writes the same numbers as npz, in arrays, and as CSV, one value a line; its cells are inert in spreadsheets."""
    arrays: dict[str, Any] = dict(numbers)
    with stem.with_name(f"{stem.name}.npz").open("wb") as file:
        np.savez_compressed(file, **arrays)
    with stem.with_name(f"{stem.name}.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(header)
        lines.writerows(map(csv_cell, row) for row in rows)
