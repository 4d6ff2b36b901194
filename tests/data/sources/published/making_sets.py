"""Small copies of torchvision's sets, in the files that its own classes read.

Class number c has images of gray level LEVELS[c] alone, so that a test sees whether a label belongs to an image.
"""

import bz2
import csv
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

LEVELS = (40, 110, 180)
COUNTS = {"train": 4, "val": 2, "test": 2}  # images of each class


def labels_of(split, start=0):
    return [start + label for label in range(len(LEVELS)) for _ in range(COUNTS[split])]


def pixels_of(split, side, channels=None):
    """The images of a split, "samples height width [channels]"."""
    shape = (side, side) if channels is None else (side, side, channels)
    return np.stack([np.full(shape, LEVELS[label], np.uint8) for label in labels_of(split)])


def photo(path, label, size=(12, 10), mode="RGB"):
    """Writes one image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = LEVELS[label]
    Image.new(mode, size, (level,) * 3 if mode == "RGB" else level).save(path)


def photos(folder, classes, split, name="{}.jpg"):
    """Writes FOLDER/CLASS/IMAGE for each class."""
    for label, class_name in enumerate(classes):
        for number in range(1, COUNTS[split] + 1):
            photo(folder / class_name / name.format(f"{number:04}"), label)


def write_idx(path, array):
    """Writes MNIST's format: big-endian, a type and a shape."""
    kind = {np.dtype(np.uint8): 8, np.dtype(np.int32): 12}[array.dtype]
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">BBBB", 0, 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(array.dtype.newbyteorder(">")).tobytes())


def cifar(folder, base, files, key, meta):
    base = folder / base
    base.mkdir(parents=True)
    for name, split in files.items():
        data = pixels_of(split, 32, 3).transpose(0, 3, 1, 2).reshape(-1, 3072)
        (base / name).write_bytes(pickle.dumps({"data": data, key: labels_of(split)}))
    (base / meta[0]).write_bytes(pickle.dumps({meta[1]: ["airplane", "bird", "cat"]}))


def cifar10(folder):
    files = {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"}
    cifar(folder, "cifar-10-batches-py", files, "labels", ("batches.meta", "label_names"))


def cifar100(folder):
    files = {"train": "train", "test": "test"}
    cifar(folder, "cifar-100-python", files, "fine_labels", ("meta", "fine_label_names"))


def mnist(folder, base="MNIST"):
    for split, prefix in (("train", "train"), ("test", "t10k")):
        write_idx(folder / base / "raw" / f"{prefix}-images-idx3-ubyte", pixels_of(split, 28))
        write_idx(folder / base / "raw" / f"{prefix}-labels-idx1-ubyte", np.array(labels_of(split), np.uint8))


def fashion_mnist(folder):
    mnist(folder, "FashionMNIST")


def kmnist(folder):
    mnist(folder, "KMNIST")


def emnist(folder, division, start=0):
    for split in ("train", "test"):
        prefix = folder / "EMNIST" / "raw" / f"emnist-{division}-{split}"
        write_idx(Path(f"{prefix}-images-idx3-ubyte"), pixels_of(split, 28))
        write_idx(Path(f"{prefix}-labels-idx1-ubyte"), np.array(labels_of(split, start), np.uint8))


def qmnist(folder):
    for split in ("train", "test"):
        labels = np.zeros((len(labels_of(split)), 8), np.int32)
        labels[:, 0] = labels_of(split)
        labels[:, 1:] = 7
        write_idx(folder / "QMNIST" / "raw" / f"qmnist-{split}-images-idx3-ubyte", pixels_of(split, 28))
        write_idx(folder / "QMNIST" / "raw" / f"qmnist-{split}-labels-idx2-int", labels)


def usps(folder):
    folder.mkdir(parents=True)
    for split, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        lines = []
        for label in labels_of(split):
            value = (LEVELS[label] + 0.5) / 255 * 2 - 1
            lines.append(f"{label + 1} " + " ".join(f"{place}:{value:.6f}" for place in range(1, 257)))
        (folder / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def svhn(folder):
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        labels = np.array([[label or 10] for label in labels_of(split)], np.uint8)  # the digit 0 is 10
        images = pixels_of(split, 32, 3).transpose(1, 2, 3, 0)
        savemat(folder / f"{split}_32x32.mat", {"X": images, "y": labels})


def stl10(folder):
    base = folder / "stl10_binary"
    base.mkdir(parents=True)
    for split in ("train", "test"):
        pixels_of(split, 96, 3).transpose(0, 3, 2, 1).tofile(base / f"{split}_X.bin")
        np.array(labels_of(split, 1), np.uint8).tofile(base / f"{split}_y.bin")
    (base / "unlabeled_X.bin").write_bytes(b"not read")
    (base / "class_names.txt").write_text("airplane\nbird\ncar\n")


def food101(folder):
    classes = ("apple_pie", "baklava", "waffles")
    base = folder / "food-101"
    (base / "meta").mkdir(parents=True)
    for split in ("train", "test"):
        names = {name: [f"{name}/{split}{number}" for number in range(COUNTS[split])] for name in classes}
        (base / "meta" / f"{split}.json").write_text(json.dumps(names))
        for label, name in enumerate(classes):
            for each in names[name]:
                photo(base / "images" / f"{each}.jpg", label)


def flowers102(folder):
    base = folder / "flowers-102"
    labels, ids = [], {}
    for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        ids[key] = [len(labels) + 1 + place for place in range(len(labels_of(split)))]
        labels += labels_of(split, 1)
    for number, label in enumerate(labels, 1):
        photo(base / "jpg" / f"image_{number:05}.jpg", label - 1)
    savemat(base / "setid.mat", ids)
    savemat(base / "imagelabels.mat", {"labels": labels})


def pets(folder):
    base = folder / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for split, file in (("train", "trainval"), ("test", "test")):
        lines = []
        for number, label in enumerate(labels_of(split)):
            name = f"{('Abyssinian', 'american_bulldog', 'Bengal')[label]}_{split}{number}"
            lines.append(f"{name} {label + 1} 1 1\n")
            photo(base / "images" / f"{name}.jpg", label)
        (base / "annotations" / f"{file}.txt").write_text("".join(lines))


def imagenet(folder):
    names = {"n01": ("crane",), "n02": ("crane",), "n03": ("tench", "Tinca tinca")}
    for split in ("train", "val"):
        photos(folder / split, names, split, "{}.JPEG")
    torch.save((names, []), folder / "meta.bin")


def imagenette(folder):
    for split in ("train", "val"):
        photos(folder / "imagenette2" / split, ("n01440764", "n02102040", "n02979186"), split, "{}.JPEG")


def dtd(folder):
    base = folder / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for split in ("train", "val", "test"):
        photos(base / "images", ("banded", "blotchy", "woven"), split, split + "_{}.jpg")
        names = sorted(p.relative_to(base / "images").as_posix() for p in base.rglob(f"{split}_*.jpg"))
        (base / "labels" / f"{split}1.txt").write_text("\n".join(names))


def eurosat(folder):
    photos(folder / "eurosat" / "2750", ("AnnualCrop", "Forest", "River"), "train")


def fgvc_aircraft(folder):
    classes = ("707-320", "Boeing 717", "C-130")
    base = folder / "fgvc-aircraft-2013b" / "data"
    base.mkdir(parents=True)
    (base / "variants.txt").write_text("\n".join(classes))
    for split in ("train", "val", "test"):
        lines = []
        for number, label in enumerate(labels_of(split)):
            photo(base / "images" / f"{split}{number}.jpg", label)
            lines.append(f"{split}{number} {classes[label]}")
        (base / f"images_variant_{split}.txt").write_text("\n".join(lines))


def stanford_cars(folder):
    base = folder / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    for split, file in (("train", "devkit/cars_train_annos"), ("test", "cars_test_annos_withlabels")):
        rows = []
        for number, label in enumerate(labels_of(split)):
            photo(base / f"cars_{split}" / f"{number:05}.jpg", label)
            rows.append((f"{number:05}.jpg", label + 1))
        annotations = np.array(rows, [("fname", object), ("class", object)])
        savemat(base / f"{file}.mat", {"annotations": annotations})
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Audi V8 Sedan 1994"], object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})


def gtsrb(folder):
    base = folder / "gtsrb"
    photos(base / "GTSRB" / "Training", ("00000", "00001", "00002"), "train", "{}.ppm")
    rows = [{"Filename": f"{number:05}.ppm", "ClassId": label} for number, label in enumerate(labels_of("test"))]
    for row in rows:
        photo(base / "GTSRB" / "Final_Test" / "Images" / row["Filename"], row["ClassId"])
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["Filename", "ClassId"], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def country211(folder):
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        photos(folder / "country211" / name, ("AD", "AE", "AF"), split)


def caltech101(folder):
    base = folder / "caltech101" / "101_ObjectCategories"
    photos(base, ("ant", "bass", "beaver"), "train", "image_{}.jpg")
    photo(base / "BACKGROUND_Google" / "image_0001.jpg", 0)


def caltech256(folder):
    base = folder / "caltech256" / "256_ObjectCategories"
    for label, name in enumerate(("001.ak47", "002.american-flag", "003.backpack")):
        for number in range(1, COUNTS["train"] + 1):
            photo(base / name / f"{label + 1:03}_{number:04}.jpg", label)
        (base / name / "RENAME2").write_text("as in the published archive")


def rendered_sst2(folder):
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        photos(folder / "rendered-sst2" / name, ("negative", "positive"), split, "{}.png")


def sun397(folder):
    base = folder / "SUN397"
    photos(base, ("a/abbey", "a/apartment_building/outdoor", "z/zoo"), "train", "sun_{}.jpg")
    (base / "ClassName.txt").write_text("/a/abbey\n/a/apartment_building/outdoor\n/z/zoo\n")


def places365(folder):
    classes = ("a/airfield", "a/alley", "z/zen_garden")
    photos(folder / "data_256_standard", classes, "train")
    (folder / "categories_places365.txt").write_text("".join(f"/{name} {c}\n" for c, name in enumerate(classes)))
    lines = [f"/{name}/{n:04}.jpg {c}\n" for c, name in enumerate(classes) for n in range(1, COUNTS["train"] + 1)]
    (folder / "places365_train_standard.txt").write_text("".join(lines))
    lines = []
    for number, label in enumerate(labels_of("val")):
        photo(folder / "val_256" / f"Places365_val_{number:08}.jpg", label)
        lines.append(f"Places365_val_{number:08}.jpg {label}\n")
    (folder / "places365_val.txt").write_text("".join(lines))


def omniglot(folder):
    base = folder / "omniglot-py"
    for label, name in enumerate(("Greek/character01", "Greek/character02", "Latin/character01")):
        for number in range(COUNTS["train"]):
            photo(base / "images_background" / name / f"{number:04}.png", label, mode="L")
    with zipfile.ZipFile(base / "images_background.zip", "w"):
        pass  # only its checksum matters once it is extracted


MAKERS = {
    "emnist_letters": lambda folder: emnist(folder, "letters", start=1),
    "emnist_balanced": lambda folder: emnist(folder, "balanced"),
    "emnist_byclass": lambda folder: emnist(folder, "byclass"),
    "emnist_bymerge": lambda folder: emnist(folder, "bymerge"),
    "emnist_digits": lambda folder: emnist(folder, "digits"),
} | {
    maker.__name__: maker
    for maker in (
        *(cifar10, cifar100, mnist, fashion_mnist, kmnist, qmnist, usps, svhn, stl10, food101, flowers102, pets),
        *(imagenet, imagenette, dtd, eurosat, fgvc_aircraft, stanford_cars, gtsrb, country211, caltech101),
        *(caltech256, rendered_sst2, sun397, places365, omniglot),
    )
}
