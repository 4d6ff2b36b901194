"""Takes the screenshots docs/pictures/walk-*.png of the page that `vitreous inspect --html` writes.

From the repository's root, with chromium installed, after `vitreous demo`: `python -m docs.draw_walk runs/demo`.
The flower is scikit-learn's flower.jpg, by dany13 / vultilion on Flickr (CC BY 2.0), in a B/16 with fresh weights;
the attention of a trained model is that of the demo.
"""

import shutil
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from PIL import Image
from sklearn.datasets import load_sample_image

from vitreous.classifier import load
from vitreous.data.decoding.images import decode_image
from vitreous.data.preprocessing import Preprocessing
from vitreous.inspection.trace import named
from vitreous.pages.walk import walk_page

PICTURES = Path(__file__).parent / "pictures"
COLORS = 256  # of each picture, which keeps it small


class Shot(NamedTuple):
    """A screenshot.

    Attributes:
        name: of the file.
        page: "flower" or "digits".
        size: of the window, (width, height) in pixels.
        scheme: "light" or "dark".
        chosen: the token, as in the page's address.
        place: the selector of the element at the window's upper edge.
    """

    name: str
    page: str
    size: tuple[int, int]
    scheme: str
    chosen: str
    place: str


SHOTS = (
    Shot("walk-patches.png", "flower", (1280, 800), "light", "patch=5,6", "#patches"),
    Shot("walk-block.png", "digits", (1280, 960), "light", "token=class-token", "#block-2 .part:has(.strips)"),
    Shot("walk-narrow.png", "digits", (375, 740), "dark", "patch=2,1", "#block-2 .maps"),
)


def pages(run: Path, folder: Path) -> dict[str, Path]:
    """Writes both pages and returns their files by name."""
    classifier = load(run, "cpu")
    digit = decode_image(sorted((run / "held_out").glob("3-*.png"))[0])
    flower, model = Image.fromarray(load_sample_image("flower.jpg")), named("B/16", on_meta=False)
    preprocessing = Preprocessing(model.config.image_size)
    html = {
        "flower": walk_page(model, flower, preprocessing, None, "B/16", fresh=True),
        "digits": walk_page(classifier.model, digit, classifier.preprocessing, classifier.class_names, "the digits"),
    }
    for name, page in html.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in html}


def take(browser: Any, shot: Shot, page: Path) -> None:
    """Takes one screenshot."""
    width, height = shot.size
    window = browser.new_page(viewport={"width": width, "height": height}, color_scheme=shot.scheme)
    window.goto(f"{page.as_uri()}#{shot.chosen}")
    window.wait_for_selector(":root.scripted")
    window.eval_on_selector_all("details.block", "blocks => blocks.forEach(block => block.open = true)")
    window.eval_on_selector(shot.place, "element => element.scrollIntoView()")
    window.wait_for_timeout(300)  # until the navigation has marked the stage
    image = Image.open(BytesIO(window.screenshot())).convert("RGB").quantize(COLORS, kmeans=2, dither=Image.Dither.NONE)
    image.save(PICTURES / shot.name, optimize=True)
    window.close()


if __name__ == "__main__":
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        sys.exit("chromium is not installed; on Debian: apt-get install chromium")
    with TemporaryDirectory() as temporary, sync_playwright() as playwright:
        files = pages(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"), Path(temporary))
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for shot in SHOTS:
            take(chromium, shot, files[shot.page])
        chromium.close()
