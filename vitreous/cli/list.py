"""`vitreous list`."""

import json
import math
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from vitreous.checkpoints.sources.pretrained import Pretrained
    from vitreous.model.config import ViTConfig

SOURCES = {
    "digits": "scikit-learn's 1,797 handwritten digits, 8×8 pixels, 10 classes; part of the installation",
    "FOLDER": "a folder of images in one folder per class, or of train/, val/ and test/ with these below",
    "ARCHIVE.zip": "a zip archive of such a folder, read in place; a FOLDER may hold train.zip, val.zip and test.zip",
}
HEADINGS = {
    "variant": "shapes to train from scratch and to look into; any size goes with any patch size",
    "pretrained": "weights by name, fetched when they are used; top-1 is ImageNet's, in percent, as published",
}
TOWERS = ("hf:openai/clip-", "hf:google/siglip-")  # their files hold more than the image tower that we count


def command(
    what: Annotated[Literal["models", "recipes", "sources"], typer.Argument(help="What to show.")],
    name: Annotated[
        str | None,
        typer.Argument(help="Of recipes: the one to print whole; with options, as in augreg+medium1, what they make."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the models, recipes and data sources there are."""
    if name is not None:
        show_recipe(what, name, as_json)
        return
    rows = {"models": models, "recipes": recipes, "sources": sources}[what]()
    print(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else text(rows))


def show_recipe(what: str, name: str, as_json: bool) -> None:
    """Prints a recipe: a built-in one as its file has it, comments and all; any other as its options make it.

    JSON has every value of the merged and validated recipe, null where nothing is set and "inf" for infinity.

    Args:
        what: was asked for; only recipes are shown one by one.
        name: of a recipe, perhaps with options behind plus signs, or a file.
        as_json: print JSON.

    Raises:
        InputError: there is no such recipe or option, it is not valid, or not recipes were asked for.
    """
    from vitreous.support.errors import InputError
    from vitreous.training.recipe.files import built_in
    from vitreous.training.recipe.recipe import Recipe

    if what != "recipes":
        raise InputError(f"{name!r} cannot be shown: only recipes are shown one by one", f"vitreous list {what}")
    recipe = Recipe.load(name)
    if as_json:
        tables = recipe.model_dump()
        finite = {s: {k: "inf" if v == math.inf else v for k, v in table.items()} for s, table in tables.items()}
        print(json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False))
    elif name in built_in():
        print(built_in()[name].read_text(encoding="utf-8"), end="")
    else:
        print(recipe.to_toml(), end="")


def models() -> list[dict[str, Any]]:
    """The named variants, then the known weights; GFLOPs are of one image, a multiply-add counted as two."""
    from vitreous.checkpoints.sources.pretrained import KNOWN
    from vitreous.model.variants import NAMES

    return [*map(variant_row, NAMES), *map(pretrained_row, KNOWN.values())]


def variant_row(name: str) -> dict[str, Any]:
    """What `list models` tells of a shape."""
    from vitreous.model.variants import variant

    config = variant(name)
    return {
        "kind": "variant",
        "model": name,
        "width": config.width,
        "depth": config.depth,
        "mlp_dim": config.mlp_dim,
        "heads": config.num_heads,
        "image": "×".join(map(str, config.image_size)),
        "classes": config.num_classes,
        "parameters": parameters(config),
        "GFLOPs": gflops(config),
    }


def pretrained_row(row: "Pretrained") -> dict[str, Any]:
    """What `list models` tells of weights; "bytes" is published, or else four for each parameter."""
    config = row.config
    count = parameters(config)
    return {
        "kind": "pretrained",
        "family": row.family,
        "variant": row.variant,
        "image": "×".join(map(str, config.image_size)),
        "classes": row.num_classes,
        "parameters": count,
        "GFLOPs": gflops(config),
        "top1": row.top1,
        "license": row.license,
        "bytes": None if row.name.startswith(TOWERS) else row.size or 4 * count,
        "bytes_are_published": row.size is not None,
        "model": row.name,
    }


def parameters(config: "ViTConfig") -> int:
    """Counts a config's parameters; shapes that differ in classes and image size alone are built once.

    Only for what the table has: positions in one learned table, a plain classifier with a bias.
    """
    from vitreous.model.config import grid_of

    rows, columns = grid_of(config.image_size, config.token_stride)
    smallest = config.replace(image_size=config.token_stride, num_classes=0)
    classifiers = (1 + config.distillation_token) * (1 + (config.hidden_dim or config.width)) * config.num_classes
    return _built(smallest) + (rows * columns - 1) * config.width + classifiers


@lru_cache
def _built(config: "ViTConfig") -> int:
    from vitreous.model.cost import parameter_count

    return parameter_count(config)


def gflops(config: "ViTConfig") -> float:
    """Of one image, nominally."""
    from vitreous.model.cost import nominal_multiply_adds

    return round(2 * nominal_multiply_adds(config) / 1e9, 2)


def recipes() -> list[dict[str, Any]]:
    """The built-in recipes, each with the first line of its header and the names of its options."""
    from vitreous.training.recipe.files import built_in, options_of

    return [
        {
            "recipe": name,
            "what": path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# "),
            "options": options_of(path),
        }
        for name, path in built_in().items()
    ]


def sources() -> list[dict[str, Any]]:
    """What `vitreous train` takes as DATA."""
    return [{"source": name, "what": what} for name, what in SOURCES.items()]


def text(rows: list[dict[str, Any]]) -> str:
    """The rows as one table, or as one for each kind under a heading."""
    if rows and "options" in rows[0]:
        return table([line for row in rows for line in lines_of(row)])
    if not rows or "kind" not in rows[0]:
        return table(rows)
    kinds = [(row["kind"], columns_of(row)) for row in rows]
    groups = groupby(kinds, itemgetter(0))
    return "\n\n".join(f"{HEADINGS[kind]}:\n{table([columns for _, columns in group])}" for kind, group in groups)


def lines_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of recipes as the table has it: a line of its own for the options."""
    options = {"recipe": "", "what": " ".join(f"+{option}" for option in row["options"])}
    return [{"recipe": row["recipe"], "what": row["what"]}, *([options] if row["options"] else [])]


def columns_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row of models as the table has it: without its kind, and the bytes in words."""
    from vitreous.checkpoints.sources.download import bytes_text

    columns = {name: value for name, value in row.items() if name not in ("kind", "bytes", "bytes_are_published")}
    if "bytes" in row:
        size = "" if row["bytes"] is None else bytes_text(row["bytes"])
        columns["size"] = size if row["bytes_are_published"] or not size else f"about {size}"
        columns["model"] = columns.pop("model")  # last, since names are long
    return columns


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as aligned text, numbers to the right, nothing for None."""
    if not rows:
        return "there are none"
    columns = [[name, *(shown(row[name]) for row in rows)] for name in rows[0]]
    widths = [max(map(len, column)) for column in columns]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in rows[0]]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(f"{cell:{'>' if r else '<'}{w}}" for cell, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )


def shown(value: object) -> str:
    """A value as a person reads it: 86,567,656 and 17.58."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
