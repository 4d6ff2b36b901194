"""The files that the rows of a table name are found, and none outside its folder without leave."""

import pytest

from tests.data.sources.packing import all_names, content_of, tree
from tests.data.sources.tabular.writing import error, flat, labels_of, write
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.tabular.lookup import find_files
from vitreous.support.errors import InputError


def test_an_id_is_a_name_without_suffix_in_the_folder_of_the_table(tmp_path):
    rows = flat(tmp_path / "train")
    flat(tmp_path / "test")
    ids = [(name.removesuffix(".png"), label) for name, label in rows]
    data = open_data(write(tmp_path / "train.csv", ids, ("id", "species")))
    assert labels_of(data) == {f"train/{name}": label for name, label in rows}


def test_files_are_found_in_any_subfolder(tmp_path):
    rows = flat(tmp_path / "a" / "b")
    expected = {f"a/b/{name}": label for name, label in rows}
    assert labels_of(open_data(write(tmp_path / "all.csv", rows))) == expected
    assert labels_of(open_data(write(tmp_path / "all.csv", [(f"b/{n}", label) for n, label in rows]))) == expected
    upper = [(name.upper(), label) for name, label in rows]
    assert labels_of(open_data(write(tmp_path / "all.csv", upper))) == expected
    other = [(f"c/{name}", label) for name, label in rows]
    assert "lists 8 images, but none is in" in error(write(tmp_path / "all.csv", other))


@pytest.mark.parametrize("ids", [False, True])
def test_a_name_in_two_folders_is_ambiguous(tmp_path, ids):
    rows = flat(tmp_path / "a")
    flat(tmp_path / "b", 3)
    rows = [(name.removesuffix(".png") if ids else name, label) for name, label in rows]
    message = error(write(tmp_path / "all.csv", list(reversed(rows))))
    assert "may be 'a/00" in message
    assert "whole path" in message


def test_two_images_of_one_id_are_ambiguous(tmp_path):
    rows = flat(tmp_path)
    (tmp_path / "000.jpg").write_bytes(content_of("000"))
    ids = [(name.removesuffix(".png"), label) for name, label in rows]
    assert "'000' in" in error(write(tmp_path / "all.csv", ids, ("id", "label")))


@pytest.mark.parametrize("form", ["./{}", "{}", "sub\\..\\{}", "sub/../{}", "ROOT/{}"])
def test_forms_of_paths(tmp_path, form):
    rows = flat(tmp_path)
    cells = [(form.replace("ROOT", str(tmp_path)).format(name), label) for name, label in rows]
    assert labels_of(open_data(write(tmp_path / "all.csv", cells))) == dict(rows)


def test_paths_of_windows(tmp_path):
    rows = [(f"train\\cats\\{name}", label) for name, label in flat(tmp_path / "train" / "cats")]
    data = open_data(write(tmp_path / "all.csv", rows))
    assert labels_of(data) == {name.replace("\\", "/"): label for name, label in rows}


def test_a_backslash_may_be_of_a_name(tmp_path):
    rows = [(f"a\\{name}", label) for name, label in flat(tmp_path / "a")]
    tree(tmp_path, [rows[0][0]])
    names = all_names(open_data(write(tmp_path / "all.csv", rows)))
    assert names == {rows[0][0], *(name.replace("\\", "/") for name, _ in rows[1:])}


@pytest.mark.parametrize("table", ["train", "train_labels"])
def test_the_folder_of_its_split_is_preferred(tmp_path, table):
    rows = flat(tmp_path / "train_images")
    flat(tmp_path / "test_images")
    data = open_data(write(tmp_path / f"{table}.csv", rows))
    assert labels_of(data) == {f"train_images/{name}": label for name, label in rows}
    assert "8 images also in a folder of another split; that of the table's split is used" in data.notes[0]
    assert "may be 'test_images/000.png'" in error(write(tmp_path / "all.csv", rows))


@pytest.mark.parametrize(
    ("cell", "words"),
    [([{"bytes": b"0" * 3000}] * 3, "a list of 3"), (b"0" * 3000, "3,000 bytes"), ({"a": b"0" * 999}, "a dict of 'a'")],
)
def test_cells_that_are_not_paths_are_described(tmp_path, cell, words):
    rows = flat(tmp_path)
    with pytest.raises(InputError, match=rf"a path in 'x' is {words}; "):
        find_files("x", str(tmp_path), "", [*(name for name, _ in rows), cell], follow_links=False)


def test_missing_files_stay_and_are_named(tmp_path):
    rows = flat(tmp_path)
    (tmp_path / "003.png").unlink()
    data = open_data(write(tmp_path / "all.csv", rows))
    assert len(all_names(data)) == 8
    assert data.notes == ("1 image missing, counted as broken: '003.png'",)


def test_no_file_at_all_is_an_error(tmp_path):
    rows = [(f"/kaggle/input/{name}", label) for name, label in flat(tmp_path)]
    message = error(write(tmp_path / "all.csv", rows))
    assert "lists 8 images, but none is in" in message
    assert "paths relative to its folder" in message
    (tmp_path / "sub").mkdir()
    existing = [(f"../{name}", label) for name, label in flat(tmp_path)]
    assert "--set follow_links=true" in error(write(tmp_path / "sub" / "all.csv", existing))
    windows = [(f"C:\\photos\\{name}", label) for name, label in flat(tmp_path)]
    assert "paths relative to its folder" in error(write(tmp_path / "all.csv", windows))


def test_addresses_are_refused(tmp_path):
    rows = [(f"https://example.com/{name}", label) for name, label in flat(tmp_path)]
    assert "addresses" in error(write(tmp_path / "all.csv", rows))


@pytest.mark.parametrize("way", ["absolute", "dots", "link", "folder"])
def test_files_outside_the_folder_need_follow_links(tmp_path, way):
    rows = flat(tmp_path / "data")
    outside = tree(tmp_path / "outside", ["secret.png"]) / "secret.png"
    cell = {"absolute": str(outside), "dots": "../outside/secret.png", "link": "link.png", "folder": "up/secret.png"}[
        way
    ]
    if way == "link":
        (tmp_path / "data" / "link.png").symlink_to(outside)
    if way == "folder":
        (tmp_path / "data" / "up").symlink_to(outside.parent)
    path = write(tmp_path / "data" / "all.csv", [*rows, (cell, "odd")])
    data = open_data(path)
    assert all_names(data) == {name for name, _ in rows}
    assert data.ignored == {"path or link out of the folder": 1}
    assert "follow_links=true" in data.notes[0]
    followed = open_data(path, DataOptions(follow_links=True))
    contents = [split.load.content(at) for split in followed.splits for at in range(len(split))]
    assert content_of("secret.png") in contents
    assert len(contents) == 9


def test_loops_of_links_end(tmp_path):
    rows = flat(tmp_path / "a")
    for name in ("up", "again"):
        (tmp_path / "a" / name).symlink_to("..")
    data = open_data(write(tmp_path / "all.csv", rows), DataOptions(follow_links=True))
    assert all_names(data) == {f"a/{name}" for name, _ in rows}


def test_links_inside_the_folder_are_files(tmp_path):
    rows = flat(tmp_path)
    (tmp_path / "link.png").symlink_to("000.png")
    assert "link.png" in all_names(open_data(write(tmp_path / "all.csv", [*rows, ("link.png", "odd")])))


def test_images_that_the_table_does_not_list_are_counted(tmp_path):
    rows = flat(tmp_path / "images", 40)
    (tmp_path / "images" / "notes.txt").write_text("x")
    tree(tmp_path / "other", ["1.png"])
    assert open_data(write(tmp_path / "some.csv", rows[:6])).notes == (
        "34 images in the folders of the table's images are not in the table, such as 'images/006.png'",
    )
    assert open_data(write(tmp_path / "all.csv", rows)).notes == ()


def test_images_that_another_table_lists_are_not_counted(tmp_path):
    rows = flat(tmp_path / "images", 40)
    write(tmp_path / "train.csv", rows[:30])
    write(tmp_path / "val.csv", rows[30:39])
    assert open_data(tmp_path / "train.csv").notes == (
        "val.csv is read as the validation split",
        "1 image in the folders of the table's images is not in the table, such as 'images/039.png'",
    )


@pytest.mark.parametrize("name", ["images.zip", "images.tar.gz"])
def test_a_table_next_to_an_archive_of_its_images_says_to_unpack_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert error(write(tmp_path / "all.csv")).endswith(f"unpack {name!r} next to the table")
