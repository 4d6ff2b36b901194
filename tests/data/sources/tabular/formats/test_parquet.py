"""Images inside Parquet tables are read in place of files, whatever wrote them."""

import io
import json
import pickle

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from tests.data.sources.packing import CLASSES, all_names, content_of, line, tree
from vitreous.data.decoding.images import BadImage, decode_image
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.trees import spool

LABELS = [name.partition("/")[0] for name in CLASSES]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path, images, labels=LABELS, rows=5, **columns):
    """Writes a table in row groups of a few rows."""
    table = {"image": images, "label": labels, **columns}
    parquet.write_table(pyarrow.table(table), path, row_group_size=rows)
    return path


def structs(names=CLASSES):
    return [{"bytes": content_of(name), "path": f"/somewhere/{name}"} for name in names]


@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_images_in_a_column(tmp_path, kind):
    images = structs() if kind == "struct" else [content_of(name) for name in CLASSES]
    data = open_data(write(tmp_path / "all.parquet", images))
    assert data.class_names == ("ant", "bee")
    assert len(all_names(data)) == len(CLASSES)
    assert data.native_size == (6, 10)
    for split in data.splits:
        load = pickle.loads(pickle.dumps(split.load))  # as a worker process has it
        for at, (name, label) in enumerate(zip(split.names, split.labels.tolist(), strict=True)):
            row = int(name.split("/")[1])
            assert load.content(at) == content_of(CLASSES[row])
            assert load(at).tobytes() == decode_image(content_of(CLASSES[row])).tobytes()
            assert data.class_names[label] == LABELS[row]
            assert name.endswith(CLASSES[row].partition("/")[2]) or kind == "binary"


def test_a_table_that_datasets_wrote(tmp_path):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["bee", "ant"])})
    pixels = [Image.open(io.BytesIO(content_of(name))) for name in CLASSES]
    rows = {"image": pixels, "label": [["bee", "ant"].index(label) for label in LABELS]}
    rows["label"][3] = -1
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "train.parquet")
    data = open_data(tmp_path / "train.parquet")
    assert data.class_names == ("ant", "bee")
    assert data.ignored == {"row without a label": 1}
    for split in data.splits:
        for at, name in enumerate(split.names):
            row = int(name.split("/")[1])
            assert data.class_names[split.labels[at]] == LABELS[row]
            assert split.load(at).tobytes() == decode_image(content_of(CLASSES[row])).tobytes()


def named(path, numbers, names):
    """Writes a table with names of label numbers in its schema, as `datasets` does."""
    table = pyarrow.table({"image": structs(), "label": numbers})
    label = {"names": names, "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    return path


def test_classes_of_the_same_name_stay_apart(tmp_path):
    """As the two cranes of ImageNet, a bird and a machine."""
    numbers = [number % 3 for number in range(len(CLASSES))]
    data = open_data(named(tmp_path / "all.parquet", numbers, ["crane", "dog", "crane"]))
    assert data.class_names == ("crane (1)", "crane (2)", "dog")


def test_a_number_without_a_name_is_refused(tmp_path):
    numbers = [-1, 2, *([0, 1] * len(CLASSES))][: len(CLASSES)]
    message = line(named(tmp_path / "all.parquet", numbers, ["ant", "bee"]))
    assert "column 'label' of" in message
    assert "has the label 2, but 2 class names" in message


def test_a_column_of_splits_and_empty_cells(tmp_path):
    images = [None, *structs()[1:]]
    parts = ["test" if number % 4 == 0 else "train" for number in range(len(images))]
    data = open_data(write(tmp_path / "all.parquet", images, split=parts))
    assert len(data.test) == 3
    assert data.ignored == {"row without an image": 1}


def test_tables_of_both_splits(tmp_path):
    write(tmp_path / "train.parquet", structs())
    write(tmp_path / "test.parquet", structs([f"other {name}" for name in CLASSES]))
    data = open_data(tmp_path / "train.parquet")
    assert len(data.test) == len(CLASSES)
    assert data.test.load.content(0) == content_of("other ant/0.png")
    write(tmp_path / "test.parquet", list(CLASSES))
    assert "use the same columns" in line(tmp_path / "train.parquet")


def test_all_parts_of_a_table_are_read(tmp_path):
    for part, names in (("train-00000-of-00002", CLASSES[::2]), ("train-00001-of-00002", CLASSES[1::2])):
        write(tmp_path / f"{part}.parquet", structs(names), LABELS[::2])
    write(tmp_path / "test-00000-of-00001.parquet", structs(["ant/x.png", "bee/y.png"]), ["ant", "bee"])
    data = open_data(tmp_path / "train-00001-of-00002.parquet")
    contents = {split.load.content(at) for split in (data.train, data.validation) for at in range(len(split))}
    assert contents == set(map(content_of, CLASSES))
    assert [data.test.load.content(at) for at in range(2)] == [content_of("ant/x.png"), content_of("bee/y.png")]
    (tmp_path / "train-00000-of-00002.parquet").unlink()
    message = line(tmp_path / "train-00001-of-00002.parquet")
    assert "one of 2 parts, of which 'train-00000-of-00002.parquet' are missing" in message


def test_a_broken_image_is_bad_and_not_the_others(tmp_path):
    images = [b"junk", *(content_of(name) for name in CLASSES[1:])]
    data = open_data(write(tmp_path / "all.parquet", images))
    bad = []
    for split in data.splits:
        for at in range(len(split)):
            try:
                split.load(at)
            except BadImage as error:
                bad.append(error.name)
    assert bad == ["all.parquet/00000000"]


def test_paths_in_a_column_are_files(tmp_path):
    for name in CLASSES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content_of(name))
    data = open_data(write(tmp_path / "all.parquet", CLASSES))
    assert all_names(data) == set(CLASSES)
    options = DataOptions(path_column="where")
    write(tmp_path / "all.parquet", structs(), where=CLASSES)
    assert all_names(open_data(tmp_path / "all.parquet", options)) == set(CLASSES)


def test_paths_without_bytes_are_files(tmp_path):
    tree(tmp_path)
    images = [None, *({"bytes": None, "path": name} for name in CLASSES[1:])]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    data = open_data(write(tmp_path / "all.parquet", pyarrow.array(images, kind)))
    assert all_names(data) == set(CLASSES[1:])
    assert data.ignored == {"row without an image": 1}
    elsewhere = [{"bytes": None, "path": f"/photos/me/{name}"} for name in CLASSES]
    assert "write paths relative to its folder" in line(write(tmp_path / "b.parquet", pyarrow.array(elsewhere, kind)))


def test_several_images_in_a_row_are_refused(tmp_path):
    message = line(write(tmp_path / "all.parquet", [[content_of(name)] * 3 for name in CLASSES]))
    assert "column 'image' of" in message
    assert "holds lists, not one image or path in each row" in message
    message = line(write(tmp_path / "all.parquet", structs(), [[content_of(name)] * 3 for name in CLASSES]))
    assert "are lists, such as a list of 3; " in message


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"x" * 1000])
def test_a_broken_table_is_one_line(tmp_path, content):
    (tmp_path / "all.parquet").write_bytes(content)
    assert "cannot be read as Parquet" in line(tmp_path / "all.parquet")


def test_a_table_that_is_cut_off_inside(tmp_path):
    path = write(tmp_path / "all.parquet", structs())
    content = bytearray(path.read_bytes())
    content[100:3000] = np.random.default_rng(0).bytes(2900)
    path.write_bytes(content)
    assert line(path)


def test_without_pyarrow(tmp_path, fresh_process):
    code = (
        "import sys; sys.modules['pyarrow'] = sys.modules['pyarrow.parquet'] = None\n"
        "from vitreous.data.sources.open import open_data\n"
        f"path = {str(tmp_path / 'all')!r}\n"
        "open(path + '.csv', 'w').write('path,label')\n"
        "open(path + '.parquet', 'w').close()\n"
        "for suffix in ('.csv', '.parquet'):\n"
        "    try: open_data(path + suffix)\n"
        "    except ValueError as error: print(error)\n"
    )
    csv, parquet = fresh_process(code).stdout.splitlines()
    assert "no rows" in csv
    assert "needs pyarrow; pip install '.[data]' in a clone of vitreous" in parquet


def test_what_is_unpacked_is_removed_at_the_end(tmp_path, cache, fresh_process):
    path = write(tmp_path / "all.parquet", structs())
    code = (
        "from pathlib import Path\nfrom vitreous.data.sources.open import open_data\n"
        f"data = open_data({str(path)!r})\n"
        f"print(len(list(Path({str(cache)!r}).rglob('spool-*'))), data.train.load(0).size)\n"
    )
    assert fresh_process(code).stdout.split("\n")[0] == "2 (10, 6)"
    assert not list(cache.rglob("spool-*"))


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path, cache, fresh_process):
    path = write(tmp_path / "all.parquet", structs())
    code = f"import os\nfrom vitreous.data.sources.open import open_data\nopen_data({str(path)!r})\nos._exit(1)\n"
    fresh_process(code)
    left = {file.name for file in cache.rglob("spool-*")}
    assert len(left) == 2
    open_data(path)
    now = {file.name for file in cache.rglob("spool-*")}
    assert not left & now
    open_data(path)
    assert now < {file.name for file in cache.rglob("spool-*")}, "what is in use stays"


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    path = write(tmp_path / "all.parquet", structs())
    monkeypatch.setattr(spool, "RESERVE", 2**60)
    assert "GiB to be unpacked" in line(path)
    assert not list(tmp_path.rglob("spool-*"))


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "XDG_CACHE_HOME" in line(write(tmp_path / "all.parquet", structs()))
