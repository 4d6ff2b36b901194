"""`vitreous explain`: its files, their numbers, its messages and errors."""

import csv
import html
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.classifiers import small_classifier
from tests.cli.photos import IN_ORDER, fill, photo
from vitreous.classifier import Classifier, load
from vitreous.cli import explain, inputs
from vitreous.cli.app import run
from vitreous.data.decoding.images import decode_image
from vitreous.explain import drawing
from vitreous.explain.attention_maps import attention_map, attention_maps
from vitreous.explain.distance import CONVENTIONS, attention_distance
from vitreous.explain.embeddings import embedding_filters, patch_colors, position_similarity
from vitreous.explain.relevance import gradient_attention, relevance
from vitreous.explain.rollout import attention_rollout

KINDS = ("png", "svg", "npz", "csv")
MEAN = {"class_token": False, "pooling": "mean"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model and photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are put together, but their files stay empty; painting takes most of the time."""
    monkeypatch.setattr(drawing, "figure_bytes", lambda figure, kind: b"")


def inputs_of(classifier: Classifier, paths: list[str]) -> torch.Tensor:
    return classifier.preprocessing([decode_image(path) for path in paths])


def numbers(file: str) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as result:
        return dict(result)


def table(file: str) -> list[dict[str, str]]:
    with Path(file).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def values(file: str, shape: tuple[int, ...], column: str = "value") -> np.ndarray:
    return np.array([row[column] for row in table(file)], np.float32).reshape(shape)


# ---- what it writes


def test_all_analyses_are_written_and_listed(here, capsys):
    assert run(["explain", "model.safetensors", "new", "--out", "out"]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    groups = [*explain.NAMES, "attention_heads"]
    assert {path.name for path in Path("out").iterdir()} == {f"{name}.{kind}" for name in groups for kind in KINDS}
    for name in groups:
        assert decode_image(f"out/{name}.png").width > 100
        assert Path(f"out/{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
        assert f"\n  {name} " in out
    predictions = load("model.safetensors")(IN_ORDER)
    expected = [f"{p.image}  {p.class_name}  {p.probability:.1%}" for p in predictions]
    assert out.splitlines()[:4] == expected
    assert len({*expected}) == 4


def test_the_numbers_are_those_of_the_functions(here, monkeypatch, unpainted):
    monkeypatch.setattr(explain, "MOST_AT_ONCE", 3)  # two steps, and the second is not a full one
    assert run(["explain", "model.safetensors", "new", "--out", "out"]) == 0
    classifier = load("model.safetensors", "cpu")
    model, images = classifier.model, inputs_of(classifier, IN_ORDER)
    expected = {
        "attention": attention_map(model, images),
        "rollout": attention_rollout(model, images),
        "gradient": gradient_attention(model, images),
        "relevance": relevance(model, images),
    }
    for name, maps in expected.items():
        result = numbers(f"out/{name}.npz")
        assert result["images"].tolist() == IN_ORDER
        assert result["maps"] == pytest.approx(maps.numpy(), rel=1e-4)
        assert np.ptp(result["maps"]) > 0
        assert (values(f"out/{name}.csv", (4, 4, 4)) == result["maps"]).all()
        rows = table(f"out/{name}.csv")
        assert [(row["image"], row["row"], row["column"]) for row in (rows[0], rows[21])] == [
            ("new/1.png", "0", "0"),
            ("new/2.png", "1", "1"),
        ]
    heads = numbers("out/attention_heads.npz")
    assert heads["image"] == IN_ORDER[0]
    assert heads["maps"] == pytest.approx(attention_maps(model, images[:1])[0].numpy(), rel=1e-4)
    assert (values("out/attention_heads.csv", (2, 3, 4, 4)) == heads["maps"]).all()
    distances = attention_distance(model, images).numpy()
    result = numbers("out/distance.npz")
    assert result["distances"] == pytest.approx(distances, rel=1e-4)
    assert values("out/distance.csv", (2, 3), "mean") == pytest.approx(distances.mean(axis=0), rel=1e-4)
    assert values("out/distance.csv", (2, 3), "std") == pytest.approx(distances.std(axis=0), rel=1e-2)
    [tokens] = model.tokens(images, [1])
    colors = patch_colors(tokens[:, 1:].detach().unflatten(1, (4, 4))).numpy()
    assert numbers("out/patches.npz")["colors"] == pytest.approx(colors, abs=1e-3)
    assert values("out/patches.csv", (4, 4, 4), "green") == pytest.approx(colors[..., 1], abs=1e-3)


def test_analyses_of_the_model_need_no_images(here, unpainted):
    assert run(["explain", "model.safetensors", "--only", "filters,positions", "--out", "out"]) == 0
    model = load("model.safetensors", "cpu").model
    similarity = position_similarity(model).numpy()
    assert numbers("out/positions.npz")["similarity"] == pytest.approx(similarity, abs=1e-5)
    assert values("out/positions.csv", (4, 4, 4, 4), "similarity") == pytest.approx(similarity, abs=1e-5)
    filters = embedding_filters(model)
    assert numbers("out/filters.npz")["components"] == pytest.approx(filters.components.numpy(), abs=1e-5)
    assert values("out/filters.csv", (24, 3, 4, 4)) == pytest.approx(filters.components.numpy(), abs=1e-5)
    shares = values("out/filters.csv", (24, 48), "explained")
    assert shares == pytest.approx(filters.explained.numpy()[:, None].repeat(48, axis=1), abs=1e-5)
    assert len([*Path("out").iterdir()]) == 8


def test_block_head_and_query_choose_the_attention(here):
    options = ["--only", "attention,patches", "--block", "0", "--head", "2", "--query", "3,1"]
    assert run(["explain", "model.safetensors", "new", *options, "--out", "out"]) == 0
    classifier = load("model.safetensors", "cpu")
    images = inputs_of(classifier, IN_ORDER)
    expected = attention_map(classifier.model, images, 0, 2, (3, 1)).numpy()
    assert numbers("out/attention.npz")["maps"] == pytest.approx(expected, rel=1e-4)
    assert "row 3, column 1 looks in block 0, head 2" in Path("out/attention.svg").read_text(encoding="utf-8")
    [tokens] = classifier.model.tokens(images, [0])
    colors = patch_colors(tokens[:, 1:].detach().unflatten(1, (4, 4))).numpy()
    assert numbers("out/patches.npz")["colors"] == pytest.approx(colors, abs=1e-3)

    assert (
        run(["explain", "model.safetensors", "new/1.png", "--only", "attention", "--query", "class", "--out", "b"]) == 0
    )
    assert run(["explain", "model.safetensors", "new/1.png", "--only", "attention", "--query", "0", "--out", "c"]) == 0
    for name in ("attention.npz", "attention.svg"):
        assert Path("b", name).read_bytes() == Path("c", name).read_bytes()


def test_a_class_can_be_chosen(here, capsys, unpainted):
    options = ["--only", "relevance", "--class", "fox", "--json"]
    assert run(["explain", "model.safetensors", "new", *options, "--out", "out"]) == 0
    printed = json.loads(capsys.readouterr().out)
    classifier = load("model.safetensors", "cpu")
    images = inputs_of(classifier, IN_ORDER)
    probabilities = classifier.model(images).softmax(dim=-1)[:, 2].tolist()
    assert {row["class_name"] for row in printed["classes"]} == {"fox"}
    assert [row["probability"] for row in printed["classes"]] == pytest.approx(probabilities, abs=1e-5)
    result = numbers("out/relevance.npz")
    assert result["class_names"].tolist() == ["fox"] * 4
    assert result["maps"] == pytest.approx(relevance(classifier.model, images, torch.full((4,), 2)).numpy(), rel=1e-4)
    assert {row["class_name"] for row in table("out/relevance.csv")} == {"fox"}


def test_json_lists_what_was_written(here, capsys):
    Path("text.jpg").write_text("my notes")
    assert (
        run(["explain", "model.safetensors", "new", "text.jpg", "--only", "rollout,distance", "--json", "--out", "o"])
        == 2
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"] == 4
    assert printed["unreadable"] == ["text.jpg"]
    assert printed["left_out"] == {}
    assert {*printed["analyses"]} == {"rollout", "distance"}
    files = {file for group in printed["analyses"].values() for file in group["files"]}
    assert files == {path.name for path in Path(printed["out"]).iterdir()}


def test_a_sheet_shows_some_and_the_numbers_have_all(here, capsys):
    options = ["--only", "gradient,patches", "--show", "2"]
    assert run(["explain", "model.safetensors", "new", *options, "--out", "out"]) == 0
    assert "and 2 more" in capsys.readouterr().out
    svg = Path("out/gradient.svg").read_text(encoding="utf-8")
    assert [name in svg for name in IN_ORDER] == [True, True, False, False]
    assert len(numbers("out/gradient.npz")["maps"]) == 4
    assert numbers("out/patches.npz")["images"].tolist() == IN_ORDER[:2]


def test_the_same_again_gives_the_same_files(here):
    for out in ("one", "two"):
        assert run(["explain", "model.safetensors", "new", "--only", "gradient,distance,patches", "--out", out]) == 0
    for path in Path("one").iterdir():
        assert path.read_bytes() == Path("two", path.name).read_bytes(), path.name


def test_names_do_nothing_where_they_are_written(here, capsys):
    evil = ["=cmd|\x1b[31m.png", os.fsdecode(b"caf\xe9.png")]
    for name in evil:
        photo(0).save(name)
    small_classifier(("=1+1", "\x1b]0;title\x07", "<b>")).save("evil.safetensors")
    assert run(["explain", "evil.safetensors", *evil, "--only", "relevance", "--out", "out"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    for name in ("relevance.csv", "relevance.svg"):
        assert not {"\x1b", "\x07"} & {*Path("out", name).read_text(encoding="utf-8")}
    assert not any(row["image"].startswith("=") for row in table("out/relevance.csv"))
    assert numbers("out/relevance.npz")["images"].tolist() == evil


def test_progress_is_printed(here, capsys, monkeypatch):
    monkeypatch.setattr(inputs, "SECONDS_BETWEEN_LINES", -1)
    monkeypatch.setattr(explain, "MOST_AT_ONCE", 3)
    assert run(["explain", "model.safetensors", "new", "--only", "distance", "--out", "out"]) == 0
    assert capsys.readouterr().err.splitlines() == ["3 of 4 images", "4 of 4 images"]


# ---- models of every kind


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        (MEAN, "this model has no class token; the maps start from the mean of the patches"),
        (MEAN | {"pooling": "attention"}, "the probe of the attention pooling"),
        ({"pooling": "mean"}, "this model does not read its class token; the maps start from"),
        ({"distillation_token": True, "registers": 2}, ""),
        ({"image_size": (16, 32), "patch_size": (8, 4)}, ""),
        ({"channels": 1}, ""),
        ({"stem_blocks": (1,), "stem_width": 32, "patch_size": 1, "image_size": 32}, ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_kind_of_model_is_explained(switches, message, here, capsys, unpainted):
    small_classifier(**switches).save("other.safetensors")
    assert run(["explain", "other.safetensors", "new", "--out", "out"]) == 0
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == bool(message)
    assert len([*Path("out").iterdir()]) == 36


def test_analyses_the_model_does_not_support_are_named_and_skipped(here, capsys, unpainted):
    small_classifier(None, position_embedding="none").save("other.safetensors")
    assert run(["explain", "other.safetensors", "new", "--out", "out", "--json"]) == 0
    out, error = capsys.readouterr()
    assert [line.split(":")[0] for line in error.splitlines()] == ["no gradient", "no relevance", "no positions"]
    printed = json.loads(out)
    assert {*printed["left_out"]} == {"gradient", "relevance", "positions"}
    assert {*printed["analyses"]} == {"attention", "attention_heads", "rollout", "distance", "filters", "patches"}
    assert printed["classes"] == []


def test_a_prefix_token_can_be_the_query(here):
    small_classifier(distillation_token=True, registers=2).save("other.safetensors")
    for query, name in ((0, "the class token"), (1, "the distillation token"), (3, "register 1")):
        options = ["--only", "attention", "--query", str(query), "--out", name]
        assert run(["explain", "other.safetensors", "new/1.png", *options]) == 0
        assert f"where {name} looks in block 1" in Path(name, "attention.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_distance_is_drawn_in_either_convention(convention, here, capsys):
    options = ["--only", "distance", "--distance", convention]
    assert run(["explain", "model.safetensors", "new", *options, "--out", "out"]) == 0
    assert CONVENTIONS[convention] in capsys.readouterr().out
    assert html.escape(CONVENTIONS[convention], quote=False) in Path("out/distance.svg").read_text(encoding="utf-8")
    classifier = load("model.safetensors", "cpu")
    expected = attention_distance(classifier.model, inputs_of(classifier, IN_ORDER), convention).numpy()
    result = numbers("out/distance.npz")
    assert result["convention"] == convention
    assert result["distances"] == pytest.approx(expected, rel=1e-4)
    assert values("out/distance.csv", (2, 3), "mean") == pytest.approx(expected.mean(axis=0), rel=1e-4)


def test_without_prefix_tokens_there_is_one_distance(here, capsys):
    small_classifier(**MEAN).save("other.safetensors")
    assert run(["explain", "other.safetensors", "new", "--only", "distance", "--out", "out"]) == 0
    assert not any(text in capsys.readouterr().out for text in CONVENTIONS.values())


def test_what_is_shown_reads_well_under_every_pooling(here, capsys):
    for switches in ({}, {"distillation_token": True}, MEAN, MEAN | {"pooling": "attention"}):
        small_classifier(**switches).save("other.safetensors")
        options = ["--only", "attention,gradient", "--json"]
        assert run(["explain", "other.safetensors", "new/1.png", *options, "--out", str(len([*Path().iterdir()]))]) == 0
        for group in json.loads(capsys.readouterr().out)["analyses"].values():
            assert ",," not in group["shows"]
            assert re.fullmatch(r"where .* looks? ?(in|on|,).*", group["shows"])


# ---- what goes wrong


def test_broken_images_are_skipped_named_and_counted(here, capsys, unpainted):
    Path("text.jpg").write_text("my notes")
    arguments = ["text.jpg", "new/1.png", "missing.jpg", "new/2.png"]
    assert run(["explain", "model.safetensors", *arguments, "--only", "rollout,patches", "--out", "out"]) == 2
    first, second, summary = capsys.readouterr().err.splitlines()
    assert first.startswith("error: 'text.jpg' is not a JPEG")
    assert second.startswith("error: 'missing.jpg' cannot be read")
    assert summary == "2 of 4 images could not be read"
    classifier = load("model.safetensors", "cpu")
    expected = attention_rollout(classifier.model, inputs_of(classifier, ["new/1.png", "new/2.png"])).numpy()
    result = numbers("out/rollout.npz")
    assert result["images"].tolist() == ["new/1.png", "new/2.png"]
    assert result["maps"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "cause", "hint"),
    [
        (["nowhere", "new"], "there is no model at nowhere", ""),
        (["B/16", "new"], "B/16 is a model variant, not weights", "train it first"),
        (["model.safetensors"], "there are no images to explain", "only positions and filters need none"),
        (["model.safetensors", "nothing"], "no images in 'nothing'", "JPEG"),
        (["model.safetensors", "text.jpg"], "none of the 1 images could be read", "give JPEG"),
        (["model.safetensors", "new", "--only", "rollot"], "there is no analysis 'rollot'", "did you mean 'rollout'?"),
        (["model.safetensors", "new", "--only", ""], "there is no analysis ''", "attention, rollout"),
        (["model.safetensors", "new", "--block", "2"], "there is no block 2", "this model has blocks 0 to 1"),
        (["model.safetensors", "new", "--block", "-3"], "there is no block -3", "this model has blocks 0 to 1"),
        (["model.safetensors", "new", "--head", "3"], "there is no head 3", "this model has heads 0 to 2"),
        (["model.safetensors", "new", "--query", "4,0"], "there is no patch (4, 0)", "rows go from 0 to 3"),
        (["model.safetensors", "new", "--query", "1"], "there is no token 1", ""),
        (["model.safetensors", "new", "--query", "a"], "invalid --query 'a'", "ROW,COLUMN"),
        (["model.safetensors", "new", "--class", "fix"], "there is no class 'fix'", "did you mean 'fox'?"),
        (["model.safetensors", "new", "--show", "0"], "'--show'", ""),
        (["model.safetensors", "new", "--only", "rollout", "--head", "1"], "--head is for attention", "--only"),
        (["model.safetensors", "new", "--only", "rollout", "--class", "fox"], "--class is for gradient and", "--only"),
        (["features.safetensors", "new", "--only", "relevance"], "there is no relevance: this model has no", "train"),
        (["features.safetensors", "new", "--only", "positions"], "there is no positions: this model has no", "learned"),
        (["features.safetensors", "new", "--query", "class"], "this model has no class token", "3,4"),
        (["features.safetensors", "new", "--class", "fox"], "there is no class 'fox'", "there are none"),
    ],
)
def test_bad_input_is_an_error_and_nothing_is_written(arguments, cause, hint, here, capsys):
    Path("nothing").mkdir()
    Path("text.jpg").write_text("my notes")
    small_classifier(None, position_embedding="none", **MEAN).save("features.safetensors")
    assert run(["explain", *arguments, "--out", "deep/out"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    lines = [line for line in error.splitlines() if not line.startswith(("no ", "this model", "error: 'text.jpg'"))]
    assert cause in lines[0]
    assert hint in "".join(lines[1:])
    assert len(lines) <= 2
    assert not Path("deep").exists()


def test_a_folder_that_is_used_is_refused(here, capsys):
    Path("out").mkdir()
    Path("out/mine.txt").touch()
    assert run(["explain", "model.safetensors", "new", "--out", "out"]) == 2
    assert "the folder 'out' is not empty" in capsys.readouterr().err
    assert run(["explain", "model.safetensors", "new", "--out", "new/1.png"]) == 2
    assert "'new/1.png' is not a folder" in capsys.readouterr().err
    assert run(["explain", "model.safetensors", "new", "--out", "new/1.png/out"]) == 2
    assert "cannot write the folder 'new/1.png/out'" in capsys.readouterr().err
    Path("out/mine.txt").unlink()
    assert run(["explain", "model.safetensors", "new", "--only", "distance", "--out", "out"]) == 0
    assert len([*Path("out").iterdir()]) == 4


def test_names_come_from_stdin(here, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"new/2.png\n")))
    assert run(["explain", "model.safetensors", "-", "--only", "attention", "--out", "out"]) == 0
    assert numbers("out/attention.npz")["images"].tolist() == ["new/2.png"]


def test_a_mistake_ends_a_process_with_2(here, vitreous_process):
    done = vitreous_process("explain", "model.safetensors", "new", "--block", "7", "--out", "out", folder=here)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["error: there is no block 7", "hint: this model has blocks 0 to 1"]
