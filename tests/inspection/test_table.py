import pytest
import torch
from torch import nn

from vitreous.inspection.table import lay_out, plain_table
from vitreous.inspection.trace import inspect


def text(trace, width=120, fold=True):
    return plain_table(lay_out(trace, width, fold)).splitlines()


def test_no_line_exceeds_the_width():
    for name in ("B/16", "R26+B/32"):
        trace = inspect(name)
        for width in (80, 100, 140):
            for level in (1, 2, 3):
                lines = text(trace.at_level(level), width)
                assert max(len(line) for line in lines if not line.endswith(".")) <= width


COLUMNS = ("in", "out", "equation", "parameters", "share", "mult-adds", "share")
STATISTICS = ("mean", "std", "min", "max", "token norm")


def titles(trace, width):
    return [column.title for grid in lay_out(trace, width).grids for column in grid]


@pytest.mark.parametrize("width", [80, 100, 120, None])
@pytest.mark.parametrize("name", ["mu/16", "B/16"])
def test_no_width_takes_a_stage_s_equation_shapes_or_costs(name, width):
    trace = inspect(name)
    result = titles(trace, width)
    assert [title for title in result if title in COLUMNS] == list(COLUMNS)
    assert "MSA(LN(zℓ₋₁)) + zℓ₋₁ (2)" in "\n".join(text(trace, width))  # noqa: RUF001


@pytest.mark.parametrize("width", [80, 100, 120, None])
def test_values_come_in_addition(width):
    trace = inspect("mu/16", torch.randn(1, 3, 32, 32))
    result = titles(trace, width)
    assert [title for title in result if title in COLUMNS + STATISTICS] == [*COLUMNS, *STATISTICS]
    lines = text(trace, width)
    assert width is None or max(len(line) for line in lines if not line.endswith(".")) <= width
    grids = lay_out(trace, width).grids
    assert all(grid[0] == grids[0][0] for grid in grids)  # the stages' names again


def test_left_out_columns_are_noted():
    trace = inspect("mu/16", torch.randn(1, 3, 32, 32))
    assert "lack of width: path and what it is." in text(trace, 80)[-1]
    assert "--json" in text(trace, 80)[-1]
    assert "equation" in text(trace, 40)[-1]
    assert not any("lack of width" in line for line in text(trace, None))
    assert {"path", "what it is"} <= set(titles(trace, None))


def test_equal_blocks_become_one_line_that_adds_up():
    trace = inspect("B/16")
    lines = text(trace)
    folded = next(line for line in lines if "blocks 1–10, as 0" in line)
    assert "70,878,720" in folded
    assert sum("MLP(LN" in line for line in lines) == 4  # in block 0, and the last with its single token
    assert sum("MLP(LN" in line for line in text(trace, fold=False)) == 24
    assert "86,567,656" in next(line for line in lines if line.startswith("total"))


def test_with_values_every_block_keeps_its_line():
    trace = inspect("mu/16", torch.randn(1, 3, 32, 32), level=2)
    lines = text(trace, 80)
    assert any("token norm" in line for line in lines)
    assert sum(line.lstrip().startswith("block 0") for line in lines) == 3  # shapes, costs, values
    assert sum("token norm" in line for line in text(trace, 200)) == 1


def test_names_from_elsewhere_are_inert():
    model = nn.Sequential()
    model.add_module("<b>\x1b[31m", nn.Linear(2, 2))
    model.add_module("second", nn.Linear(2, 2))
    trace = inspect(model, torch.randn(1, 2))
    assert "\x1b" not in str(trace)
    html = trace._repr_html_()
    assert "<b>\\x1b" not in html
    assert "&lt;b&gt;\\x1b[31m" in html


def test_html_holds_every_row():
    trace = inspect("mu/16", level=3)
    html = trace._repr_html_()
    assert html.count("<tr>") == len(lay_out(trace, None).lines) + 1
    assert "x ∈ ℝ" in html  # noqa: RUF001


def test_html_holds_every_column():
    html = inspect("mu/16", torch.randn(1, 3, 32, 32))._repr_html_()
    assert [html.count(f"<th>{title}</th>") for title in COLUMNS + STATISTICS] == [1, 1, 1, 1, 2, 1, 2, *[1] * 5]


def test_a_mean_that_is_rounding_is_shown_as_zero():
    """It differs between machines, and says nothing."""
    trace = inspect("mu/16", torch.randn(1, 3, 32, 32), level=2)
    rows = text(trace, 400)
    std = next(row for row in rows if "token norm" in row).index(" std ")
    mean = slice(std - 10, std)
    means = {row[mean].strip() for row in rows if row.lstrip().startswith("norm")}
    assert means == {"0"}
    assert any(row[mean].strip() not in ("0", "") for row in rows), "others are not rounded"
