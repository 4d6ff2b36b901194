"""The page of a check in a browser: it fits narrow windows, in light and dark, and asks for nothing."""

import pytest

from tests.data.check.faults import copy, make_photos
from vitreous.data.check.check import check
from vitreous.pages.check import write_check


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = make_photos(tmp_path_factory.mktemp("data") / "photos", classes=("ant", "a class with a long name " * 3))
    copy(folder, "test/ant/0.jpg", f"train/ant/{'a-long-name-' * 9}.jpg")
    copy(folder, "val/ant/0.jpg", "train/ant/copy.jpg")
    (folder / "val/ant/1.jpg").write_bytes(b"not an image")
    return write_check(check(folder), tmp_path_factory.mktemp("out"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 768, 1440])
def test_it_fits_the_window(width, scheme, page_file, open_page):
    page = open_page(page_file, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")
    assert page.faults == []
    assert [url for url in page.requests if not url.startswith(("data:", "file:"))] == []


def test_text_has_contrast(page_file, open_page):
    """The colors of the splits on their background, by WCAG at least 4.5 for text this small."""
    for scheme in ("light", "dark"):
        page = open_page(page_file, scheme=scheme)
        colors = page.evaluate(
            """[...document.querySelectorAll('.split, .file, .tag, .soft')].map(e => {
                let back = e
                while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement
                return [getComputedStyle(e).color, getComputedStyle(back).backgroundColor]})"""
        )
        assert colors
        assert min(contrast(*pair) for pair in colors) >= 4.5, scheme


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two CSS colors."""
    low, high = sorted(luminance(color) for color in (first, second))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    values = [int(part) / 255 for part in color.strip("rgb()").split(",")[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
