"""CONTRIBUTING.md: its two routes are short and follow the imports, and every path in it exists."""

import ast
import re
from pathlib import Path

import pytest

from tests.test_imports import imports

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROUTES = [
    re.findall(r"^\d+\. `(vitreous/\S+\.py)`", section, re.MULTILINE)
    for section in re.findall(r"follow a .+?:\n\n((?:\d+\. .+\n)+)", TEXT)
]


def imported(path: str) -> set[str]:
    """The modules that a file imports, also inside functions, and the packages they are in."""
    module = ".".join(Path(path).relative_to("vitreous").with_suffix("").parts)
    return {item.name for item in imports(ast.parse((ROOT / path).read_text(encoding="utf-8")), module)}


def module_of(path: str) -> str:
    return ".".join(Path(path).with_suffix("").parts)


def connected(one: str, other: str) -> bool:
    """Whether one of two files imports the other."""
    return module_of(other) in imported(one) or module_of(one) in imported(other)


def test_the_routes_have_at_most_7_and_9_files():
    checkpoint, photos = ROUTES
    assert 3 < len(checkpoint) <= 7
    assert 3 < len(photos) <= 9


@pytest.mark.parametrize("route", ROUTES, ids=["checkpoint", "photos"])
def test_every_file_of_a_route_is_connected_to_an_earlier_one(route: list[str]):
    loose = [path for i, path in enumerate(route) if i and not any(connected(path, other) for other in route[:i])]
    assert loose == []


def test_a_file_that_is_not_connected_is_found():
    assert not connected("vitreous/model/mlp.py", "vitreous/cli/list.py")
    assert connected("vitreous/classifier.py", "vitreous/checkpoints/load.py")


PATHS = sorted(set(re.findall(r"`((?:vitreous|tests|docs|experiments)/[^`\s]*)`", TEXT)))


@pytest.mark.parametrize("path", PATHS)
def test_every_path_exists(path: str):
    assert (ROOT / path).exists()


def test_every_folder_of_the_package_is_mentioned():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "vitreous").rglob("*.py")} - {"vitreous"}
    assert [folder for folder in sorted(folders) if f"`{folder}/" not in TEXT] == []
