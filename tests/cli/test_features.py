"""`vitreous features`: a .npy file of rows and a .csv file of their paths."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.classifiers import small_classifier
from tests.cli.photos import IN_ORDER, fill, photo
from vitreous.classifier import load
from vitreous.cli import features
from vitreous.cli.app import run
from vitreous.data.decoding.images import decode_image


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model and photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    fill(tmp_path)
    return tmp_path


def extract(*arguments: str, out: str = "features.npy") -> int:
    return run(["features", "model.safetensors", *arguments, "--out", out])


def table(file: str = "features.csv") -> list[list[str]]:
    with Path(file).open(encoding="utf-8", newline="") as text:
        return list(csv.reader(text))


def representations(paths: list[str]) -> np.ndarray:
    return load("model.safetensors", "cpu").features(paths).numpy()


def test_each_image_has_its_row(here, capsys, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZE", 3)  # so the last batch is smaller
    assert extract("new") == 0
    rows = np.load("features.npy")
    assert rows.dtype == np.float32
    assert rows == pytest.approx(representations(IN_ORDER), abs=1e-5)
    assert len(np.unique(rows.round(3), axis=0)) == 4
    assert table() == [["row", "path"], *([str(i), path] for i, path in enumerate(IN_ORDER))]
    out, error = capsys.readouterr()
    assert out.splitlines()[0] == "features.npy: 4 rows of 24 float32 numbers"
    assert error == ""
    assert np.load("features.npy", mmap_mode="r").shape == (4, 24), "it can be memory-mapped"


@pytest.mark.parametrize("broken", [[0, 1], [2], [4, 5]])
def test_broken_images_are_skipped_and_the_rows_stay_aligned(broken, here, capsys, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZE", 2)
    paths = IN_ORDER.copy()
    for place in broken:
        name = f"broken{place}.jpg"
        Path(name).write_text("my notes")
        paths.insert(place, name)
    assert extract(*paths) == 2
    assert np.load("features.npy") == pytest.approx(representations(IN_ORDER), abs=1e-5)
    assert [row[1] for row in table()[1:]] == IN_ORDER
    *lines, summary = capsys.readouterr().err.splitlines()
    assert all(f"'broken{place}.jpg'" in line for place, line in zip(broken, lines, strict=True))
    assert summary == f"{len(broken)} of {len(paths)} images could not be read"


def test_a_header_has_the_same_length_for_any_number_of_rows(tmp_path):
    """So that it can be rewritten once the number of readable images is known."""
    lengths = set()
    for rows in (10**9, 999, 1, 0):
        with (tmp_path / "rows.npy").open("wb") as file:
            features.write_header(file, (rows, 768))
            lengths.add(file.tell())
    assert len(lengths) == 1
    assert np.load(tmp_path / "rows.npy").shape == (0, 768)


@pytest.mark.parametrize("token", ["patches", "class"])
def test_blocks_concatenate_the_tokens_after_them(token, here):
    assert extract("new", "--blocks", "1,0", "--token", token) == 0
    classifier = load("model.safetensors", "cpu")
    with torch.inference_mode():
        later, earlier = classifier.model.tokens(classifier.preprocessing(list(map(decode_image, IN_ORDER))), [1, 0])
    parts = [x[:, 0] if token == "class" else x[:, 1:].mean(dim=1) for x in (later, earlier)]
    assert np.load("features.npy") == pytest.approx(torch.cat(parts, dim=1).numpy(), abs=1e-4)
    assert extract("new", "--blocks", "-1,0", "--token", token, out="other.npy") == 0
    assert Path("other.npy").read_bytes() == Path("features.npy").read_bytes()


def test_blocks_average_the_patch_tokens_by_default(here):
    assert extract("new", "--blocks", "1") == 0
    assert extract("new", "--blocks", "1", "--token", "patches", out="same.npy") == 0
    assert Path("same.npy").read_bytes() == Path("features.npy").read_bytes()


def test_a_model_without_a_head_has_features(here):
    small_classifier(None).save("model.safetensors")
    assert extract("new") == 0
    assert np.load("features.npy").shape == (4, 24)


def test_features_of_twice_the_width_keep_their_rows(here):
    small_classifier(None, pooling="class_token_and_mean").save("model.safetensors")
    assert extract("new") == 0
    rows = np.load("features.npy")
    assert rows.shape == (4, 48)
    assert rows == pytest.approx(representations(IN_ORDER), abs=1e-5)


def test_existing_files_are_replaced_only_with_overwrite(here, capsys):
    Path("features.csv").write_text("mine")
    assert extract("new") == 2
    error = capsys.readouterr().err
    assert "'features.csv' exists" in error
    assert "--overwrite" in error
    assert Path("features.csv").read_text() == "mine"
    assert not Path("features.npy").exists()
    assert extract("new", "--overwrite") == 0
    assert extract("new/2.png", "--overwrite") == 0
    assert len(np.load("features.npy")) == len(table()) - 1 == 1


def test_hostile_names_are_inert_in_the_csv(here):
    for name in ("=cmd|\x1b[31m.png", os.fsdecode(b"caf\xe9.png")):
        photo(0).save(name)
    assert extract("=cmd|\x1b[31m.png", os.fsdecode(b"caf\xe9.png")) == 0
    assert [row[1] for row in table()[1:]] == [r"'=cmd|\x1b[31m.png", r"caf\udce9.png"]


@pytest.mark.parametrize(
    ("arguments", "cause", "hint"),
    [
        (["nothing"], "no images in 'nothing'", "JPEG"),
        (["text.jpg"], "none of the 1 images could be read", "give JPEG"),
        (["new", "--blocks", "2"], "there is no block 2", "this model has blocks 0 to 1"),
        (["new", "--blocks", "1,x"], "--blocks '1,x' is not a list of block numbers", "such as 3,5"),
        (["new", "--token", "class"], "--token needs --blocks", "add --blocks"),
        (["new", "--out", "features.csv"], "--out 'features.csv' is not a .npy file", "suffix .npy"),
        (["new", "--out", "folder.npy"], "cannot write 'folder.npy': it is not a file", ""),
        (["new", "--out", "text.jpg/features.npy"], "cannot write the folder 'text.jpg'", "writable folder"),
    ],
)
def test_bad_input_is_reported_and_nothing_is_written(arguments, cause, hint, here, capsys):
    for name in ("nothing", "folder.npy"):
        Path(name).mkdir()
    Path("text.jpg").write_text("my notes")
    before = {*here.rglob("*")}
    assert run(["features", "model.safetensors", "--out", "deep/features.npy", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    lines = [line for line in error.splitlines() if not line.startswith("error: 'text.jpg'")]
    assert cause in lines[0]
    assert hint in lines[-1]
    assert len(lines) <= 2
    assert {*here.rglob("*")} == before


def test_a_model_without_a_class_token_has_no_class_features(here, capsys):
    small_classifier(class_token=False, pooling="mean").save("model.safetensors")
    assert extract("new", "--blocks", "1", "--token", "class") == 2
    assert "this model has no class token" in capsys.readouterr().err


def test_a_variant_name_is_refused(here, vitreous_process):
    done = vitreous_process("features", "B/16", "new", "--out", "features.npy", folder=here)
    assert done.returncode == 2
    assert "B/16 is a model variant, not weights" in done.stderr
    assert "Traceback" not in done.stderr
