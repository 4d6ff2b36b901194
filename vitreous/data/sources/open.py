"""Opens a source of labeled images: a folder, an archive, a table, a data set by name, or an object of Python.

Opening reads names, not pixels. The splits depend on the file names alone, so they are the same every time and on
every machine.

One folder around a layout is entered. The layouts are those of `open_data`. Images may be in subfolders of a class
folder. A folder called train next to class folders is a class if it directly holds images. Class names that only
differ in how their accents are stored are one class. What is not used is counted by kind, or named in the notes if it
has images: images next to class folders, hidden folders, folders next to the splits, a test split without labels,
archives inside folders. Folders that seem to be splits, folds or sessions but are not in these layouts are refused, so
that none of them becomes a class.

Links to files and folders inside the source are followed, others with the option `follow_links`; a split or class
folder that is a link out of the source, or to nothing, is named.

An archive gives the same samples as the folder it was made from; it is read in place, and links in it are ignored and
counted. A compressed tar archive is first decompressed to the user's cache, until the process ends. A folder without
images in subfolders may instead hold an archive for each split, such as `train.zip`, `val.zip` and `test.zip`.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from vitreous.data.sources.digits import DIGITS, open_digits
from vitreous.data.sources.names import splits_among
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.published.names import hint_for_missing, open_named
from vitreous.data.sources.published.opening import open_published
from vitreous.data.sources.published.torchvision_sets import BY_NAME
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.tabular.objects import open_objects
from vitreous.data.sources.tabular.tables import FORMATS, is_table, is_unread_table, open_table
from vitreous.data.sources.trees.archives import SUFFIX, open_archives
from vitreous.data.sources.trees.folders import FolderTree, leads_to_file_inside
from vitreous.data.sources.trees.layouts import open_tree
from vitreous.data.sources.trees.tars import is_tar_name, open_tars, suffix_of
from vitreous.data.sources.trees.tree import FOLLOW, LAYOUT, Tree, is_packed, kind_of
from vitreous.support.errors import InputError

NAMES = (DIGITS, *BY_NAME)
SET = "set:"  # begins the name of a data set that is also a file or folder here


def open_data(source: Any, options: DataOptions | None = None) -> ImageData:
    """Opens a source of labeled images.

    "digits" means scikit-learn's 1,797 handwritten digits of 8x8 pixels, of which a fixed fifth is the test split.
    Next to a folder of that name, "./digits" means the folder and "set:digits" the digits. Any other source is a
    folder in one of three layouts, or a zip or tar archive of one:

    - `FOLDER/CLASS/IMAGE`, without a test split.
    - `FOLDER/SPLIT/CLASS/IMAGE`, where one SPLIT is train and the others are validation or test. They are recognized
      in any case and with any ending, as in `Training/` and `Testing/`, `test_set/` or `val2017/`, and in some other
      languages (see `names.py`).
    - `FOLDER/CLASS/SPLIT/IMAGE`, with the same splits.

    Without a validation split, a fixed part of train is held out: of each class with n images, the
    max(1, round(n * f)) whose names, relative to the class folder, have the smallest hashes. This does not depend on
    other classes, and hardly changes when images are added. The only image of a class stays in train.

    A table, as text, JSON or Parquet, has a row for each image; see `open_table`. In Python, a DataFrame of
    the same columns, a map-style dataset, and a tuple or dict of either by split are sources as well; see
    `open_objects`.

    Args:
        source: a data set by name, a folder, an archive, a table, or an object of Python.
        options: how to read it; f is its validation_fraction.

    Raises:
        InputError: the source does not exist or is empty, its layout is not one of these, it has one class, a class
            without training images, or splits with different classes; or an archive cannot be read or has two images
            of the same name.
    """
    options = options or DataOptions()
    if not isinstance(source, str | Path):
        return open_objects(source, options)
    if not str(source).strip():
        raise InputError(
            "the data is an empty name", "name a folder, an archive, a table or a set: vitreous list sources"
        )
    if is_table(source) and Path(source).is_file():
        return open_table(str(source), options)
    if options.names_columns and not is_table(source):
        raise InputError(f"{str(source)!r} is not a table, but a column is named", "remove the settings of columns")
    name = named_set(source, NAMES)
    if name == DIGITS:
        return open_digits(options)
    if name is not None:
        return open_published(name, options)
    named = open_named(str(source), options)
    return named if named is not None else open_tree(_tree(str(source), options), options)


def named_set(source: str | Path, names: Collection[str]) -> str | None:
    """The data set of these names that a source means; None for a path.

    Raises:
        InputError: a file or folder here has the same name, or there is no such set.
    """
    name = str(source)
    if name.startswith(SET):
        if name.removeprefix(SET) not in names:
            raise InputError(
                f"there is no data set {name.removeprefix(SET)!r}", hint_for_missing(name.removeprefix(SET))
            )
        return name.removeprefix(SET)
    if name not in names:
        return None
    if not Path(name).exists():
        return name
    if isinstance(source, Path):  # str(Path("./digits")) has no dot
        return None
    raise InputError(
        f"{name!r} is both a data set and a file or folder here",
        f"type ./{name} for the folder, or {SET}{name} for the data set",
    )


def _tree(source: str, options: DataOptions) -> Tree:
    """A folder, an archive, or a folder of archives as a tree."""
    root = _real_path(source)
    if not root.is_dir():
        return _open_packed(source, [("", str(root))], Counter())
    tree = FolderTree(source, Counter(), str(root), options.follow_links)
    packed = [name for name in tree.contents("").archives if _is_archive(name)]
    splits = splits_among([_stem(name) for name in packed])
    if not splits or _has_images_in_folders(tree):
        return tree
    for entry in tree.entries(""):
        if _stem(entry.name) not in splits or entry.name not in packed:
            kind = "folder" if entry.is_folder else kind_of(entry.name)
            tree.ignored[f"{kind} next to the archives"] += 1
    archives = [(_stem(name), str(root / name)) for name in packed if _stem(name) in splits]
    for _, path in archives:
        if not options.follow_links and not leads_to_file_inside(path, tree.root):
            raise InputError(f"{path!r} is a link out of the folder", FOLLOW)
    return _open_packed(source, archives, tree.ignored)


def _open_packed(source: str, archives: Sequence[tuple[str, str]], ignored: Counter[str]) -> Tree:
    """The tree of archives, all of the same kind."""
    tars = [is_tar_name(path if folder else source) for folder, path in archives]  # the path may be a link's target
    if any(tars) and not all(tars):
        names = " and ".join(Path(path).name for _, path in archives)
        raise InputError(f"{source!r} has archives of two kinds, {names}", "give each split the same kind")
    return open_tars(source, archives, ignored) if all(tars) else open_archives(source, archives, ignored)


def _is_archive(name: str) -> bool:
    """Whether a file has the suffix of an archive that can be opened."""
    return is_tar_name(name) or name.casefold().endswith(SUFFIX)


def _stem(name: str) -> str:
    """The name of an archive without its suffixes."""
    return name[: -len(suffix)] if (suffix := suffix_of(name)) else Path(name).stem


def _has_images_in_folders(tree: Tree) -> bool:
    """Whether any folder at the top holds images."""
    return any(next(iter(tree.images(name, Counter())), None) for name in tree.contents("").folders)


def _real_path(source: str) -> Path:
    """The path of a folder or archive with links resolved, against which links inside it are checked."""
    try:
        root = Path(source).resolve()
        if root.is_dir() or (root.is_file() and _is_archive(source)):
            return root
        exists = root.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, a loop of links
        raise InputError(f"{source!r} cannot be opened: {error}", "check the path") from error
    if root.is_file() and is_packed(source):
        raise InputError(f"{source!r} is an archive of a kind that is not read", "unpack it, and use what is in it")
    if exists:
        hint = FORMATS if is_unread_table(source) else LAYOUT
        raise InputError(f"{source!r} is not a folder, an archive or a table", hint)
    raise InputError(f"{source!r} does not exist", hint_for_missing(source))
