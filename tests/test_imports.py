"""Which part may import which, and how fast the command line starts."""

import ast
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vitreous.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vitreous"
ANYTHING = ("",)
START = ("cli", "support.errors", "support.text", "__init__")  # what `vitreous --help` may import

# The parts of training, each with the parts below it that it may import.
TRAINING = [
    (part, tuple(f"training.{name}" for name in names.split()))
    for part, names in {
        "fields": "",
        "objectives": "objectives fields",
        "parallel": "parallel",
        "optimization": "optimization parallel objectives",
        "recipe": "recipe optimization objectives fields",
        "planning": "planning recipe optimization parallel objectives",
        "learner": "planning recipe optimization parallel objectives",
        "records": "records planning recipe optimization parallel objectives",
        "validation": "learner records planning optimization parallel objectives",
        "timing": "validation learner planning objectives",
        "loop": "validation learner records planning parallel",
        "checkpointing": "checkpointing records parallel",
        "interruption": "parallel",
        "safeguard": "checkpointing interruption loop learner records planning",
        "resuming": "checkpointing records planning recipe parallel",
        "run": "safeguard resuming checkpointing interruption loop timing learner records planning recipe optimization "
        "parallel",
    }.items()
]
# The vitreous modules each part may import; the longest matching row counts.
OURS = {
    "support": ("support",),
    "model": ("model", "support.errors"),
    "model.config": ("support.errors",),
    "data": ("data", "support"),
    "evaluation": ("evaluation", "support"),
    "checkpoints": ("checkpoints", "support", "model", "data.preprocessing"),
    "checkpoints.files": ("checkpoints.files", "support"),
    "checkpoints.families": ("checkpoints.families", "checkpoints.files", "support", "model", "data.preprocessing"),
    "checkpoints.sources": ("checkpoints.sources", "checkpoints.files", "support", "model", "data.preprocessing"),
    "inspection": ("inspection", "support", "model"),
    "explain": ("explain", "inspection", "support", "model", "data.preprocessing", "data.decoding.images"),
    "training": (),
    **{
        f"training.{part}": ("support", "model", "checkpoints", "data", "evaluation", *below)
        for part, below in TRAINING
    },
    "deployment": (
        *("deployment", "support", "model", "checkpoints", "explain"),
        *("data.decoding.images", "data.preprocessing"),
    ),
    "classifier": (
        *("support", "model", "checkpoints"),
        *("data.decoding.images", "data.preprocessing", "data.reading"),
    ),
    "pages": (
        *("pages", "support", "model", "data", "evaluation", "checkpoints", "inspection", "explain", "training"),
        *("deployment", "classifier"),
    ),
    "cli": START,
    "__main__": ("cli.app",),
    "__init__": (),
}
# More that it may import inside functions and for type checkers.
OURS_LATER = {"classifier": ("deployment", "explain", "training"), "cli": ANYTHING, "__init__": ANYTHING}

# Parts that may import only these packages outside the standard library.
OUTSIDE = {
    "model": {"torch", "jaxtyping"},
    "model.config": set(),
    "support.errors": set(),
    "support.files": set(),
    "support.text": set(),
    "cli": {"typer"},
    "pages": {"jaxtyping", "jinja2", "markupsafe", "numpy", "PIL", "torch"},
    "__main__": set(),
    "__init__": set(),
}
SLOW = ("torch", "numpy", "rich", "pydantic", "matplotlib")


class Import(NamedTuple):
    """One module that a file imports."""

    name: str  # fully qualified, such as vitreous.data.decoding.images
    later: bool  # inside a function or for type checkers
    line: int


def package_modules() -> list[str]:
    """All modules of the package, such as model.vit and data.__init__."""
    return sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


def imports(node: ast.AST, module: str, later: bool = False) -> Iterator[Import]:
    """Every import in a syntax tree."""
    for name in imported_names(node, module):
        yield Import(name, later, getattr(node, "lineno", 0))
    later |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    later |= isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for child in ast.iter_child_nodes(node):
        yield from imports(child, module, later)


def imported_names(node: ast.AST, module: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        base = ".".join(["vitreous", *module.split(".")][: -node.level] + ([base] if base else []))
    # `from vitreous.data.decoding import images` imports a module if that file exists, otherwise a name from data.
    below = [f"{base}.{alias.name}" for alias in node.names if alias.name != "__version__"]
    return [name if is_our_module(name) else base for name in below]


def is_our_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def within(name: str, parts: tuple[str, ...]) -> bool:
    return any(part == "" or name == part or name.startswith(f"{part}.") for part in parts)


def complaints(source: str, module: str) -> list[str]:
    """The forbidden imports of a file."""
    part = max((part for part in OURS if within(module, (part,))), key=len)
    place = max((place for place in OUTSIDE if within(module, (place,))), key=len, default=None)

    def allowed(item: Import) -> bool:
        top, _, below = item.name.partition(".")
        later = OURS_LATER.get(part, ()) if item.later else ()
        if top == "vitreous":
            return within(below or "__init__", OURS[part] + later)
        return top in sys.stdlib_module_names or place is None or top in OUTSIDE[place] or later == ANYTHING

    items = imports(ast.parse(source), module)
    return [f"line {item.line}: {module} imports {item.name}" for item in items if not allowed(item)]


@pytest.mark.parametrize("module", package_modules())
def test_a_module_imports_only_what_it_may(module: str):
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    assert complaints(path.read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model.vit", "from vitreous.support.text import printable"),
        ("model.vit", "import numpy"),
        ("model.vit", "def forward():\n    import einops"),
        ("model.config", "import torch"),
        ("model.config", "from vitreous.model.shapes import Tokens"),
        ("data.decoding.images", "from ...model import vit"),
        ("checkpoints.store", "from vitreous.data.decoding import images"),
        ("checkpoints.files.tensors", "from vitreous.checkpoints.families.shared.family import Family"),
        ("checkpoints.families.timm", "from vitreous.checkpoints.sources import hub"),
        ("inspection.trace", "import vitreous"),
        ("classifier", "from vitreous.training.loop import fit"),
        ("training.loop", "def fit():\n    from vitreous.cli.app import main"),
        ("training.objectives.masked_patch", "from vitreous.training.optimization.step import train_step"),
        ("training.records.results", "from vitreous.training.loop import fit"),
        ("training.records.log", "if TYPE_CHECKING:\n    from vitreous.training.learner import Learner"),
        ("support.text", "import torch"),
        ("cli.train", "import numpy"),
        ("cli.train", "from vitreous.training.recipe.recipe import Recipe"),
        ("__init__", "from vitreous.model.vit import VisionTransformer"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str):
    assert len(complaints(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model.vit", "import torch.nn as nn\nfrom .encoder import Encoder"),
        ("checkpoints.store", "from vitreous import __version__"),
        ("checkpoints.store", "from vitreous.data import preprocessing"),
        ("classifier", "def f():\n    from vitreous.training.loop import fit"),
        ("training.loop", "from vitreous.training.validation import evaluate"),
        ("cli.train", "def command():\n    import torch\n    from vitreous.training import loop"),
        ("__init__", "if TYPE_CHECKING:\n    from vitreous.model.vit import VisionTransformer"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str):
    assert complaints(source, module) == []


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """The modules of the package that each one imports, also inside functions and for type checkers.

    The public names of vitreous/__init__.py are imported on first use, so no edge leaves that module.
    """
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        targets = {item.name.removeprefix("vitreous.") for item in imports(ast.parse(source), module)}
        targets |= {f"{name}.__init__" for name in targets}
        graph[module] = set() if module == "__init__" else (targets & sources.keys()) - {module}
    return graph


def import_cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module."""

    def reachable(start: str) -> set[str]:
        seen, pending = set(), [start]
        while pending:
            following = graph[pending.pop()] - seen
            seen |= following
            pending += following
        return seen

    reached = {module: reachable(module) for module in graph}
    components = {frozenset(other for other in reached[m] if m in reached[other]) for m in graph if m in reached[m]}
    return sorted(sorted(component) for component in components)


def test_no_modules_import_each_other():
    sources = {
        module: PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
        for module in package_modules()
    }
    graph = import_graph(sources)
    assert sum(map(len, graph.values())) > len(graph)
    assert import_cycles(graph) == []


def test_a_cycle_through_functions_and_annotations_is_found():
    sources = {
        "data.decoding.images": "def f():\n    from vitreous.model.vit import VisionTransformer",
        "model.vit": "if TYPE_CHECKING:\n    from vitreous.model import mlp",
        "model.mlp": "from vitreous.data.decoding.images import read",
        "model.head": "from vitreous.model.mlp import MLP",
    }
    assert import_cycles(import_graph(sources)) == [["data.decoding.images", "model.mlp", "model.vit"]]


STARTS = [
    "import vitreous",
    "import vitreous; vitreous.InputError",
    "from vitreous.cli.app import run; run(['--help'])",
    "from vitreous.cli.app import run; run(['--version'])",
    *(f"from vitreous.cli.app import run; run([{name!r}, '--help'])" for name in COMMANDS),
]


@pytest.mark.parametrize("start", STARTS)
def test_a_start_imports_nothing_slow(start: str, fresh_process):
    done = fresh_process(f"{start}\nimport sys; print(*sys.modules, sep='\\n', file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    assert "vitreous" in done.stderr.split()
    assert {*SLOW} & {*done.stderr.split()} == set()


@pytest.mark.parametrize("start", STARTS)
def test_a_start_takes_less_than_0_3_seconds(start: str, fresh_process):
    """CPU time, since other tests run at the same time."""
    seconds = []
    for _ in range(7):
        before = os.times()
        fresh_process(start)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))  # user and system time of ended child processes
    assert statistics.median(seconds) < 0.3, seconds


def test_every_public_name_can_be_imported(fresh_process):
    done = fresh_process(
        "import vitreous as vt; print([getattr(vt, name).__name__ for name in vt.__all__] == vt.__all__)"
    )
    assert done.stdout == "True\n", done.stderr


def test_an_unknown_name_is_an_attribute_error(fresh_process):
    done = fresh_process("import vitreous as vt; assert {*vt.__all__} < {*dir(vt)}; vt.VisionTransfomer")
    assert "AttributeError: module 'vitreous' has no attribute 'VisionTransfomer'" in done.stderr


def test_type_checkers_see_the_public_names():
    """The imports for type checkers and the table of modules in vitreous/__init__.py agree."""
    import vitreous

    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vitreous.")
        for alias in node.names
        if alias.asname == alias.name  # "import X as X" marks a public name
    }
    assert typed == vitreous._MODULES
