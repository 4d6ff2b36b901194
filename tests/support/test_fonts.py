"""Class names in any script are drawn with a font that has them, or replaced by their number."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vitreous.explain.drawing import inches
from vitreous.support import fonts
from vitreous.support.figures import missing_glyphs_ignored
from vitreous.support.fonts import drawable, fallback_fonts, use_fallback_fonts

CAT, DOG = "\u732b", "\u72ac"  # in Chinese characters; private-use characters would be unprintable
FAMILY = "Vitreous Test"


def square(inked=True):
    pen = TTGlyphPen(None)
    if inked:
        pen.moveTo((0, 0))
        for corner in ((0, 800), (1800, 800), (1800, 0)):
            pen.lineTo(corner)
        pen.closePath()
    return pen.glyph()


@pytest.fixture
def font(tmp_path, monkeypatch):
    """Installs a font with a wide black glyph for CAT, and an empty one for DOG."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat", "dog"])
    builder.setupCharacterMap({ord(CAT): "cat", ord(DOG): "dog"})
    builder.setupGlyf({".notdef": square(False), "cat": square(), "dog": square(False)})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "cat": (2000, 0), "dog": (2000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "test.ttf"
    builder.save(path)
    without(monkeypatch)
    font_manager.fontManager.addfont(path)
    return FAMILY


def without(monkeypatch):
    """As on a machine that has only matplotlib's own fonts."""
    own = [font for font in font_manager.fontManager.ttflist if "matplotlib" in str(font.fname)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(fonts, "_families", {})
    fonts._installed.cache_clear()


def ink(text):
    """How many dark pixels a text has in a picture."""
    figure = Figure(figsize=(4, 1))
    figure.text(0.1, 0.5, text, fontsize=20)
    use_fallback_fonts(figure)
    canvas = FigureCanvasAgg(figure)
    with missing_glyphs_ignored():
        canvas.draw()
    return int((np.asarray(canvas.buffer_rgba())[..., 0] < 128).sum())


def test_names_that_the_default_font_has_are_unchanged():
    for name in ("cat", "café", "кошка", "γάτα", "$x$", "→", ""):
        assert drawable(name, "class 0") == name
        assert fallback_fonts([name]) == []
    assert drawable("a\x1b", "class 0") == "a\\x1b"
    assert fallback_fonts(["é\nb"]) == []


def test_a_name_that_no_font_has_is_numbered(monkeypatch):
    without(monkeypatch)
    assert drawable(CAT, "class 3") == "class 3"
    assert drawable(f"cat {CAT}", "class 3") == "class 3"
    assert fallback_fonts([CAT]) == []


def test_an_installed_font_draws_what_the_default_font_lacks(font):
    assert drawable(f"a {CAT}", "class 3") == f"a {CAT}"
    assert fallback_fonts(["cat", CAT]) == [font]
    assert ink(CAT) > 500
    assert ink(f"cat {CAT}") > ink(CAT)


def test_an_empty_glyph_does_not_count(font):
    assert drawable(DOG, "class 4") == "class 4"
    assert drawable(CAT + DOG, "class 4") == "class 4"


def test_a_font_that_cannot_be_read_is_passed_over(font, tmp_path):
    (tmp_path / "test.ttf").write_bytes(b"no font")
    font_manager._get_font.cache_clear()
    assert drawable(CAT, "class 3") == "class 3"


def test_a_choice_of_forms_is_dropped():
    assert drawable("\u2764\ufe0f", "class 0") == "\u2764"


def test_a_text_is_measured_in_the_font_that_draws_it(font):
    assert inches(CAT * 10) == pytest.approx(10 * 2 * 7 / 72, rel=0.1)  # 2 em of 7 points each
