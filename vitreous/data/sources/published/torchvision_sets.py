"""The table of torchvision's labeled sets that `vitreous train NAME` opens."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitreous.support.errors import nearest

DIGIT_NAMES = tuple(string.digits)
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class PublishedSet:
    """A row of the table.

    Args:
        name: as the user types it.
        title: of torchvision's class.
        splits: for each split, the arguments of that class.
        what: images, sizes and classes, for the list of sources.
        files: to put into the set's folder by hand, relative to it.
        page: where these files are.
        class_names: if they differ from the class's.
        flip_ok: whether an image flipped left to right still has its class.
        channels: 3 (RGB) or 1 (gray).
        note: what the user should know of how it is read.
        downloads: whether torchvision can download it.
    """

    name: str
    title: str
    splits: Mapping[str, Arguments]
    what: str
    files: str
    page: str
    class_names: tuple[str, ...] | None = None
    flip_ok: bool = True
    channels: int = 3
    note: str = ""
    downloads: bool = True


def _named(**splits: str) -> dict[str, Arguments]:
    """Splits that a set asks for by name."""
    return {split: {"split": name} for split, name in splits.items()}


WHOLE: dict[str, Arguments] = {"train": {}}
TRAIN_TEST = {"train": {"train": True}, "test": {"train": False}}
NAMED = _named(train="train", test="test")
THREE = _named(train="train", validation="val", test="test")
IDX = "{}/raw/ with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two of t10k"
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
GRAY: dict[str, Any] = {"flip_ok": False, "channels": 1}


def _emnist(split: str, what: str, classes: tuple[str, ...] | None = None) -> PublishedSet:
    """A row of EMNIST, which has several divisions into classes."""
    return PublishedSet(
        f"emnist_{split}",
        "EMNIST",
        {name: {"split": split} | arguments for name, arguments in TRAIN_TEST.items()},
        what,
        "EMNIST/raw/gzip.zip",
        "https://www.nist.gov/itl/products-and-services/emnist-dataset",
        classes,
        note="the images are turned upright, since the published ones are transposed",
        **GRAY,
    )


SETS = (
    PublishedSet(
        "cifar10", "CIFAR10", TRAIN_TEST, "50,000 + 10,000 photos of 32×32 pixels, 10 classes",
        "cifar-10-python.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    PublishedSet(
        "cifar100", "CIFAR100", TRAIN_TEST, "50,000 + 10,000 photos of 32×32 pixels, 100 classes",
        "cifar-100-python.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    PublishedSet(
        "mnist", "MNIST", TRAIN_TEST, "60,000 + 10,000 handwritten digits of 28×28 pixels, 10 classes",
        IDX.format("MNIST"), "https://ossci-datasets.s3.amazonaws.com/mnist/", DIGIT_NAMES, **GRAY,
    ),
    PublishedSet(
        "fashion_mnist", "FashionMNIST", TRAIN_TEST, "60,000 + 10,000 pieces of clothing of 28×28 pixels, 10 classes",
        IDX.format("FashionMNIST"), "https://github.com/zalandoresearch/fashion-mnist", channels=1,
    ),
    PublishedSet(
        "kmnist", "KMNIST", TRAIN_TEST, "60,000 + 10,000 cursive Japanese characters of 28×28 pixels, 10 classes",
        IDX.format("KMNIST"), "https://github.com/rois-codh/kmnist", **GRAY,
    ),
    PublishedSet(
        "qmnist", "QMNIST", TRAIN_TEST, "60,000 + 60,000 handwritten digits of 28×28 pixels, 10 classes",
        "QMNIST/raw/ with qmnist-train-images-idx3-ubyte.gz, qmnist-train-labels-idx2-int.gz and the two of test",
        "https://github.com/facebookresearch/qmnist", DIGIT_NAMES, **GRAY,
    ),
    _emnist("letters", "124,800 + 20,800 handwritten letters of 28×28 pixels, 26 classes"),
    _emnist("balanced", "112,800 + 18,800 handwritten characters of 28×28 pixels, 47 classes"),
    _emnist("byclass", "697,932 + 116,323 handwritten characters of 28×28 pixels, 62 classes"),
    _emnist("bymerge", "697,932 + 116,323 handwritten characters of 28×28 pixels, 47 classes"),
    _emnist("digits", "240,000 + 40,000 handwritten digits of 28×28 pixels, 10 classes"),
    PublishedSet(
        "usps", "USPS", TRAIN_TEST, "7,291 + 2,007 handwritten digits of 16×16 pixels, 10 classes",
        "usps.bz2 and usps.t.bz2", "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html",
        DIGIT_NAMES, **GRAY,
    ),
    PublishedSet(
        "svhn", "SVHN", NAMED, "73,257 + 26,032 house numbers of 32×32 pixels, 10 classes",
        "train_32x32.mat and test_32x32.mat", "http://ufldl.stanford.edu/housenumbers/", DIGIT_NAMES, flip_ok=False,
        note="the 531,131 extra images are not used",
    ),
    PublishedSet(
        "stl10", "STL10", NAMED, "5,000 + 8,000 photos of 96×96 pixels, 10 classes",
        "stl10_binary.tar.gz", "https://cs.stanford.edu/~acoates/stl10/",
        note="the 100,000 unlabeled images are not used",
    ),
    PublishedSet(
        "food101", "Food101", NAMED, "75,750 + 25,250 photos of dishes, 101 classes",
        "food-101.tar.gz", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    ),
    PublishedSet(
        "flowers102", "Flowers102", THREE, "1,020 + 1,020 + 6,149 photos of flowers, 102 classes",
        "flowers-102/ with 102flowers.tgz, imagelabels.mat and setid.mat", f"{OXFORD}/flowers/102/",
    ),
    PublishedSet(
        "pets", "OxfordIIITPet", _named(train="trainval", test="test"),
        "3,680 + 3,669 photos of cats and dogs, 37 breeds",
        "oxford-iiit-pet/ with images.tar.gz and annotations.tar.gz", f"{OXFORD}/pets/",
    ),
    PublishedSet(
        "imagenet", "ImageNet", _named(train="train", validation="val"),
        "1,281,167 + 50,000 photos, 1,000 classes; download the files yourself",
        "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz",
        "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php", downloads=False,
    ),
    PublishedSet(
        "imagenette", "Imagenette", _named(train="train", validation="val"),
        "9,469 + 3,925 photos, 10 classes of ImageNet",
        "imagenette2.tgz", "https://github.com/fastai/imagenette",
    ),
    PublishedSet(
        "dtd", "DTD", THREE, "1,880 + 1,880 + 1,880 photos of textures, 47 classes",
        "dtd/dtd-r1.0.1.tar.gz", f"{OXFORD}/dtd/",
    ),
    PublishedSet(
        "eurosat", "EuroSAT", WHOLE, "27,000 satellite images of 64×64 pixels, 10 classes",
        "eurosat/EuroSAT.zip", "https://github.com/phelber/eurosat",
    ),
    PublishedSet(
        "fgvc_aircraft", "FGVCAircraft", THREE, "3,334 + 3,333 + 3,333 photos of aircraft, 100 variants",
        "fgvc-aircraft-2013b.tar.gz", f"{OXFORD}/fgvc-aircraft/", note="no checksum of its archive is published",
    ),
    PublishedSet(
        "stanford_cars", "StanfordCars", NAMED, "8,144 + 8,041 cars, 196 classes; download the files yourself",
        "stanford_cars/ with devkit/, cars_train/, cars_test/ and cars_test_annos_withlabels.mat",
        "https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset", downloads=False,
    ),
    PublishedSet(
        "gtsrb", "GTSRB", NAMED, "26,640 + 12,630 photos of German traffic signs, 43 classes",
        "gtsrb/ with GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip",
        "https://benchmark.ini.rub.de/", tuple(str(number) for number in range(43)), flip_ok=False,
    ),
    PublishedSet(
        "country211", "Country211", _named(train="train", validation="valid", test="test"),
        "31,650 + 10,550 + 21,100 photos, 211 countries",
        "country211.tgz", "https://github.com/openai/CLIP/blob/main/data/country211.md",
    ),
    PublishedSet(
        "caltech101", "Caltech101", WHOLE, "8,677 photos, 101 classes",
        "caltech101/caltech-101.zip", "https://data.caltech.edu/records/20086",
    ),
    PublishedSet(
        "caltech256", "Caltech256", WHOLE, "30,607 photos, 257 classes",
        "caltech256/256_ObjectCategories.tar", "https://data.caltech.edu/records/20087",
    ),
    PublishedSet(
        "rendered_sst2", "RenderedSST2", THREE, "6,920 + 872 + 1,821 pictures of sentences, 2 classes",
        "rendered-sst2.tgz", "https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md", flip_ok=False,
    ),
    PublishedSet(
        "sun397", "SUN397", WHOLE, "108,754 photos of scenes, 397 classes",
        "SUN397.tar.gz", "https://vision.princeton.edu/projects/2010/SUN/",
    ),
    PublishedSet(
        "places365", "Places365",
        {"train": {"split": "train-standard", "small": True}, "validation": {"split": "val", "small": True}},
        "1,803,460 + 36,500 photos of scenes of 256×256 pixels, 365 classes",
        "filelist_places365-standard.tar, train_256_places365standard.tar and val_256.tar",
        "http://places2.csail.mit.edu/download.html",
    ),
    PublishedSet(
        "omniglot", "Omniglot", {"train": {"background": True}}, "19,280 handwritten characters, 964 classes",
        "omniglot-py/images_background.zip", "https://github.com/brendenlake/omniglot",
        note="the evaluation set has other characters, and is not used", **GRAY,
    ),
)  # fmt: skip

BY_NAME = {row.name: row for row in SETS}
ALIASES = {  # other names, folded, that are not a spelling of ours
    "fashionmnist": "fashion_mnist",
    "emnist": "emnist_letters",
    "oxfordpets": "pets",
    "oxfordiiitpet": "pets",
    "oxfordiiitpets": "pets",
    "oxfordflowers": "flowers102",
    "oxfordflowers102": "flowers102",
    "flowers": "flowers102",
    "oxford102": "flowers102",
    "aircraft": "fgvc_aircraft",
    "cars": "stanford_cars",
    "cars196": "stanford_cars",
    "imagenet1k": "imagenet",
    "ilsvrc2012": "imagenet",
    "imagenet2012": "imagenet",
    "food": "food101",
    "places": "places365",
    "sst2": "rendered_sst2",
    "textures": "dtd",
}


def suggested(name: str) -> str | None:
    """The set that a name is another spelling of, such as CIFAR-10 or oxford_pets; else one that is close, or None."""
    folded = _folded(name)
    spellings = {_folded(row.name): row.name for row in SETS} | ALIASES
    if folded in spellings:
        return spellings[folded]
    return nearest(name, BY_NAME) if re.fullmatch(r"[A-Za-z0-9_-]{3,24}", name) else None


def _folded(name: str) -> str:
    """A name without case and separators."""
    return re.sub(r"[\W_]+", "", name.casefold())
