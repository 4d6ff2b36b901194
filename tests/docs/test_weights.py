"""docs/weights.md: every cell of its table of families names an existing test."""

import re
from pathlib import Path

from tests.docs.test_documents import rows
from vitreous.checkpoints.families.recognize import FAMILIES
from vitreous.model.config import CHOICES

ROOT = Path(__file__).parents[2]
DOCUMENT = "docs/weights.md"
HEADLESS = "no head"


def marks() -> dict[str, str]:
    """The tests by mark."""
    return {mark.strip("`"): test.strip("`") for mark, test, _ in rows(DOCUMENT, "tests")}


def test_every_family_has_a_row():
    assert {cells[1].strip("`") for cells in rows(DOCUMENT, "families")} == set(FAMILIES)


def test_every_cell_names_an_existing_test(fresh_process):
    files = sorted({test.partition("::")[0] for test in marks().values()})
    collect = f"import pytest; pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', *{files!r}])"
    collected = set(fresh_process(collect).stdout.splitlines())
    functions = {test.partition("[")[0] for test in collected}
    used = set()
    for family, _, *cells in rows(DOCUMENT, "families"):
        assert len(cells) == 4
        for cell in cells:
            if cell == HEADLESS:
                continue
            mark, case = re.fullmatch(r"`([\w-]+)(\[.*\])?`", cell).groups()
            used.add(mark)
            test = marks()[mark] + (case or "")
            assert test in collected or (case is None and test in functions), (family, cell)
    assert used == set(marks()), "every mark is used"


def test_every_resampling_is_listed():
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in CHOICES["position_resampling"])
