"""The page of `vitreous inspect --html` in a real browser."""

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from tests.model.models import small_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.explain.inline import STRONGEST
from vitreous.pages.pictures import LEVELS
from vitreous.pages.walk import walk_page
from vitreous.pages.walk.numbers import average

ROWS, COLUMNS = 4, 6
SWITCHES = {"registers": ["class token", "register 0"], "attention pooling": []}

# The opacity of each pixel of a map, row by row.
OPACITIES = """view => {
  const canvas = view.querySelector("canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [...pixels].filter((_, i) => i % 4 === 3);
}"""

# The focused element: its tag, and its link or place.
FOCUSED = """() => {
  const { tagName, dataset } = document.activeElement;
  const picker = document.activeElement.closest("[data-picker]");
  return `${tagName} ${picker?.dataset.picker ?? document.activeElement.getAttribute("href") ?? dataset.block}`;
}"""

# All visible text: its element, its color, and the background color.
COLORS = """() => {
  const pairs = [];
  const clear = "rgba(0, 0, 0, 0)";
  const texts = "h1, h2, h3, h4, h5, p, a, b, dt, dd, figcaption, button, code, summary *";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.offsetParent || !element.textContent.trim() || element.closest(".view")) continue;
    let below = element;
    while (below && getComputedStyle(below).backgroundColor === clear) below = below.parentElement;
    const background = getComputedStyle(below ?? document.body).backgroundColor;
    pairs.push([element.tagName + "." + element.className, getComputedStyle(element).color, background]);
  }
  return pairs;
}"""


@pytest.fixture(scope="module", params=SWITCHES)
def walked(request, tmp_path_factory):
    """A model, its image, and the file of its page."""
    size = {"image_size": (32, 48), "patch_size": 8}
    model = small_model(request.param, **size)
    preprocessing = Preprocessing(model.config.image_size)
    flower = Image.fromarray(load_sample_image("flower.jpg"))
    path = tmp_path_factory.mktemp("walk") / "walk.html"
    path.write_text(walk_page(model, flower, preprocessing, name=request.param), encoding="utf-8")
    return model, preprocessing([flower]), path


@pytest.fixture
def page(walked, open_page):
    return ready(open_page(walked[2]))


def ready(page):
    page.wait_for_selector(":root.scripted")
    return page


def chosen(page) -> str:
    return page.inner_text("[data-choice]")


def expected_opacities(model, image, block: int, head: int | None, token: int) -> np.ndarray:
    with torch.no_grad():
        weights = model.attention_weights(image)[block][0, :, token, model.config.prefix_tokens :].numpy()
    shares = weights.mean(axis=0) if head is None else weights[head]
    return 255 * STRONGEST * np.sqrt(shares / shares.max())


def assert_maps_show(page, model, image, token: int) -> None:
    """Every map of every block is the token's row of A, up to the rounding of opacities."""
    for block in range(model.config.depth):
        for head in [None, *range(model.config.num_heads)]:
            name = "mean" if head is None else str(head)
            views = page.query_selector_all(f'[data-map="{name}"][data-block="{block}"]')
            assert len(views) == (2 if head is None else 1)
            expected = expected_opacities(model, image, block, head, token)
            assert expected.std() > 1
            for view in views:
                steps = 0.51 if head is not None else 2
                np.testing.assert_allclose(
                    view.evaluate(OPACITIES), expected, atol=255 * STRONGEST / LEVELS * steps + 0.5
                )


def test_the_page_opens_from_disk_without_faults_or_requests(walked, page):
    page.wait_for_timeout(200)
    assert page.faults == []
    assert [url for url in page.requests if not url.startswith("data:")] == [walked[2].as_uri()]


def test_a_click_shows_where_the_patch_looks_in_every_head(walked, page):
    model, image, _ = walked
    front = model.config.prefix_tokens
    seen = []
    for row, column in ((0, 0), (2, 5), (3, 1)):
        page.click(f'[data-picker="large"] [data-place="{row * COLUMNS + column}"]')
        assert chosen(page) == f"patch ({row}, {column})"
        assert page.url.endswith(f"#patch={row},{column}")
        assert_maps_show(page, model, image, front + row * COLUMNS + column)
        seen.append(page.text_content("#block-1 .heads"))
    assert len({*seen}) > 1


def test_a_click_on_any_map_chooses_there(walked, page):
    view = page.query_selector('#block-0 .pick[data-map="1"]')
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    view.click(position={"x": box["width"] * 4.5 / COLUMNS, "y": box["height"] * 1.5 / ROWS})
    assert chosen(page) == "patch (1, 4)"
    assert page.inner_text("[data-patch-name]") == "(1, 4)"


def test_the_chosen_patch_is_enlarged_whole_and_by_channel(walked, open_page):
    _, image, path = walked
    page = ready(open_page(path))
    page.click('[data-picker="large"] [data-place="8"]')  # row 1, column 2
    patch = (image[0, :, 8:16, 16:24] * 0.5 + 0.5) * 255
    assert patch.std() > 10
    for i, kind in enumerate((".patch:not(.red, .green, .blue)", ".red", ".green", ".blue")):
        shown = Image.open(BytesIO(page.locator(f".planes {kind}").screenshot())).convert("RGB")
        expected = patch.clone()
        if i:
            expected[[c for c in range(3) if c != i - 1]] = 0
        small = np.asarray(shown.resize((8, 8), Image.Resampling.BOX), float).transpose(2, 0, 1)
        inner = np.s_[:, 1:-1, 1:-1]  # its corners are round
        np.testing.assert_allclose(small[inner], expected.numpy()[inner], atol=25)


def test_it_works_by_keyboard_alone(walked, page):
    model, image, _ = walked
    page.click('[data-picker="large"] [data-place="0"]')
    steps = {"ArrowRight": (0, 1), "ArrowDown": (1, 1), "End": (1, 5), "ArrowLeft": (1, 4), "Home": (1, 0),
             "Control+End": (3, 5), "ArrowUp": (2, 5), "Control+Home": (0, 0)}  # fmt: skip
    for key, (row, column) in steps.items():
        page.keyboard.press(key)
        assert chosen(page) == f"patch ({row}, {column})"
        assert page.evaluate("document.activeElement.dataset.place") == str(row * COLUMNS + column)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("c")
    if model.config.class_token:
        assert chosen(page) == "class token"
        assert page.url.endswith("#token=class-token")
        assert_maps_show(page, model, image, 0)
        page.keyboard.press("c")
    assert chosen(page) == "patch (0, 0)"


def test_every_stage_is_reached_by_tab(page):
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUSED))
    links = page.eval_on_selector_all("nav a", "links => links.map(link => link.getAttribute('href'))")
    assert {f"A {link}" for link in links} <= reached
    assert {"SUMMARY 0", "SUMMARY 1", "SUMMARY 2"} <= reached
    assert {one for one in reached if one.startswith("DIV")} == {"DIV small", "DIV large"}  # each grid is one stop


def test_a_link_opens_its_block_and_keeps_the_choice(page):
    page.click('[data-picker="large"] [data-place="7"]')
    page.click('nav a[href="#block-2"]')
    assert page.eval_on_selector("#block-2", "block => block.open")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.url.endswith("#patch=1,1")
    page.wait_for_selector('nav a[href="#block-2"][aria-current]')


def test_other_tokens_can_be_chosen(walked, page):
    model, image, _ = walked
    names = page.eval_on_selector_all("[data-token]", "buttons => buttons.map(button => button.textContent)")
    assert names[:2] == SWITCHES["registers"][: len(names)]
    for token in range(len(names)):
        page.click(f'[data-token="{token}"]')
        assert chosen(page) == names[token]
        assert page.get_attribute(f'[data-token="{token}"]', "aria-pressed") == "true"
        assert_maps_show(page, model, image, token)
        page.click(f'[data-token="{token}"]')
        assert chosen(page).startswith("patch")


def test_the_address_holds_the_choice(walked, open_page):
    page = ready(open_page(Path(walked[2])))
    page.goto(f"{walked[2].as_uri()}#patch=3,2")
    page.wait_for_function("document.querySelector('[data-choice]').textContent === 'patch (3, 2)'")
    page.reload()
    assert chosen(ready(page)) == "patch (3, 2)"
    for nonsense in ("patch=9,9", "token=none", "patch=", "%E0%"):
        page.goto(f"{walked[2].as_uri()}#{nonsense}")
        page.reload()
        assert chosen(ready(page)).startswith("patch")
    assert page.faults == []


def test_pictures_without_and_with_the_script_are_the_same(walked, open_page):
    assert_same_pictures(open_page(walked[2], script=False), ready(open_page(walked[2])))


def test_a_coarse_page_draws_the_means_of_its_patches(tmp_path, monkeypatch, open_page):
    monkeypatch.setattr("vitreous.pages.walk.numbers.MAP_NUMBERS", 1000)
    model = small_model(image_size=(40, 48))
    flower = Image.fromarray(load_sample_image("flower.jpg"))
    path = tmp_path / "walk.html"
    path.write_text(walk_page(model, flower, Preprocessing(model.config.image_size)), encoding="utf-8")
    page = ready(open_page(path))
    sides = page.evaluate("[data.keys.side, data.queries.side]")
    assert min(sides) > 1
    assert_same_pictures(open_page(path, script=False), page)
    page.click('[data-picker="large"] [data-place="29"]')  # the lower right patch, in a cell of fewer patches
    assert chosen(page) == "patch (4, 5)"
    weights = model.attention_weights(Preprocessing(model.config.image_size)([flower]))[0][0, 1, 1:, 1:]
    first = 4 // sides[1] * sides[1], 5 // sides[1] * sides[1]
    row = weights.unflatten(0, (5, 6))[first[0] :, first[1] :].flatten(0, 1).mean(dim=0)
    expected = average(row.detach().unflatten(0, (5, 6))[None, None], sides[0]).flatten().numpy()
    opacities = page.query_selector('[data-map="1"][data-block="0"]').evaluate(OPACITIES)
    np.testing.assert_allclose(opacities, 255 * STRONGEST * np.sqrt(expected / expected.max()), atol=9)


def assert_same_pictures(still, drawn) -> None:
    """The page without its script shows what the script draws first."""
    kept = "main .bars, main .captioned, main .strip-row, main summary .soft, main .digits"
    texts = [[one.text_content().split() for one in page.query_selector_all(kept)] for page in (still, drawn)]
    assert texts[0] == texts[1]
    pictures = "[data-map], [data-strip], [data-first]"
    pairs = list(zip(still.query_selector_all(pictures), drawn.query_selector_all(pictures), strict=True))
    assert len(pairs) > 20
    for one, other in pairs:
        drawn_opacities = np.array(other.evaluate(OPACITIES))
        expected = opacities_of(one.query_selector("img").get_attribute("src"))
        assert expected.std() > 1
        np.testing.assert_allclose(drawn_opacities, expected, atol=1)


def opacities_of(uri: str) -> np.ndarray:
    """The opacity of each pixel of a still picture."""
    file = BytesIO(b64decode(uri.partition(",")[2]))
    return np.asarray(Image.open(file).convert("RGBA"), int)[..., 3].flatten()


def test_without_a_script_every_stage_is_there(walked, open_page):
    page = open_page(walked[2], script=False)
    for name in ("image", "patches", "projection", "positions", "encoder", "head"):
        assert page.locator(f"#{name} h2").is_visible()
    assert page.locator("#block-0 .heads img").first.is_visible()
    page.click("#block-2 summary")
    assert page.locator("#block-2 .heads img").first.is_visible()
    assert not page.locator(".js").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440


@pytest.mark.parametrize("width", [375, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_has_enough_contrast(walked, open_page, width, scheme):
    page = ready(open_page(walked[2], width=width, scheme=scheme))
    page.click("[data-open]")
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator('aside [data-picker="small"]').is_visible() == (width > 1000)
    pairs = page.evaluate(COLORS)
    assert len(pairs) > 200
    assert {name: ratio for name, *pair in pairs if (ratio := contrast(*pair)) < 4.5} == {}


def contrast(one: str, other: str) -> float:
    """The contrast of two colors, as WCAG 2 defines it."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    assert color.startswith("rgb("), color
    parts = [int(part) / 255 for part in color[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
