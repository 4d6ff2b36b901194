"""Map-style datasets from Python: labels without decoding, splits without leaks, images of every kind."""

import pickle

import datasets as hugging_face
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, random_split

import vitreous as vt
from tests.data.sources.packing import CLASSES, all_names, content_of, tree
from tests.data.sources.tabular.squares import Squares, check, error, rows_of, tensor_of
from vitreous.data.decoding.images import decode_image
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.support.errors import InputError

FORMS = {
    "pair": lambda image, label: (image, label),
    "more": lambda image, label: (image, label, "more"),
    "dict": lambda image, label: {"label": label, "image": image},
    "other keys": lambda image, label: {"img": image, "target": label},
    "array": lambda image, label: (np.asarray(image), label),
    "tensor": lambda image, label: (tensor_of(image), label),
    "numpy label": lambda image, label: (image, np.int64(label)),
    "tensor label": lambda image, label: (image, torch.tensor(label)),
    "label in a list of one": lambda image, label: (image, np.array([label])),
    "whole float": lambda image, label: (image, float(label)),
    "transparent": lambda image, label: (image.convert("RGBA"), label),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_samples(form):
    squares = Squares(form=FORMS[form])
    data = open_data(squares)
    check(data, squares)
    assert data.name == "squares"
    assert data.native_size == (8, 6)
    assert data.class_names == ("0", "1")


@pytest.mark.parametrize("form", ["text", "bool"])
def test_labels_that_are_not_numbers(form):
    names = {"text": "ab", "bool": (False, True)}[form]
    squares = Squares(form=lambda image, label: (image, names[label]))
    check(open_data(squares), squares, lambda number: str(names[number]))


def test_text_labels_are_in_natural_order():
    squares = Squares(24, 12, lambda image, label: (image, f"class {label}"))
    assert open_data(squares).class_names == tuple(f"class {number}" for number in range(12))


def test_a_list_of_pairs_is_a_dataset():
    squares = Squares()
    check(open_data([squares[number] for number in range(12)]), squares)


def test_gray_and_deep_images():
    deep = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1365
    samples = [(deep, 0), (Image.fromarray((deep >> 8).astype(np.uint8)), 1), (deep[None], 0), (deep >> 8 << 8, 1)]
    rows = rows_of(open_data([*samples, *samples]))
    assert all(pixels.shape == (6, 8, 3) for pixels, _ in rows.values())
    assert np.array_equal(rows[0][0], rows[2][0])
    assert rows[0][0].max() == round(47 * 1365 / 257)
    narrow = rows_of(open_data([*samples, *samples], DataOptions(max_value=4095)))
    assert narrow[0][0].max() == 255


def test_paths_and_bytes_are_decoded(tmp_path):
    tree(tmp_path)
    for images in ([tmp_path / name for name in CLASSES], list(map(content_of, CLASSES))):
        data = open_data([(image, name[:3]) for image, name in zip(images, CLASSES, strict=True)])
        for number, (pixels, class_name) in rows_of(data).items():
            assert np.array_equal(pixels, np.asarray(decode_image(content_of(CLASSES[number]))))
            assert class_name == CLASSES[number][:3]


# ---- labels without decoding


@pytest.mark.parametrize("attribute", ["targets", "labels", "_labels"])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_labels_are_taken_from_a_list(attribute, kind):
    squares = Squares(200)
    setattr(squares, attribute, kind(squares.numbers))
    data = open_data(squares)
    assert len(set(squares.decoded)) < 60, "a few to compare the labels with, and a few sizes"
    check(data, squares)


def test_a_list_that_differs_from_the_samples_is_not_used():
    squares = Squares(200, targets=[1] * 200)
    check(open_data(squares), squares)


@pytest.mark.parametrize("names", [None, ["a", "b"]])
def test_samples_without_a_label_are_left_out(names):
    squares = Squares(form=lambda image, label: (image, label - 1), classes=3)
    squares.classes = names
    data = open_data(squares)
    assert data.class_names == (("a", "b") if names else ("0", "1"))
    assert data.ignored == {"row without a label": 4}
    assert data.notes == (() if names else ("the label -1 means no label",))


def test_minus_one_and_one_are_two_classes():
    signs = Squares(form=lambda image, label: (image, 2 * label - 1))
    check(open_data(signs), signs, lambda number: str(2 * number - 1))
    tensors = TensorDataset(torch.zeros(8, 3, 8, 6, dtype=torch.uint8), torch.tensor([-1, 1] * 4))
    assert open_data(tensors).class_names == ("1", "-1")
    assert "are '0' and -1, and -1 means no label" in error(Squares(form=lambda image, label: (image, -label)))


def test_a_sample_that_fails_is_left_out_and_named():
    class Broken(Squares):
        def __getitem__(self, index):
            if index == 5:
                raise OSError("no such image")
            return super().__getitem__(index)

    data = open_data(Broken())
    assert data.notes == ("train: 1 sample left out as unreadable: 5 (OSError: no such image)",)
    assert not data.ignored
    assert len(all_names(data)) == 11

    class Empty(Squares):
        def __getitem__(self, index):
            raise OSError("no such image")

    assert "no sample of 'empty' can be read: OSError: no such image" in error(Empty())


# ---- what is refused


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda image, label: (tensor_of(image) / 255, label), "remove ToTensor, ToDtype and Normalize"),
        (lambda image, label: (np.asarray(image) / 255, label), "array of floats"),
        (lambda image, label: (tensor_of(image).int(), label), "uint8"),
        (lambda image, label: (image, [0, 1]), "(list)"),
        (lambda image, label: (image, np.eye(2)[label]), "vector of 2 numbers"),
        (lambda image, label: (image, torch.eye(2)[label]), "vector of 2 numbers"),
        (lambda image, label: (image, 0.5), "(float)"),
        (lambda image, label: (image, label - 5), "a label is -5"),
        (lambda image, label: (image, 0), "one class"),
        (lambda image, label: image, "a sample is (image, label)"),
        (lambda image, label: {"image": image}, "no column of labels"),
        (lambda image, label: (object(), label), "an image is of the type object"),
    ],
)
def test_samples_that_cannot_be_used(form, words):
    assert words in error(Squares(form=form))


def test_sources_that_cannot_be_used():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from Squares()

    assert "from start to end" in error(Stream())
    assert "int" in error(5)
    assert "empty" in error([])
    assert "not 'train'" in error({"a": Squares()})
    assert "not 'train'" in error({})
    assert "tuple of 1" in error((Squares(),))
    assert "two keys" in error({"train": Squares(), "val": Squares(), "valid": Squares()})
    stream = hugging_face.IterableDataset.from_generator(lambda: iter([{"image": 1, "label": 2}]))
    assert "from start to end" in error(stream)


# ---- splits


def test_a_tuple_and_a_dict_of_splits():
    train, validation, test = Squares(12), Squares(10), Squares(8)
    for source in ((train, validation, test), {"Test": test, "train": train, "val": validation}):
        data = open_data(source)
        assert [len(split) for split in data.splits] == [12, 10, 8]
        for part, name in zip((train, validation, test), ("train", "validation", "test"), strict=True):
            check(data, part, source=name)
    assert open_data((train, validation)).test is None
    data = open_data({"train": train, "unsupervised": test})
    assert data.notes == ("not used, since their names are not splits: 'unsupervised'",)


def test_labels_are_matched_by_class_name():
    train, test = Squares(12), Squares(10)
    train.classes, test.classes = ["a", "b"], ["b", "a"]
    data = open_data({"train": train, "test": test})
    check(data, train, lambda number: "ab"[number])
    check(data, test, lambda number: "ba"[number], source="test")
    test.classes = ["a", "c"]
    assert "'c' in test but not in train" in error({"train": train, "test": test})


def test_a_test_split_without_labels_is_left_out():
    data = open_data({"train": Squares(12), "test": Squares(8, form=lambda image, label: (image, -1))})
    assert data.test is None
    assert [note.partition(";")[0] for note in data.notes] == [
        "the label -1 means no label",
        "test has no labels and is left out",
    ]
    assert not data.ignored


def test_parts_of_a_dataset():
    squares = Squares(40)
    squares.targets, squares.classes = squares.numbers, ["a", "b"]
    train, test = random_split(squares, [30, 10])
    data = open_data((train, test))
    for part, name in ((train, "train"), (test, "validation")):
        for number, (pixels, class_name) in rows_of(data, name).items():
            assert np.array_equal(pixels, squares.pixels[part.indices[number]])
            assert class_name == "ab"[squares.numbers[part.indices[number]]]
    assert data.name == "squares"


def test_a_sample_in_two_splits_is_a_leak():
    squares = Squares(40)
    assert "40 samples" in error((squares, squares))
    assert "in both train and validation, such as 7" in error((Subset(squares, range(8)), Subset(squares, [7, 9, 10])))
    nested = Subset(Subset(squares, range(20, 40)), [0, 1, 2, -1])
    assert "such as 39" in error((Subset(squares, [1, 2, 39]), nested))
    joined = Subset(ConcatDataset([Squares(10), squares]), [3, 12, 13])
    assert "such as 2" in error((joined, Subset(squares, [0, 1, 2])))
    assert open_data((Subset(squares, range(20)), Subset(squares, range(20, 40))))


def test_joined_datasets():
    one, two = Squares(12), Squares(10)
    rows = rows_of(open_data(ConcatDataset([one, two])))
    for number, (pixels, _) in rows.items():
        assert np.array_equal(pixels, one.pixels[number] if number < 12 else two.pixels[number - 12])


def test_tensors():
    squares = Squares()
    pixels = torch.from_numpy(squares.pixels.transpose(0, 3, 1, 2).copy())
    check(open_data(TensorDataset(pixels, torch.tensor(squares.numbers))), squares)


# ---- libraries


def test_torchvision_reads_labels_of_a_folder(tmp_path):
    data = open_data(torchvision.datasets.ImageFolder(tree(tmp_path)))
    assert data.class_names == ("ant", "bee")
    for number, (pixels, class_name) in rows_of(data).items():
        assert np.array_equal(pixels, np.asarray(decode_image(content_of(CLASSES[number]))))
        assert class_name == CLASSES[number][:3]
    transform = torchvision.transforms.ToTensor()
    assert "remove ToTensor" in error(torchvision.datasets.ImageFolder(tmp_path, transform))


@pytest.fixture
def hub_set():
    rows = [(content_of(name), number % 2) for number, name in enumerate(CLASSES)]
    features = hugging_face.Features({"img": hugging_face.Image(), "kind": hugging_face.ClassLabel(names=["b", "a"])})
    columns = {"img": [{"bytes": image, "path": None} for image, _ in rows], "kind": [kind for _, kind in rows]}
    return hugging_face.Dataset.from_dict(columns, features)


def test_hugging_face_sets(hub_set):
    options = DataOptions(label_column="kind")
    data = open_data(hub_set, options)
    assert data.class_names == ("b", "a")
    for number, (pixels, class_name) in rows_of(data).items():
        assert np.array_equal(pixels, np.asarray(decode_image(content_of(CLASSES[number]))))
        assert class_name == "ba"[number % 2]
    assert data.train.load.content(0) in map(content_of, CLASSES), "the file, not decoded and encoded again"
    parts = hugging_face.DatasetDict(hub_set.train_test_split(0.25, seed=0))
    data = open_data(parts, options)
    assert len(data.test) == 4
    shuffled = open_data(hub_set.shuffle(seed=1).with_format("torch"), options)
    assert sorted(pixels.sum() for pixels, _ in rows_of(shuffled).values()) == sorted(
        np.asarray(decode_image(content_of(name))).sum() for name in CLASSES
    )
    assert "no column of labels" in error(hub_set.rename_column("kind", "what").add_column("more", [0] * 16))


def test_splits_by_number_have_the_names_of_the_set(hub_set):
    numbers = [-1, *(number // 10 for number in range(1, len(CLASSES)))]
    features = hugging_face.Features(hub_set.features | {"split": hugging_face.ClassLabel(names=["train", "test"])})
    with_splits = hub_set.add_column("split", numbers).cast(features)
    data = open_data(with_splits, DataOptions(label_column="kind"))
    assert [len(split) for split in data.splits] == [7, 2, 6]
    assert "1 row left out, where 'split' is not a split" in data.notes[0]


def test_several_images_in_a_sample_are_refused():
    images = [[Image.new("RGB", (4, 4))] * 2] * 4
    features = hugging_face.Features(
        {"images": hugging_face.Sequence(hugging_face.Image()), "label": hugging_face.Value("int64")}
    )
    message = error(hugging_face.Dataset.from_dict({"images": images, "label": [0, 1, 0, 1]}, features))
    assert message.startswith("an image is of the type list; ")


def test_hugging_face_labels_are_read_without_images(hub_set, monkeypatch):
    monkeypatch.setattr(hugging_face.Image, "decode_example", lambda *_, **__: pytest.fail("an image is decoded"))
    open_data(hub_set)


def test_it_can_be_pickled_for_workers():
    pictures = map(Image.fromarray, Squares().pixels)
    data = open_data(list(zip(pictures, "ab" * 6, strict=True)))
    load = pickle.loads(pickle.dumps(data.train.load))
    assert load(0).tobytes() == data.train.load(0).tobytes()


def test_train_takes_datasets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"epochs": 1, "batch_size": 8, "warmup_epochs": 0, "image_size": 16, "patch_size": 8}
    squares = Squares(16)
    classifier = vt.train((squares, Squares(8), Squares(6)), "Ti/16", settings=settings)
    assert classifier.class_names == ("0", "1")
    assert (tmp_path / "runs" / "squares" / "model.safetensors").is_file()


@pytest.mark.parametrize("length", [-3, "three"])
def test_a_dataset_without_a_usable_length_is_one_line(length):
    class Odd(Dataset):
        def __len__(self):
            return length

        def __getitem__(self, index):
            raise IndexError

    with pytest.raises(InputError, match="the length of the Odd cannot be used"):
        open_data(Odd())
