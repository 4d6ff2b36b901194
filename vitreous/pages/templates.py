# ruff: noqa: RUF001 (the symbols are the paper's)
"""Renders HTML pages: a template, a stylesheet and a script become one file that loads nothing else.

Templates escape every value, and characters that do not print (newlines, control characters, marks that reverse the
reading direction) become visible escapes.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from vitreous.inspection.table import shape_text, short
from vitreous.support.text import printable

FOLDER = Path(__file__).parent
INDICES = {"ℓ₋₁": "ℓ−1", "ℓ": "ℓ", "₀": "0"}


def render(page: str, view: Mapping[str, object]) -> str:
    """Renders a page: its template, with shared/base.css, its own stylesheet and, if it has one, its script inlined.

    Args:
        page: the folder of the page, such as "report".
        view: the variables of the template.

    Raises:
        jinja2.UndefinedError: the template uses a variable that is missing.
    """
    style = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ("shared/base.css", f"{page}/{page}.css"))
    file = FOLDER / page / f"{page}.js"
    script = file.read_text(encoding="utf-8") if file.exists() else ""
    own = {"style": Markup(style), "script": Markup(script), "policy": Markup(content_policy(script))}
    return TEMPLATES.get_template(f"{page}/{page}.html").render({**view, **own})


def content_policy(script: str) -> str:
    """The page's Content-Security-Policy: no requests, and no script but its own."""
    allowed = "'none'"
    if script:
        allowed = f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


# ---- filters


def visible(value: object) -> object:
    """Plain text with visible escapes for what does not print; markup and numbers as they are."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def number(value: int | float | None, spec: str = ",") -> str:
    """A number in Python's format, with a real minus sign; a dash for None."""
    return "–" if value is None else format(value, spec).replace("-", "−")


def equation(text: str) -> Markup:
    """An equation with its subscripts and superscripts."""
    indexed = re.sub(r"(z′?)(ℓ₋₁|ℓ|₀)", lambda match: f"{match[1]}_{INDICES[match[2]]}", text)
    html = re.sub(r"_([A-Za-z]+|ℓ−1|ℓ|0)", r"<sub>\1</sub>", str(escape(printable(indexed))))
    return Markup(re.sub(r"\^\(((?:[^()]|\([^()]*\))+)\)", r"<sup>\1</sup>", html))


def sentence(text: str) -> str:
    """A phrase with a capital and a period."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=True,
    finalize=visible,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
TEMPLATES.filters |= {
    "equation": equation,
    "number": number,
    "sentence": sentence,
    "shape": shape_text,
    "short": short,
}
