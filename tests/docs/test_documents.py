"""The documents' tables, examples and links agree with the code and with each other."""

import re
from pathlib import Path

import pytest

from benchmarks import equality
from docs import include_source
from vitreous.model.cost import nominal_multiply_adds, parameter_count
from vitreous.model.variants import NAMES, variant

ROOT = Path(__file__).parents[2]


def rows(document: str, name: str) -> list[list[str]]:
    """The cells of a table between the marks of a document."""
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
    assert rows("docs/models.md", "models") == expected


def test_the_table_of_equality():
    table = rows("docs/equality.md", "equality")
    assert len(table) == len(equality.REFERENCES) + len(equality.TOLERANCES) - 1
    for cells, reference in zip(table, equality.REFERENCES, strict=False):
        assert cells[0] == reference.code
        assert f"`{reference.name}`" in cells[1]
    for _, _, difference, tolerance in table:
        assert 0 < float(difference) < float(tolerance)


OTHER_DOCUMENTS = [path for path in include_source.DOCUMENTS if path.parent != include_source.PAGES]


@pytest.mark.parametrize("path", OTHER_DOCUMENTS, ids=lambda path: path.name)
def test_examples_print_what_the_document_shows(path: Path):
    text = path.read_text(encoding="utf-8")
    assert include_source.with_outputs(text) == text, "run `make pages`, and read what has changed"


def test_the_readme_names_the_cause_of_a_difference():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [shown] = [shown.lines for block, shown in include_source.examples(text) if shown and "vt.compare" in block.lines]
    assert "GELU" in shown.partition("Cause: ")[2]


def test_the_readme_fits_on_two_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_index_lists_every_document():
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    targets = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)}
    boxes = {path for path in include_source.PAGES.glob("*.md") if path.stem not in ("README", "questions", "build")}
    documents = {*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")}
    assert documents - boxes - targets == {ROOT / "docs" / "index.md", ROOT / "README.md"}


def test_links_between_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]+)?\)", text):
            path = document.parent / target if target else document
            assert path.exists(), f"{document.name}: {target}"
            if anchor and path.suffix == ".md":
                assert anchor[1:] in anchors(path.read_text(encoding="utf-8")), f"{document.name}: {target}{anchor}"


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a document."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
