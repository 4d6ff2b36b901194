"""Images in files that the rows of a table name."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vitreous.data.decoding.images import is_image_name
from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.tabular.lookup import Found
from vitreous.data.sources.tabular.samples import NO_IMAGE, group
from vitreous.data.sources.trees.tree import ImageLoader
from vitreous.support.text import counted, listed


@dataclass(frozen=True, eq=False)
class ListedLoader(ImageLoader):
    """Loads the image files that a table lists.

    Args:
        folder: that names are relative to; an absolute name is not in it.
    """

    folder: str

    def file(self, index: int) -> str:
        return os.path.join(self.folder, self.names[index])  # noqa: PTH118 (a Path is slower)


def open_listed(
    source: str,
    folder: str,
    found: Sequence[Found],
    labels: Sequence[str | None],
    splits: Sequence[str | None] | None,
    options: DataOptions,
    *,
    notes: Sequence[str],
    has_boxes: bool = False,
) -> ImageData:
    """The images of tables whose files were found; files that do not exist stay, as broken images.

    Args:
        source: the table as the user named it.
        folder: that the names are relative to.
        found: the files of each table.
        labels: of the rows of all tables.
        splits: of the rows of all tables; None if all are for training.
        options: how to read them.
        notes: for the user.
        has_boxes: whether the table has boxes as well.
    """
    samples = group(source, [name for files in found for name in files.names], labels, splits, has_boxes)
    missing = [repr(cell) for files in found for cell in files.missing]
    outside = [repr(cell) for files in found for cell in files.outside]
    notes = [*notes, *samples.notes]
    if missing:
        notes.append(f"{counted(len(missing), 'image')} missing, counted as broken: {listed(missing)}")
    if outside:
        where = "out of the table's folder, not used without --set follow_links=true"
        notes.append(f"{counted(len(outside), 'path')} {where}: {listed(outside)}")
    if preferred := [repr(name) for files in found for name in files.preferred]:
        note = "also in a folder of another split; that of the table's split is used"
        notes.append(f"{counted(len(preferred), 'image')} {note}: {listed(preferred, 3)}")
    notes += not_listed(found)
    ignored = Counter(samples.ignored)
    ignored.update({"path or link out of the folder": len(outside), NO_IMAGE: sum(files.empty for files in found)})
    return assemble(
        source,
        samples.by_split,
        lambda names, decoding: ListedLoader(names, decoding, folder),
        options,
        ignored=+ignored,
        notes=notes,
    )


def not_listed(found: Sequence[Found]) -> list[str]:
    """A note on the images that no table lists, in folders of which it lists others."""
    names = {name for files in found for name in files.names if name is not None}
    count, first = 0, ""
    for folder in sorted({name.rpartition("/")[0] for name in names}):
        listing = next((files.listings[folder] for files in found if folder in files.listings), ())
        start = f"{folder}/" if folder else ""
        rest = [name for name in listing if is_image_name(name) and start + name not in names]
        count += len(rest)
        first = first or (start + min(rest) if rest else "")
    are = "is" if count == 1 else "are"
    if not count:
        return []
    return [f"{counted(count, 'image')} in the folders of the table's images {are} not in the table, such as {first!r}"]
