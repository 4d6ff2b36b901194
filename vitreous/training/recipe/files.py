"""Recipe files: TOML tables, built in or the user's, that may extend a built-in recipe and have options."""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitreous.support.errors import InputError, unknown
from vitreous.training.recipe.sections import WARMUPS, ScheduleSection

RECIPES = Path(__file__).parents[2] / "recipes"
MAX_BYTES = 2**20
EXTENDS = "extends"  # key of a recipe file: the built-in recipe that it changes
OPTIONS = "options"  # tables of a recipe file: [options.NAME.SECTION]
PLUS = "+"  # between a recipe's name and those of its options
Tables = dict[str, Any]


def built_in() -> dict[str, Path]:
    """The files of the built-in recipes by their names."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def options_of(path: Path) -> list[str]:
    """The names of a recipe file's options."""
    return list(options_in(read_toml(path), path))


def options_in(tables: Tables, path: Path) -> dict[str, Tables]:
    """Pops the options from a file's tables. Raises InputError if they are not tables."""
    options = tables.pop(OPTIONS, {})
    if not isinstance(options, dict) or not all(isinstance(option, dict) for option in options.values()):
        cause = f"the {OPTIONS} of the recipe {str(path)!r} are not tables"
        raise InputError(cause, f"write [{OPTIONS}.NAME.SECTION] above them")
    return options


def read_recipe(source: str | Path, variant: str | None = None) -> Tables:
    """The tables of a recipe: those of what it extends, its own and its options', each over the ones before.

    An option named after the model's variant applies without being requested, right after the tables of its own file.

    Args:
        source: a file, or the name of a built-in recipe, with options after plus signs.
        variant: of the model; the file's own if None.

    Raises:
        InputError: there is no such file, recipe or option, or the file is not TOML.
    """
    name, *chosen = (str(source),) if Path(source).expanduser().is_file() else str(source).split(PLUS)
    path = built_in().get(name)
    if path is None:
        path = Path(name).expanduser()
        if not name or (not path.exists() and path.suffix != ".toml"):
            raise unknown("recipe", name, built_in())
    files = read_chain(path)
    known = {option: tables for _, options in files for option, tables in options.items()}
    for option in chosen:
        if option not in known:
            if not known:
                raise InputError(f"the recipe {name!r} has no options", f"use {name!r} alone")
            raise unknown(f"{name} option", option, known)
    model = files[-1][0].get("model")
    row = str(variant or (model.get("variant") if isinstance(model, dict) else ""))
    tables: Tables = {}
    rows = (layer for own, options in files for layer in (own, options.get(row, {})))
    for layer in (*rows, *(known[option] for option in chosen)):
        tables = merged(tables, layer)
    return tables


def read_chain(path: Path) -> list[tuple[Tables, dict[str, Tables]]]:
    """The tables and the options of a recipe file, after those of the built-in recipe it extends, if any."""
    own = read_toml(path)
    options = options_in(own, path)
    if EXTENDS not in own:
        return [(own, options)]
    base = own.pop(EXTENDS)
    if not isinstance(base, str) or base not in built_in():
        raise unknown("built-in recipe", str(base), built_in())
    return [*read_chain(built_in()[base]), (own, options)]


def merged(tables: Tables, changes: Mapping[str, Any]) -> Tables:
    """The tables with the changes applied; a new length of the run overrides old steps, epochs and warmups."""
    result = {section: dict(table) if isinstance(table, Mapping) else table for section, table in tables.items()}
    for section, table in changes.items():
        if not isinstance(table, Mapping) or not isinstance(result.get(section, {}), dict):
            result[section] = table  # rejected later, by name
        else:
            result[section] = {**result.get(section, {}), **table}
    schedule, given = result.get("schedule"), changes.get("schedule")
    if isinstance(schedule, dict) and isinstance(given, Mapping):
        result["schedule"] = settled(schedule, set(given))
    return result


def settled(schedule: Tables, given: set[str]) -> Tables:
    """A merged schedule without what the given leaves override; the warmup is at most a fifth of a new length."""
    length = "steps" if "steps" in given else "epochs"
    overridden = {f"{part}_steps" for part in ("warmup", "cooldown") if f"{part}_epochs" in given}
    if given & {"steps", "epochs"}:
        overridden.add("minutes")
    elif "minutes" in given and schedule["minutes"] not in (0, "auto"):  # the length is chosen anew
        overridden |= {"steps", "epochs", "warmup_steps"}
    if length == "epochs" and length in given:
        overridden |= {"steps", "warmup_steps"}
    schedule = {leaf: value for leaf, value in schedule.items() if leaf in given or leaf not in overridden}
    if length in given and not given & {"warmup_epochs", "warmup_steps"}:
        leaf, default = f"warmup_{length}", ScheduleSection().warmup_epochs if length == "epochs" else math.inf
        total, warmup = schedule[length], schedule.get(leaf, default)
        if all(isinstance(number, int | float) for number in (total, warmup)):  # others are rejected later, by name
            schedule[leaf] = min(warmup, total / WARMUPS if length == "epochs" else total // WARMUPS)
    return schedule


def read_toml(path: Path) -> Tables:
    """Reads a TOML file of at most 1 MiB. Raises InputError for anything else."""
    if path.exists() and not path.is_file():
        raise InputError(f"the recipe {str(path)!r} is not a file", "use a .toml file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read the recipe {str(path)!r}: {error.strerror}", "check its name") from error
    if len(content) > MAX_BYTES:
        raise InputError(
            f"the recipe {str(path)!r} is larger than {MAX_BYTES:,} bytes",
            "give the path of a recipe, a TOML file of a few lines",
        )
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or nested too deeply
        raise InputError(f"the recipe {str(path)!r} is not TOML: {error}", "fix that line") from error
