"""The documents' tables are what the code computes."""

import re
from pathlib import Path

import pytest

from benchmarks import equality
from vitreous.model.cost import nominal_multiply_adds, parameter_count
from vitreous.model.variants import NAMES, variant

ROOT = Path(__file__).parents[2]


def rows(document: str, name: str) -> list[list[str]]:
    """The cells of the table between a document's marks."""
    text = (ROOT / document).read_text(encoding="utf-8")
    [table] = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return lines[2:]


def test_the_table_of_models():
    expected = []
    for name in NAMES:
        c = variant(name)
        gflops = 2e-9 * nominal_multiply_adds(c)
        numbers = (c.width, c.depth, c.mlp_dim, c.num_heads, parameter_count(c))
        expected.append([f"`{name}`", *(f"{n:,}" for n in numbers), f"{gflops:.2f}"])
    assert rows("README.md", "models") == expected


@pytest.mark.parametrize("document", ["README.md", "docs/equality.md"])
def test_the_table_of_equality(document):
    table = rows(document, "equality")
    assert len(table) == len(equality.REFERENCES) + len(equality.TOLERANCES) - 1
    for cells, reference in zip(table, equality.REFERENCES, strict=False):
        assert cells[0] == reference.code
        assert f"`{reference.name}`" in cells[1]
    for _, _, difference, tolerance in table:
        assert 0 < float(difference) < float(tolerance)


def test_both_documents_show_the_same_table_of_equality():
    assert rows("README.md", "equality") == rows("docs/equality.md", "equality")


PYTHON = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("block", [block for block in PYTHON if "photos" not in block and "hf:" not in block])
def test_the_python_of_the_readme_runs(block, fresh_process):
    done = fresh_process(block)
    assert done.returncode == 0, done.stderr


def test_the_readme_names_a_real_cause(fresh_process):
    """What it compares differs in the GELU, and so it is said."""
    [block] = [block for block in PYTHON if "vt.compare" in block]
    assert "GELU" in fresh_process(block).stdout.partition("Different.")[2]


def test_links_between_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
