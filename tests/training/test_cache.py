"""A run with a cache gives the results of one without, and decodes each image once."""

import csv
from pathlib import Path

import pytest

from vitreous.data.cache import store
from vitreous.data.sources.trees.folders import FileLoader
from vitreous.training import run
from vitreous.training.run import run_training

CLOCKS = {"seconds", "images_per_second", "data_wait", "memory_bytes"}


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    """The folder of all caches, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The images that are decoded in this process once a run's cache begins."""
    names: list[str] = []
    with_cache = run.with_cache
    for method in ("__call__", "decode"):
        load = getattr(FileLoader, method)
        monkeypatch.setattr(
            FileLoader,
            method,
            lambda self, i, *content, load=load: names.append(self.names[i]) or load(self, i, *content),
        )
    monkeypatch.setattr(run, "with_cache", lambda *arguments: names.clear() or with_cache(*arguments))
    return names


def numbers(result) -> list[dict[str, str]]:
    """What a run recorded of its epochs, without times."""
    with (result.folder / "results.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in CLOCKS} for row in csv.DictReader(file)]


def test_results_are_the_same_and_a_second_run_decodes_nothing(photos, tmp_path, quick, caches, decoded, capsys):
    """No image is large enough to be reduced, so that training sees the same bits."""
    without = run_training(photos, out=tmp_path / "without", settings=quick)
    assert "decoded images are kept in" not in capsys.readouterr().out
    for number, workers in enumerate((0, 0, 2)):
        settings = quick | {"cache": True, "workers": workers}
        result = run_training(photos, out=tmp_path / str(number), settings=settings)
        assert f"decoded images are kept in {caches}" in capsys.readouterr().out
        assert numbers(result) == numbers(without)
        assert result.outcome.accuracy == without.outcome.accuracy
        assert len(decoded) == (48 if number == 0 else 0), "12 to train and 4 to test of each class"


def test_a_damaged_cache_changes_no_result_and_the_next_run_repairs_it(photos, tmp_path, quick, caches, decoded):
    settings = quick | {"cache": True}
    first = run_training(photos, out=tmp_path / "first", settings=settings)
    for path in caches.rglob(f"*{store.PIXELS}"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    store._mapped.cache_clear()
    second = run_training(photos, out=tmp_path / "second", settings=settings)
    assert numbers(second) == numbers(first)
    assert decoded, "the damaged images"
    run_training(photos, out=tmp_path / "third", settings=settings)
    decoded.clear()
    fourth = run_training(photos, out=tmp_path / "fourth", settings=settings)
    assert not decoded
    assert numbers(fourth) == numbers(first)
