"""Untrusted text is inert in terminals, CSV and HTML."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.support.text import (
    counted,
    csv_cell,
    html_text,
    natural_key,
    printable,
    size_in_words,
    tallied,
    toml_value,
)

ANY_TEXT = st.text(st.characters(codec=None, categories=None))  # lone surrogates too, as in undecodable file names


@given(ANY_TEXT)
def test_printable_is_one_line_and_idempotent(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode("utf-8")
    assert (shown == text) == text.isprintable()


def test_hostile_names_are_shown_as_escapes():
    assert printable("a\n\x1b[2Jb") == "a\\n\\x1b[2Jb"
    assert printable("gpj.\u202eexe") == "gpj.\\u202eexe"
    assert printable("caf\udce9") == "caf\\udce9"
    assert printable("crème brûlée 寿司") == "crème brûlée 寿司"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "\uff1d", "\r@"])
def test_no_cell_of_text_starts_a_formula(start):
    cell = csv_cell(f"{start}cmd|' /C calc'!A0")
    assert cell.lstrip()[0] in "'\\"


@given(ANY_TEXT)
def test_a_cell_stays_one_cell_on_one_line(text):
    file = io.StringIO(newline="")
    csv.writer(file).writerow([csv_cell(text), "next"])
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert row == [csv_cell(text), "next"]
    assert file.getvalue().count("\n") == 1


def test_numbers_stay_numbers_in_cells():
    assert [csv_cell(v) for v in (-1.5, 3, np.float32(0.5), np.int64(-2), None)] == [
        "-1.5",
        "3",
        "0.5",
        "-2",
        "",
    ]


@given(ANY_TEXT)
def test_html_text_has_no_markup(text):
    shown = html_text(text)
    assert not set(shown) & set("<>\"'")
    assert shown.isprintable()


def test_html_text_keeps_the_words():
    assert html_text("<script>alert('x')</script> & co") == (
        "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; co"
    )


def test_names_sort_in_natural_order():
    names = ["class10", "class2", "b", "A", "class2b", "10", "9", "class02"]
    assert sorted(names, key=natural_key) == ["9", "10", "A", "b", "class02", "class2", "class2b", "class10"]
    assert sorted(["a" + "9" * 5000, "a1" + "0" * 5000], key=natural_key)[0] == "a" + "9" * 5000


@given(ANY_TEXT, ANY_TEXT)
def test_the_order_of_names_is_total(one, other):
    assert (natural_key(one) < natural_key(other)) + (natural_key(other) < natural_key(one)) == (one != other)


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "image", "1 image"),
        (1234, "image", "1,234 images"),
        (0, "class", "0 classes"),
        (2, "near copy", "2 near copies"),
        (2, "epoch", "2 epochs"),
    ],
)
def test_a_count_has_its_noun(number, noun, text):
    assert counted(number, noun) == text


def test_kinds_are_counted_the_most_frequent_first():
    assert tallied({"pdf file": 1, "cr2 file": 1200}) == "1,200 × cr2 file, 1 × pdf file"
    assert tallied({}) == ""


def test_booleans_of_python_are_read_as_those_of_toml():
    assert [toml_value(text) for text in ("True", "False", "true", "yes")] == [True, False, True, "yes"]


def test_sizes_are_in_the_larger_unit_that_fits():
    assert [size_in_words(count) for count in (300_000, 64e6, 12e9)] == ["0.3 MB", "64.0 MB", "12.0 GB"]
