"""`vitreous list`."""

import json
import tomllib

import datasets
import pandas
import pytest

from tests.data.sources.packing import pack, tree
from tests.data.sources.published.making_sets import MAKERS
from tests.data.sources.published.test_shards import samples, write
from tests.hub_server import hub_of_client
from vitreous.checkpoints.sources.pretrained import KNOWN
from vitreous.cli import list as list_command
from vitreous.cli.app import run
from vitreous.cli.list import SOURCES
from vitreous.data.sources.open import open_data
from vitreous.data.sources.published.fetching import data_folder
from vitreous.data.sources.published.torchvision_sets import BY_NAME
from vitreous.training.recipe.files import built_in
from vitreous.training.recipe.recipe import LEAVES, Recipe


def test_models_have_the_papers_numbers(monkeypatch, capsys):
    monkeypatch.setattr("vitreous.model.variants.NAMES", ("Ti/16", "B/16"))
    assert run(["list", "models", "--json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert [name for name, row in rows.items() if row["kind"] == "variant"] == ["Ti/16", "B/16"]
    assert {row["kind"] for row in rows.values()} == {"variant", "pretrained"}
    base = rows["B/16"]
    assert [base[key] for key in ("width", "depth", "mlp_dim", "heads")] == [768, 12, 3072, 12]  # Table 1
    assert base["parameters"] == 86_567_656
    assert base["GFLOPs"] == pytest.approx(35.13, abs=0.01)  # 17.56 G multiply-adds


def test_weights_have_their_published_numbers(capsys):
    assert run(["list", "models", "--json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    row = rows["torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1"]
    assert [row[key] for key in ("family", "variant", "image", "classes")] == ["torchvision", "B/16", "384×384", 1000]
    assert (row["parameters"], row["GFLOPs"], row["top1"]) == (86_859_496, 110.97, 85.304)
    assert (row["license"], row["bytes"], row["bytes_are_published"]) == ("CC-BY-NC-4.0", 347_495_989, True)
    assert (rows["google:ViT-B_16"]["bytes"], rows["google:ViT-B_16"]["bytes_are_published"]) == (
        4 * 103_186_515,
        False,
    )
    assert rows["google:ViT-B_16"]["top1"] is None
    assert rows["hf:openai/clip-vit-base-patch32"]["bytes"] is None  # the file has the text tower too


def test_models_are_two_tables(capsys):
    assert run(["list", "models"]) == 0
    shapes, weights = capsys.readouterr().out.split("\n\n")
    assert shapes.splitlines()[0].startswith("shapes, ")
    assert shapes.splitlines()[1].split()[:2] == ["model", "width"]
    heading, columns, *lines = weights.splitlines()
    assert heading.startswith("published weights")
    assert columns.split()[:4] == ["family", "variant", "image", "classes"]
    assert columns.split()[4:] == ["parameters", "GFLOPs", "top1", "license", "size", "model"]
    assert len(lines) == len(KNOWN)
    line = next(line for line in lines if line.endswith("meta:deit_base_patch16_224"))
    cells = ["deit", "B/16", "224×224", "1,000", "86,567,656", "35.13", "81.80", "Apache-2.0", "about", "346", "MB"]
    assert line.split()[:-1] == cells
    assert all(line.split()[-1] in KNOWN for line in lines)


def test_sources_are_kinds_and_named_sets(capsys):
    assert run(["list", "sources"]) == 0
    kinds, sets = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    assert kinds[0].split() == ["source", "what"]
    assert kinds[1].startswith("digits ")
    assert sets[0].startswith("torchvision's sets, downloaded to the cache")
    assert [line.split()[0] for line in sets[2:]] == list(BY_NAME)
    assert run(["list", "sources", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["source"] for row in rows] == [*SOURCES, *BY_NAME]
    assert rows[-1] == {"kind": "set", "source": "omniglot", "what": BY_NAME["omniglot"].what}


@pytest.mark.parametrize("name", ["digits", *BY_NAME])
def test_each_named_source_is_opened_by_its_name(name, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda path, md5, **_: True)
    if name in MAKERS:
        MAKERS[name](data_folder(name))
    assert open_data(name).name == name


def test_each_kind_of_source_is_opened(monkeypatch, tmp_path):
    """One small example of every kind that is listed, by the route that the commands take."""
    tree(tmp_path / "photos")
    names = [path.relative_to(tmp_path).as_posix() for path in sorted((tmp_path / "photos").rglob("*.png"))]
    rows = [(name, name.split("/")[1]) for name in names]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *map(",".join, rows)]))
    frame = pandas.DataFrame(
        {"path": [str(tmp_path / name) for name, _ in rows], "label": [label for _, label in rows]}
    )
    write(tmp_path / "shards" / "train-0.tar", *samples(0, ["ant", "bee"] * 8))
    with hub_of_client(monkeypatch, tmp_path) as hub:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.address)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
        files = {name.replace("photos", "train"): (tmp_path / name).read_bytes() for name in names}
        hub.add("datasets/me/photos", files)
        examples = {
            "FOLDER": str(tmp_path / "photos"),
            "ARCHIVE": str(pack(tmp_path / "photos.zip")),
            "TABLE": str(tmp_path / "table.csv"),
            "SHARDS": str(tmp_path / "shards"),
            "hf:OWNER/NAME": "hf:me/photos",
            "DataFrame, Dataset": frame,
        }
        assert {"digits", *examples} == set(SOURCES)
        for source in examples.values():
            data = open_data(source)
            assert data.class_names == ("ant", "bee")
            assert sum(map(len, data.splits)) == 16
            assert data.train.load(0).size == (10, 6)


def test_recipes_are_those_of_the_folder(monkeypatch, tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text("# A tiny run: seconds on a CPU.\n# More.\n[model]\n")
    (tmp_path / "wide.toml").write_text("# Another.\n[options.a]\nmodel.width = 8\n[options.'B/16']\n[options.c]\n")
    monkeypatch.setattr("vitreous.training.recipe.files.RECIPES", tmp_path)
    assert run(["list", "recipes"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "recipe  what",
        "tiny    A tiny run: seconds on a CPU.",
        "wide    Another.",
        "        +a +B/16 +c",
    ]
    assert run(["list", "recipes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"recipe": "tiny", "what": "A tiny run: seconds on a CPU.", "options": []},
        {"recipe": "wide", "what": "Another.", "options": ["a", "B/16", "c"]},
    ]


def test_a_table_aligns_text_left_and_numbers_right():
    rows = [{"name": "a", "count": 1, "share": None}, {"name": "long", "count": 12345, "share": 10.0}]
    assert list_command.table(rows).splitlines() == [
        "name   count  share",
        "a          1",
        "long  12,345  10.00",
    ]


def test_a_built_in_recipe_is_printed_as_its_file(capsys):
    assert run(["list", "recipes", "digits"]) == 0
    assert capsys.readouterr().out == built_in()["digits"].read_text(encoding="utf-8")
    assert run(["list", "recipes", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["optimizer"]["lr"] == 2e-3


def test_a_recipe_with_options_is_printed_merged(capsys):
    assert run(["list", "recipes", "augreg+medium1+regularized"]) == 0
    tables = tomllib.loads(capsys.readouterr().out)
    assert (tables["augmentation"]["randaugment_magnitude"], tables["model"]["dropout"]) == (15.0, 0.1)
    assert tables["optimizer"]["momentum"] == 0.9  # a default, not in the file
    assert "options" not in tables
    assert Recipe.from_dict(tables) == Recipe.load("augreg+medium1+regularized")


def test_json_has_every_value(capsys):
    assert run(["list", "recipes", "paper-jft+H/14", "--json"]) == 0
    tables = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert {leaf: section for section in tables for leaf in tables[section]} == LEAVES
    assert (tables["optimizer"]["clip_norm"], tables["optimizer"]["lr"]) == ("inf", 3e-4)
    assert tables["schedule"]["steps"] is None


def test_a_recipe_file_is_printed_merged_with_its_base(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "augreg"\noptimizer.lr = 2e-3\n')
    assert run(["list", "recipes", str(path)]) == 0
    tables = tomllib.loads(capsys.readouterr().out)
    assert (tables["optimizer"]["lr"], tables["optimizer"]["weight_decay"]) == (2e-3, 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes", "digts"], "did you mean 'digits'?"),
        (["recipes", "augreg+medium"], "did you mean 'medium2'?"),
        (["recipes", "digits+small"], "the recipe 'digits' has no options"),
        (["models", "B/16"], "only recipes are shown one by one"),
    ],
)
def test_what_cannot_be_shown_is_an_error(arguments, message, capsys):
    assert run(["list", *arguments]) == 2
    assert message in capsys.readouterr().err
