"""The files that the cells of a table name: each folder is listed once, however many rows there are."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vitreous.data.decoding.images import is_image_name
from vitreous.data.sources.names import normalized, split_of
from vitreous.data.sources.tabular.labels import described
from vitreous.data.sources.trees.tree import is_packed
from vitreous.support.errors import InputError
from vitreous.support.text import counted, listed

LONGEST = 100  # characters of a path in a message
ADDRESS, DRIVE = re.compile(r"[a-z]+://", re.IGNORECASE), re.compile(r"[A-Za-z]:/")


@dataclass(frozen=True)
class Found:
    """The files of a table's rows.

    Args:
        names: of the file of each row, relative to the folder; None for a cell that is empty or leads out of it.
        missing: the names of files that do not exist; they are in `names` as well.
        outside: the cells that lead out of the folder.
        empty: how many cells are empty.
        preferred: the names of files that are also in a folder of another split.
        listings: of a table, the files of the folders that were looked into.
    """

    names: list[str | None]
    missing: list[str]
    outside: list[str]
    empty: int
    preferred: list[str] = field(default_factory=list)
    listings: Mapping[str, Collection[str]] = field(default_factory=dict)


def find_files(
    source: str,
    folder: str,
    subfolder: str,
    cells: Sequence[object],
    follow_links: bool,
    search: bool = True,
    split: str | None = None,
) -> Found:
    """Finds the file of each cell.

    A cell is a path relative to the folder, or to the subfolder; a path inside another subfolder; or any of these
    without the suffix of the image. An absolute path has to be inside the folder.

    Args:
        source: the table as the user named it.
        folder: of the table, without links in its path.
        subfolder: a folder of it that is tried first.
        cells: of the column of paths.
        follow_links: whether paths and links out of the folder are followed.
        search: whether all folders below are searched for a file that is not where its cell says; a table is, but
            not the working folder.
        split: of the table, which chooses between folders such as train_images and test_images.

    Raises:
        InputError: several files fit a cell, no file exists, or cells are addresses on the web, lists or bytes.
    """
    files = _Files(source, folder, follow_links, search, split)
    found: dict[str, str | None] = {}
    result = Found([], [], [], sum(is_empty(cell) for cell in cells))
    for cell in cells:
        if isinstance(cell, bytes | list | tuple | set | dict) or getattr(cell, "shape", ()):  # NumPy's text has none
            cause = f"a path in {source!r} is {described(cell)}"
            raise InputError(cause, "write one path in each row, or name its column: --set path_column=…")
        text = "" if is_empty(cell) else str(cell)
        if text not in found:
            found[text] = _find(files, subfolder, text, result) if text else None
        result.names.append(found[text])
    named = len(found) - ("" in found)
    if named and len(result.missing) + len(result.outside) == named:
        raise _none_found(source, folder, named, result, follow_links, search)
    result.preferred.extend(files.preferred)
    return replace(result, listings=files.listings) if search else result


def _none_found(source: str, folder: str, count: int, result: Found, follow_links: bool, search: bool) -> InputError:
    """The error for a table without any file that may be read."""
    first = (result.missing or result.outside)[0]
    cause = f"{source!r} lists {counted(count, 'image')}, but none is in {folder!r}, such as {first[:LONGEST]!r}"
    exists = bool(result.outside) and os.path.lexists(os.path.join(folder, result.outside[0]))  # noqa: PTH118
    if exists and not follow_links:
        return InputError(cause, "move the table next to the images, or allow it with --set follow_links=true")
    if search and (packed := sorted(filter(is_packed, os.listdir(folder)))):  # noqa: PTH208 (names alone)
        return InputError(cause, f"unpack {listed([repr(name) for name in packed], 3)} next to the table")
    if search:
        return InputError(cause, "put the table next to the images, and write paths relative to its folder")
    return InputError(cause, "write absolute paths, or paths relative to this working folder")


def is_empty(cell: object) -> bool:
    """Whether a cell is missing: None, NaN, pandas' NA or no text."""
    if isinstance(cell, str):
        return not cell or cell.isspace()
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def _find(files: "_Files", subfolder: str, cell: str, result: Found) -> str | None:
    """The name of a cell's file, which `result` counts if it is missing or outside."""
    parent, _, base = cell.rpartition("/")
    if base in files.listings.get(parent, ()):  # a folder that an earlier cell led to, and that is inside
        return cell
    if cell in files.direct:
        return files.direct[cell]
    if "\\" in cell and files.in_folder(parent, base):  # a name with a backslash, not a path of Windows
        return cell
    path = files.relative(cell.strip())
    if path is None:
        result.outside.append(cell)
        return None
    parent, _, base = path.rpartition("/")
    if path.startswith("/"):
        parent = parent or "/"
    for folder in (parent, f"{subfolder}/{parent}".rstrip("/")) if subfolder and parent[:1] != "/" else (parent,):
        if name := files.in_folder(folder, base):
            return name
    if files.leaves(parent) or path in files.links_out:
        result.outside.append(cell)
        return None
    if files.search and path[0] != "/" and (name := files.anywhere(path)):
        return name
    result.missing.append(path)
    return path


@dataclass(eq=False)
class _Files:
    """The files below a folder.

    Args:
        source: the table, for messages.
        root: the folder.
        follow_links: whether what is outside counts as well.
        search: whether a file may be anywhere below.
        split: of the table; None if its name means none.
        listings: the files of the folders that were listed so far, by their names.
        stems: of the same folders, the images by their names without suffix.
        links_out: files that are links out of the folder.
        outside: folders that are, or lead, out of it.
        below: once it was searched, one image below the root by its folded name without suffix.
        repeated: the other images of the same folded name.
        direct: by the cell, what `anywhere` finds, for names that only one file has.
        preferred: the files that were chosen from several by their folder's split.
    """

    source: str
    root: str
    follow_links: bool
    search: bool
    split: str | None
    listings: dict[str, frozenset[str]] = field(default_factory=dict)
    stems: dict[str, dict[str, str]] = field(default_factory=dict)
    links_out: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)
    below: dict[str, str] | None = None
    repeated: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    direct: dict[str, str] = field(default_factory=dict)
    preferred: list[str] = field(default_factory=list)

    def relative(self, cell: str) -> str | None:
        """A cell as a path relative to the root, with "/"; None if it is outside."""
        if ADDRESS.match(cell):
            cause = f"the images of {self.source!r} are addresses, such as {cell[:80]!r}"
            raise InputError(cause, "download them, and write their paths in the table")
        path = cell.replace("\\", "/")
        if path.startswith("./") or "//" in path or "/." in path or path.startswith(".."):
            path = os.path.normpath(path)
        if path.startswith(f"{self.root}/"):
            path = path.removeprefix(f"{self.root}/")
        leaves = path.startswith(("/", "../")) or path == ".." or DRIVE.match(path)
        return None if leaves and not self.follow_links else path

    def in_folder(self, folder: str, base: str) -> str | None:
        """The file of this name in a folder, or the image of this name without its suffix."""
        files = self.listing(folder)
        if base in files:
            return f"{folder}/{base}" if folder else base
        if not files or is_image_name(base):
            return None
        if folder not in self.stems:
            self.stems[folder] = {}
            for name in sorted(filter(is_image_name, files)):
                stem = name.rpartition(".")[0]
                self.stems[folder][stem] = f"{self.stems[folder][stem]}/{name}" if stem in self.stems[folder] else name
        name = self.stems[folder].get(base, "")
        if "/" in name:
            raise self.ambiguous(base, name.split("/"))
        return (f"{folder}/{name}" if folder else name) if name else None

    def listing(self, folder: str) -> frozenset[str]:
        """The regular files of a folder; none if it does not exist or leads out of the root."""
        if folder not in self.listings:
            self.listings[folder] = frozenset()
            try:
                real = os.path.realpath(os.path.join(self.root, folder))  # noqa: PTH118 (a Path is slower)
                if not self.follow_links and not Path(real).is_relative_to(self.root):
                    self.outside.add(folder)
                    return self.listings[folder]
                with os.scandir(real) as entries:
                    self.listings[folder] = frozenset(e.name for e in entries if self._is_inside(folder, e))
            except (OSError, ValueError):  # it does not exist, or has a null character in its name
                return self.listings[folder]
        return self.listings[folder]

    def _is_inside(self, folder: str, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is a file that may be read."""
        if not entry.is_symlink():
            return entry.is_file()
        if not entry.is_file():
            return False
        if self.follow_links or Path(os.path.realpath(entry.path)).is_relative_to(self.root):
            return True
        self.links_out.add(f"{folder}/{entry.name}".lstrip("/"))
        return False

    def leaves(self, folder: str) -> bool:
        """Whether a folder leads out of the root."""
        return folder in self.outside

    def anywhere(self, path: str) -> str | None:
        """The one file below the root whose path ends like this, whatever its case, accents or suffix."""
        if self.below is None:
            self.below = self._all_below(path)
        folded = _folded(path)
        base = folded.rpartition("/")[2]
        has_suffix = is_image_name(base)
        key = base.rpartition(".")[0] if has_suffix else base
        fit = [self.below[key], *self.repeated.get(key, ())] if key in self.below else []
        if has_suffix or folded != base or len(fit) > 1:
            ends = [(name, _folded(name)) for name in fit]
            fit = [
                name for name, end in ends if f"/{end if has_suffix else end.rpartition('.')[0]}".endswith(f"/{folded}")
            ]
        if len(fit) > 1:
            of_split = [name for name in fit if self.split and split_of(name.partition("/")[0]) == self.split]
            if len(of_split) != 1:
                raise self.ambiguous(path, fit)
            fit = of_split
            self.preferred += fit
        return fit[0] if fit else None

    def _all_below(self, path: str) -> dict[str, str]:
        """The images below the root by their folded names without suffix; `path` is the first that is looked for."""
        below: dict[str, str] = {}
        seen: set[str] = set()
        for folder, folders, _ in os.walk(self.root, followlinks=self.follow_links):
            if self.follow_links:  # a link may lead to a folder above itself
                real = os.path.realpath(folder)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            at = os.path.relpath(folder, self.root)
            start = "" if at == "." else f"{at}/"
            for name in filter(is_image_name, self.listing(start.rstrip("/"))):
                key = _folded(name).rpartition(".")[0]
                if below.setdefault(key, start + name) != start + name:
                    self.repeated[key].append(start + name)
        if "/" not in path:
            has_suffix = is_image_name(path)
            for key, name in below.items():
                if key not in self.repeated:
                    base = name.rpartition("/")[2]
                    self.direct[base if has_suffix else base.rpartition(".")[0]] = name
        return below

    def ambiguous(self, cell: str, names: Sequence[str]) -> InputError:
        """The error for a cell that several files fit."""
        files = listed([repr(name) for name in sorted(names)])
        return InputError(f"{cell!r} in {self.source!r} may be {files}", "write its whole path")


def _folded(path: str) -> str:
    """A path without differences of case and of composed accents."""
    return normalized(path).casefold()
