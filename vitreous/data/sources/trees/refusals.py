"""Layouts that are refused, since splits would be learned as classes: what was found, and the layout that works."""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from vitreous.data.decoding.images import is_image_name
from vitreous.data.sources.names import (
    TRAIN,
    are_chunks,
    is_chunk,
    is_generic,
    role_of,
    split_of,
    splits_among,
    suggests_split,
)  # fmt: skip
from vitreous.data.sources.trees.archives import SUFFIX
from vitreous.data.sources.trees.tars import is_tar_name
from vitreous.data.sources.trees.tree import BOXES, LAYOUT, PART_OF_ARCHIVE, Contents, Tree, join
from vitreous.support.errors import InputError
from vitreous.support.text import counted, listed

MAX_WRAPPING = 8  # folders around everything
MAX_PREFIXES = 1000  # of file names, to be taken for classes
NO_CLASSES = "img image images dsc dscn dscf pic picture photo p train test val frame screenshot id n"  # begin names
ARRANGE = "arrange the images as train/CLASS/IMAGE, with val/ and test/ in the same way"


def quoted(names: Iterable[str]) -> str:
    """Names for a message."""
    return listed([repr(name) for name in names])


def refuse_few_classes(tree: Tree, folder: str, top: Contents) -> None:
    """Raises InputError if a folder has fewer than two class folders."""
    if len(top.folders) > 1:
        return
    outside = f", and {counted(top.images, 'image')} outside class folders" if top.images else ""
    if top.folders:
        (name,) = top.folders
        count = f"one class folder, {name!r}"
        inside = len(tree.contents(join(folder, name)).folders) > 1
        hint = f"{tree.use(join(folder, name))}, if its folders are the classes" if inside else LAYOUT
        hint = hint if inside or top.images else labels_hint(tree, folder, join(folder, name)) or hint
    else:
        count, hint = "no class folders", LAYOUT
    if top.images or not top.folders:
        hint = labels_hint(tree, folder, folder) or hint
    if not top.images and not top.folders and top.archives:
        hint = archives_hint(tree, folder, top.archives)
    raise InputError(f"{tree.path(folder)!r} has {count}{outside}, but needs at least two classes", hint)


def archives_hint(tree: Tree, folder: str, names: Sequence[str]) -> str:
    """What to do with a folder that has archives alone."""
    first = next((name for name in names if not PART_OF_ARCHIVE.search(name)), names[0])
    if not Path(tree.source).is_dir():
        return f"unpack it, and what is in it, such as {first!r}, and use the folder"
    if len(names) == 1 and (is_tar_name(first) or first.lower().endswith(SUFFIX)):
        return tree.use(join(folder, first))
    if len(names) == 1 or any(map(PART_OF_ARCHIVE.search, names)):
        return f"unpack {tree.path(join(folder, first))}, and use the folder with its images"
    stems = [name.partition(".")[0] for name in names]
    images = "" if splits_among(stems) else ", with the images of that class"
    return f"unpack each archive into a folder of its name, such as {tree.path(join(folder, stems[0]))}/{images}"


def labels_hint(tree: Tree, folder: str, images: str) -> str:
    """What to type if a table next to the images, or their names, seem to have the labels; "" otherwise.

    Args:
        tree: of the source.
        folder: that may have a table.
        images: the folder of the images.
    """
    above = ["", *accumulate(folder.split("/"), join)][::-1]
    for place in (*above, images):
        which = " of the images next to it" if place == images != folder else ""
        tables = [name for name in tree.contents(place).tables if "submission" not in name.lower()]
        if not tables:
            continue
        table = max(tables, key=_may_have_labels)
        path = tree.path(join(place, table))
        if table.lower().endswith(BOXES):
            return f"{table} has boxes, not a class for each image: {ARRANGE}"
        if not Path(path).exists():
            return f"if {table} has the labels{which}, unpack all, and train on the table"
        return f"if {table} has the labels{which}, use it: vitreous train {shlex.quote(path)}"
    prefixes = Counter(
        match[0].casefold()
        for entry in tree.entries(images)
        if not entry.is_folder and is_image_name(entry.name) and (match := re.match(r"[^\W\d_]+", entry.name))
    )
    classes = [prefix for prefix, count in prefixes.items() if count > 1 and prefix not in NO_CLASSES.split()]
    if 1 < len(classes) <= MAX_PREFIXES and len(classes) == len(prefixes):
        example = tree.path(join(images, classes[0]))
        return f"if the file names begin with the class ({quoted(classes)}), move each to its folder, as {example}/"
    return ""


def _may_have_labels(table: str) -> tuple[bool, ...]:
    """Which of several tables may have the labels: of two, the larger value."""
    name = table.lower()
    is_train = split_of(name.rpartition(".")[0]) == TRAIN
    return is_train, any(word in name for word in ("label", "class", "truth", "solution")), "metadata" in name


def refuse_flat_splits(tree: Tree, folder: str, inside: Mapping[str, Contents], splits: Mapping[str, str]) -> None:
    """Raises InputError if splits hold images without class folders.

    One folder with the name of a split, next to others with images, is a class.
    """
    flat = [name for name in splits if name in inside and inside[name].images]
    kinds = {splits[name] for name in flat}
    others = [name for name, contents in inside.items() if name not in splits and (contents.images or contents.folders)]
    if flat and ((TRAIN in kinds and len(kinds) > 1) or not others):
        first = next((name for name in flat if splits[name] == TRAIN), flat[0])
        cause = f"{tree.path(folder)!r} has images directly in {quoted(flat)}, without a folder for each class"
        raise InputError(cause, labels_hint(tree, folder, join(folder, first)) or ARRANGE)


def refuse_flat_split(tree: Tree, folder: str, name: str, contents: Contents, hint: str = "") -> None:
    """Raises InputError for a split without class folders, next to one that has them."""
    found = f"{counted(contents.images, 'image')} but " if contents.images else ""
    cause = f"the split {tree.path(join(folder, name))!r} has {found}no class folders"
    raise InputError(cause, hint or f"arrange its images as {name}/CLASS/IMAGE, as in the other split")


def refuse_two_of_a_split(tree: Tree, split: str, names: Sequence[str]) -> None:
    """Raises InputError for two folders of one split."""
    count = "two" if len(names) == 2 else str(len(names))
    shown = " and ".join(map(repr, names)) if len(names) == 2 else quoted(names)
    raise InputError(
        f"{tree.source!r} has {count} {split} splits: {shown}", "keep one of them, or join them in one folder"
    )


def refuse_missing_train(
    tree: Tree, folder: str, top: Contents, splits: Mapping[str, str], with_classes: Collection[str]
) -> None:
    """Raises InputError for a test or validation split without a train split of class folders."""
    flat = [name for name, split in splits.items() if split == TRAIN]
    archives = [name for name in top.archives if split_of(name.rpartition(".")[0]) == TRAIN]
    candidates = [name for name in top.folders if name not in splits and suggests_split(name)]
    hint = LAYOUT
    if flat:
        hint = labels_hint(tree, folder, join(folder, flat[0]))
        refuse_flat_split(tree, folder, flat[0], tree.contents(join(folder, flat[0])), hint)
    if archives:
        hint = f"unpack {archives[0]}; folders and archives are not read together"
    elif within := set_within(tree, folder, [name for name in top.folders if name not in splits]):
        hint = within
    elif candidates:
        hint = f"rename {candidates[0]!r} to train, if it is that split"
    raise InputError(f"{tree.source!r} has {quoted(with_classes)} but no 'train' folder of classes", hint)


def refuse_train_next_to_classes(
    tree: Tree, folder: str, train: str, inside: Mapping[str, Contents], splits: Collection[str]
) -> None:
    """Raises InputError if train, the only split, is next to two or more folders that may be classes like it."""
    folders = set(inside[train].folders)
    alike = [name for name, contents in inside.items() if contents.images or folders & set(contents.folders)]
    alike = [name for name in alike if name not in splits]
    if len(alike) > 1:
        cause = f"{tree.path(folder)!r} has {train!r}, which may be a split or a class, next to {quoted(alike)}"
        use = f"if it is a split, {tree.use(join(folder, train))}"
        raise InputError(cause, f"{use}; if it is a class, move the images in its folders up")


def refuse_several_sets(tree: Tree, folder: str, name: str) -> None:
    """Raises InputError for a folder of data sets, each with its splits."""
    cause = f"{tree.path(folder)!r} has no class folders: {name!r} in it has its own train folder"
    raise InputError(cause, tree.use(join(folder, name)))


def refuse_one_folder_twice(tree: Tree, layout: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Raises InputError if two splits or classes are the same folder by a link."""
    seen: dict[str, str] = {}
    for folder in (folder for classes in layout.values() for folders in classes.values() for folder in folders):
        other = seen.setdefault(tree.target(folder), folder)
        if other != folder:
            cause = f"{tree.path(other)!r} and {tree.path(folder)!r} are the same folder, by a link"
            raise InputError(cause, "remove the link, so that no image has two classes or is in two splits")


def refuse_mixed_splits(tree: Tree, folder: str, having: Collection[str], missing: Collection[str]) -> None:
    """Raises InputError if some class folders hold splits and others do not."""
    cause = f"in {tree.path(folder)!r}, {quoted(having)} {'has' if len(having) == 1 else 'have'} splits inside"
    raise InputError(f"{cause}, and {quoted(missing)} not", "arrange all classes in one way, CLASS/train/IMAGE")


def _entered(tree: Tree, folder: str, contents: Contents) -> tuple[str, Contents]:
    """The only folder in a folder, as deep as there is one, and its contents; the given ones if it has no folders."""
    place, inside = folder, contents
    for _ in range(MAX_WRAPPING):
        if inside.images or len(inside.folders) != 1:
            break
        place = join(place, inside.folders[0])
        inside = tree.contents(place)
    return (folder, contents) if inside.images or not inside.folders else (place, inside)


def set_within(tree: Tree, folder: str, names: Iterable[str]) -> str:
    """The hint to use one of these folders: with a train split of classes in it, or with classes, called "images"."""
    for name in names:
        path = join(folder, name)
        place, inside = _entered(tree, path, tree.contents(path))
        train = [join(place, each) for each, split in splits_among(inside.folders).items() if split == TRAIN]
        is_set = any(tree.contents(each).folders for each in train)
        if is_set or (not train and role_of(name) == "picture" and len(inside.folders) > 1):
            return tree.use(path)
    return ""


def refuse_repeated_folders(tree: Tree, folder: str, inside: Mapping[str, Contents]) -> None:
    """Raises InputError if the top folders hold the same folders: folds, years or sessions, which are not classes.

    Class folders with the same folders of numbers, or of words such as "session", are classes.
    """
    holders = {
        name: _entered(tree, join(folder, name), contents)[1].folders
        for name, contents in inside.items()
        if contents.folders and not contents.images
    }
    counts = Counter(name for folders in holders.values() for name in folders)
    repeated = [name for name, count in counts.items() if count > 1]
    if len(repeated) < 2 or 2 * sum(counts[name] for name in repeated) <= counts.total():
        return
    if all(map(is_generic, repeated)) and not all(map(is_generic, holders)):
        return
    cause = f"{tree.path(folder)!r} has {quoted(holders)}, which hold the same folders: {quoted(repeated)}"
    if {role_of(name) for name in repeated} == {"picture", "output"}:
        outputs = [name for name in repeated if role_of(name) == "output"]
        raise InputError(cause, f"remove the folders {quoted(outputs)}, which seem to be masks, from each class")
    first = next((name for name in holders if role_of(name) == "picture"), next(iter(holders)))
    use = f"if those are the classes, {tree.use(join(folder, first))}, or name the parts train, val, test"
    raise InputError(cause, f"{use}; if {first!r} is a class, move the images in its folders up")


def refuse_unrecognized_splits(tree: Tree, folder: str, inside: Mapping[str, Contents]) -> None:
    """Raises InputError if the names of all folders with images speak of splits or parts, not of classes."""
    names = [name for name, contents in inside.items() if contents.images or contents.folders]
    if len(names) > 1 and (all(map(suggests_split, names)) or all(map(is_chunk, names)) or are_chunks(names)):
        cause = f"the folders of {tree.path(folder)!r} seem to be splits or parts, not classes: {quoted(names)}"
        hint = set_within(tree, folder, names) or labels_hint(tree, folder, join(folder, names[0]))
        raise InputError(cause, hint or f"{ARRANGE}; if they are classes, rename them")


def refuse_outputs(tree: Tree, folder: str, names: Sequence[str]) -> None:
    """Raises InputError if folders are pictures and their masks, boxes or depth: a set without classes.

    Class folders inside the folder of the pictures are named by a later check.
    """
    roles = {name: role_of(name) for name in names}
    if not all(roles.values()) or set(roles.values()) != {"picture", "output"}:
        return
    pictures = [join(folder, name) for name, role in roles.items() if role == "picture"]
    inside = [name for path in pictures for name in tree.contents(path).folders]
    if len(inside) > 1 and not any(map(split_of, inside)):
        return
    cause = f"{tree.path(folder)!r} is a set for detection, segmentation or depth, not classes: it has {quoted(names)}"
    hint = set_within(tree, folder, [name for name, role in roles.items() if role == "picture"])
    raise InputError(cause, hint or ARRANGE + "; if these are classes, rename them")


def refuse_flat_validation(tree: Tree, folder: str, name: str) -> None:
    """Raises InputError for a validation split of images alone, next to class folders."""
    cause = f"{tree.path(join(folder, name))!r} seems to be a validation split, but has no class folders"
    raise InputError(cause, "remove it, or rename it if it is a class")
