"""A file from an https address: bounded, verified, whole or not at all, and kept for the next time."""

import hashlib
import http.client
import ipaddress
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from vitreous.support.errors import InputError
from vitreous.support.files import atomic_file
from vitreous.support.text import printable

ATTEMPTS = 3
PAUSE = 1.0  # seconds before another attempt
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 2**20  # bytes read at once
BUSY = (408, 429, 500, 502, 503, 504)  # answers after which another attempt may help


class Dropped(Exception):
    """An attempt failed in a way that another one may not."""


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/vitreous`, by default `~/.cache/vitreous`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "vitreous"


def download(
    url: str, path: Path, checksum: str | None = None, *, name: str | None = None, license: str | None = None
) -> None:
    """Fetches a file, unless it is there already and has the checksum.

    Says name, size and license on the standard error stream before the content is read, and shows progress there if
    it is a terminal. What comes is not longer than the server announced, and is verified before it gets its name.

    Args:
        url: https, or http to this machine.
        path: where the file is to lie; its folder is made.
        checksum: "sha256:" or "md5:" and the hex digits, all of them or the first ones. None where none is published.
        name: what a person calls the file; the address if None.
        license: to say.

    Raises:
        InputError: the address cannot be used or reached, the content is not what the checksum says, or there is no
            room. Nothing half-written is left.
    """
    check_address(url)
    if path.is_file():
        if checksum is None or has_checksum(path, checksum):
            return
        print(f"{printable(str(path))} is not the expected file; it is fetched again", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {str(path.parent)!r}: {error.strerror}", "set XDG_CACHE_HOME") from error
    name = name or url
    instead = f"put the file of {url} at {path}, or give the path of a copy"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _attempt(url, path, checksum, f"{name}: {{}}, license {license or 'not known'}")
        except Dropped as error:
            if attempt == ATTEMPTS:
                raise InputError(f"cannot fetch {name} from {url}, tried {ATTEMPTS} times: {error}", instead) from error
            time.sleep(PAUSE)
        except HTTPError as error:
            with error:  # it holds the connection
                raise InputError(f"{url} answered {error.code} {error.reason}", instead) from error
        except URLError as error:
            raise InputError(f"cannot reach {urlsplit(url).hostname} for {name}: {error.reason}", instead) from error


def open_url(url: str) -> Any:
    """The open response of an address, redirects followed. A function of its own, as the one way out to the network."""
    return build_opener(_Redirects).open(Request(url, headers={"User-Agent": "vitreous"}), timeout=TIMEOUT)


def check_address(url: str) -> None:
    """Raises InputError for an address that is not usable: no https, no host, a password, characters to be encoded."""
    hint = "give an address such as https://host/file.npz"
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"{url!r} has characters that an address cannot have", "write them percent-encoded")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is no address: {error}", hint) from error
    if not host:
        raise InputError(f"{url!r} names no host", hint)
    if parts.username is not None:
        raise InputError("an address must not hold a user name or password", "fetch the file and give its path")
    if not _is_safe(url):
        raise InputError(f"{url!r} is not encrypted", "give an https address")


def has_checksum(path: Path, checksum: str) -> bool:
    """Tells whether a file's hash begins with the digits of "sha256:…" or "md5:…"."""
    algorithm, _, digits = checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return found.hexdigest().startswith(digits.lower())


def bytes_text(count: int) -> str:
    """A size as the hubs write it: 412 MB, 1.22 GB, 12 kB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:.0f} {unit}"
    return f"{count} bytes"


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to https, and from this machine to this machine."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        target = urljoin(req.full_url, newurl)
        if not _is_safe(target) or (urlsplit(target).scheme == "http" and not _is_here(req.full_url)):
            fp.close()
            cause = f"{req.full_url} leads to {printable(target)}, which is not encrypted"
            raise InputError(cause, "fetch the file yourself and give its path")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _attempt(url: str, path: Path, checksum: str | None, announcement: str) -> None:
    """One try; raises Dropped where another may succeed."""
    algorithm, _, digits = (checksum or "sha256:").partition(":")
    try:
        with open_url(url) as response:
            length = _length(response, url)
            print(printable(announcement.format(bytes_text(length))), file=sys.stderr, flush=True)
            with atomic_file(path) as file, _progress(length) as advance:
                if not _copy(response, file, length, algorithm, advance).startswith(digits.lower()):
                    cause = f"the content of {url} is not the expected one: its {algorithm} does not begin {digits}"
                    raise InputError(cause, "check the checksum, or the address")
    except HTTPError as error:
        if error.code not in BUSY:
            raise
        with error:
            raise Dropped(f"it answered {error.code} {error.reason}") from error
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, URLError) or getattr(error, "filename", None) is not None:  # no way there; the disk's
            raise
        raise Dropped(f"the connection broke ({type(error).__name__})") from error


def _length(response: Any, url: str) -> int:
    """The announced size, without which there would be no bound."""
    text = response.headers.get("Content-Length", "")
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{url} does not say how long the file is", "fetch it yourself and give its path")
    return int(text)


def _copy(response: Any, file: IO[bytes], length: int, algorithm: str, advance: Callable[[int], None]) -> str:
    """Reads exactly `length` bytes into the file; gives their hash in hex digits."""
    found = hashlib.new(algorithm, usedforsecurity=False)
    left = length
    while left:
        chunk = response.read(min(CHUNK, left))
        if not chunk:
            raise Dropped(f"the connection ended {bytes_text(left)} early")
        file.write(chunk)
        found.update(chunk)
        left -= len(chunk)
        advance(len(chunk))
    return found.hexdigest()


@contextmanager
def _progress(total: int) -> Generator[Callable[[int], None], None, None]:
    """A bar on a terminal, to be moved by what it gives; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.update(task, advance=count)


def _is_safe(url: str) -> bool:
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and _is_here(url))


def _is_here(url: str) -> bool:
    """Tells whether the host is this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
