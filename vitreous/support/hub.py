"""The Hugging Face hub's errors in our words; weights and data sets come from there alike."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from json import JSONDecodeError

from vitreous.support.errors import InputError


@contextmanager
def hub_errors(name: str, repo_id: str, hint: str, missing: Callable[[], str]) -> Generator[None, None, None]:
    """Turns huggingface_hub's exceptions into InputErrors.

    Args:
        name: as the user typed it.
        repo_id: owner/name, or datasets/owner/name.
        hint: for exceptions that have no other.
        missing: says what to do if there is no such repository.
    """
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(f"{repo_id!r} is not a valid repository name", "write owner/name") from error
    except errors.GatedRepoError as error:
        access = f"accept its terms at {endpoint}/{repo_id}, then log in with `hf auth login` or set HF_TOKEN"
        raise InputError(f"{name} requires accepting its terms", access) from error
    except errors.RepositoryNotFoundError as error:
        access = f"{missing()}; for a private one, log in with `hf auth login` or set HF_TOKEN"
        raise InputError(f"{endpoint} has no {repo_id}: it does not exist or is private", access) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name} has no such revision", "choose one of its branches, tags or commits") from error
    except errors.HfHubHTTPError as error:
        raise InputError(f"{endpoint} answered {error.response.status_code} for {name}", hint) from error
    except errors.OfflineModeIsEnabled as error:
        cause = f"{name} is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set"
        raise InputError(cause, f"unset it, or {hint}") from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError, JSONDecodeError) as error:
        reason = type(error.__cause__ or error).__name__
        raise InputError(f"cannot reach {endpoint} for {name} ({reason})", hint) from error
