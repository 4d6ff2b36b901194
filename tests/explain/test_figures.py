"""The figures of an explained model: what is drawn where, that all of it can be read, and the files."""

from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from vitreous.explain import drawing, figures
from vitreous.explain.drawing import HEAT, diverging, figure_bytes, fitting, heat, inches, mosaic, save_figure, strength

RANDOM = np.random.default_rng(0)
LONG = "photos/a folder/with a name/that is much too long/to stand below a photo of a sheet/flower.jpg"


def photo(height: int = 64, width: int = 64, channels: int = 3) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, channels), dtype=np.uint8)


def values(*shape: int) -> np.ndarray:
    return RANDOM.random(shape, dtype=np.float32)


def sheet(count: int, height: int = 64, width: int = 64, grid: tuple[int, int] = (4, 4)) -> Figure:
    captions = [[LONG, "a class with a name that is too long to stand below a photo of a sheet 12.3%"]] * count
    return figures.photo_sheet([photo(height, width) for _ in range(count)], values(count, *grid), captions, "a note")


def similarity(rows: int, columns: int) -> Figure:
    return figures.similarity_figure(values(rows, columns, rows, columns) * 2 - 1, "a note that is wider than the rest")


FIGURES = {
    "one photo": lambda: sheet(1),
    "two photos": lambda: sheet(2),
    "a sheet": lambda: sheet(7),
    "wide photos": lambda: sheet(4, 32, 128, (2, 8)),
    "tall photos": lambda: sheet(4, 128, 16, (8, 1)),
    "gray photos": lambda: figures.photo_sheet([photo(channels=1)], values(1, 4, 4), [["a"]]),
    "colors": lambda: figures.photo_sheet([photo()], values(1, 4, 4, 3), [["a"]], "a note"),
    "explanation": lambda: figures.photo_with_maps(photo(), [("rollout", values(4, 4)), (LONG, values(4, 4))], "a 9%"),
    "one head": lambda: figures.heads_sheet(photo(), values(1, 1, 4, 4), LONG, "a note that is wider than the rest"),
    "heads of B/16": lambda: figures.heads_sheet(photo(), values(12, 12, 14, 14), LONG, "a note"),
    "heads of L/16": lambda: figures.heads_sheet(photo(), values(24, 16, 14, 14), LONG, "a note"),
    "heads, wide": lambda: figures.heads_sheet(photo(32, 128), values(6, 24, 2, 8), LONG, "a note"),
    "distance": lambda: figures.distance_figure(values(12, 12) * 100, values(12, 12), "a note"),
    "distance in a deep model": lambda: figures.distance_figure(values(40, 1) * 100, values(40, 1), "a note"),
    "positions of one patch": lambda: similarity(1, 1),
    "positions": lambda: similarity(14, 14),
    "positions, large": lambda: similarity(24, 24),
    "positions, wide": lambda: similarity(4, 16),
    "filters": lambda: figures.filters_figure(values(28, 3, 16, 16), "a note"),
    "few filters": lambda: figures.filters_figure(values(2, 1, 4, 8), "a note that is wider than the rest"),
    "filters of five channels": lambda: figures.filters_figure(values(9, 5, 4, 4), "a note"),
}


def pixels(figure: Figure) -> np.ndarray:
    """What is seen of a figure, "height width 3"."""
    figure.set_dpi(drawing.PNG_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def texts_of(figure: Figure) -> list[Text]:
    """All text that is drawn: none of ticks outside an axis, which matplotlib holds and does not draw."""
    texts = [*figure.texts]
    for axes in figure.axes:
        texts += axes.texts
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = axis.get_view_interval()
            texts += [axis.label, *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)]
    return texts


def colors_in(figure: Figure, place: int, *shares: tuple[float, float]) -> np.ndarray:
    """The colors in a figure's place, at points by shares of its height and width."""
    seen, box = pixels(figure), figure.axes[place].get_position()
    height, width = seen.shape[:2]
    points = [(1 - (box.y1 - row * box.height), box.x0 + column * box.width) for row, column in shares]
    return np.array([seen[int(y * height), int(x * width)] for y, x in points]).astype(int)


# ---- what all figures have in common


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_overlaps_another_or_leaves_the_figure(name: str):
    figure = FIGURES[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in texts_of(figure) if text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]
    assert boxes
    width, height = canvas.get_width_height()
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (one, a), (other, b) in combinations(boxes, 2):
        assert not a.overlaps(b), f"{one!r} and {other!r}"


@pytest.mark.parametrize("name", ["a sheet", "distance", "positions"])
def test_the_files_are_the_same_each_time_and_small(name: str, tmp_path: Path):
    figure = FIGURES[name]()
    files = save_figure(figure, tmp_path / "some.figure")
    assert [file.name for file in files] == ["some.figure.png", "some.figure.svg"]
    for file in files:
        content = file.read_bytes()
        assert content == figure_bytes(figure, "svg" if file.suffix == ".svg" else "png")
        assert len(content) < 600_000
    svg = files[1].read_text(encoding="utf-8")
    assert "<dc:date>" not in svg
    assert "a note" in svg, "letters are letters"


def test_a_png_has_two_pixels_for_each_of_a_screen():
    figure = FIGURES["distance"]()
    width, height = figure.get_size_inches()
    assert pixels(figure).shape[:2] == (int(height * 200), int(width * 200))


def test_a_figure_leaves_matplotlib_as_it_was():
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "text.usetex": True}):
        styled = figure_bytes(FIGURES["one photo"](), "svg")
    assert dict(mpl.rcParams) == before
    assert b"font-size: 7px; font-family: 'DejaVu Sans', sans-serif;" in styled


@pytest.mark.parametrize("name", ["$x^2$", "\x1b[31mred\n", "猫.jpg", "", "<b>&amp;</b>", "\udce9.jpg"])
def test_any_name_is_only_text(name: str):
    figure = figures.photo_sheet([photo()], values(1, 4, 4), [[name]], "a note")
    assert figure_bytes(figure, "png")
    svg = figure_bytes(figure, "svg").decode()
    assert "\x1b" not in svg
    assert "<b>" not in svg
    assert ("$x^2$" in svg) == (name == "$x^2$")


def test_a_long_name_is_cut_in_the_middle():
    for width in (0.5, 1.0, 3.0):
        line = fitting(LONG, width)
        assert inches(line) <= width
        assert line[:2] == LONG[:2]
        assert line.endswith("pg")
        assert inches(fitting("W" * 500, width)) <= width
    assert fitting("flower.jpg", 3.0) == "flower.jpg"
    assert len(fitting(LONG, 0.01)) == 4


# ---- colors


def test_a_map_goes_from_clear_to_strong():
    scores = np.array([[1.0, 3.0], [2.0, 1.0]], np.float32)
    assert strength(scores).tolist() == [[0, 1], [0.5, 0]]
    assert heat(scores)[..., 3].tolist() == [[0, 209], [round(209.1 / 2), 0]]
    assert {tuple(color) for color in heat(scores)[..., :3].reshape(-1, 3).tolist()} == {HEAT}


@pytest.mark.parametrize("scores", [np.zeros((2, 2)), np.full((2, 2), 0.25) + np.eye(2) * 1e-8])
def test_a_map_that_looks_nowhere_in_particular_has_no_color(scores: np.ndarray):
    assert not heat(scores.astype(np.float32))[..., 3].any()


def test_similarities_have_a_color_for_each_sign():
    colors = diverging(np.array([[1.0, 0.0, -1.0, 2.0]], np.float32))[0].tolist()
    assert colors == [[255, 122, 0], [255, 255, 255], [58, 67, 80], [255, 122, 0]]


def test_a_mosaic_keeps_each_picture_in_its_place():
    cells = RANDOM.integers(0, 250, (2, 3, 4, 2, 3), dtype=np.uint8)
    picture = mosaic(cells, 8, gap=3)
    assert picture.shape == (2 * 8 + 3, 3 * 4 + 2 * 3, 3)
    assert (picture[11:, 7:11][::2, ::2] == cells[1, 1]).all()
    assert (picture[8:11] == 255).all()


# ---- what is drawn where


def test_each_photo_stands_beside_its_own_map():
    dark = np.zeros((64, 64, 3), np.uint8)
    maps = np.zeros((4, 4, 4), np.float32)
    hot = [(0, 0), (1, 2), (3, 3), (2, 1)]
    for i, place in enumerate(hot):
        maps[i][place] = 0.1 * (i + 1)
    figure = figures.photo_sheet([dark + 60 * i for i in range(4)], maps, [["a"]] * 4)
    for i, (row, column) in enumerate(hot):
        assert np.abs(colors_in(figure, 2 * i, (0.5, 0.5)) - 60 * i).max() <= 1
        here, elsewhere = ((row + 0.5) / 4, (column + 0.5) / 4), ((row + 0.5) / 4, ((column + 2) % 4 + 0.5) / 4)
        (red, _, blue), gray = colors_in(figure, 2 * i + 1, here, elsewhere)
        assert red > 180 > 80 > blue, "the accent"
        assert np.ptp(gray) <= 1


def test_a_photo_of_few_pixels_shows_them_as_squares():
    tiny = np.zeros((2, 2, 3), np.uint8)
    tiny[0, 1] = 200
    figure = figures.photo_sheet([tiny], values(1, 2, 2), [["a"]])
    colors = colors_in(figure, 0, (0.45, 0.55), (0.05, 0.95), (0.45, 0.45), (0.55, 0.55))
    assert np.abs(colors - np.array([[200], [200], [0], [0]])).max() <= 1


def test_heads_stand_across_and_blocks_down():
    maps = np.zeros((3, 2, 4, 4), np.float32)
    maps[2, 1, 0, 3] = 1
    figure = figures.heads_sheet(photo(), maps, "a")
    inside = [(row, column) for row in range(12) for column in range(8)]
    colors = colors_in(figure, 1, *(((row + 0.4) / 12, (column + 0.4) / 8) for row, column in inside))
    hot = [place for place, color in zip(inside, colors, strict=True) if color[2] < 9]
    assert hot == [(8, 7)], "block 2, head 1, row 0, column 3"


def test_every_head_has_its_distance_and_its_spread():
    mean, spread = values(5, 3) * 100, values(5, 3) * 9
    [axes] = figures.distance_figure(mean, spread).axes
    lines, dots = axes.collections
    where = np.asarray(dots.get_offsets())
    assert where[:, 0].round().tolist() == np.repeat(np.arange(5), 3).tolist()
    order = mean.argsort(axis=1)
    assert where[:, 1].reshape(5, 3) == pytest.approx(np.take_along_axis(mean, order, axis=1))
    ends = np.array(lines.get_segments())[:, :, 1].reshape(5, 3, 2)
    spread = np.take_along_axis(spread, order, axis=1)
    assert np.ptp(ends, axis=2) == pytest.approx(2 * spread, rel=1e-4)
    assert axes.get_ylim()[0] == 0


def test_of_a_large_grid_some_positions_are_shown():
    texts = [text.get_text() for text in similarity(24, 20).texts]
    assert [text for text in texts if text.isdecimal()] == [
        *map(str, range(0, 24, 2)),
        *map(str, range(0, 20, 2)),
        *"10",
    ]


def test_each_place_is_most_like_itself():
    alike = np.eye(9, dtype=np.float32).reshape(3, 3, 3, 3)
    figure = figures.similarity_figure(alike)
    own = [(i + (i + 0.4) / 3) / 3 for i in range(3)]
    assert np.abs(colors_in(figure, 0, *((y, x) for y in own for x in own)) - HEAT).max() <= 3
    assert (colors_in(figure, 0, (0.2, 0.2)) == 255).all()


def test_filters_are_in_their_own_colors():
    filters = np.zeros((2, 3, 2, 2), np.float32)
    filters[0, 0, 0, 0], filters[1, 2, 1, 1] = 2.0, -0.1
    figure = figures.filters_figure(filters)
    colors = colors_in(figure, 0, (0.2, 0.1), (0.2, 0.4), (0.8, 0.9)).tolist()
    assert colors == [[255, 128, 128], [128, 128, 128], [128, 128, 0]]
