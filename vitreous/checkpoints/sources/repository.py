"""A repository on the Hugging Face hub or, if that cannot be reached, in its cache."""

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import NamedTuple

from vitreous.checkpoints.files.layout import INDEX, SUFFIXES
from vitreous.checkpoints.sources import pretrained
from vitreous.support import hub
from vitreous.support.errors import InputError
from vitreous.support.patience import within

COMMIT = re.compile(r"[0-9a-f]{40}")
PATIENCE = 3.0  # seconds to wait for the hub if there is an alternative


class Repository(NamedTuple):
    """A revision of a repository, on the hub or in the cache."""

    repo_id: str
    commit: str
    files: Mapping[str, int | None]  # sizes in bytes, by path
    license: str | None
    get: Callable[[str], Path]  # downloads a file


def is_cached(name: str) -> bool:
    """Whether the weights of `timm:name.tag` are cached, so that `fetch` needs no network."""
    return _cached(name.replace(":", "/", 1), None, None) is not None


def look(name: str) -> None:
    """Checks for at most 3 seconds that `timm:name.tag` is on the hub; downloads nothing.

    Raises:
        InputError: the hub cannot be reached in that time, or has no such repository.
    """
    repo_id = name.replace(":", "/", 1)
    with hub_errors(name, repo_id, "give the path of a copy"):
        within(PATIENCE, partial(open_repository, repo_id, None, None))


def open_repository(repo_id: str, revision: str | None, file: str | None) -> Repository:
    """The revision on the hub or, if that cannot be reached, in the cache; with a cached copy it does not wait long."""
    from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    cached, timeout = _cached(repo_id, revision, file), constants.HF_HUB_ETAG_TIMEOUT
    request = partial(HfApi().model_info, repo_id, revision=revision, files_metadata=True, timeout=timeout)
    try:
        info = request() if cached is None else within(PATIENCE, request)
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except (HTTPError, ConnectionError, TimeoutError, JSONDecodeError):  # such as a captive portal's page
        if cached is None:
            raise
        return cached
    commit = info.sha or "main"
    card = info.card_data.to_dict() if info.card_data else {}
    license = card.get("license_name") if card.get("license") == "other" else card.get("license")
    files = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
    license = license if isinstance(license, str) else None

    def get(file: str) -> Path:
        path = hf_hub_download(repo_id, file, revision=commit)
        if try_to_load_from_cache(repo_id, file, revision=revision) != path:
            hf_hub_download(repo_id, file, revision=revision)  # so that the branch name works offline too
        return Path(path)

    return Repository(repo_id, commit, files, license, get)


def _cached(repo_id: str, revision: str | None, file: str | None) -> Repository | None:
    """The cached files of a revision, in huggingface_hub's documented layout; None if the weights are missing."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    storage = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")
    reference = storage / "refs" / (revision or "main")
    commit = reference.read_text(encoding="ascii", errors="replace") if reference.is_file() else revision or ""
    folder = storage / "snapshots" / commit
    if not COMMIT.fullmatch(commit) or not folder.is_dir():
        return None
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    has_weights = file in files if file else any(path.endswith((*SUFFIXES, INDEX)) for path in files)
    return Repository(repo_id, commit, dict.fromkeys(files), None, folder.joinpath) if has_weights else None


@contextmanager
def hub_errors(name: str, repo_id: str, hint: str) -> Generator[None, None, None]:
    """Turns huggingface_hub's exceptions into InputErrors; `hint` is for those that have no other."""
    try:
        with hub.hub_errors(name, repo_id, hint, lambda: _instead_of(name, repo_id)):
            yield
    except RuntimeError as error:  # an upload that failed halfway
        raise InputError(f"{name}: {error}", "try again; files already uploaded are not sent twice") from error


def _instead_of(name: str, repo_id: str) -> str:
    """A hint for weights that do not exist: that they are a data set, or the nearest name."""
    from huggingface_hub import HfApi

    with suppress(Exception):  # the first error counts
        if name.startswith("hf:"):
            HfApi().dataset_info(repo_id, timeout=PATIENCE)
            return f"that is a data set: vitreous train hf:{repo_id}"
    return pretrained.suggestion(name)
