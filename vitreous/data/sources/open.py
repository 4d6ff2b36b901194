"""Opens a source of labeled images: the embedded digits, or photos in folders or zip archives.

Opening reads names, not pixels. The splits depend on the file names alone, so they are the same every time and on
every machine.
"""

from collections import Counter
from pathlib import Path

from vitreous.data.sources.archives import SUFFIX, open_archives
from vitreous.data.sources.digits import DIGITS, open_digits
from vitreous.data.sources.folders import FolderTree, leads_to_file_inside
from vitreous.data.sources.layouts import LAYOUT, Tree, kind_of, open_tree
from vitreous.data.sources.names import split_of
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.published.names import hint_for_missing, open_named
from vitreous.data.sources.splits import ImageData
from vitreous.support.errors import InputError


def open_data(source: str | Path, options: DataOptions | None = None) -> ImageData:
    """Opens a source of labeled images.

    "digits" means scikit-learn's 1,797 handwritten digits of 8x8 pixels, of which a fixed fifth is the test split;
    use "./digits" for a folder of that name. Any other source is a folder in one of two layouts:

    - `FOLDER/CLASS/IMAGE`, without a test split.
    - `FOLDER/train/CLASS/IMAGE`, optionally with `val/`, `valid/` or `validation/`, and `test/` next to train/. Other
      folders there are ignored and counted. A folder called train that directly holds images is a class.

    Images may be in subfolders of a class folder. Links are followed only to files inside the source.

    A zip archive of either layout, perhaps inside one top folder, gives the same samples as the folder it was made
    from; it is read in place, and links in it are ignored and counted. A folder without subfolders may instead hold an
    archive for each split: `train.zip`, `val.zip` and `test.zip`.

    Without a validation split, a fixed part of train is held out: of each class with n images, the
    max(1, round(n * f)) whose names, relative to the class folder, have the smallest hashes. This does not depend on
    other classes, and hardly changes when images are added. The only image of a class stays in train.

    Args:
        source: "digits", a folder, or a zip archive.
        options: how to read it; f is its validation_fraction.

    Raises:
        InputError: the source does not exist or is empty, has one class, a class without images, or splits with
            different classes; or an archive cannot be read or has two images of the same name.
    """
    options = options or DataOptions()
    is_path = isinstance(source, Path) and source.is_dir()  # str(Path("./digits")) has no dot
    if str(source) == DIGITS and not is_path:
        return open_digits(options)
    named = open_named(source, options)
    return named if named is not None else open_tree(_tree(str(source)), options)


def _tree(source: str) -> Tree:
    """A folder, an archive, or a folder of archives as a tree."""
    root = _real_path(source)
    if not root.is_dir():
        return open_archives(source, [("", str(root))], Counter())
    tree = FolderTree(source, Counter(), str(root))
    entries = tree.entries("")
    if any(entry.is_folder for entry in entries):
        return tree
    archives = []
    for file in (root / entry.name for entry in entries):
        if file.suffix.casefold() != SUFFIX or split_of(file.stem) is None:
            tree.ignored[f"{kind_of(file.name)} next to the archives"] += 1
        elif not leads_to_file_inside(str(file), tree.root):
            raise InputError(f"{tree.path(file.name)!r} is a link out of the folder", "replace it with the archive")
        else:
            archives.append((file.stem, str(file)))
    return open_archives(source, archives, tree.ignored) if archives else FolderTree(source, Counter(), tree.root)


def _real_path(source: str) -> Path:
    """The path of a folder or archive with links resolved, against which links inside it are checked."""
    try:
        root = Path(source).resolve()
        if root.is_dir() or (root.is_file() and source.casefold().endswith(SUFFIX)):
            return root
        exists = root.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, a loop of links
        raise InputError(f"{source!r} cannot be opened: {error}", "check the path") from error
    if exists:
        raise InputError(f"{source!r} is not a folder or a {SUFFIX} archive", LAYOUT)
    raise InputError(f"{source!r} does not exist", hint_for_missing(source))
