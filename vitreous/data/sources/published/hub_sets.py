"""Labeled images of the Hugging Face hub: `hf:owner/name[@revision][:config]`, read by the library `datasets`.

No code of a repository runs: `datasets` has no loading scripts since its version 4. The Arrow files that it prepares
are mapped into memory, not read, so a set may be larger than memory; their images are decoded by us, within bounds.
"""

import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitreous.data.decoding.images import BadImage, Decoding
from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.names import distinct, normalized, split_of
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.published.opening import by_class
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.trees.tree import ImageLoader
from vitreous.support.errors import InputError
from vitreous.support.extras import install_command
from vitreous.support.hub import hub_errors
from vitreous.support.patience import within
from vitreous.support.text import first_line, listed, natural_key

PREFIX = "hf:"
NAME = re.compile(r"hf:(?:datasets/)?([\w.-]+/[\w.-]+)(?:@([^:@]+))?(?::([^:@]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
LABELS = ("label", "labels", "fine_label", "class", "cls", "category", "target", "class_name", "label_name")
IMAGES = ("image", "img", "images", "jpg", "png", "webp", "jpeg")
PATIENCE = 3.0  # seconds to wait for the hub if there is an alternative


class Place(NamedTuple):
    """A data set on the hub."""

    name: str
    repo_id: str
    revision: str | None
    config: str | None


@dataclass(frozen=True, eq=False)
class HubLoader(ImageLoader):
    """Decodes the images in a column of an Arrow table.

    Args:
        table: a `datasets.Dataset` with that column alone, undecoded; it is pickled as the paths of its files.
        column: the name of the column.
        rows: of the samples, int64.
        caches: the folders in which images that are not in the table may be.
    """

    table: Any
    column: str
    rows: np.ndarray
    caches: tuple[str, ...]

    def file(self, index: int) -> str | bytes:
        """The bytes of an image file, or the path of one in the cache.

        Raises:
            BadImage: there is neither; a path elsewhere is not opened, since anybody can write one into a table.
        """
        value = self.table[int(self.rows[index])][self.column] or {}
        content, path = value.get("bytes"), value.get("path")
        if content is not None:
            return content
        real = Path(path).resolve() if path else None
        if real is None or not any(real.is_relative_to(cache) for cache in self.caches):
            raise BadImage(self.names[index], "is not in the data set", "leave it out, or ask its publisher")
        return str(path)


def open_hub_set(name: str, options: DataOptions) -> ImageData:
    """A data set of the hub, in its own splits; a part of train is held out if it has none to validate on.

    The revision is resolved to a commit, which is in the notes and pins the set if it is given as @COMMIT.

    Raises:
        InputError: the library is missing, the set does not exist or cannot be reached, or has no images or labels.
    """
    place = parse(name)
    library = _library()
    with _quiet(library):
        tables, commit = _load(library, place)
    notes = [f"{place.repo_id} at commit {commit}"] if commit else []
    splits = {}
    for key, table in tables.items():
        split = split_of(key)
        if split is None and len(tables) == 1:
            split = "train"
        if split is None:
            notes.append(f"the split {key!r} with {len(table):,} rows is not used")
        elif split in splits:
            raise InputError(f"{name} has two {split} splits", "choose another configuration: hf:owner/name:CONFIG")
        else:
            splits[split] = table
    if "train" not in splits:
        raise InputError(f"{name} has no train split, but {listed([*tables])}", "choose another set")
    image, label = choose_columns(name, splits["train"].features, notes)
    classes, samples = _samples(name, splits, label, notes)
    caches = tuple(str(Path(folder).resolve()) for folder in (library.config.HF_DATASETS_CACHE, _hub_cache()))
    columns = {split: _undecoded(library, table, image) for split, table in splits.items()}

    def loader(names: tuple[str, ...], decoding: Decoding) -> HubLoader:
        split = names[0].partition("/")[0] if names else "train"
        rows = np.array([int(each.rpartition("/")[2]) for each in names], np.int64)
        return HubLoader(names, decoding, columns[split], image, rows, caches)

    order = [each for each in classes if each in samples["train"]]
    return assemble(name, samples, loader, options, notes=notes, class_names=order)


def parse(name: str) -> Place:
    """The parts of a name. Raises InputError if it is not one."""
    match = NAME.fullmatch(name)
    if match is None:
        hint = "write hf:owner/name, hf:owner/name@revision or hf:owner/name@revision:config"
        raise InputError(f"{name!r} is not a data set of the hub", hint)
    return Place(name, *match.groups())


def choose_columns(name: str, features: Mapping[str, Any], notes: list[str]) -> tuple[str, str]:
    """The columns of images and of labels; a note says so where there is a choice.

    Raises:
        InputError: one of them is missing.
    """
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    named = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    plain = [
        column for column in LABELS if getattr(features.get(column), "dtype", None) in ("string", "int64", "int32")
    ]
    columns = listed([f"{column} ({kind})" for column, kind in kinds.items()])
    if not images:
        raise InputError(f"{name} has no column of images, but {columns}", "choose a set of images")
    if not named and not plain:
        raise InputError(f"{name} has no column of class labels, but {columns}", "choose a set with labels")
    image = next((column for column in IMAGES if column in images), images[0])
    label = next((column for column in LABELS if column in named), (named or plain)[0])
    for chosen, others in ((image, images), (label, named)):
        if len(others) > 1:
            rest = listed([repr(column) for column in others if column != chosen])
            notes.append(f"the column {chosen!r} is used, and not {rest}")
    return image, label


def _samples(
    name: str, splits: dict[str, Any], label: str, notes: list[str]
) -> tuple[list[str], dict[str, dict[str, list[str]]]]:
    """The class names, and the names of the samples by split and class; unlabeled ones are noted."""
    classes: list[str] = []
    numbers: dict[str, np.ndarray] = {}
    if type(splits["train"].features[label]).__name__ == "ClassLabel":
        classes = distinct(map(normalized, splits["train"].features[label].names))
        for split, table in splits.items():
            if label in table.features:
                numbers[split] = table.data.column(label).fill_null(-1).to_numpy()
    else:
        texts = {
            split: [None if value is None else normalized(str(value)) for value in table.data.column(label).to_pylist()]
            for split, table in splits.items()
            if label in table.features
        }
        classes = sorted({text for values in texts.values() for text in values if text}, key=natural_key)
        number_of = {text: number for number, text in enumerate(classes)}
        for split, values in texts.items():
            numbers[split] = np.array([number_of[text] if text else -1 for text in values], np.int64)
    samples = {}
    for split in list(splits):
        labels = numbers.get(split, np.zeros(0, np.int64))
        labeled = np.flatnonzero(labels >= 0)
        if len(labeled) < len(splits[split]):
            count = len(splits[split]) - len(labeled)
            notes.append(f"{count:,} of {len(splits[split]):,} images of {split} have no label and are not used")
        names = (f"{split}/{row:07}" for row in labeled.tolist())
        try:
            samples[split] = by_class(names, labels[labeled].astype(np.int64), classes)
        except ValueError as error:
            raise InputError(f"{name} has {error}", "choose another revision") from error
    return classes, {split: each for split, each in samples.items() if each or split == "train"}


def _undecoded(library: Any, table: Any, column: str) -> Any:
    """The column of images alone, whose rows are the bytes of files."""
    return table.select_columns([column]).cast_column(column, library.Image(decode=False))


def _library() -> Any:
    """The library `datasets`. Raises InputError if it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise InputError("data sets of the hub need the library datasets", install_command("data")) from error
    return datasets


def _hub_cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def _load(library: Any, place: Place) -> tuple[Mapping[str, Any], str]:
    """The tables of the splits, and their commit; from the cache if the hub cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    repository = f"datasets/{place.repo_id}"
    commit = None
    with hub_errors(
        place.name, repository, "connect to it, or give a folder with the images", partial(_instead_of, place)
    ):
        try:
            request = partial(HfApi().dataset_info, place.repo_id, revision=place.revision, timeout=30)
            is_cached = Path(library.config.HF_DATASETS_CACHE, place.repo_id.replace("/", "___")).is_dir()
            commit = (within(PATIENCE, request) if is_cached else request()).sha
        except RepositoryNotFoundError:
            raise
        except (OfflineModeIsEnabled, HTTPError, ConnectionError, TimeoutError) as error:
            if getattr(error, "response", None) is not None:
                raise
            with _offline(library):
                tables = _prepared(library, place, place.revision, offline=True)
            if tables is None:
                raise
        else:
            tables = _prepared(library, place, commit, offline=False)
    assert tables is not None
    prepared = _commit_of(tables)
    wanted = commit or (place.revision if COMMIT.fullmatch(place.revision or "") else None)
    if wanted and prepared and prepared != wanted:
        cause = f"the cache has {place.repo_id} at commit {prepared}, not at {wanted}"
        raise InputError(cause, "connect to the hub, or use the commit in the cache")
    return tables, commit or prepared or ""


def _prepared(library: Any, place: Place, revision: str | None, offline: bool) -> Mapping[str, Any] | None:
    """What the library downloads and prepares; None if it is offline and has no copy."""
    try:
        # With this prefix, a folder of the same name on this machine is not taken for the repository.
        return library.load_dataset(f"hf://datasets/{place.repo_id}", place.config, revision=revision)
    except Exception as error:
        # The library raises ValueError, RuntimeError, OSError and its own classes for what is in a repository.
        if offline:
            return None
        if type(error).__module__.startswith(("huggingface_hub", "httpx")) or isinstance(error, ConnectionError):
            raise
        choices = re.search(r"(?:among the available configs|Available): \[(.*?)\]", str(error))
        if choices:
            cause = f"{place.name} has several configurations"
            if place.config is not None:
                cause = f"{place.repo_id} has no configuration {place.config!r}"
            names = choices[1].replace("'", "")
            raise InputError(cause, f"add one, as in hf:{place.repo_id}:CONFIG, from: {names}") from error
        hint = "choose a set with image files or Parquet"
        if "scripts" in str(error):
            hint = f"try its Parquet copy: hf:{place.repo_id}@refs/convert/parquet"
        raise InputError(f"{place.name} cannot be read: {first_line(error) or type(error).__name__}", hint) from error


@contextmanager
def _offline(library: Any) -> Generator[None, None, None]:
    """Keeps the library from trying a hub that cannot be reached again and again, for minutes."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, library.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = library.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, library.config.HF_HUB_OFFLINE = before


def _commit_of(tables: Mapping[str, Any]) -> str | None:
    """The commit in the path of the prepared files."""
    for table in tables.values():
        for file in table.cache_files:
            for parent in Path(file["filename"]).parents:
                if COMMIT.fullmatch(parent.name):
                    return parent.name
    return None


def _instead_of(place: Place) -> str:
    """A hint for a set that does not exist: that it is weights, or to check the name."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(place.repo_id, timeout=PATIENCE)
    except (HfHubHTTPError, OSError):
        return "check the name"
    return f"that is weights: give images as DATA, and --model hf:{place.repo_id}"


@contextmanager
def _quiet(library: Any) -> Generator[None, None, None]:
    """Shows the library's bars on a terminal only, and none of its warnings."""
    verbosity = library.logging.get_verbosity()
    library.logging.set_verbosity_error()
    bars = library.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        library.disable_progress_bars()
    try:
        yield
    finally:
        library.logging.set_verbosity(verbosity)
        if not bars:
            library.enable_progress_bars()
