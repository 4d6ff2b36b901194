"""Names to local files: `hf:owner/name`, `timm:name.tag`, `torchvision:vit_b_16`, `google:…`, `meta:…`, `https://…`."""

import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from vitreous.checkpoints.files.layout import (
    CONFIG,
    INDEX,
    PREPROCESSOR,
    SUFFIXES,
    read_index,
    read_json,
    weights_among,
)
from vitreous.checkpoints.sources import pretrained
from vitreous.checkpoints.sources.download import bytes_text, check_address, download
from vitreous.checkpoints.sources.repository import Repository, hub_errors, open_repository
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError, unknown
from vitreous.support.files import cache_folder
from vitreous.support.text import printable


@dataclass(frozen=True)
class Located:
    """A checkpoint on this machine, and what its name and the files next to it say about it.

    Args:
        path: the weights file, or the index of a sharded one, whose shards are in the same folder.
        source: the canonical name, with the commit if there is one; contains no local path.
        license: SPDX-like, if known.
        family: the family, if the name implies one; a repository of `hf:` may hold any.
        class_names: torchvision's, in the order of the logits.
        preprocessing: torchvision's transforms.
        fields: fields of ViTConfig that the table of published weights knows and the file's keys do not record.
    """

    path: Path
    source: str
    license: str | None = None
    family: str | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def json_files(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The config.json and preprocessor_config.json in the folder of the weights; {} for one that is missing."""
        config, preprocessor = (self.path.with_name(name) for name in (CONFIG, PREPROCESSOR))
        return read_json(config) if config.is_file() else {}, read_json(preprocessor) if preprocessor.is_file() else {}


def is_remote(name: str) -> bool:
    """Whether `fetch` accepts a name. `http:` is included, so that `fetch` can refuse it with a reason."""
    scheme, colon, rest = name.partition(":")
    return bool(colon) and scheme in SCHEMES and (not scheme.startswith("http") or rest.startswith("//"))


def fetch(name: str) -> Located:
    """Locates the weights of a remote name, downloading them unless they are cached.

    Size and license are printed on stderr before a download.

    Args:
        name: `hf:owner/name[/file][@revision]`, `timm:name.tag[@revision]`, `torchvision:model[.weights]`,
            `google:` or `meta:` and a name of the table, or `https://host/file#sha256=<64 hex digits>`.

    Raises:
        InputError: the name does not exist, cannot be reached, or the content does not match its checksum. The hint
            says where to put a copy.
    """
    if not is_remote(name):
        raise InputError(f"{name!r} is not a remote name", f"such names begin with {', '.join(SCHEMES)}")
    return SCHEMES[name.partition(":")[0]](name)


def push(folder: Path, repo_id: str, *, private: bool = False, token: str | None = None, message: str) -> str:
    """Uploads a folder to the hub in one commit, creating the repository if necessary.

    Args:
        folder: with all its subfolders.
        repo_id: owner/name.
        private: whether a new repository is private.
        token: with write access; by default HF_TOKEN, or that of the last login.
        message: of the commit.

    Returns:
        The URL of the repository.

    Raises:
        InputError: the folder is empty, there is no write access, or no network.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise InputError(f"there are no files in {str(folder)!r}", "give the folder with the files to upload")
    additions = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
    hint = "log in with `hf auth login` or set HF_TOKEN, with write access"
    with hub_errors(f"hf:{repo_id}", repo_id, hint), _bars_on_a_terminal():
        api = HfApi(token=token)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.create_commit(url.repo_id, additions, commit_message=message)
        return str(url)


def choose(files: Iterable[str], name: str, repo_id: str) -> str:
    """The weights file of a repository, given the name that the user typed.

    Raises:
        InputError: there is none, or several and none with a usual name; it lists them.
    """
    candidates = weights_among(files)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(f"{name} has no weights file ({', '.join(SUFFIXES)})", "choose another repository")
    _, at, revision = name.partition("@")
    choices = ", ".join(f"hf:{repo_id}/{file}{at}{revision}" for file in candidates)
    raise InputError(f"{name} has {len(candidates)} weights files and none with a usual name", f"choose from {choices}")


def _from_hugging_face(name: str) -> Located:
    """`hf:owner/name[/file][@revision]`; the revision may be a branch, a tag, a commit or refs/pr/1."""
    place, _, revision = name.removeprefix("hf:").partition("@")
    parts = place.split("/", 2)
    if parts[0] == "datasets" and len(parts) == 3:
        raise InputError(f"{name!r} is a data set, not weights", f"give it as DATA: vitreous train {name}")
    if len(parts) < 2 or not all(parts):
        raise InputError(f"{name!r} is not a repository", "write hf:owner/name, or hf:owner/name/file.npz for one file")
    return _from_repository(name, "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, revision or None)


def _from_timm(name: str) -> Located:
    """`timm:name.tag[@revision]` is the hub's repository timm/name.tag."""
    model, _, revision = name.removeprefix("timm:").partition("@")
    if not model or "/" in model:
        raise InputError(f"{name!r} is not a timm model", pretrained.suggestion(name))
    return _from_repository(name, f"timm/{model}", None, revision or None)


def _from_repository(name: str, repo_id: str, file: str | None, revision: str | None) -> Located:
    base = name.partition("@")[0]
    hint = f"give the path of a copy of {file or 'its weights, config.json and preprocessor_config.json'}"
    with hub_errors(name, repo_id, hint):
        repository = open_repository(repo_id, revision, file)
        if file is not None and file not in repository.files:
            raise unknown(f"file in hf:{repo_id}", file, [path for path in repository.files if path.endswith(SUFFIXES)])
        file = file or choose(repository.files, name, repo_id)
        for json_file in (CONFIG, PREPROCESSOR):  # those in another folder belong to other weights
            if (sibling := PurePosixPath(file).with_name(json_file).as_posix()) in repository.files:
                repository.get(sibling)
        row = pretrained.KNOWN.get(base)
        license = repository.license or (row.license if row else None)
        path = _download_weights(base, repository, file, license)
    family = "timm" if repo_id.startswith("timm/") else None  # others publish files of any family
    fields = row.fields if row else {}
    return Located(path, f"{base}@{repository.commit}", license, family, fields=fields)


def _download_weights(name: str, repository: Repository, file: str, license: str | None) -> Path:
    """Downloads the weights with all shards; returns the local path."""
    if not file.endswith(INDEX):
        _announce(name, repository, [file], license)
        return repository.get(file)
    path = repository.get(file)
    shards = sorted({PurePosixPath(file).with_name(shard).as_posix() for shard in read_index(path).values()})
    missing = [shard for shard in shards if shard not in repository.files]
    if missing:
        raise InputError(f"{name} lacks {', '.join(missing)}, listed in {file}", "download it again")
    _announce(name, repository, shards, license)
    for shard in shards:
        repository.get(shard)
    return path


def _announce(name: str, repository: Repository, files: Iterable[str], license: str | None) -> None:
    """Prints size and license of what will be downloaded, if anything."""
    from huggingface_hub import try_to_load_from_cache

    cached = partial(try_to_load_from_cache, repository.repo_id, revision=repository.commit)
    new = [file for file in files if not isinstance(cached(file), str)]
    if new:
        sizes = [repository.files[file] or 0 for file in new]
        line = f"{name}: {bytes_text(sum(sizes))}, license {license or 'unknown'}"
        print(printable(line), file=sys.stderr, flush=True)


@contextmanager
def _bars_on_a_terminal() -> Generator[None, None, None]:
    """Shows upload progress on a terminal only, unless the environment overrides it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _from_torchvision(name: str) -> Located:
    """`torchvision:model[.weights]`, cached where torchvision caches its files."""
    from torch.hub import get_dir
    from torchvision.models import get_model_weights, list_models

    model, _, member = name.removeprefix("torchvision:").partition(".")
    models = list_models(include="vit_*")
    if model not in models:
        raise unknown("torchvision ViT", model, models)
    enum: Any = get_model_weights(model)
    if member and member not in enum.__members__:
        raise unknown(f"weights of torchvision:{model}", member, [weights.name for weights in enum])
    weights = enum[member or "DEFAULT"]
    source = f"torchvision:{model}.{weights.name}"
    row = pretrained.KNOWN.get(source)
    path = Path(get_dir()) / "checkpoints" / PurePosixPath(urlsplit(weights.url).path).name
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    license = row.license if row else pretrained.SEE_TORCHVISION
    download(weights.url, path, f"sha256:{digits[1]}" if digits else None, name=source, license=license)
    fields = row.fields if row else {"image_size": tuple(weights.meta["min_size"])}
    names, preprocessing = tuple(weights.meta["categories"]), _transforms(weights.transforms())
    return Located(path, source, license, "torchvision", class_names=names, preprocessing=preprocessing, fields=fields)


def _transforms(transforms: Any) -> Preprocessing:
    """Torchvision's ImageClassification: the shorter side resized, the middle cropped."""
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    return Preprocessing(
        image_size=(crop, crop),
        resize="crop",
        crop_fraction=crop / resize,
        interpolation=transforms.interpolation.value,
        antialias=bool(transforms.antialias),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _from_table(name: str) -> Located:
    """`google:` and `meta:` names."""
    row = pretrained.row_for(name)
    assert row.url is not None, "rows of the table have addresses"
    scheme, _, file = row.name.partition(":")
    path = cache_folder() / scheme / f"{file}{row.suffix}"
    download(row.url, path, row.checksum, name=row.name, license=row.license)
    return Located(path, row.name, row.license, row.family, fields=row.fields)


def _from_url(name: str) -> Located:
    """`https://host/file#sha256=…`, cached by its checksum."""
    address, _, fragment = name.partition("#")
    check_address(address)
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if match is None:
        hint = f"append #sha256= and the 64 hex digits that `sha256sum` prints: {address}#sha256=…"
        raise InputError(f"{address} has no checksum", hint)
    digits = match[1].lower()
    suffix = PurePosixPath(unquote(urlsplit(address).path)).suffix
    path = cache_folder() / "sha256" / f"{digits}{suffix if suffix in SUFFIXES else ''}"
    public = address.partition("?")[0]  # a query may hold a signature or a token
    download(address, path, f"sha256:{digits}", name=public)
    return Located(path, f"{public}#sha256={digits}")


SCHEMES: dict[str, Callable[[str], Located]] = {
    "hf": _from_hugging_face,
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "google": _from_table,
    "meta": _from_table,
    "https": _from_url,
    "http": _from_url,
}
