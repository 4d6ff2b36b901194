"""What is printed of a data set: its classes on two lines at most, and what was not read."""

from dataclasses import replace

import pytest

from vitreous.data.sources.open import open_data
from vitreous.data.sources.splits import ImageData
from vitreous.data.summary import class_lines, data_lines
from vitreous.support.text import shortened


def with_classes(names: list[str]) -> ImageData:
    """The digits, with their ten classes the first of these."""
    return replace(open_data("digits"), class_names=tuple(names))


def test_all_of_few_classes_are_listed():
    assert class_lines(open_data("digits")) == [
        "classes (train+val+test): 0 128+14+36, 1 131+15+36, 2 128+14+35, 3 131+15+37, 4 131+14+36,",
        "  5 131+15+36, 6 131+14+36, 7 129+14+36, 8 125+14+35, 9 130+14+36",
    ]


@pytest.mark.parametrize("count", [11, 40, 1000, 21_000])
@pytest.mark.parametrize("name", ["c{}", "the class called {}", "wild-and-{}-hyphenated" + "x" * 200])
def test_of_many_classes_the_first_and_last_are_listed(count, name):
    names = [name.format(number) for number in range(count)]
    lines = class_lines(with_classes(names))
    assert len(lines) <= 2
    assert all(len(line) <= 100 for line in lines)
    first, *rest = lines[0].removeprefix("classes (train+val+test): ").removesuffix(",").split(", ") + [
        item for line in lines[1:] for item in line.strip().split(", ")
    ]
    assert first == f"{shortened(names[0])} 128+14+36"
    assert rest[-1] == f"{shortened(names[-1])} 0+0+0"
    left_out = sum(int(item.split()[1].replace(",", "")) for item in rest if item.endswith(" more …"))
    assert 1 + len([item for item in rest if "more" not in item]) + left_out == count
    assert (left_out > 0) == ((count, name) != (11, "c{}"))


def test_what_was_ignored_and_noted_is_printed():
    data = replace(open_data("digits"), ignored={".txt file": 1200}, notes=("val is read as validation", "a \x1b note"))
    assert [*data_lines(data)][-3:] == [
        "left out: 1,200 × .txt file",
        "note: val is read as validation",
        "note: a \x1b note",
    ]
