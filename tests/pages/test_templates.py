# ruff: noqa: RUF001 (the symbols are the paper's)
"""How pages are rendered: what every template gets."""

import base64
import hashlib

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from vitreous.pages.templates import FOLDER, TEMPLATES, content_policy, equation, number


@pytest.mark.parametrize("name", sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.html")))
def test_every_template_compiles(name):
    assert TEMPLATES.get_template(name).root_render_func


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("<b>&'\"", "&lt;b&gt;&amp;&#39;&#34;"),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("abc\u202edef", r"abc\u202edef"),
        ("中文 é", "中文 é"),
        (Markup("<b>\n</b>"), "<b>\n</b>"),
        (3, "3"),
    ],
)
def test_values_are_escaped_and_visible(value, shown):
    assert TEMPLATES.from_string("{{ value }}").render(value=value) == shown
    assert TEMPLATES.from_string('<p title="{{ value }}">').render(value=value) == f'<p title="{shown}">'


def test_a_missing_variable_is_an_error():
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        TEMPLATES.from_string("{{ missing }}").render()


def test_data_cannot_end_its_script_element():
    html = TEMPLATES.from_string("<script>{{ data|tojson }}</script>").render(data={"name": "</script>", "x": [1, 2]})
    assert html == '<script>{"name":"\\u003c/script\\u003e","x":[1,2]}</script>'


def test_the_policy_allows_the_pages_script_alone():
    digest = base64.b64encode(hashlib.sha256(b"start()").digest()).decode()
    assert f"script-src 'sha256-{digest}';" in content_policy("start()")
    assert "script-src 'none';" in content_policy("")
    assert content_policy("").startswith("default-src 'none';")


def test_numbers():
    assert number(-1234.5, ",.1f") == "−1,234.5"
    assert [number(0.1234, ".1%"), number(1234567), number(None)] == ["12.3%", "1,234,567", "–"]


@pytest.mark.parametrize(
    ("plain", "shown"),
    [
        ("x_p¹E", "x<sub>p</sub>¹E"),
        ("x_p ∈ ℝ^(N×(P²·C))", "x<sub>p</sub> ∈ ℝ<sup>N×(P²·C)</sup>"),
        ("z′ℓ = MSA(LN(zℓ₋₁)) + zℓ₋₁ (2)", "z′<sub>ℓ</sub> = MSA(LN(z<sub>ℓ−1</sub>)) + z<sub>ℓ−1</sub> (2)"),
        ("z_L¹ W + b < 1", "z<sub>L</sub>¹ W + b &lt; 1"),
    ],
)
def test_equations_have_subscripts_and_superscripts(plain, shown):
    assert equation(plain) == shown
