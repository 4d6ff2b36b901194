"""Shards give the samples that WebDataset's own reader gives, in the right splits and classes."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from webdataset import tariterators

from tests.data.sources.packing import content_of, tree
from vitreous.data.decoding.images import BadImage
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.published import shard_names
from vitreous.data.sources.published.shard_names import expand_braces, split_of_shard
from vitreous.data.sources.published.shards import label_in_json, label_in_text
from vitreous.support.errors import InputError


def write(path, *files):
    """Writes a shard; a value is text, bytes, a dict for JSON, or None for an image of that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, value in files:
            content = content_of(name) if value is None else value
            content = json.dumps(content) if isinstance(content, dict) else content
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(start, labels, suffix="cls", image="png"):
    """The files of one sample for each label."""
    for number, label in enumerate(labels, start):
        yield f"{number:06}.{image}", None
        yield f"{number:06}.{suffix}", label


def folder_of(folder, *names, labels=("0", "1", "2"), count=4, **options):
    """A folder with a shard of each name."""
    for place, name in enumerate(names):
        write(folder / name, *samples(100 * place, labels * count, **options))
    return folder


def line(source):
    with pytest.raises(InputError) as error:
        open_data(source)
    assert str(error.value).isprintable()
    assert error.value.hint
    return str(error.value)


def count(data):
    return {split.name: np.bincount(split.labels, minlength=len(data.class_names)).tolist() for split in data.splits}


def test_samples_are_those_of_webdataset(tmp_path):
    folder = folder_of(tmp_path / "shards", "train-000.tar", "train-001.tar", "val-000.tar")
    data = open_data(str(folder))
    ours = {}
    for split in data.splits:
        load = pickle.loads(pickle.dumps(split.load))
        for place, label in enumerate(split.labels.tolist()):
            ours[split.name, split.names[place]] = load.content(place), int(data.class_names[label])
    theirs = {}
    for shard in ("train-000.tar", "train-001.tar", "val-000.tar"):
        split = "train" if "train" in shard else "validation"
        with (folder / shard).open("rb") as file:  # its own opener leaves files open
            stream = tariterators.tar_file_expander([{"url": shard, "stream": file}])
            for sample in tariterators.group_by_keys(stream):
                theirs[split, f"{shard}/{sample['__key__']}.png"] = sample["png"], int(sample["cls"])
    assert ours == theirs
    assert len(ours) == 36


def test_image_pixels_are_those_of_the_label(tmp_path):
    data = open_data(str(folder_of(tmp_path, "train-0.tar")))
    for split in data.splits:
        for place, name in enumerate(split.names):
            assert split.load.content(place) == content_of(name.partition("/")[2])
            assert split.load(place).size == (10, 6)
    assert data.native_size == (6, 10)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train-000.tar", "val-000.tar", "test-000.tar"), {"train", "validation", "test"}),
        (("train_shard_0.tar", "val_shard_0.tar"), {"train", "validation"}),
        (("imagenet-train-000123.tar", "imagenet-val-000001.tar"), {"train", "validation"}),
        (("train/0.tar", "train/1.tar", "test/0.tar"), {"train", "validation", "test"}),
        (("000.tar", "001.tar"), {"train", "validation"}),
    ],
)
def test_splits_are_in_the_names(tmp_path, names, splits):
    data = open_data(str(folder_of(tmp_path / "s", *names)))
    assert {split.name for split in data.splits} == splits
    for split in data.splits:
        words = {"train": "train", "validation": "val", "test": "test"}
        if len(names) > 2 or "val" in names[1]:
            assert all(words[split.name] in name or "val" not in str(names) for name in split.names)
    assert any("mean no split" in note for note in data.notes) == (names[0] == "000.tar")


def test_some_shards_without_a_split_are_refused(tmp_path):
    assert "'train-0.tar' does" in line(str(folder_of(tmp_path, "train-0.tar", "more-0.tar"))).replace(
        f"{tmp_path}/", ""
    )
    with pytest.raises(InputError, match="means test and train"):
        split_of_shard("cats-train-test-000.tar")
    assert split_of_shard("trainval-000.tar") == "train"


def test_a_pattern_is_opened_like_its_folder(tmp_path, monkeypatch):
    folder_of(tmp_path / "s", *(f"train-{number:03}.tar" for number in range(8, 12)), "val-000.tar")
    whole = open_data(str(tmp_path / "s"))
    pattern = open_data(f"{tmp_path}/s/{{train-{{008..011}},val-000}}.tar")
    assert count(pattern) == count(whole)
    assert [split.names for split in pattern.splits] == [split.names for split in whole.splits]
    monkeypatch.chdir(tmp_path)
    assert len(open_data("s/train-0*.tar").train) == 48 - 3 * 2
    assert "1 of the 5 shards" in line("s/train-{008..012}.tar")
    assert "no file matches" in line("s/none-*.tar")


def test_braces_expand_as_in_a_shell(monkeypatch):
    assert expand_braces("a-{8..11}.tar") == ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("a-{08..11}{x,y}") == [f"a-{n:02}{x}" for n in range(8, 12) for x in "xy"]
    assert expand_braces("{a,b{1..2}}.tar") == ["a.tar", "b1.tar", "b2.tar"]
    assert expand_braces("{2..0}") == ["2", "1", "0"]
    for wrong in ("{0..9", "{abc}.tar", "{0..999999999}", "{0..999}{0..999}"):
        with pytest.raises(InputError):
            expand_braces(wrong)


@pytest.mark.parametrize(
    ("suffix", "values"),
    [
        ("cls", ("0", "1", "2")),
        ("cls", ("00", "01\n", "002")),
        ("json", ({"label": 0, "caption": "x"}, {"label": 1}, {"label": 2})),
        ("txt", ("0", "1", "2")),
    ],
)
def test_labels_are_in_files_of_these_kinds(tmp_path, suffix, values):
    data = open_data(str(folder_of(tmp_path, "train-0.tar", labels=values, suffix=suffix)))
    assert data.class_names == ("0", "1", "2")
    assert count(data) == {"train": [3, 3, 3], "validation": [1, 1, 1]}


def test_one_class_has_one_name(tmp_path):
    files = [*samples(0, ["1", "01", "1\n", "2", "02"] * 2), *samples(20, ["cafe\u0301", "caf\u00e9"])]
    data = open_data(str(write(tmp_path / "train-0.tar", *files)))
    assert data.class_names == ("1", "2", "caf\u00e9")


def test_numbers_get_the_names_next_to_the_shards(tmp_path):
    folder = folder_of(tmp_path / "s", "train-0.tar", labels=("2", "0", "10"))
    (folder / "classnames.txt").write_text("\n".join(["zebra", "b", "ant", *"defghij", "bee"]) + "\n")
    data = open_data(str(folder))
    assert data.class_names == ("zebra", "ant", "bee")
    assert "class names are from classnames.txt" in data.notes
    assert data.ignored == {"txt file next to the shards": 1}
    (folder / "classnames.txt").write_text("zebra\nb\n")
    assert "has 2 class names, but there are labels up to 10" in line(str(folder))
    (folder / "classnames.txt").write_text("zebra\nb\n\n" + "\n".join("cdefghij") + "\n")
    assert "classnames.txt' is empty, so label 2 has no name" in line(str(folder))


def test_a_shard_that_is_cut_off_between_samples_is_noted(tmp_path):
    folder = folder_of(tmp_path, "train-0.tar", "train-1.tar")
    assert not open_data(str(folder)).notes
    shard = folder / "train-1.tar"
    with tarfile.open(shard) as archive:
        end = archive.getmembers()[12].offset
    shard.write_bytes(shard.read_bytes()[:end])
    assert open_data(str(folder)).notes == ("train-1.tar has no mark at its end, so it may be cut off",)


def test_the_plain_image_of_a_sample_is_used(tmp_path):
    files = []
    for number in range(8):
        key = f"{number:04}"
        files += [(f"{key}.depth.png", None), (f"{key}.jpg", None), (f"{key}.cls", str(number % 2))]
    for number in range(8, 12):
        key = f"{number:04}"
        files += [(f"{key}.rgb.png", None), (f"{key}.cls", str(number % 2))]
    files += [("0100.jpg", None), ("0100.png", None), ("0100.cls", "1")]  # which?
    files += [("0101.jpg", None)]
    files += [("0102.cls", "1")]
    files += [("0103.jpg", None), ("0103.cls", "-1")]
    data = open_data(str(write(tmp_path / "train-0.tar", *files)))
    names = {name.partition("/")[2] for split in data.splits for name in split.names}
    assert names == {f"{n:04}.jpg" for n in range(8)} | {f"{n:04}.rgb.png" for n in range(8, 12)}
    assert data.ignored == {"sample without one image": 2, "sample without a label": 2}


def test_captions_are_not_classes(tmp_path):
    captions = tuple(f"a photo of thing {number}" for number in range(12))
    folder = folder_of(tmp_path, "train-0.tar", labels=captions, count=1, suffix="txt")
    assert "captions, not classes: 12 texts for 12 images" in line(str(folder))


def test_a_split_without_labels_is_named(tmp_path):
    folder = folder_of(tmp_path, "train-0.tar")
    write(folder / "test-0.tar", *[(f"{number}.png", None) for number in range(4)])
    data = open_data(str(folder))
    assert data.test is None
    assert "test has no labels, so it is not used" in data.notes
    assert data.ignored == {"sample without a label": 4}


def test_class_folders_are_not_shards(tmp_path):
    tree(tmp_path / "photos")
    write(tmp_path / "photos" / "old.tar", *samples(0, ["0", "1"]))
    assert open_data(str(tmp_path / "photos")).class_names == ("ant", "bee")
    files = [(f"{name}/{number}.png", None) for name in ("ant", "bee") for number in range(4)]
    files += [(name.replace(".png", ".txt"), "a note") for name, _ in files]
    write(tmp_path / "folders.tar", *files)
    assert shard_names.find_shards(str(tmp_path / "folders.tar")) is None
    inside = write(tmp_path / "inside.tar", *[(f"a/{name}", value) for name, value in samples(0, ["0", "1"] * 4)])
    assert open_data(str(inside)).class_names == ("0", "1")


def test_a_shard_that_changes_costs_its_images(tmp_path):
    data = open_data(str(folder_of(tmp_path, "train-0.tar")))
    write(tmp_path / "train-0.tar", *samples(7, ["1", "0"]))
    with pytest.raises(BadImage, match="the archive has changed"):
        data.train.load(0)


def test_a_file_again_replaces_the_earlier_one(tmp_path):
    files = [*samples(0, ["0", "1"] * 4), ("000000.cls", "1"), ("000001.cls", "0")]
    data = open_data(str(write(tmp_path / "train-0.tar", *files)), DataOptions(validation_fraction=0.01))
    assert data.ignored == {"file that a later one of its name in the shard replaces": 2}
    labels = {name[-10:]: int(label) for split in data.splits for name, label in zip(split.names, split.labels)}  # noqa: B905
    assert (labels["000000.png"], labels["000001.png"]) == (1, 0)


@pytest.mark.parametrize("source", ["https://host/train-{000..009}.tar", "s3://bucket/a.tar", "pipe:curl x"])
def test_shards_elsewhere_are_to_be_downloaded_first(source):
    assert "is not on this machine; download it" in line(source)


def test_labels_in_files_nobody_vouches_for():
    assert [label_in_text(content) for content in (b"\xff\x00", b"\x80\x04K\x01.", b"\x89PNG\r\n\x1a\n")] == [None] * 3
    assert [label_in_text(text.encode("utf-8")) for text in ("1.0", "01", "1.", "1.5", "-1.0")] == [
        *("1", "1", "1", "1.5", None)
    ]
    assert label_in_text("crème".encode("cp1252")) == label_in_text("crème".encode()) == "crème"
    assert label_in_json(b'{"label": 2.0}') == "2"
    assert label_in_text(b"9" * 400) == "9" * 400
    assert label_in_text(b"  two   words\n") == "two words"
    assert label_in_text(b"") is None
    assert label_in_json(b"[" * 100_000) is None
    for value in (b"[1]", b'{"label": true}', b'{"label": 1.5}', b'{"label": null}', b"{}", b"\xff"):
        assert label_in_json(value) is None
    assert label_in_json(b'{"class": "cat"}') == "cat"


def test_links_out_of_a_folder_are_followed_on_request(tmp_path):
    folder_of(tmp_path / "elsewhere", "train-0.tar")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "train-0.tar").symlink_to(tmp_path / "elsewhere" / "train-0.tar")
    assert "is a link out of the folder" in line(str(tmp_path / "s"))
    assert len(open_data(str(tmp_path / "s"), DataOptions(follow_links=True)).train) == 9
    assert len(open_data(f"{tmp_path}/s/train-{{0..0}}.tar").train) == 9, "named by the user"


def test_a_folder_with_other_folders_is_not_one_of_shards(tmp_path):
    folder_of(tmp_path / "s" / "train", "0.tar")
    assert shard_names.find_shards(str(tmp_path / "s")) is not None
    tree(tmp_path / "s" / "train")
    assert shard_names.find_shards(str(tmp_path / "s")) is None
    assert shard_names.find_shards(str(tmp_path / "none")) is None
    write(tmp_path / "plain" / "a.tar", ("notes.txt", "x"))
    assert shard_names.find_shards(str(tmp_path / "plain")) is None


@pytest.mark.parametrize("pattern", [False, True])
def test_keys_with_dots_are_named(tmp_path, pattern):
    files = [(f"v1.{number}.{suffix}", value) for number in range(4) for suffix, value in (("jpg", None), ("cls", "0"))]
    shard = write(tmp_path / "s" / "train-0.tar", *files)
    message = line(str(shard if pattern else tmp_path / "s"))
    assert "'v1.0.jpg' and 'v1.0.cls' in" in message
    assert "without dots in keys, as v1_0.jpg" in message


@pytest.mark.parametrize("names", [("train/sub/0.tar",), ("part1/0.tar", "part2/0.tar"), ("a/b/0.tar", "a/c/0.tar")])
def test_shards_deeper_inside_are_named(tmp_path, names):
    message = line(str(folder_of(tmp_path / "s", *names)))
    assert f"has shards in folders inside it, such as {names[0]!r}; move them to train/" in message


def test_the_only_folder_of_a_split_is_that_split(tmp_path):
    data = open_data(str(folder_of(tmp_path / "s", "train/0.tar", "extra/0.tar")))
    assert (data.notes, data.ignored) == ((), {"folder next to the shards: extra": 1})
    assert "has shards for validation, but none to train on" in line(str(folder_of(tmp_path / "t", "val/0.tar")))


def test_eval_next_to_dev_is_test(tmp_path):
    data = open_data(str(folder_of(tmp_path / "s", "train-0.tar", "dev-0.tar", "eval-0.tar")))
    assert {split.name: split.names[0].split("-")[0] for split in data.splits} == {
        "train": "train",
        "validation": "dev",
        "test": "eval",
    }
    assert data.notes == ("'eval-0' is used as the test split",)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("train-000", "train-002", "val-0"), "1 shard seems to be missing: 'train-001.tar'"),
        (("train-1", "train-2", "train-3"), ""),
        (("train-0-of-3", "val-0-of-1", "train-1-of-3"), "1 shard seems to be missing: 'train-2-of-3.tar'"),
        (("train-20240101", "train-20250101"), ""),
        (
            ("train-0", "train-3", "train-4", "train-6"),
            "3 shards seem to be missing: 'train-1.tar', 'train-2.tar', 'train",
        ),
    ],
)
@pytest.mark.parametrize("pattern", ["", "/*.tar"])
def test_a_gap_in_the_numbers_of_shards_is_noted(tmp_path, names, note, pattern):
    folder = folder_of(tmp_path, *(f"{name}.tar" for name in names))
    notes = open_data(f"{folder}{pattern}").notes
    assert any(each.startswith(note) for each in notes) if note else notes == ()
