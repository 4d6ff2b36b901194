import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.cli.app import run


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def test_the_table_goes_from_the_image_to_the_class(capsys):
    assert run(["inspect", "Ti/16"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"\n{'  ' * depth}{name}") for depth, name in (
        (0, "image"), (1, "patches"), (1, "embedded patches"), (0, "+ class token"), (0, "+ position"),
        (2, "norm"), (2, "attention"), (2, "add"), (2, "MLP"), (0, "head"), (1, "classifier"), (0, "total"),
    )]  # fmt: skip
    assert places == sorted(places)
    assert "5,717,416" in shown
    assert "random" not in shown


def test_a_photo_adds_values_and_random_weights_are_noted(photo, capsys):
    assert run(["inspect", "mu/16", "--image", photo]) == 0
    shown = capsys.readouterr().out
    assert "token norm" in shown
    assert "equation" in shown
    assert "+ zℓ₋₁ (2)" in shown  # noqa: RUF001
    assert "weights are random" in shown


def test_json_holds_the_whole_trace(photo, capsys):
    assert run(["inspect", "mu/16", "--json", "--image", photo, "--level", "1"]) == 0
    trace = json.loads(capsys.readouterr().out)
    assert trace["total_parameters"] == 76_712
    assert trace["fresh_weights"] is True
    image = trace["stages"][0]["statistics"]
    assert -1 <= image["min"] < image["max"] <= 1
    assert trace["stages"][-2]["parts"][0]["parts"]  # deeper than the level that the table would show


def test_levels_and_all(capsys):
    lengths = []
    for options in (["--level", "1"], [], ["--all"]):
        assert run(["inspect", "S/16", *options]) == 0
        lengths.append(capsys.readouterr().out.count("\n"))
    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["B/1x"], "neither a file nor a variant"),
        (["X/16"], "neither a file nor a variant"),
        (["B/0"], "neither a file nor a variant"),
        (["B/17"], "nearest sizes that do: 221×221 and 238×238"),
        (["Ti/16", "--level", "0"], "level"),
        (["Ti/16", "--set", "num_heads=4"], "Ti/16 is a variant: it has no checkpoint family, parts or settings"),
        (["Ti/16", "--family", "timm"], "leave out --family, --part and --set"),
        (["Ti/16", "--image", "no-such.jpg"], "no-such.jpg"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(arguments, words, capsys):
    assert run(["inspect", *arguments]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert len(printed.err.strip().splitlines()) <= 2
    assert printed.out == ""


def test_a_saved_model_is_inspected_with_its_own_preprocessing(tmp_path, photo, capsys):
    from vitreous.checkpoints.store import save_model
    from vitreous.data.preprocessing import Preprocessing
    from vitreous.model.initialization import fill_at_random
    from vitreous.model.vit import VisionTransformer

    model = VisionTransformer.from_variant("mu/16", image_size=32, num_classes=3)
    fill_at_random(model)
    path = tmp_path / "model.safetensors"
    preprocessing = Preprocessing((32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
    save_model(path, model, preprocessing, ("a", "b", "c"))
    assert run(["inspect", str(path), "--image", photo, "--json"]) == 0
    trace = json.loads(capsys.readouterr().out)
    assert trace["fresh_weights"] is False
    assert trace["stages"][0]["output_shape"] == [1, 3, 32, 32]
    assert trace["stages"][0]["statistics"]["min"] >= 0
    assert trace["stages"][-1]["statistics"]["std"] > 0.01


def test_a_terminal_gets_the_same_rows(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["inspect", "Ti/16"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[1m" in shown
    assert "embedded patches" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "[x_class; x_p¹E; …; x_pᴺE]" in plain
    assert not re.search(r"…\s", plain)  # nothing is cut short
    assert torch.get_num_threads() >= 1
