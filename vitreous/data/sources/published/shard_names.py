"""Which files are the shards that a source means, and the split of each."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitreous.data.decoding.images import is_image_name
from vitreous.data.sources.names import evaluations, notes_on_evaluation, split_of
from vitreous.data.sources.trees.folders import leads_to_file_inside
from vitreous.data.sources.trees.tar_index import SUFFIX, first_names
from vitreous.data.sources.trees.tree import FOLLOW, is_clutter, kind_of
from vitreous.support.errors import InputError
from vitreous.support.text import counted, listed

MAX_SHARDS = 100_000
LOOKED_AT = 64  # files of an archive, to see whether it is a shard
CLASS_FILES = ("cls", "label", "class", "cls.txt", "label.txt", "class.txt")  # with a number or a name alone
LABEL_FILES = (*CLASS_FILES, "json", "txt")  # in this order
NUMBERED = re.compile(r"(?P<start>.*?)(?P<number>\d{1,9})(?P<end>(?:-of-(?P<count>\d{1,9}))?\.tar)", re.DOTALL | re.I)
RENAME = "name shards like train-000.tar, val-000.tar and test-000.tar"


@dataclass(frozen=True)
class Shards:
    """The shards of a source.

    Args:
        folder: that all of them are in.
        paths: of each split, in order.
        ignored: other files, by kind.
        notes: for the user.
    """

    folder: str
    paths: dict[str, list[str]]
    ignored: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()


def find_shards(source: str, follow_links: bool = False) -> Shards | None:
    """The shards that a source means; None if it is not a pattern, an archive or a folder of shards.

    A pattern is a path with `{000..099}`, `{a,b}`, `*` or `?` in the name of a .tar file. A folder has shards directly
    in it, or in folders called train, val and test; with class folders it is not one of shards. Links out of a folder
    are followed on request.

    Raises:
        InputError: a shard is missing, the names of some shards alone mean a split, keys have dots, or the shards are
            in folders inside its folders.
    """
    path = Path(source)
    if not os.path.lexists(source):
        if not is_pattern(source):
            return None
        paths = expand_pattern(source)
        return _by_split(paths, notes=gaps(paths))
    if path.is_file():
        if not source.casefold().endswith(SUFFIX):
            return None
        if has_labeled_keys([source]):
            return _by_split([source])
        refuse_dotted_keys([source])
        return None
    return _in_folder(path, follow_links) if path.is_dir() else None


def is_pattern(source: str) -> bool:
    """Whether a source is a pattern of shards."""
    return source.casefold().endswith((SUFFIX, ".tar.gz", ".tgz")) and re.search(r"[*?{\[]", source) is not None


def has_labeled_keys(paths: Sequence[str]) -> bool:
    """Whether one of these archives begins like a shard: an image and its label are files of the same key.

    A .json or .txt next to an image in a folder may be anything; there only the files for a class count.
    """
    for path in paths:
        names = first_names(path, LOOKED_AT)
        suffixes: dict[str, set[str]] = {}
        for name in names:
            key, suffix = key_of(name)
            suffixes.setdefault(key, set()).add(suffix)
        for key, found in suffixes.items():
            labels = CLASS_FILES if "/" in key else LABEL_FILES
            if any(suffix in labels for suffix in found) and any(is_image_name(f"x.{suffix}") for suffix in found):
                return True
    return False


def refuse_dotted_keys(paths: Sequence[str]) -> None:
    """Raises InputError if archives are no shards only because the keys in them have dots: v1.0.jpg and v1.0.cls."""
    for path in paths:
        names = dict.fromkeys(first_names(path, LOOKED_AT))
        for name in names:
            key, _, suffix = name.rpartition(".")
            label = next((f"{key}.{kind}" for kind in CLASS_FILES if f"{key}.{kind}" in names), None)
            if label and is_image_name(f"x.{suffix}"):
                cause = f"{name!r} and {label!r} in {path!r} are no sample: a key ends at the first dot"
                example = key.rpartition("/")[2].replace(".", "_")
                raise InputError(cause, f"write the shards again without dots in keys, as {example}.{suffix}")


def key_of(name: str) -> tuple[str, str]:
    """The key of a file, which is its name up to the first dot, and the rest: ("a/0001", "depth.png")."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return f"{folder}{slash}{key}", suffix.lower()


def split_of_shard(path: str) -> str | None:
    """The split that a shard's name without its numbers means: train-000.tar, val_shard_0.tar.

    Raises:
        InputError: it means several.
    """
    stem = Path(path).stem
    if split_of(stem) is not None:
        return split_of(stem)
    splits = {split for word in re.split(r"[\W\d_]+", stem) if (split := split_of(word)) is not None}
    if len(splits) > 1:
        raise InputError(f"the name of {path!r} means {' and '.join(sorted(splits))}", RENAME)
    return next(iter(splits), None)


def expand_pattern(pattern: str) -> list[str]:
    """The files of a pattern, in its order.

    Raises:
        InputError: a file is missing, or the pattern means none or too many.
    """
    paths = [path for each in expand_braces(pattern) for path in _matches(each)]
    paths = list(dict.fromkeys(paths))
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        cause = f"{len(missing):,} of the {len(paths):,} shards of {pattern!r} are missing: {listed(missing, 3)}"
        raise InputError(cause, "correct the pattern, or copy the shards there")
    if not paths:
        raise InputError(f"no file matches {pattern!r}", "check the path; quote the pattern")
    return paths


def expand_braces(pattern: str) -> list[str]:
    """All that `{000..099}` and `{a,b}` mean, in order, as in a shell.

    Raises:
        InputError: a brace is not closed, or there are too many.
    """
    pending, expanded = [pattern], []
    while pending:
        each = pending.pop()
        match = re.search(r"\{([^{}]*)\}", each)
        if match is None:
            expanded.append(each)
        else:
            items = _items(match[1], pattern, len(pending) + len(expanded))
            pending += [f"{each[: match.start()]}{item}{each[match.end() :]}" for item in reversed(items)]
    if any("{" in each or "}" in each for each in expanded):
        raise InputError(f"{pattern!r} has a brace without its pair", "write a range as {000..099}")
    return [*dict.fromkeys(expanded)]


def _items(inside: str, pattern: str, so_far: int) -> list[str]:
    """What a pair of braces stands for."""
    span = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inside)
    count = abs(int(span[2]) - int(span[1])) + 1 if span else inside.count(",") + 1
    if count + so_far > MAX_SHARDS:
        raise InputError(f"{pattern!r} means more than {MAX_SHARDS:,} shards", "correct the pattern")
    if span is None and "," not in inside:
        raise InputError(f"{pattern!r} has {{{inside}}}, which is not a range", "write a range as {000..099}")
    if span is None:
        return inside.split(",")
    first, last = int(span[1]), int(span[2])
    has_zeros = any(len(text) > 1 and text.startswith("0") for text in span.groups())
    width = max(map(len, span.groups())) if has_zeros else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}}" for number in range(first, last + step, step)]


def _matches(pattern: str) -> list[str]:
    """The sorted files that match `*`, `?` and `[…]`; the path itself without them."""
    if not re.search(r"[*?\[]", pattern):
        return [pattern]
    anchor = Path(pattern).anchor
    return sorted(str(path) for path in Path(anchor).glob(pattern.removeprefix(anchor)))


def _in_folder(folder: Path, follow_links: bool) -> Shards | None:
    """The shards directly in a folder or in its folders of splits; None if it is not a folder of shards."""
    top = _listing(folder)
    if top is None:
        return None
    names, subfolders = top
    places = [name for name in subfolders if split_of(name) is not None]
    files = [] if subfolders else [str(folder / name) for name in names]
    for name in places:
        inside = _listing(folder / name)
        if inside is None or inside[1]:
            _refuse_deeper(folder, subfolders)
            return None
        files += [str(folder / name / file) for file in inside[0]]
    shards = [path for path in files if path.casefold().endswith(SUFFIX)]
    of_each_kind = {re.sub(r"\d+", "", path): path for path in shards}
    if not has_labeled_keys(list(of_each_kind.values())):
        refuse_dotted_keys(list(of_each_kind.values()))
        _refuse_deeper(folder, subfolders)
        return None
    root = str(folder.resolve())
    outside = [] if follow_links else [path for path in shards if not leads_to_file_inside(path, root)]
    if outside:
        raise InputError(f"{outside[0]!r} is a link out of the folder", FOLLOW)
    ignored = Counter(
        f"{kind_of(Path(path).name)} next to the shards" for path in files if not path.casefold().endswith(SUFFIX)
    )
    ignored.update(f"folder next to the shards: {name}" for name in subfolders if name not in places)
    return _by_split(shards, str(folder), ignored, gaps(shards))


def _refuse_deeper(folder: Path, subfolders: Sequence[str]) -> None:
    """Raises InputError if shards are in folders that are not splits, or deeper inside, and no images are."""
    shards = []
    for name in subfolders:
        inside = _listing(folder / name)
        if inside is None:
            return
        shards += [f"{name}/{file}" for file in inside[0] if split_of(name) is None]
        for other in inside[1]:
            deeper = _listing(folder / name / other)
            if deeper is None:
                return
            shards += [f"{name}/{other}/{file}" for file in deeper[0]]
    shards = [name for name in shards if name.casefold().endswith(SUFFIX)]
    if shards and has_labeled_keys([str(folder / shards[0])]):
        cause = f"{str(folder)!r} has shards in folders inside it, such as {shards[0]!r}"
        raise InputError(cause, "move them to train/, val/ and test/ directly in it")


def _listing(folder: Path) -> tuple[list[str], list[str]] | None:
    """The sorted names of files and folders; None if images are among them, or if it cannot be read."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_clutter(entry.name):
                    continue
                if is_image_name(entry.name):
                    return None
                (folders if entry.is_dir() else files).append(entry.name)
    except OSError:  # reported by whoever opens the folder
        return None
    return sorted(files), sorted(folders)


def gaps(paths: Sequence[str]) -> list[str]:
    """A note on shards that are missing by their numbers, as train-001.tar between train-000.tar and train-002.tar."""
    groups: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for path in paths:
        if match := NUMBERED.fullmatch(path):
            groups[match["start"], match["end"]][int(match["number"])] = path
    missing = []
    for (start, end), numbers in groups.items():
        match = NUMBERED.fullmatch(numbers[min(numbers)])
        assert match is not None, "it was one before"
        first, last = (0, int(match["count"]) - 1) if match["count"] else (min(numbers), max(numbers))
        if last - first + 1 <= 2 * len(numbers):  # otherwise these are times, or a choice
            width = len(match["number"])
            missing += [f"{start}{at:0{width}}{end}" for at in range(first, last + 1) if at not in numbers]
    names = listed([repr(Path(path).name) for path in missing], 3)
    return (
        [f"{counted(len(missing), 'shard')} seem{'s' * (len(missing) == 1)} to be missing: {names}"] if missing else []
    )


def _by_split(
    paths: list[str], folder: str | None = None, ignored: Counter[str] | None = None, notes: Sequence[str] = ()
) -> Shards:
    """The shards by split; all are for training if no name means one."""
    paths = [os.path.abspath(path) for path in paths]  # noqa: PTH100 (a Path would follow links)
    folder = os.path.abspath(folder) if folder else os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH100, PTH120
    parents = {Path(path).parent.name for path in paths}
    names: dict[str, str] = {}  # the one of a shard's folder or of itself that means its split
    meaning: dict[str, str | None] = {}
    for path in paths:
        parent = Path(path).parent.name
        by_folder = split_of(parent) if len(parents) > 1 or os.path.dirname(path) != folder else None  # noqa: PTH120
        names[path] = parent if by_folder else Path(path).stem
        meaning[names[path]] = by_folder or split_of_shard(path)
    meaning |= evaluations(meaning)
    splits: dict[str | None, list[str]] = {}
    for path in paths:
        splits.setdefault(meaning[names[path]], []).append(path)
    others = splits.pop(None, [])
    if others and splits:
        cause = f"the name of {others[0]!r} means no split, but that of {next(iter(splits.values()))[0]!r} does"
        raise InputError(cause, RENAME)
    no_split = "the shards' names mean no split, so all of them are for training"
    notes = (*notes, *([no_split] if others else notes_on_evaluation(meaning)))
    by_split = {"train": others} if others else {split: found for split, found in splits.items() if split}
    return Shards(folder, by_split, ignored or Counter(), notes)
