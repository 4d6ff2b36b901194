"""examples/guided_reading.ipynb is made from the pages of docs/paper and prints what they show."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from docs import make_notebook
from docs.include_source import PAGES, examples

TEXT = make_notebook.NOTEBOOK.read_text(encoding="utf-8")
CELLS = json.loads(TEXT)["cells"]
RENEW = "run `python -m docs.make_notebook`"
RUN = """
import json, nbformat
from nbclient import NotebookClient
notebook = nbformat.read("examples/guided_reading.ipynb", as_version=4)
NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": "examples"}}).execute()
cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
assert all(output.output_type == "stream" and output.name == "stdout" for cell in cells for output in cell.outputs)
print(json.dumps(["".join(output.text for output in cell.outputs) for cell in cells]))
"""


def shown(name: str) -> list[str]:
    """The outputs that a page shows, block by block, without trailing spaces."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    return ["" if text is None else text.lines for _, text in examples(page)]


def test_the_committed_notebook_is_up_to_date():
    assert make_notebook.notebook() == TEXT, RENEW


def test_it_is_a_valid_notebook_without_outputs():
    nbformat.validate(json.loads(TEXT))
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert len(code) > 2 * len(make_notebook.page_names())
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_its_links_lead_somewhere():
    targets = {
        target.partition("#")[0]
        for cell in CELLS
        if cell["cell_type"] == "markdown"
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", "".join(cell["source"]))
    }
    assert len(targets) > len(make_notebook.page_names())
    assert [target for target in targets if not (make_notebook.NOTEBOOK.parent / target).is_file()] == []


def test_running_it_prints_what_the_pages_show(fresh_process):
    """In another process, whose kernel has one thread and starts in the notebook's folder."""
    environment = {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "JUPYTER_PLATFORM_DIRS": "1"}
    done = fresh_process(RUN, environment=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = ["".join(f"{line.rstrip()}\n" for line in text.splitlines()) for text in json.loads(done.stdout)]
    assert printed == [text for name in make_notebook.page_names() for text in shown(name)]


# ---- the tool


def test_links_are_relative_to_the_notebook():
    text = "[a](head.md), ![b](pictures/b.svg), [c](../results.md#top), [d](../../x/y.py), [e](https://e.org), [f](#f)"
    assert make_notebook.relinked(text) == (
        "[a](../docs/paper/head.md), ![b](../docs/paper/pictures/b.svg), [c](../docs/results.md#top), "
        "[d](../x/y.py), [e](https://e.org), [f](#f)"
    )


PAGE = """# Page

A sentence.

## Shapes

| a |

## Equation

$$ x $$

## Try it

Look:

```python
import torch

print(1)
```

You should see one:

```text
1
```

Yours:

```python
open("photo.jpg")
```

Next: [b](b.md)
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(make_notebook, "PAGES", tmp_path)
    path = tmp_path / "a.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


@pytest.mark.usefixtures("page")
def test_a_page_becomes_its_introduction_equations_and_examples():
    first, text, code, rest = make_notebook.cells("a")
    assert first[1] == "# Page\n\nA sentence.\n\n## Equation\n\n$$ x $$\n\nMore on [the page](a.md)."
    assert text == ("markdown", "## Try it\n\nLook:")
    assert code == ("code", "import torch\n\ntorch.manual_seed(0)\nprint(1)\n")
    assert rest[1] == 'You should see one.\n\nYours:\n\n```python\nopen("photo.jpg")\n```'


def test_a_page_that_cannot_set_its_seed_is_an_error(page: Path):
    page.write_text(PAGE.replace("import torch\n", ""), encoding="utf-8")
    with pytest.raises(ValueError, match=r"does not import torch:\n\nprint\(1\)"):
        list(make_notebook.cells("a"))


def test_it_is_written_only_when_it_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / make_notebook.NOTEBOOK.name
    make_notebook.main(path)
    make_notebook.main(path)
    assert path.read_text(encoding="utf-8") == make_notebook.notebook()
    assert capsys.readouterr().out == "renewed guided_reading.ipynb\n"
