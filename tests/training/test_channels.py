"""Runs on images of other channels than photos."""

import json

import numpy as np
import pytest

import vitreous as vt
from tests.data.satellites import satellite_folder
from vitreous.training.run import run_training


@pytest.fixture
def satellite(tmp_path):
    return satellite_folder(tmp_path)


@pytest.mark.parametrize("settings", [{}, {"cache": True}, {"workers": 1}], ids=str)
def test_a_run_predicts_what_it_learned(satellite, tmp_path, settings, quick, monkeypatch, vitreous_process):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = run_training(satellite, out=tmp_path / "run", settings=quick | {"epochs": 2} | settings, quiet=True)
    classifier = vt.load(run.folder)
    assert classifier.model.config.channels == classifier.preprocessing.channels == 5
    assert classifier.preprocessing.max_value == 4095
    path = str(satellite / "val/water/0.tif")
    (prediction,) = classifier(path)
    assert prediction.class_name in ("field", "water")
    if not settings:
        done = vitreous_process("predict", str(run.folder), path, "--json")
        assert json.loads(done.stdout)[0]["class_name"] == prediction.class_name, done.stderr
        assert classifier.features(path).shape == (1, classifier.model.config.width)


def test_arrays_of_python_have_any_number_of_channels(tmp_path, quick):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 100 + 100 * (place % 2), (16, 16, 13)).astype(np.uint8) for place in range(24)]
    run = run_training(
        [(image, place % 2) for place, image in enumerate(images)], out=tmp_path / "run", settings=quick, quiet=True
    )
    assert run.data.channels == 13
    assert vt.load(run.folder).model.config.channels == 13
