"""docs/weights.md: its table of families, its totals, and what is left out agree with the code's lists."""

import re
from pathlib import Path

import pytest
import timm
import transformers

from benchmarks.coverage.families import FAMILIES as ROWS
from benchmarks.coverage.families import family_of
from benchmarks.coverage.timm_names import published_names
from benchmarks.coverage.transformers_classes import TOWERS
from tests.docs.test_documents import rows
from vitreous.checkpoints.families.recognize import FAMILIES
from vitreous.checkpoints.sources.hub import is_remote
from vitreous.checkpoints.sources.pretrained import KNOWN
from vitreous.model.config import CHOICES

ROOT = Path(__file__).parents[2]
DOCUMENT = "docs/weights.md"
TEXT = (ROOT / DOCUMENT).read_text(encoding="utf-8")
NAMES, CLASSES = published_names(), list(TOWERS)


def part(name: str) -> str:
    """What is between the marks of a part."""
    [content] = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", TEXT, re.DOTALL)
    return content


def shares(column: int) -> list[tuple[int, int]]:
    """The cells "equal of all" of a column, by family; (0, 0) for an empty one."""
    cells = [re.fullmatch(r"(\d+) of (\d+)(, \d+ different)?", cells[column]) for cells in rows(DOCUMENT, "families")]
    return [(int(match[1]), int(match[2])) if match else (0, 0) for match in cells]


def test_the_table_has_a_row_for_every_family():
    table = rows(DOCUMENT, "families")
    assert [cells[0] for cells in table] == [row.title for row in ROWS]
    assert [cells[1].strip("`") for cells in table] == [row.line for row in ROWS]
    assert {layout for row in ROWS for layout in row.layouts} | {"huggingface"} == set(FAMILIES)
    assert "`huggingface`" in TEXT


def test_every_name_and_class_is_counted_once():
    families = [family_of(name) for name in NAMES]
    assert [total for _, total in shares(2)] == [families.count(row) for row in ROWS]
    assert [total for _, total in shares(3)] == [len(row.classes) for row in ROWS]
    assert sorted(name for row in ROWS for name in row.classes) == sorted(CLASSES)


@pytest.mark.parametrize(
    ("library", "version", "what", "column", "count"),
    [
        ("timm", timm.__version__, "names", 2, len(NAMES)),
        ("transformers", transformers.__version__, "classes", 3, len(CLASSES)),
    ],
)
def test_the_totals_are_the_sums_of_the_table(library: str, version: str, what: str, column: int, count: int):
    pattern = rf"- {library} {re.escape(version)}: (\d+) {what}: (\d+) equal, (\d+) refused, (\d+) different"
    found = re.search(pattern, part("coverage"))
    assert found, "run `make coverage WRITE=1`"
    total, equal, refused, different = map(int, found.groups())
    assert total == count == equal + refused + different
    assert equal == sum(equal for equal, _ in shares(column))
    assert different == 0


def test_what_is_refused_is_named():
    """As many names and classes as the totals count, each of them published."""
    listed = re.findall(r"`([\w]+)`", "".join(re.findall(r"^- (.*?): ", part("refused"), re.MULTILINE)))
    architectures = {name.partition(".")[0] for name in NAMES}
    assert set(listed) <= architectures | set(CLASSES)
    equal = sum(equal for column in (2, 3) for equal, _ in shares(column))
    assert len(listed) <= len(NAMES) + len(CLASSES) - equal
    for column, names, of in ((2, NAMES, lambda name: name.partition(".")[0]), (3, CLASSES, str)):
        for row, (equal, total) in zip(ROWS, shares(column), strict=True):
            members = {of(name) for name in names if (family_of(name) is row if column == 2 else name in row.classes)}
            assert bool(members & set(listed)) == (equal < total), row.title


@pytest.mark.parametrize("row", [row for row in ROWS if row.example], ids=lambda row: row.title)
def test_every_line_to_try_names_a_published_checkpoint(row):
    [name] = re.findall(r'^vt\.load\("([^"]+)"\)$', row.line)
    assert is_remote(name)
    scheme, _, rest = name.partition(":")
    if scheme == "timm":
        assert rest in timm.list_pretrained()
        assert family_of(rest) is row
    elif name not in KNOWN:
        assert scheme == "hf"
        folder = Path(transformers.__file__).parent / "models"
        assert any(f'"{rest}"' in path.read_text(encoding="utf-8") for path in folder.glob("*/configuration_*.py"))


def test_families_without_a_line_to_try_are_refused_whole():
    for row, (timms, _), (classes, _) in zip(ROWS, shares(2), shares(3), strict=True):
        assert bool(row.example) == bool(timms or classes or row.layouts), row.title


def test_every_resampling_is_listed():
    assert all(f"`{name}`" in TEXT for name in CHOICES["position_resampling"])
