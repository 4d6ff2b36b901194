"""Every set of the table is read by torchvision's own class from small files of its format."""

import gzip
import hashlib
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from tests.data.sources.packing import tree
from tests.data.sources.published.making_sets import COUNTS, LEVELS, MAKERS, cifar10, emnist, write_idx
from tests.hub_server import hub_server
from vitreous.data.sources.digits import ArrayLoader
from vitreous.data.sources.names import distinct
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.published.fetching import data_folder
from vitreous.data.sources.published.torchvision_sets import ALIASES, BY_NAME, SETS, suggested
from vitreous.support.errors import InputError
from vitreous.training.planning.plan import is_digits

NAMES = {  # the class names of the small sets that are not those in MAKERS' files
    "mnist": ("0", "1", "2"),
    "qmnist": ("0", "1", "2"),
    "emnist_letters": ("a", "b", "c"),
    "emnist_balanced": ("0", "1", "2"),
    "svhn": ("0", "1", "2"),
    "cifar100": ("airplane", "bird", "cat"),
    "stl10": ("airplane", "bird", "car"),
    "flowers102": ("pink primrose", "hard-leaved pocket orchid", "canterbury bells"),
    "pets": ("Abyssinian", "American Bulldog", "Bengal"),
    "imagenet": ("crane (1)", "crane (2)", "tench"),
    "imagenette": ("tench", "English springer", "cassette player"),
    "gtsrb": ("0", "1", "2"),
    "caltech101": ("ant", "bass", "beaver"),
    "sun397": ("abbey", "apartment_building/outdoor", "zoo"),
    "places365": ("airfield", "alley", "zen_garden"),
    "omniglot": ("Greek/character01", "Greek/character02", "Latin/character01"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def any_checksum(monkeypatch):
    """Small files cannot have the published checksums; everything else is as for real ones."""
    monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda path, md5, **_: True)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_set_is_read_with_its_own_splits(name, any_checksum):
    MAKERS[name](data_folder(name))
    row = BY_NAME[name]
    data = open_data(name, DataOptions(validation_fraction=0.25))
    levels = dict(zip(data.class_names, LEVELS, strict=False))
    assert data.class_names == NAMES.get(name, data.class_names)
    assert (data.name, data.channels, data.flip_ok) == (name, row.channels, row.flip_ok)
    assert {split.name for split in data.splits} == set(row.splits) | {"validation"}
    for split in data.splits:
        assert np.bincount(split.labels, minlength=len(levels)).min() > 0
        order = list(zip(split.labels.tolist(), split.names, strict=True))
        assert order == sorted(set(order)), "each once, and in the same order on every machine"
        load = pickle.loads(pickle.dumps(split.load))
        for place, label in enumerate(split.labels.tolist()):
            mean = np.asarray(load(place).convert("L"), float).mean()
            assert abs(mean - levels[data.class_names[label]]) < 4, split.names[place]
            assert load.size(place) == np.asarray(load(place)).shape[:2]
    batches = 5 if name == "cifar10" else 1
    own = "validation" in row.splits
    train = COUNTS["train"] * batches
    per_class = [train if own else train - max(1, round(train * 0.25)), 2 if own else max(1, round(train * 0.25))]
    assert np.bincount(data.train.labels).tolist() == [per_class[0]] * len(levels)
    assert np.bincount(data.validation.labels).tolist() == [per_class[1]] * len(levels)


def test_every_row_names_a_class_of_torchvision():
    assert {row.name for row in SETS} == set(MAKERS) == set(BY_NAME)
    assert all(hasattr(datasets, row.title) for row in SETS)
    assert set(ALIASES.values()) <= set(BY_NAME)


def test_pixels_stay_one_array_of_bytes(any_checksum):
    cifar10(data_folder("cifar10"))
    data = open_data("cifar10")
    loader = data.train.load
    assert isinstance(loader, ArrayLoader)
    assert (loader.pixels.dtype, loader.pixels.shape) == (np.uint8, (len(data.train), 32, 32, 3))
    assert data.native_size == (32, 32)
    assert loader.content(0) == loader(0).tobytes()


def test_letters_of_emnist_are_upright(any_checksum):
    emnist(data_folder("emnist_letters"), "letters", start=1)
    images = np.zeros((12, 28, 28), np.uint8)
    images[:, :, 0] = 255  # a published image is transposed: this is the top row
    write_idx(data_folder("emnist_letters") / "EMNIST/raw/emnist-letters-train-images-idx3-ubyte", images)
    data = open_data("emnist_letters")
    image = np.asarray(data.train.load(0))
    assert image[0].min() == 255
    assert image[1:].max() == 0
    assert "upright" in data.notes[0]


def test_a_pickle_with_another_checksum_is_not_read(monkeypatch, tmp_path):
    cifar10(data_folder("cifar10"))

    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    (data_folder("cifar10") / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Harmful()))
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/none.tar.gz")
    with pytest.raises(InputError, match="cannot download cifar10"):
        open_data("cifar10")
    assert not (tmp_path / "harm").exists()


def archive_of(folder, path):
    with tarfile.open(path, "w:gz") as archive:
        for entry in folder.iterdir():
            archive.add(entry, entry.name)
    return path.read_bytes()


@pytest.fixture
def published(tmp_path, monkeypatch, any_checksum):
    """The small CIFAR-10 as an archive on a server, with its checksum; its extracted files are not checked."""
    cifar10(tmp_path / "made")
    content = archive_of(tmp_path / "made", tmp_path / "cifar.tar.gz")
    digest = hashlib.md5(content).hexdigest()

    def check(path, md5, **_):
        return md5 != digest or hashlib.md5(Path(path).read_bytes()).hexdigest() == digest

    monkeypatch.setattr("torchvision.datasets.utils.check_md5", check)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", digest)
    with hub_server() as server:
        server.pages["/cifar-10-python.tar.gz"] = content
        monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.address}/cifar-10-python.tar.gz")
        yield server


def downloads(server):
    return [request for request in server.requests if "cifar" in request and request.startswith("GET")]


def test_a_set_is_downloaded_once(published, capsys):
    assert len(open_data("cifar10").class_names) == 3
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "cifar10: downloading to" in printed.err
    assert not printed.out
    assert not (data_folder("cifar10") / ".partial").exists()
    before = downloads(published)
    assert open_data("cifar10").train.names
    assert downloads(published) == before
    assert not capsys.readouterr().err


def test_half_an_extraction_is_not_taken_for_a_set(published, monkeypatch):
    def interrupted(*_):
        (data_folder("cifar10") / ".partial" / "cifar-10-batches-py").mkdir()
        (data_folder("cifar10") / ".partial" / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
        (data_folder("cifar10") / ".partial" / "cifar-10-batches-py" / "left.txt").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.utils._extract_tar", interrupted)
        patch.setitem(datasets.utils._ARCHIVE_EXTRACTORS, ".tar", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_data("cifar10")
    assert not (data_folder("cifar10") / "cifar-10-batches-py").exists()
    requests = len(downloads(published))
    assert len(open_data("cifar10").train) == 54
    assert len(downloads(published)) == requests, "the archive is whole, and kept"
    assert not (data_folder("cifar10") / "cifar-10-batches-py" / "left.txt").exists()


def test_a_broken_download_leaves_nothing(published):
    published.pages["/cifar-10-python.tar.gz"] = gzip.compress(b"something else")
    with pytest.raises(InputError, match=r"cannot download cifar10: .*corrupted") as error:
        open_data("cifar10")
    assert str(data_folder("cifar10")) in error.value.hint
    assert not (data_folder("cifar10") / "cifar-10-batches-py").exists()


def test_an_archive_placed_by_hand_is_used_without_a_network(published, tmp_path):
    published.pages.clear()
    folder = data_folder("cifar10")
    folder.mkdir(parents=True)
    (folder / "cifar-10-python.tar.gz").write_bytes((tmp_path / "cifar.tar.gz").read_bytes())
    assert len(open_data("cifar10").train) == 54
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
    ]


def test_without_a_network_the_hint_says_what_to_put_where(monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(InputError) as error:
        open_data("cifar10")
    assert str(error.value).isprintable()
    assert error.value.cause == "cannot download cifar10: Connection refused"
    assert all(word in error.value.hint for word in (str(data_folder("cifar10")), "cifar-10-python.tar.gz", "toronto"))


@pytest.mark.parametrize("name", ["imagenet", "stanford_cars"])
def test_a_set_that_cannot_be_downloaded_says_what_to_put_where(name):
    with pytest.raises(InputError, match=f"{name} cannot be downloaded") as error:
        open_data(name)
    assert BY_NAME[name].files in error.value.hint


def test_files_that_are_not_as_published_are_an_error(any_checksum):
    cifar10(data_folder("cifar10"))
    meta = data_folder("cifar10") / "cifar-10-batches-py" / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": ["airplane", "bird"]}))
    with pytest.raises(InputError, match="labels from 0 to 2, but 2 class names"):
        open_data("cifar10")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("cifar-10", "cifar10"), ("CIFAR10", "cifar10"), ("food-101", "food101"), ("oxford_pets", "pets"),
        ("FashionMNIST", "fashion_mnist"), ("ImageNet-1k", "imagenet"), ("emnist", "emnist_letters"),
        ("cifra10", "cifar10"), ("flower102", "flowers102"),
    ],
)  # fmt: skip
def test_another_spelling_is_suggested(typed, meant):
    assert suggested(typed) == meant
    with pytest.raises(InputError, match=f"did you mean '?{meant}"):
        open_data(typed)


def test_a_path_has_no_suggestion():
    assert suggested("photos/cats") is None


def test_class_names_are_distinct():
    assert distinct([("crane",), ("crane",), ("maillot",), ("maillot", "tank suit"), ("a", "b")]) == [
        "crane (1)",
        "crane (2)",
        "maillot",
        "maillot, tank suit",
        "a",
    ]


def test_a_folder_of_the_same_name_is_ambiguous(any_checksum, monkeypatch, tmp_path):
    cifar10(data_folder("cifar10"))
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "cifar10")
    with pytest.raises(InputError, match=r"type ./cifar10 for the folder, or set:cifar10"):
        open_data("cifar10")
    assert open_data("./cifar10").class_names == ("ant", "bee")
    assert open_data(Path("cifar10")).class_names == ("ant", "bee")
    assert open_data("set:cifar10").class_names == ("airplane", "bird", "cat")
    assert not is_digits("set:cifar10")
    with pytest.raises(InputError, match="did you mean 'cifar10'"):
        open_data("set:cifar-10")


@pytest.mark.parametrize("name", ["timm:vit_base_patch16_224", "google:ViT-B_16", "torchvision:vit_b_16"])
def test_weights_are_not_images(name):
    with pytest.raises(InputError, match="names weights, not images; give images as DATA, and --model"):
        open_data(name)
