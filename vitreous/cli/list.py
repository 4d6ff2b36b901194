"""`vitreous list`."""

import json
import math
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitreous.support.errors import InputError

if TYPE_CHECKING:
    from vitreous.checkpoints.sources.pretrained import Pretrained
    from vitreous.model.config import ViTConfig

SOURCES = {
    "digits": "scikit-learn's 1,797 handwritten digits, 8×8 pixels, 10 classes; included",
    "FOLDER": "one folder of images per class, at the top or inside train/, val/ and test/",
    "ARCHIVE": "a zip or tar of such a folder, read in place; or a FOLDER of train.zip, val.zip and test.zip",
    "TABLE": "a CSV, TSV, text, JSON or Parquet file with a path and a label in each row, and perhaps a split",
    "SHARDS": "WebDataset: a FOLDER of train-000.tar and so on, or 'train-{000..099}.tar'",
    "hf:OWNER/NAME": "a set of the Hugging Face hub, @REVISION:CONFIG if needed; needs pip install '.[data]'",
    "DataFrame, Dataset": "from Python: vt.train(frame), vt.train(dataset) or vt.train((train, validation))",
}
SETS_HEADING = "torchvision's sets, downloaded to the cache on first use, with the images of each split"
HEADINGS = {
    "variant": "shapes, to train from scratch or inspect; any size combines with any patch size",
    "pretrained": "published weights, downloaded on first use; top1 is the published ImageNet accuracy in percent",
}
TOWERS = ("hf:openai/clip-", "hf:google/siglip-")  # these files also hold a text tower, which is not counted here


def command(
    what: Annotated[Literal["models", "recipes", "sources"], typer.Argument(help="What to list.")],
    name: Annotated[
        str | None,
        typer.Argument(help="With recipes: the one to print in full; options may follow, as in augreg+medium1."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the available models, recipes and data sources."""
    if name is not None:
        if what != "recipes":
            raise InputError(f"cannot show {name!r}: only recipes are shown one by one", f"vitreous list {what}")
        show_recipe(name, as_json)
        return
    rows_of, text_of = {
        "models": (models, models_text),
        "recipes": (recipes, recipes_text),
        "sources": (sources, sources_text),
    }[what]
    rows = rows_of()
    print(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else text_of(rows))


def show_recipe(name: str, as_json: bool) -> None:
    """Prints one recipe: a built-in one as its file, with comments; any other merged with its options.

    JSON has every value of the merged and validated recipe: null if unset, "inf" for infinity.

    Raises:
        InputError: there is no such recipe or option, or it is not valid.
    """
    from vitreous.training.recipe.files import built_in
    from vitreous.training.recipe.recipe import Recipe

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
    """The named variants, then the published weights. GFLOPs are per image; a multiply-add counts as two."""
    from vitreous.checkpoints.sources.pretrained import KNOWN
    from vitreous.model.variants import NAMES

    return [*map(variant_row, NAMES), *map(pretrained_row, KNOWN.values())]


def variant_row(name: str) -> dict[str, Any]:
    """The row of a variant."""
    from vitreous.model.variants import variant

    config = variant(name)
    return {
        "kind": "variant",
        "model": name,
        "width": config.width,
        "depth": config.depth,
        "mlp_dim": config.mlp_dim,
        "heads": config.num_heads,
        **shared_columns(config, config.num_classes),
    }


def pretrained_row(row: "Pretrained") -> dict[str, Any]:
    """The row of published weights; "bytes" is the published size, or else four per parameter."""
    shared = shared_columns(row.config, row.num_classes)
    return {
        "kind": "pretrained",
        "family": row.family,
        "variant": row.variant,
        **shared,
        "top1": row.top1,
        "license": row.license,
        "bytes": None if row.name.startswith(TOWERS) else row.size or 4 * shared["parameters"],
        "bytes_are_published": row.size is not None,
        "model": row.name,
    }


@lru_cache  # many published weights share a config
def shared_columns(config: "ViTConfig", classes: int) -> dict[str, Any]:
    """The columns of both variants and published weights."""
    from vitreous.model.cost import nominal_multiply_adds, parameter_count

    return {
        "image": "×".join(map(str, config.image_size)),
        "classes": classes,
        "parameters": parameter_count(config),
        "GFLOPs": round(2 * nominal_multiply_adds(config) / 1e9, 2),
    }


def recipes() -> list[dict[str, Any]]:
    """The built-in recipes, each with the first line of its header and its options."""
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
    """What `vitreous train` accepts as DATA: the kinds of sources, then torchvision's sets by name."""
    from vitreous.data.sources.published.torchvision_sets import SETS

    kinds = [{"kind": "source", "source": name, "what": what} for name, what in SOURCES.items()]
    return kinds + [{"kind": "set", "source": row.name, "what": row.what} for row in SETS]


def sources_text(rows: list[dict[str, Any]]) -> str:
    """The kinds of sources and the named sets, as two tables; the second has a heading."""
    groups = {kind: [*group] for kind, group in groupby(rows, itemgetter("kind"))}
    kinds, sets = (table([{k: row[k] for k in ("source", "what")} for row in groups[kind]]) for kind in groups)
    return f"{kinds}\n\n{SETS_HEADING}:\n{sets}"


def models_text(rows: list[dict[str, Any]]) -> str:
    """The variants and the published weights, as two tables with headings."""
    groups = groupby(rows, itemgetter("kind"))
    return "\n\n".join(f"{HEADINGS[kind]}:\n{table([*map(model_columns, group)])}" for kind, group in groups)


def model_columns(row: dict[str, Any]) -> dict[str, Any]:
    """The table columns of a model: without its kind, the size in readable units, the long name last."""
    from vitreous.checkpoints.sources.download import bytes_text

    columns = {name: value for name, value in row.items() if name not in ("kind", "bytes", "bytes_are_published")}
    if "bytes" in row:
        size = "" if row["bytes"] is None else bytes_text(row["bytes"])
        columns["size"] = size if row["bytes_are_published"] or not size else f"about {size}"
        columns["model"] = columns.pop("model")
    return columns


def recipes_text(rows: list[dict[str, Any]]) -> str:
    """The recipes as a table, with the options of each on a second line."""
    lines = []
    for row in rows:
        lines.append({"recipe": row["recipe"], "what": row["what"]})
        if row["options"]:
            lines.append({"recipe": "", "what": " ".join(f"+{option}" for option in row["options"])})
    return table(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as aligned text: numbers to the right, None as blank."""
    columns = [[name, *(cell_text(row[name]) for row in rows)] for name in rows[0]]
    widths = [max(map(len, column)) for column in columns]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in rows[0]]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(f"{cell:{'>' if r else '<'}{w}}" for cell, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )


def cell_text(value: object) -> str:
    """A value as readable text: 86,567,656 or 17.58."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
