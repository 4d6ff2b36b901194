"""Text in figures: names in any script are drawn with an installed font that has their characters, or replaced."""

from collections.abc import Iterable
from functools import lru_cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from vitreous.support.text import printable

REGULAR = 400  # the weight
STAND_INS = ("lastresort", "blank", "notdef")  # parts of names of fonts; matplotlib brings Last Resort
SELECTORS = dict.fromkeys(range(65024, 65040))  # choose between forms of a character, and have no glyph

_families: dict[str, str | None] = {}  # of the font that draws a character; None if none does


def drawable(text: str, instead: str) -> str:
    """The text made printable, or `instead` if some character is in no installed font and would become a box.

    Args:
        text: such as a class name.
        instead: such as "class 3".
    """
    text = printable(text)
    if text.isascii():
        return text
    text = text.translate(SELECTORS)
    return instead if None in _families_of(_missing(text)).values() else text


def use_fallback_fonts(figure: Figure) -> None:
    """Lets the texts of a figure use installed fonts for characters that their own font lacks."""
    texts = figure.findobj(Text)
    families = fallback_fonts(text.get_text() for text in texts)
    if families:
        for text in texts:
            text.set_fontfamily([*text.get_fontfamily(), *families])


def fallback_fonts(texts: Iterable[str]) -> list[str]:
    """The families of installed fonts that have what the default font lacks of some texts; usually none."""
    families = _families_of({character for text in texts if not text.isascii() for character in _missing(text)})
    return sorted({family for family in families.values() if family is not None})


def _missing(text: str) -> set[str]:
    """The characters that the default font does not have; a line break needs none."""
    font = get_font(findfont(FontProperties()))
    return {character for character in text if character != "\n" and not font.get_char_index(ord(character))}


def _families_of(characters: set[str]) -> dict[str, str | None]:
    """The family that draws each character; each installed font is opened once for all of them."""
    wanted = {character for character in characters if character not in _families}
    for family, path in _installed(len(fontManager.ttflist)) if wanted else ():
        if not wanted:
            break
        found = {character for character in wanted if _draws(path, character)}
        _families.update(dict.fromkeys(found, family))
        wanted -= found
    _families.update(dict.fromkeys(wanted))
    return {character: _families[character] for character in characters}


@lru_cache(maxsize=1)
def _installed(count: int) -> list[tuple[str, str]]:
    """The family and path of one font per family, an upright regular one if there is; `count` renews the list."""
    upright = sorted(
        fontManager.ttflist,
        key=lambda font: (font.style != "normal", abs(int(font.weight) - REGULAR), font.name, str(font.fname)),
    )
    first = {font.name: str(font.fname) for font in reversed(upright)}
    return sorted((name, path) for name, path in first.items() if not _is_stand_in(name))


def _is_stand_in(family: str) -> bool:
    """Whether a font has boxes or nothing for every character."""
    return any(part in family.lower().replace(" ", "") for part in STAND_INS)


def _draws(path: str, character: str) -> bool:
    """Whether a font has an outline for a character; the bitmaps of some emoji fonts cannot be drawn."""
    try:
        font = get_font(path)
        if not font.get_char_index(ord(character)):
            return False
        left, bottom, right, top = font.load_char(ord(character)).bbox
        return character.isspace() or (right > left and top > bottom)
    except (RuntimeError, OSError):  # FreeType's errors
        return False
