"""The class folders of a split, and the images in them."""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from vitreous.data.decoding.formats import NAMES
from vitreous.data.sources.names import has_output_word, is_for_prediction, is_unlabeled, normalized, role_of
from vitreous.data.sources.trees.doubts import doubts, paired, quoted
from vitreous.data.sources.trees.tree import FOLLOW, OUTSIDE, Contents, Tree, is_archive_kind, join
from vitreous.support.errors import InputError
from vitreous.support.text import counted, listed, tallied

LABELS = re.compile(r"label|annotation|truth|solution", re.IGNORECASE)  # in the name of a table
COUNTED = 10_000  # images that are counted in a folder that is not used
Classes = Mapping[str, Sequence[str]]  # the folders of each class
Images = dict[str, list[str]]  # the images of each class


def classes_in(tree: Tree, folder: str, contents: Contents) -> dict[str, list[str]]:
    """The class folders in a folder, with notes on what else is in it.

    Raises:
        InputError: one of them is a link out of the folder.
    """
    classes: dict[str, list[str]] = {}
    for name in contents.folders:
        classes.setdefault(normalized(name), []).append(join(folder, name))
    for name, folders in classes.items():
        if len(folders) > 1:
            tree.notes.append(
                f"{len(folders)} folders in {tree.path(folder)!r} are one class, {name!r}: accents differ"
            )
    for link in contents.links:
        check_link(tree, folder, link.name, link.link, needed=link.link == OUTSIDE)
    note_rest(tree, folder, contents)
    return classes


def note_rest(tree: Tree, folder: str, contents: Contents) -> None:
    """Notes what may have been meant to be read next to class folders: images, hidden folders, archives."""
    if contents.others:
        tree.ignored["file outside the class folders"] += contents.others
    note_strays(tree, folder, contents)
    if hidden := tree.hidden(folder):
        named = listed([repr(join(folder, name)) for name in hidden])
        tree.notes.append(f"left out hidden folders with images: {named}; rename them without the dot to use them")
    if contents.archives:
        named = listed([repr(join(folder, name)) for name in contents.archives])
        tree.notes.append(f"not read: {named}; unpack what has images to use")
    tree.tables.extend(join(folder, name) for name in contents.tables)


def note_tables(tree: Tree, images: Mapping[str, Images]) -> None:
    """Notes the tables next to class folders that have labels of these images, by their first rows or their names."""
    for table in dict.fromkeys(tree.tables):
        name = f"{table.rpartition('/')[2]} next to the class folders is not read"
        path = tree.path(table)
        start = tree.start_of(table)
        if start is None and LABELS.search(table):
            tree.notes.append(f"{name}; if it has the labels, unpack all, and train on it")
        elif start is not None and _names_any(start, images):
            tree.notes.append(f"{name}; to use its labels: vitreous train {shlex.quote(path)}")


def _names_any(start: bytes, images: Mapping[str, Images]) -> bool:
    """Whether a table that begins like this names one of these images, with or without its suffix."""
    words = {word.rpartition("/")[2] for word in re.split(r"[\s,;|\"']+", start.decode("utf-8", "replace"))}
    words -= {"", *images["train"]}
    for image in chain.from_iterable(found for classes in images.values() for found in classes.values()):
        base = image.rpartition("/")[2]
        stem = base.rpartition(".")[0]
        if base in words or (stem in words and not stem.isdigit()):
            return True
    return False


def check_link(tree: Tree, folder: str, name: str, reason: str, needed: bool) -> None:
    """Notes a link that is not followed; if it is `needed`, raises InputError instead."""
    path = tree.path(join(folder, name))
    if needed:
        hint = FOLLOW if reason == OUTSIDE else "replace it with the folder, or remove it"
        raise InputError(f"the folder {path!r} is a link that {reason}", hint)
    tree.notes.append(f"the link {path!r} {reason} and is left out")


def note_strays(tree: Tree, folder: str, contents: Contents) -> None:
    """Notes the images next to class folders or splits."""
    if contents.images:
        first = [repr(join(folder, name)) for name in contents.first]
        more = f" … and {contents.images - len(first):,} more" if contents.images > len(first) else ""
        are = "is" if contents.images == 1 else "are"
        images = f"{counted(contents.images, 'image')} that {are} in no class folder"
        tree.notes.append(f"left out {images}: {', '.join(first)}{more}")


def note_unused(tree: Tree, folder: str, contents: Contents, class_names: Collection[str]) -> None:
    """Notes a folder next to the splits, with the number of its images; counts it if it has none."""
    count = sum(1 for _ in islice(tree.images(folder, Counter()), COUNTED + 1))
    if not count:
        tree.ignored[f"folder next to train/: {folder.rpartition('/')[2]}"] += 1
        return
    images = f"more than {COUNTED:,} images" if count > COUNTED else counted(count, "image")
    has_classes = any(normalized(name) in class_names for name in contents.folders)
    rename = "; rename it val or test if it is that split" if has_classes else ""
    tree.notes.append(f"not used: the folder {folder!r} next to train, with {images}{rename}")


def read_classes(tree: Tree, split: str, classes: Classes) -> Images:
    """The sorted images of each class of one split; classes without any are left out.

    Raises:
        InputError: classes of the training split have no images.
    """
    images: Images = {}
    empty: dict[str, Counter[str]] = {}
    packed = []
    for name, folders in classes.items():
        others: Counter[str] = Counter()
        found = sorted(chain.from_iterable(tree.images(folder, others) for folder in folders))
        if found:
            images[name] = found
            tree.ignored.update(others)
        else:
            empty[name] = others
        if kinds := {kind: count for kind, count in others.items() if is_archive_kind(kind)}:
            packed.append(f"{folders[0]!r} ({tallied(kinds)})")
    if empty and split == "train":
        raise _empty_classes(tree, classes, empty, images)
    if empty:
        folders = [f"{classes[name][0]!r} ({_state(others)})" for name, others in empty.items()]
        tree.notes.append(f"no images in {listed(folders)}")
    if packed:
        tree.notes.append(f"not read, unpack them if they have images: the archives in {listed(packed)}")
    if split == "train":
        _check_pairs(tree, classes, paired(images))
        tree.notes.extend(doubts(classes, images))
    return images


def _check_pairs(tree: Tree, classes: Classes, pairs: Sequence[str]) -> None:
    """Notes classes whose files have the same names; if the name of one speaks of masks, raises InputError."""
    if not pairs:
        return
    outputs = [name for name in pairs if has_output_word(name)]
    if outputs and len(outputs) < len(pairs):
        folder = tree.path(classes[pairs[0]][0].rpartition("/")[0])
        cause = (
            f"{folder!r} is a set for segmentation or depth, not classes: {quoted(pairs)} hold files of the same names"
        )
        raise InputError(cause, f"remove {quoted(outputs)}, and arrange the others as CLASS/IMAGE")
    tree.notes.append(f"{quoted(pairs)} hold files of the same names: are they classes, or pictures and their masks?")


def _empty_classes(tree: Tree, classes: Classes, empty: Mapping[str, Counter[str]], images: Images) -> InputError:
    """The error for classes without images."""
    hint = f"remove {'it' if len(empty) == 1 else 'them'}, or add {NAMES} images"
    kinds = [kind for others in empty.values() for kind in others]
    if kinds and all(kind.startswith("link") for kind in kinds):
        hint = FOLLOW
    elif kinds and all(map(is_archive_kind, kinds)):
        hint = "unpack each archive into a folder of its name, next to it"
    else:
        pictures = [name for name in images if role_of(name) == "picture"] or [*images]
        folder = classes[pictures[0]][0] if len(pictures) == 1 else ""
        if folder and len(tree.contents(folder).folders) > 1:
            hint = f"{tree.use(folder)}, if its folders are the classes"
    if len(empty) == 1:
        ((name, others),) = empty.items()
        state = f"has no images, but {_state(others)}" if others else "is empty"
        return InputError(f"the class folder {tree.path(classes[name][0])!r} {state}", hint)
    states = listed([f"{classes[name][0]!r} ({_state(others)})" for name, others in empty.items()], most=20)
    return InputError(f"{len(empty)} class folders of {tree.source!r} have no images: {states}", hint)


def _state(others: Mapping[str, int]) -> str:
    """What a folder without images holds."""
    return tallied(others) or "empty"


def drop_unlabeled(tree: Tree, images: dict[str, Images], classes: Mapping[str, Classes]) -> None:
    """Removes splits without images, and a test split whose only folder is not a class, with a note on each.

    Raises:
        InputError: the only folder of the validation split is not a class.
    """
    for split in ("validation", "test"):
        if split not in images:
            continue
        if not images[split]:
            tree.notes.append(f"{split} has no images, and is not used")
            del images[split]
        elif len(images[split]) == 1:
            (name,) = images[split]
            folder = classes[split][name][0]
            if name in images["train"] or not is_unlabeled(name):
                continue
            if split == "validation":
                cause = f"the validation split has its images in {tree.path(folder)!r}, not in class folders as train"
                raise InputError(cause, "move each image to the folder of its class, or remove the split")
            note_unlabeled(tree, folder)
            del images[split]


def note_unlabeled(tree: Tree, folder: str) -> None:
    """Notes a test split without labels."""
    path = tree.path(folder)
    use = f"vitreous predict MODEL {shlex.quote(path)}" if Path(path).is_dir() else "unpack it for vitreous predict"
    name = folder.rpartition("/")[2]
    test = repr(folder) if is_for_prediction(name) else "test"
    tree.notes.append(f"{test} has no labels, and is not used: after the training, {use}")
