"""The repository is consistent: commands in documents, docstrings, and pinned versions."""

import ast
import fnmatch
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer.main

from vitreous.cli import app

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def repository_files() -> list[Path]:
    """Every file that .gitignore does not exclude; works without git."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [".git", *(line.strip("/") for line in lines if line and not line.startswith("#"))]
    files = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not matches(name, ignored)]
        files += [Path(folder, name) for name in names if not matches(name, ignored)]
    return sorted(files)


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def text_of(path: Path) -> str:
    """The text of a file; empty if it is binary."""
    content = path.read_bytes()
    return "" if b"\0" in content else content.decode("utf-8", errors="replace")


# --- commands in documents

LAUNCHERS = ("torchrun", "srun")  # of a module, after -m


def shell_commands(document: str) -> list[list[str]]:
    """The commands in the fenced shell blocks of a Markdown document, split into words."""
    commands = []
    for block in re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", document, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]  # environment variables
            if words:
                commands.append(words)
    return commands


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def unknown_words(words: list[str]) -> list[str]:
    """The targets, commands and options of a `make` or `vitreous` command line that do not exist."""
    program = Path(words[0]).name
    if program in LAUNCHERS:
        start = words.index("-m") if "-m" in words else len(words)
        return unknown_launcher_options(words[:start]) + unknown_words(["python", *words[start:]])
    if program == "make":
        return [word for word in words[1:] if re.fullmatch(r"[a-z-]+", word) and word not in make_targets()]
    if program.startswith("python") and words[1:3] == ["-m", "vitreous"]:
        program, words = "vitreous", words[2:]
    if program != "vitreous":
        return []
    group = typer.main.get_command(app.app)
    names = [word for word in words[1:] if not word.startswith("-")]
    if names and names[0] not in app.COMMANDS:
        return [names[0]]
    options = set(option_names(group))
    if names:
        options |= set(option_names(app.LazyCommands().get_command(None, names[0])))
    return [word for word in words[1:] if word.startswith("-") and word.partition("=")[0] not in options | {"-"}]


def unknown_launcher_options(words: list[str]) -> list[str]:
    """The options before `-m` that torchrun lacks; those of srun before it are not checked."""
    from torch.distributed.run import get_args_parser

    known = get_args_parser()._option_string_actions
    options = words[[Path(word).name for word in words].index("torchrun") :] if "srun" in words[0] else words
    return [word for word in options if word.startswith("-") and word.partition("=")[0] not in known]


def launched(words: list[str]) -> list[str]:
    """The command that torchrun starts, or the command itself."""
    return words[words.index("-m") + 1 :] if Path(words[0]).name in LAUNCHERS and "-m" in words else words


def option_names(command: Any) -> Iterator[str]:
    yield from ("--help", "-h")
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)


DOCUMENTS = [path for path in repository_files() if path.suffix == ".md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist(path: Path):
    commands = shell_commands(path.read_text(encoding="utf-8"))
    assert [(words, unknown) for words in commands if (unknown := unknown_words(words))] == []


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("make test", []),
        ("make tset", ["tset"]),
        ("make demo PYTHON=x # a comment", []),
        ("vitreous list models --json", []),
        ("$ .venv/bin/vitreous lsit", ["lsit"]),
        ("OMP_NUM_THREADS=1 .venv/bin/python -m vitreous list \\\n  models --jsn=1", ["--jsn=1"]),
        ("vitreous --version -v", []),
        ("pip install something --upgrade", []),
        ("torchrun --standalone --nproc-per-node=8 -m vitreous train photos/ --set lr=1", []),
        ("torchrun --standalon --nproc-per-node=8 -m vitreous train photos/ --st lr=1", ["--standalon", "--st"]),
        ("srun --nodes=2 torchrun --nnode=2 -m vitreous trian photos/", ["--nnode=2", "trian"]),
    ],
)
def test_an_unknown_command_is_found(line: str, unknown: list[str]):
    [words] = shell_commands(f"text\n```sh\n{line}\n```\ntext\n")
    assert unknown_words(words) == unknown


# --- paths and hosts

# Absolute paths of one machine, and addresses of a package index; the pattern does not match itself.
LOCAL = re.compile(r"(?<![\w.~-])/(?:work|root|home|farm|Users)/|index[-_]url|find[-_]links|:/{2}\S*/simple\b")


def test_no_local_path_and_no_package_index():
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in repository_files()
        for line in text_of(path).splitlines()
        if LOCAL.search(line)
    ]
    assert lines == []


@pytest.mark.parametrize("parts", [("see /", "home/me/x"), ("--index", "-url x"), ("https://host", "/simple")])
def test_a_local_path_is_found(parts: tuple[str, str]):
    assert LOCAL.search("".join(parts))


# --- packages


def test_constraints_are_exact_versions():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = [line for line in lines if not line.startswith("#")]
    assert [line for line in versions if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.!]*", line)] == []
    assert len(versions) == len({package(line) for line in versions})


def test_every_requirement_has_a_constraint():
    requirements = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    needed = {package(line) for line in requirements}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert needed - {package(line) for line in lines} == {PROJECT["name"]}, "dev includes the other extras"


def test_every_imported_package_is_required():
    """At the top of a file, a package of the core; inside functions, also one of an extra."""
    imported: dict[bool, set[str]] = {False: set(), True: set()}
    for path in (ROOT / "vitreous").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        later = {id(node) for function in functions for node in ast.walk(function)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported[id(node) in later] |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported[id(node) in later].add(node.module.partition(".")[0])
    core = {package(line) for line in PROJECT["dependencies"]}
    extras = {package(line) for extra in ("data", "photos") for line in PROJECT["optional-dependencies"][extra]}
    providers = metadata.packages_distributions()
    for inside, required in ((False, core), (True, core | extras)):
        others = imported[inside] - sys.stdlib_module_names - {"vitreous"}
        assert [name for name in others if not required & {*map(package, providers.get(name, []))}] == []


def package(line: str) -> str:
    """The normalized package name of a requirement or constraint."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line, maxsplit=1)[0]).lower()


# --- docstrings


def documented_arguments(docstring: str) -> list[str]:
    """The names in the `Args:` section of a Google docstring, without the stars of *args and **kwargs."""
    section = re.search(r"^( *)Args:\n(.*?)(?=^\1\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    if not section:
        return []
    entries = re.findall(rf"^{section[1]}    (\S[^:\n]*?)(?: \(.*?\))?:", section[2], re.MULTILINE)
    return [name.strip().lstrip("*") for entry in entries for name in entry.split(",")]


def parameters(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """The parameter names of a function, or of a class constructor."""
    if isinstance(node, ast.ClassDef):
        constructors = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        fields = {
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
        return parameters(constructors[0]) if constructors else fields
    a = node.args
    return {one.arg for one in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg] if one}


def unknown_arguments(source: str) -> list[str]:
    """The documented arguments that are not parameters."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        f"{node.name}: {name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, kinds)
        for name in documented_arguments(ast.get_docstring(node) or "")
        if name not in parameters(node)
    ]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "vitreous").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_documented_arguments_exist(path: Path):
    assert unknown_arguments(path.read_text(encoding="utf-8")) == []


def test_an_unknown_documented_argument_is_found():
    source = '''
class Box:
    """A box.

    Args:
        width: in pixels:
            many of them.
        height, depth (int): the others.
        *rest: more.

    Raises:
        ValueError: never.
    """

    def __init__(self, width, height, *rest):
        """Makes it."""

def area(a):
    """The area.

    Args:
        b: a side.
    """
'''
    assert unknown_arguments(source) == ["Box: depth", "area: b"]
