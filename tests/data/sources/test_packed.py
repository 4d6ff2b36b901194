"""Names as loading processes have them."""

import os
import pickle

from tests.data.sources.packing import tree
from vitreous.data.decoding.images import DEFAULT
from vitreous.data.sources.packed import PackedNames
from vitreous.data.sources.trees.folders import FileLoader

NAMES = ("a/1.png", "", "b/\u00e9t\u00e9.png", "猫/🐈.png", os.fsdecode(b"c/\xff\xfe.png"))


def test_packed_names_are_the_names_of_any_file():
    packed = pickle.loads(pickle.dumps(PackedNames(NAMES)))
    assert len(packed) == len(NAMES)
    assert tuple(packed[index] for index in range(len(NAMES))) == NAMES
    assert len(PackedNames(())) == 0


def test_a_loader_has_packed_names_in_another_process(tmp_path):
    folder = tree(tmp_path / "photos", ("ant/1.png", "bee/2.png"))
    load = FileLoader(("ant/1.png", "bee/2.png"), DEFAULT, str(folder))
    for times in (1, 2):
        sent = load
        for _ in range(times):
            sent = pickle.loads(pickle.dumps(sent))
        assert isinstance(sent.names, PackedNames)
        assert [sent.file(index) for index in range(2)] == [load.file(index) for index in range(2)]
        assert sent(1).tobytes() == load(1).tobytes()
    assert load.names == ("ant/1.png", "bee/2.png"), "here they stay"
