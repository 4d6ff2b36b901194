"""Which columns of a table hold the image, the label and the split."""

import re
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from vitreous.data.sources.options import DataOptions
from vitreous.support.errors import InputError
from vitreous.support.text import listed, natural_key

# Usual names, without case, spaces and signs. A name of an earlier row is preferred; two of one row are ambiguous.
IMAGE = (
    "path paths filepath filepaths imagepath imagepaths imgpath",
    "filename filenames file files fname imagename imgname imagefile imgfile imagefilename",
    "image images img photo picture",
    "imageid imgid photoid pictureid",
    "id uuid",
)
NUMBERS = "classid labelid categoryid targetid classidx labelidx classindex"
LABEL = (
    "labelname classname categoryname classlabel",
    "label labels class classes category target targets species breed diagnosis dx",
    "choice",  # of Label Studio
    NUMBERS,
    "y",
)
SPLIT = (
    "split set subset partition phase usage dataset",
    "istrain istraining istrainingimg",
    "istest istesting",
    "isval isvalid isvalidation",
)
FOLDS = ["fold", "folds", "kfold", "kfolds", "foldid", "foldnumber", "cvfold"]
FLAGS: dict[str, tuple[str, str]] = {  # columns of 0 and 1: the split of the rows with 1, and of the others
    **dict.fromkeys(SPLIT[3].split(), ("validation", "train")),
    **dict.fromkeys(SPLIT[2].split(), ("test", "train")),
    **dict.fromkeys(SPLIT[1].split(), ("train", "test")),
}
BOXES = ({"xmin", "ymin"}, {"bbox"}, {"boxes"}, {"x1", "y1"}, {"roix1", "roiy1"}, {"encodedpixels"}, {"segmentation"})
ZEROS, ONES = ("0", "0.0", "False", "false"), ("1", "1.0", "True", "true")


class Columns(NamedTuple):
    """The columns that are read.

    Args:
        image: the position of the image's path, or of the image itself.
        label: the position of the label; None if there is a column for each class.
        split: the position of the split, if there is one.
        classes: the positions of the columns of the classes, in which a row has one 1.
        flags: of a split column of 0 and 1: the split of 1, and of 0.
        has_boxes: whether there are boxes or masks as well, which are not used.
        notes: on columns of splits, folds or boxes that are not used.
        number: the position of a column of label numbers next to that of names, which is not used.
    """

    image: int
    label: int | None
    split: int | None
    classes: tuple[int, ...]
    flags: tuple[str, str] | None
    has_boxes: bool
    notes: tuple[str, ...] = ()
    number: int | None = None


def choose_columns(
    source: str,
    names: Sequence[str],
    options: DataOptions,
    first: Sequence[object] = (),
    image: str | None = None,
) -> Columns:
    """Finds the columns by their usual names, or as the options name them.

    Args:
        source: the table as the user named it.
        names: of its columns.
        options: may name the columns.
        first: the cells of the first row, by which columns of 0 and 1 are recognized.
        image: the name of a column that holds images, not paths.

    Raises:
        InputError: a column of images or labels is not found, or several may be meant.
    """
    found_image = _find(source, names, IMAGE, options.path_column or image, "path_column", "images")
    label = _find(source, names, LABEL, options.label_column, "label_column", "labels")
    split = _find(source, names, SPLIT, options.split_column, "split_column", "splits")
    if split is not None and options.split_column is None:
        _refuse_several_flags(source, names, split)
    rest = [at for at in range(len(names)) if at not in (found_image, label, split)]
    if len(names) == 2 + (split is not None) and (found_image is None) != (label is None):
        found_image, label = (found_image, rest[0]) if label is None else (rest[0], label)
    if found_image is None:
        cause = f"{source!r} has no column of images that is known by its name"
        raise InputError(cause, _hint(names, "path_column"))
    classes: tuple[int, ...] = ()
    if label is None:
        others = [at for at in rest if at < len(first) and _plain(names[at]) not in (*FLAGS, *FOLDS)]
        classes = tuple(at for at in others if str(first[at]).strip() in (*ZEROS, *ONES))
        if len(classes) < 2:
            raise no_labels(source, names)
    plain = {_plain(name) for name in names}
    has_boxes = any(box <= plain for box in BOXES)
    notes = _notes(names, (found_image, label, split, *classes), has_boxes)
    flags = None if split is None else FLAGS.get(_plain(names[split]))
    numbers = [at for at in rest if at != label and _plain(names[at]) in NUMBERS.split()]
    number = numbers[0] if label is not None and options.label_column is None and len(numbers) == 1 else None
    return Columns(found_image, label, split, classes, flags, has_boxes, notes, number)


def shared_names(names: Sequence[str], columns: Columns, pairs: Iterable[tuple[object, object]]) -> list[str]:
    """A note on classes of one name and several numbers.

    Args:
        names: of the columns.
        columns: of which there is one of numbers next to that of labels.
        pairs: the label and the number of rows.
    """
    if columns.number is None:
        return []
    numbers: dict[str, set[str]] = {}
    for label, number in pairs:
        if label is not None and number is not None and (text := str(number).strip()):
            numbers.setdefault(str(label).strip(), set()).add(text)
    shared = [
        f"{label!r} ({listed(sorted(each, key=natural_key))})" for label, each in numbers.items() if len(each) > 1
    ]
    column = names[columns.number]
    how = f"to keep them apart: --set label_column={column}"
    return [f"several numbers in {column!r} are one class: {listed(sorted(shared), 3)}; {how}"] if shared else []


def _notes(names: Sequence[str], used: Container[int | None], has_boxes: bool) -> tuple[str, ...]:
    """What the user should know of the columns that are not used."""
    rest = [name for at, name in enumerate(names) if at not in used]
    folds = [repr(name) for name in rest if _plain(name) in FOLDS]
    splits = [repr(name) for name in rest if _plain(name) in FLAGS or _plain(name) in SPLIT[0].split()]
    notes = {
        f"the folds in {listed(folds)} are not used; to validate on one, write a column split": folds,
        f"columns of splits that are not used: {listed(splits)}": splits,
        "the boxes or masks are not used: the label of a row is that of its whole image": has_boxes,
    }
    return tuple(note for note, applies in notes.items() if applies)


def no_labels(source: str, names: Sequence[str]) -> InputError:
    """The error for a table without labels."""
    return InputError(f"{source!r} has no column of labels that is known by its name", _hint(names, "label_column"))


class OneHot:
    """Reads labels from a column for each class, in which a row has one 1.

    Args:
        source: the table as the user named it.
        names: of all its columns.
        columns: the positions of those of the classes.
    """

    def __init__(self, source: str, names: Sequence[str], columns: Sequence[int]) -> None:
        self.source, self.names, self.columns = source, names, columns
        self.error: InputError | None = None

    def label(self, cells: Sequence[object], number: int) -> str | None:
        """The class of a row; None if it has several or none, which `check` raises once all rows were read.

        Args:
            cells: of the row in these columns.
            number: of the row, for messages.

        Raises:
            InputError: a cell is not 0 or 1, so these are not columns of classes.
        """
        values = [str(cell).strip() for cell in cells]
        if not all(value in ZEROS or value in ONES for value in values):
            raise no_labels(self.source, self.names)
        ones = [self.names[at] for at, value in zip(self.columns, values, strict=True) if value in ONES]
        if len(ones) == 1:
            return ones[0]
        if self.error is None:
            cause = f"row {number} of {self.source!r} has {len(ones)} classes" + (f", {listed(ones)}" if ones else "")
            hint = "leave out such rows, or name a column: --set label_column=…"
            self.error = InputError(f"{cause}; an image can have only one", hint)
        return None

    def check(self) -> None:
        """Raises InputError if a row had several classes, or none."""
        if self.error is not None:
            raise self.error


def _refuse_several_flags(source: str, names: Sequence[str], split: int) -> None:
    """Raises InputError if the splits are in several columns of 0 and 1."""
    flags = [name for name in names if _plain(name) in FLAGS]
    if _plain(names[split]) in FLAGS and len(flags) > 1:
        cause = f"{source!r} has its splits in several columns, {listed([repr(name) for name in flags])}"
        raise InputError(
            cause, f"write one column split of train, val and test, or use one: --set split_column={flags[0]}"
        )


def _find(
    source: str, names: Sequence[str], usual: Sequence[str], wanted: str | None, setting: str, what: str
) -> int | None:
    """The position of a column: the named one, or the only one of the most preferred names."""
    for tier in [None] if wanted is not None else usual:
        found = [
            at for at, name in enumerate(names) if (name == wanted if tier is None else _plain(name) in tier.split())
        ]
        if len(found) == 1:
            return found[0]
        if found:
            columns = listed([repr(names[at]) for at in found])
            cause = f"{source!r} has several columns that may hold the {what}: {columns}"
            raise InputError(cause, f"name one, such as --set {setting}={names[found[0]]}; each name may occur once")
    if wanted is not None:
        raise InputError(f"{source!r} has no column {wanted!r}", f"its columns are {listed([repr(n) for n in names])}")
    return None


def _hint(names: Sequence[str], setting: str) -> str:
    """What to type where a column is not found."""
    return f"name it with --set {setting}=…; the columns are {listed([repr(name) for name in names])}"


def _plain(name: str) -> str:
    """A column's name without case, spaces and signs."""
    return re.sub(r"[\W_]+", "", name.casefold())
