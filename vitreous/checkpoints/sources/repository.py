"""A repository of the hub: its files as the hub has them or, where that cannot be reached, as the cache has them."""

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import NamedTuple

from vitreous.checkpoints.files.layout import INDEX, SUFFIXES
from vitreous.checkpoints.sources import pretrained
from vitreous.support.errors import InputError
from vitreous.support.patience import within

COMMIT = re.compile(r"[0-9a-f]{40}")
PATIENCE = 3.0  # seconds for the hub to answer, where there is another way than to wait


class Repository(NamedTuple):
    """A revision of a repository of the hub, there or in the cache."""

    repo_id: str
    commit: str
    files: Mapping[str, int | None]  # sizes in bytes, by path
    license: str | None
    get: Callable[[str], Path]  # brings a file here


def is_cached(name: str) -> bool:
    """Tells whether earlier downloads left the weights of `timm:name.tag`; `fetch` then needs no network."""
    return _cached(name.replace(":", "/", 1), None, None) is not None


def look(name: str) -> None:
    """Looks for `timm:name.tag` on the hub, for at most 3 seconds, and fetches nothing.

    Raises:
        InputError: the hub cannot be reached in that time, or shows no such repository.
    """
    repo_id = name.replace(":", "/", 1)
    with hub_errors(name, repo_id, "give the path of a copy"):
        within(PATIENCE, partial(open_repository, repo_id, None, None))


def open_repository(repo_id: str, revision: str | None, file: str | None) -> Repository:
    """The revision as the hub has it or, where the hub cannot be reached, as the cache has it: then waits not long."""
    from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    cached, timeout = _cached(repo_id, revision, file), constants.HF_HUB_ETAG_TIMEOUT
    ask = partial(HfApi().model_info, repo_id, revision=revision, files_metadata=True, timeout=timeout)
    try:
        info = ask() if cached is None else within(PATIENCE, ask)
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except (HTTPError, ConnectionError, TimeoutError, JSONDecodeError):  # a page that a network's gate shows
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
            hf_hub_download(repo_id, file, revision=revision)  # so that the branch's name leads there offline too
        return Path(path)

    return Repository(repo_id, commit, files, license, get)


def _cached(repo_id: str, revision: str | None, file: str | None) -> Repository | None:
    """What earlier downloads left of a revision, in the layout that huggingface_hub documents; None without weights."""
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
def hub_errors(name: str, repo_id: str, instead: str) -> Generator[None, None, None]:
    """Turns what huggingface_hub raises into errors of one line."""
    from huggingface_hub import constants, errors

    at = constants.ENDPOINT
    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(f"{repo_id!r} is no name of a repository", "write owner/name") from error
    except errors.GatedRepoError as error:
        hint = f"accept its terms at {at}/{repo_id}, then log in with `hf auth login` or set HF_TOKEN"
        raise InputError(f"{name} is open only to those who accept its terms", hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = f"{pretrained.suggestion(name)}; for a private one, log in with `hf auth login` or set HF_TOKEN"
        raise InputError(f"{at} shows no {repo_id}: it does not exist or is private", hint) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name} has no such revision", "give a branch, a tag or a commit that it has") from error
    except errors.HfHubHTTPError as error:
        raise InputError(f"{at} answered {error.response.status_code} for {name}", instead) from error
    except errors.OfflineModeIsEnabled as error:
        cause = f"{name} is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set"
        raise InputError(cause, f"unset it, or {instead}") from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError, JSONDecodeError) as error:
        reason = f"{type(error.__cause__ or error).__name__}"
        raise InputError(f"cannot reach {at} for {name} ({reason})", instead) from error
    except RuntimeError as error:  # an upload that failed half-way
        raise InputError(f"{name}: {error}", "try again; files that are there already are not sent twice") from error
