"""`vitreous list`."""

import json
from typing import Annotated, Any, Literal

import typer

SOURCES = {
    "digits": "scikit-learn's 1,797 handwritten digits, 8×8 pixels, 10 classes; part of the installation",
    "FOLDER": "a folder of images in one folder per class, or of train/, val/ and test/ with these below",
}


def command(
    what: Annotated[Literal["models", "recipes", "sources"], typer.Argument(help="What to show.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the models, recipes and data sources there are."""
    rows = {"models": models, "recipes": recipes, "sources": sources}[what]()
    print(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else table(rows))


def models() -> list[dict[str, Any]]:
    """The named variants; GFLOPs are those of one image, a multiply-add counted as two."""
    from vitreous.model.cost import nominal_multiply_adds, parameter_count
    from vitreous.model.variants import NAMES, variant

    rows = []
    for name in NAMES:
        config = variant(name)
        rows.append(
            {
                "model": name,
                "width": config.width,
                "depth": config.depth,
                "mlp_dim": config.mlp_dim,
                "heads": config.num_heads,
                "image": "×".join(map(str, config.image_size)),
                "classes": config.num_classes,
                "parameters": parameter_count(config),
                "GFLOPs": round(2 * nominal_multiply_adds(config) / 1e9, 2),
            }
        )
    return rows


def recipes() -> list[dict[str, Any]]:
    """The built-in recipes, each with the first line of its header."""
    from vitreous.training.recipe import built_in

    return [
        {"recipe": name, "what": path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")}
        for name, path in built_in().items()
    ]


def sources() -> list[dict[str, Any]]:
    """What `vitreous train` takes as DATA."""
    return [{"source": name, "what": what} for name, what in SOURCES.items()]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as aligned text, numbers to the right."""
    if not rows:
        return "there are none"
    columns = [[name, *(shown(row[name]) for row in rows)] for name in rows[0]]
    widths = [max(map(len, column)) for column in columns]
    right = [isinstance(value, int | float) for value in rows[0].values()]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(f"{cell:{'>' if r else '<'}{w}}" for cell, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )


def shown(value: object) -> str:
    """A value as a person reads it: 86,567,656 and 17.58."""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
