"""Any tree of folders is read alike from disk and from an archive, and is read or refused, never a failure."""

import shutil

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.data.sources.packing import pack, splits_of, tree
from vitreous.data.sources.open import open_data
from vitreous.support.errors import InputError

FOLDERS = [
    "train",
    "Testing",
    "val",
    "dev",
    "eval",
    "@eaDir",
    "runs",
    "cat",
    "dog",
    "Cat",
    "images",
    "fold1",
    "2019",
    ".fox",
    "caf\u00e9",
    "cafe\u0301",
]
FILES = ["0.png", "1.png", "2.png", "notes.txt", "labels.csv", "more.zip", "more.zip.001", "a.jsonl"]
PATHS = st.tuples(st.lists(st.sampled_from(FOLDERS), max_size=4), st.sampled_from(FILES)).map(
    lambda parts: "/".join((*parts[0], parts[1]))
)


def outcome(source):
    """What a source is read as, or why it is refused; without its path, and what to type, which differs."""
    try:
        data = open_data(source)
    except InputError as error:
        return str(error).isprintable(), bool(error.hint), error.cause.replace(str(source), "SOURCE")
    notes = [note.replace(str(source), "SOURCE").partition("; after the training")[0] for note in data.notes]
    notes = [note.partition(", and is not used: after")[0] for note in notes]
    splits = [(split.name, split.names, split.labels.tolist()) for split in splits_of(data)]
    return data.class_names, splits, data.ignored, notes


@settings(max_examples=60, deadline=None)
@given(st.lists(PATHS, min_size=1, max_size=14, unique=True))
@example(["train/cat/0.png", "train/cat/1.png", "train/dog/0.png", "train/0.png", "Testing/0.png"])
@example(["cat/train/0.png", "cat/train/1.png", "cat/val/0.png", "dog/train/0.png", "dog/train/1.png", "dog/val/0.png"])
@example(["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", ".fox/0.png", "cat/.fox/0.png"])
def test_a_folder_and_its_archive_are_read_alike(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("photos")
    try:
        tree(folder, names)
        archive = pack(folder.with_suffix(".zip"), names)
        found = outcome(folder)
        assert found == outcome(archive)
    finally:
        shutil.rmtree(folder)
    if isinstance(found[0], bool):
        printable, has_hint, _ = found
        assert printable
        assert has_hint
    else:
        class_names, splits, _, _ = found
        assert len(class_names) > 1
        assert not {"train", "Testing"} <= set(class_names)
        assert len({name for _, paths, _ in splits for name in paths}) == sum(len(paths) for _, paths, _ in splits)
        for _, paths, labels in splits:
            for path, label in zip(paths, labels, strict=True):
                assert class_names[label].replace("\u00e9", "e\u0301") in path.replace("\u00e9", "e\u0301").split("/")
