"""The layouts of labeled photos, in a folder or an archive: which folders are splits, and which are classes.

- CLASS/IMAGE: no splits.
- SPLIT/CLASS/IMAGE: folders whose names mean splits, each with the class folders.
- CLASS/SPLIT/IMAGE: class folders with splits in each.

What looks like one of them and may not be is refused (`refusals.py`), so that a split is never learned as a class.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import chain, islice

from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.names import (
    TEST,
    TRAIN,
    VALIDATION,
    is_for_prediction,
    normalized,
    notes_on_evaluation,
    split_of,
    splits_among,
)  # fmt: skip
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.trees.classes import (
    check_link,
    classes_in,
    drop_unlabeled,
    note_rest,
    note_strays,
    note_tables,
    note_unlabeled,
    note_unused,
    read_classes,
)  # fmt: skip
from vitreous.data.sources.trees.refusals import (
    MAX_WRAPPING,
    refuse_few_classes,
    refuse_flat_split,
    refuse_flat_splits,
    refuse_flat_validation,
    refuse_missing_train,
    refuse_mixed_splits,
    refuse_one_folder_twice,
    refuse_outputs,
    refuse_repeated_folders,
    refuse_several_sets,
    refuse_train_next_to_classes,
    refuse_two_of_a_split,
    refuse_unrecognized_splits,
)  # fmt: skip
from vitreous.data.sources.trees.tree import LINK_OUT, Contents, Tree, join
from vitreous.support.text import counted

Layout = dict[str, dict[str, list[str]]]  # the folders of each class of each split


def open_tree(tree: Tree, options: DataOptions) -> ImageData:
    """The images in a tree, split as `open_data` documents.

    Raises:
        InputError: the layout is not recognized, there is one class, a class has no images, or the classes of the
            splits differ.
    """
    layout = find_layout(tree)
    refuse_one_folder_twice(tree, layout)
    images = {split: read_classes(tree, split, classes) for split, classes in layout.items()}
    drop_unlabeled(tree, images, layout)
    note_tables(tree, images)
    if count := tree.ignored[LINK_OUT]:
        tree.notes.append(
            f"not followed: {counted(count, 'link')} out of the folder; --set follow_links=true follows them"
        )

    def key(class_name: str, name: str) -> str:
        first, *others = layout[TRAIN][class_name]
        folder = next((folder for folder in others if name.startswith(f"{folder}/")), first)
        return name[len(folder) + 1 :]

    return assemble(tree.source, images, tree.loader, options, ignored=tree.ignored, notes=tree.notes, key=key)


def find_layout(tree: Tree) -> Layout:
    """The folders of each class of each split; of "train" alone if there are no splits."""
    base = enter(tree, "")
    top = tree.contents(base)
    inside = {name: tree.contents(join(base, name)) for name in top.folders}
    splits = splits_among([*inside, *(link.name for link in top.links)])
    for link in top.links:
        if link.name in splits:
            check_link(tree, base, link.name, link.link, needed=True)
    refuse_outputs(tree, base, top.folders)
    with_classes = _splits_with_classes(tree, base, inside, splits)
    if with_classes:
        return _splits_of_classes(tree, base, top, inside, splits, with_classes)
    refuse_flat_splits(tree, base, inside, splits)
    layout = _classes_of_splits(tree, base, inside)
    if not layout:
        refuse_repeated_folders(tree, base, inside)
        refuse_unrecognized_splits(tree, base, inside)
    if not layout:
        top = _without_unlabeled(tree, base, top, inside)
    classes = classes_in(tree, base, top)
    refuse_few_classes(tree, base, top)
    return layout or {TRAIN: classes}


def enter(tree: Tree, folder: str, class_names: Collection[str] = (), is_split: bool = False) -> str:
    """The folder that holds the class folders or splits: the given one, or one that is wrapped around all of them.

    Args:
        tree: of the source.
        folder: to begin at: the top, or a split.
        class_names: a folder of one of these names is a class.
        is_split: whether the folder is a split, in which no others are looked for.
    """
    begin = folder
    for _ in range(MAX_WRAPPING):
        here = tree.contents(folder)
        if here.images or here.links or len(here.folders) != 1 or normalized(here.folders[0]) in class_names:
            break
        (name,) = here.folders
        inside = tree.contents(join(folder, name))
        if not inside.folders or (inside.images and len(inside.folders) == 1):
            break
        if not is_split and split_of(name) and not splits_among(inside.folders):
            break
        note_rest(tree, folder, here)
        folder = join(folder, name)
    if folder != begin:
        tree.notes.append(f"read from {tree.path(folder)!r}, the only folder in {tree.path(begin)!r}")
    return folder


def _splits_with_classes(
    tree: Tree, base: str, inside: Mapping[str, Contents], splits: Mapping[str, str]
) -> dict[str, str]:
    """The splits that hold class folders, perhaps next to some images."""
    counts = Counter(folder for name in splits for folder in inside[name].folders)
    shared = {folder for folder, count in counts.items() if count > 1}

    def holds_classes(name: str) -> bool:
        contents = inside[name]
        if not contents.images or len(contents.folders) < 2:
            return bool(contents.folders) and not contents.images
        if len(shared.intersection(contents.folders)) > 1:
            return True
        folders = (join(base, f"{name}/{folder}") for folder in contents.folders)
        below = chain.from_iterable(tree.images(folder, Counter()) for folder in folders)
        return sum(1 for _ in islice(below, contents.images + 1)) > contents.images

    return {name: split for name, split in splits.items() if holds_classes(name)}


def _without_unlabeled(tree: Tree, base: str, top: Contents, inside: Mapping[str, Contents]) -> Contents:
    """The contents without folders next to the classes that are a test split, or images for predictions.

    "train", as in "train, bus, car", is a class; so is "valid" next to one other folder.

    Raises:
        InputError: one of them is a validation split.
    """
    left = []
    for name, contents in inside.items():
        split = TEST if is_for_prediction(name) else next(iter(splits_among([name]).values()), None)
        if split in (None, TRAIN) or contents.folders or not contents.images:
            left.append(name)
        elif split == TEST:
            note_unlabeled(tree, join(base, name))
        elif len(inside) > 2 or name.casefold() != "valid":
            refuse_flat_validation(tree, base, name)
        else:
            left.append(name)
    return top._replace(folders=tuple(left))


def _splits_of_classes(
    tree: Tree,
    base: str,
    top: Contents,
    inside: Mapping[str, Contents],
    splits: Mapping[str, str],
    with_classes: Mapping[str, str],
) -> Layout:
    """The layout SPLIT/CLASS/IMAGE."""
    folders = _by_split(tree, with_classes)
    if TRAIN not in folders:
        refuse_missing_train(tree, base, top, splits, with_classes)
    if len(folders) == 1:
        refuse_train_next_to_classes(tree, base, folders[TRAIN], inside, splits)
    layout: Layout = {}
    for split in (split for split in (TRAIN, VALIDATION, TEST) if split in folders):
        folder = enter(tree, join(base, folders[split]), layout.get(TRAIN, ()), is_split=True)
        contents = tree.contents(folder)
        refuse_outputs(tree, folder, contents.folders)
        layout[split] = classes_in(tree, folder, contents)
        if split == TRAIN:
            refuse_few_classes(tree, folder, contents)
    for name, contents in inside.items():
        if name in with_classes:
            continue
        folder = join(base, name)
        if name in splits and not (contents.images or contents.folders):
            tree.notes.append(f"the folder {folder!r} has no images, and is not used")
        elif name not in splits or splits[name] in folders:
            note_unused(tree, folder, contents, layout[TRAIN])
        elif splits[name] == TEST:
            note_unlabeled(tree, folder)
        else:
            refuse_flat_split(tree, base, name, contents)
    for link in top.links:
        check_link(tree, base, link.name, link.link, needed=False)
    note_rest(tree, base, top)
    return layout


def _by_split(tree: Tree, names: Mapping[str, str]) -> dict[str, str]:
    """The folder of each split. Raises InputError if a split has two."""
    folders: dict[str, str] = {}
    for name, split in names.items():
        if split in folders:
            refuse_two_of_a_split(tree, split, [other for other, its in names.items() if its == split])
        folders[split] = name
    tree.notes.extend(note for note in notes_on_evaluation(names) if note not in tree.notes)
    return folders


def _classes_of_splits(tree: Tree, base: str, inside: Mapping[str, Contents]) -> Layout | None:
    """The layout CLASS/SPLIT/IMAGE; None if it is not that."""
    found = {name: splits_among(contents.folders) for name, contents in inside.items()}
    having = {name: splits for name, splits in found.items() if TRAIN in splits.values()}
    # A class of vehicles may have a folder of trains, next to others: then no class has only splits, or two of them.
    if not any(len(set(its.values())) > 1 or len(its) == len(inside[name].folders) for name, its in having.items()):
        return None
    for name, splits in having.items():
        for folder in splits:
            contents = tree.contents(join(base, f"{name}/{folder}"))
            if contents.folders and not contents.images:
                refuse_several_sets(tree, base, name)
    missing = [name for name, its in inside.items() if name not in having and (its.images or its.folders)]
    if missing:
        refuse_mixed_splits(tree, base, having, missing)
    layout: Layout = {}
    for name, splits in having.items():
        note_strays(tree, join(base, name), inside[name])
        for split, folder in _by_split(tree, splits).items():
            layout.setdefault(split, {}).setdefault(normalized(name), []).append(join(base, f"{name}/{folder}"))
        for folder in inside[name].folders:
            if folder not in splits:
                note_unused(tree, join(base, f"{name}/{folder}"), tree.contents(join(base, f"{name}/{folder}")), ())
    return layout
