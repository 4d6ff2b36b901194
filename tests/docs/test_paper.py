"""docs/paper: source, shapes and outputs agree with the code, and each page leads to the next."""

import re
from pathlib import Path

import pytest

from docs import include_source
from vitreous.model.cost import executed_multiply_adds, nominal_multiply_adds, parameter_count
from vitreous.model.variants import variant

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(include_source.PAGES.glob("*.md"))}
ORDER = re.findall(r"^\| *\d+ \| \[[^]]+\]\((\w+)\.md\)", PAGES["README"], re.MULTILINE)
BOXES = ("patch_embedding", "position_embedding", "layer_norm", "attention", "mlp", "encoder", "head", "model")
RENEW = "run `make pages`, and read what has changed"


@pytest.mark.parametrize("name", PAGES)
def test_source_and_shapes_agree_with_the_code(name: str):
    assert include_source.with_includes(PAGES[name]) == PAGES[name], RENEW


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if include_source.examples(page)])
def test_examples_print_what_the_page_shows(name: str):
    assert include_source.with_outputs(PAGES[name]) == PAGES[name], RENEW


# ---- pages


def test_the_pages_cover_every_box_and_each_links_to_the_next():
    assert set(BOXES) < set(ORDER)
    name, visited = "README", []
    while name not in visited:
        visited.append(name)
        last_line = PAGES[name].rstrip().splitlines()[-1]
        link = re.fullmatch(r"Next: \[[^]]+\]\((\w+)\.md\).*", last_line)
        if name == ORDER[-1] or not link:
            break
        name = link[1]
    assert visited == ["README", *ORDER]


@pytest.mark.parametrize("name", ORDER)
def test_a_page_begins_with_a_title_and_a_sentence(name: str):
    title, empty, sentence = PAGES[name].splitlines()[:3]
    assert title.startswith("# ")
    assert not empty
    assert sentence


@pytest.mark.parametrize("name", BOXES)
def test_the_page_of_a_box_has_shapes_an_equation_code_and_an_example(name: str):
    page = PAGES[name]
    assert include_source.SHAPES.search(page)
    assert include_source.CODE.search(page)
    assert re.search(r"^\$\$.+?\$\$$", page, re.MULTILINE | re.DOTALL)
    assert include_source.examples(page)
    assert "## Common mistakes" in page


@pytest.mark.parametrize("name", PAGES)
def test_blocks_are_closed(name: str):
    assert PAGES[name].count("$$") % 2 == 0
    assert sum(line.startswith("```") for line in PAGES[name].splitlines()) % 2 == 0


def test_the_numbers_of_the_whole_model():
    b16, page = variant("B/16"), PAGES["model"]
    executed, nominal = executed_multiply_adds(b16), nominal_multiply_adds(b16)
    assert f"has {parameter_count(b16):,} parameters" in page
    assert f"{executed / 1e9:.1f} G multiply-adds" in page
    assert f"{2e-9 * executed:.1f} GFLOPs" in page
    assert f"{2e-9 * nominal:.1f} GFLOPs" in page


# ---- the tool


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(include_source, "ROOT", tmp_path)
    text = (
        '"""A module."""\n\nclass Box:\n    """A docstring.\n\n    And more.\n    """\n\n    size = 1\n\n'
        '    @property\n    def twice(self):\n        """A docstring."""\n        # why\n        return "2"\n\n'
        "def other():\n    return 3\n"
    )
    (tmp_path / "module.py").write_text(text)
    return "module.py"


def test_source_is_dedented_and_without_docstrings(module: str):
    assert include_source.code(f"{module} Box.twice, other") == (
        '@property\ndef twice(self):\n    # why\n    return "2"\n\n\ndef other():\n    return 3\n'
    )
    assert include_source.code(f"{module} Box").startswith("class Box:\n    size = 1\n\n    @property\n")
    assert '"""' not in include_source.code(f"{module} Box")


def test_a_name_that_the_file_does_not_define_is_an_error(module: str):
    with pytest.raises(ValueError, match=r"module\.py does not define Box\.half: half is not one of twice"):
        include_source.code(f"{module} Box.half")


def test_an_unknown_stage_is_an_error():
    with pytest.raises(ValueError, match=r"no stage encoder\.bloks; its stages are image, patch_embedding, "):
        include_source.shapes("encoder.bloks")


def test_shapes_are_rows_of_inspect():
    *_, row = include_source.shapes("head.classifier").splitlines()
    assert row == "| classifier | y W + b | 768 | 1000 | 769,000 | 768,000 |"


def test_included_blocks_are_renewed_and_the_rest_is_kept(module: str):
    page = f"before\n<!-- code: {module} other -->\nold\n<!-- /code -->\nafter\n"
    renewed = include_source.with_includes(page)
    assert renewed == page.replace("old\n", "```python\ndef other():\n    return 3\n```\n")
    assert include_source.with_includes(renewed) == renewed
    assert include_source.examples(renewed) == []


PAGE = """# Page
```python
x = 1
```
```python
import torch
x += 1
print(x)
print(round(torch.rand(()).item(), 4))
```
You should see
```text
old
```
```python
clf = load("photos/")
```
"""


def test_blocks_share_their_names_and_start_at_a_seed():
    renewed = include_source.with_outputs(PAGE)
    assert renewed == PAGE.replace("old", "2\n0.4963")
    assert include_source.with_outputs(renewed) == renewed


def test_output_without_a_text_block_is_an_error():
    with pytest.raises(ValueError, match="prints, but no text block follows"):
        include_source.with_outputs("```python\nprint(1)\n```\n")
    with pytest.raises(ValueError, match="prints nothing, but a text block follows"):
        include_source.with_outputs("```python\nx = 1\n```\n```text\n1\n```\n")
