import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from vitreous.data.sources.digits import ArrayLoader
from vitreous.data.sources.splits import Split
from vitreous.support.errors import InputError
from vitreous.training.records.folder import LOCK, METRICS, BadFiles, RunFolder


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs" / "photos")


def split(count: int) -> Split:
    return Split(
        "train", ("a",) * count, np.zeros(count, dtype=np.int64), ArrayLoader(np.zeros((count, 1, 1), np.uint8))
    )


def test_an_empty_folder_may_be_used(folder):
    folder.release()
    assert RunFolder.create(folder.path).path == folder.path


def test_a_folder_has_one_owner(tmp_path, fresh_process):
    """Many processes that start together: one claims the folder, and the others are refused."""
    code = f"""
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Barrier
from pathlib import Path
import multiprocessing
from vitreous.support.errors import InputError
from vitreous.training.records.folder import RunFolder

barrier = Barrier(6)

def claim(number):
    barrier.wait()
    try:
        folder = RunFolder.create(Path({str(tmp_path / "runs" / "photos")!r}))
    except InputError as error:
        answer = error.cause
    else:
        answer = "claimed"
    barrier.wait()  # the owner is still there
    return answer

with ProcessPoolExecutor(6, multiprocessing.get_context("fork")) as pool:
    print(*sorted(pool.map(claim, range(6))), sep="\\n")
"""
    process = fresh_process(code)
    answers = process.stdout.splitlines()
    assert answers[-1] == "claimed", process.stderr
    assert len(answers) == 6
    assert all("another run is writing to the folder" in answer for answer in answers[:-1])


def test_the_folder_of_a_killed_run_can_be_used(tmp_path, fresh_process):
    path = tmp_path / "photos"
    code = f"""
import os, signal
from pathlib import Path
from vitreous.training.records.folder import RunFolder
folder = RunFolder.create(Path({str(path)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert fresh_process(code).returncode == -9
    assert [file.name for file in path.iterdir()] == [LOCK]
    RunFolder.create(path).release()
    assert not any(path.iterdir())


def test_a_folder_in_use_is_rejected(folder):
    (folder.path / "recipe.toml").touch()
    folder.release()
    with pytest.raises(InputError, match=r"is not empty; choose a new one, such as --out .*photos-2, or remove it"):
        RunFolder.create(folder.path)


def test_a_folder_with_a_model_says_how_to_use_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my photos", "my photos-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    with pytest.raises(InputError) as error:
        RunFolder.create(tmp_path.relative_to(tmp_path) / "my photos")
    assert error.value.cause == "the folder 'my photos' already has a trained model"
    assert error.value.hint == (
        "predict with it: vitreous predict 'my photos' IMAGES; or train another model: --out 'my photos-3'"
    )
    monkeypatch.chdir("my photos")
    with pytest.raises(InputError, match=re.escape(f"--out '{tmp_path}/my photos-3'")):
        RunFolder.create(Path())


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(InputError, match="cannot create the folder"):
        RunFolder.create(tmp_path / "runs" / "photos")


def test_metrics_are_json_even_without_numbers(folder):
    folder.append_metrics({"epoch": 1, "train_loss": math.nan, "val_loss": math.inf, "lr": 0.1})
    folder.append_metrics({"epoch": 2})
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (folder.path / METRICS).read_text().splitlines()]
    assert rows == [{"epoch": 1, "train_loss": None, "val_loss": None, "lr": 0.1}, {"epoch": 2}]


def test_cells_are_inert(folder):
    folder.write_csv("names.csv", [("=cmd()", -1.5), ("a\nb", None), ('say "hi"', 2)])
    assert (folder.path / "names.csv").read_text() == '\'=cmd(),-1.5\na\\nb,\n"say ""hi""",2\n'


def test_bad_files_are_listed_once(folder):
    bad = BadFiles(folder, max_fraction=0.5)
    for _ in range(3):  # epochs
        bad.add(split(4), [("b.png", "is empty"), ("=a.png", "is broken")])
    bad.write()
    assert bad.count == 2
    assert (folder.path / "bad_files.csv").read_text().splitlines() == [
        "split,file,reason",
        "train,'=a.png,is broken",
        "train,b.png,is empty",
    ]


def test_too_many_bad_files_stop_the_run(folder):
    bad = BadFiles(folder, max_fraction=0.01)
    bad.add(split(200), [("a.png", "is empty"), ("b.png", "is empty")])
    with pytest.raises(InputError, match=r"3 of the 200 train images are broken, .*; the first: 'a.png' is empty;"):
        bad.add(split(200), [("c.png", "is empty")])


def test_the_fraction_is_of_all_images_when_broken_ones_are_left_out(folder):
    bad = BadFiles(folder, max_fraction=0.5)
    bad.add(split(10), [(f"{i}.png", "is empty") for i in range(4)])
    bad.add(split(6), [("4.png", "is empty")])
    with pytest.raises(InputError, match="6 of the 10 train images are broken"):
        bad.add(split(6), [("5.png", "is empty")])
    bad.tolerant().add(split(6), [(f"{i}.png", "is empty") for i in range(10)])
    assert bad.count == 10


def test_one_or_two_of_few_may_be_broken(folder):
    bad = BadFiles(folder, max_fraction=0.01)
    bad.add(split(22), [("a.png", "is empty"), ("b.png", "is empty")])
    with pytest.raises(InputError, match="3 of the 22 train images"):
        bad.add(split(22), [("c.png", "is empty")])


def test_only_the_list_of_a_stopped_run_is_replaced(folder):
    BadFiles(folder, 0.5).write()
    folder.release()
    RunFolder.create(folder.path).release()
    (folder.path / "bad_files.csv").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        RunFolder.create(folder.path)


def test_clearing_leaves_what_was_there(tmp_path):
    (tmp_path / "there").mkdir()
    for name, remains in (("there", True), ("new", False)):
        folder = RunFolder.create(tmp_path / name)
        folder.append_metrics({"epoch": 1})
        folder.clear()
        assert folder.path.exists() is remains
    assert [*(tmp_path / "there").iterdir()] == []


def test_none_may_be_broken(folder):
    bad = BadFiles(folder, max_fraction=0.0)
    bad.add(split(200), [])
    with pytest.raises(InputError, match="max_bad_fraction = 0 allows"):
        bad.add(split(200), [("c.png", "is empty")])
