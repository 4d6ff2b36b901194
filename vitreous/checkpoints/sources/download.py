"""Downloads a file from an https address: bounded, verified, and kept for the next time."""

import hashlib
import ipaddress
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vitreous.support.errors import InputError
from vitreous.support.files import atomic_file
from vitreous.support.text import printable

if TYPE_CHECKING:
    import httpx2
    from rich.progress import Progress

ATTEMPTS, PAUSE = 3, 1.0  # seconds before another attempt
TIMEOUT = 30.0  # seconds without a byte
SILENCE = 30.0  # seconds between two lines of progress, without a terminal
BUSY = (408, 429, 500, 502, 503, 504)  # statuses after which another attempt may succeed


def download(
    url: str, path: Path, checksum: str | None = None, *, name: str | None = None, license: str | None = None
) -> None:
    """Downloads a file, unless it exists and has the checksum.

    Prints name, size and license on stderr first, and shows progress: a bar on a terminal, a line every 30 seconds
    elsewhere. The content is no longer than the server announced, and is verified before the file appears.

    Args:
        url: https, or http to this machine.
        path: of the file; its folder is created.
        checksum: "sha256:" or "md5:" and all or the first of the hex digits; None if none is published.
        name: of the file in messages; the address if None.
        license: to print.

    Raises:
        InputError: the address is not usable or not reachable, the content does not match the checksum, or the disk
            is full. No partial file is left.
    """
    check_address(url)
    if path.is_file():
        if checksum is None or has_checksum(path, checksum):
            return
        print(f"{printable(str(path))} does not match its checksum: downloading it again", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {str(path.parent)!r}: {error.strerror}", "set XDG_CACHE_HOME") from error
    import httpx2  # takes longer than all of ours to import

    name = name or url
    reason = ""
    by_hand = f"put the file from {url} at {path}, or give the path of a copy"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _attempt(url, path, checksum, f"{name}: {{}}, license {license or 'unknown'}")
        except httpx2.TooManyRedirects as error:
            raise InputError(f"{url} redirects too often", by_hand) from error
        except httpx2.HTTPStatusError as error:
            reason = f"{error.response.status_code} {error.response.reason_phrase}"
            if error.response.status_code not in BUSY:
                raise InputError(f"{error.request.url} answered {reason}", by_hand) from error
        except httpx2.ConnectError as error:
            raise InputError(f"cannot reach {urlsplit(url).hostname} for {name}: {error}", by_hand) from error
        except httpx2.TransportError as error:
            reason = f"{type(error).__name__}: {error}"
        if attempt < ATTEMPTS:
            time.sleep(PAUSE)
    raise InputError(f"cannot download {name}, tried {ATTEMPTS} times ({reason})", by_hand)


@contextmanager
def open_url(url: str) -> Generator["httpx2.Response", None, None]:
    """The streamed response of an address. Follows redirects to https only, and between localhost addresses."""
    import httpx2

    came_from_here = _is_here(url)

    def check(request: httpx2.Request) -> None:
        nonlocal came_from_here
        target = str(request.url)
        if not _is_safe(target) or (request.url.scheme == "http" and not came_from_here):
            cause = f"{url} redirects to {printable(target)}, which is not encrypted"
            raise InputError(cause, "download the file yourself and give its path")
        came_from_here = _is_here(target)

    headers = {"User-Agent": "vitreous", "Accept-Encoding": "identity"}
    client = httpx2.Client(headers=headers, timeout=TIMEOUT, follow_redirects=True, event_hooks={"request": [check]})
    with client, client.stream("GET", url) as response:
        response.raise_for_status()
        yield response


def check_address(url: str) -> None:
    """Raises InputError for an address that is not https, has no host, has a password, or needs encoding."""
    hint = "give an address such as https://host/file.npz"
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"{url!r} has characters that an address cannot have", "write them percent-encoded")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is not an address: {error}", hint) from error
    if not host:
        raise InputError(f"{url!r} has no host", hint)
    if parts.username is not None:
        raise InputError("an address must not contain a user name or password", "download the file and give its path")
    if not _is_safe(url):
        raise InputError(f"{url!r} is not encrypted", "give an https address")


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether a file's hash begins with the digits of "sha256:…" or "md5:…"."""
    algorithm, _, digits = checksum.partition(":")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest().startswith(digits.lower())


def bytes_text(count: int) -> str:
    """A size as on the hubs: 412 MB, 1.22 GB, 12 kB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:.0f} {unit}"
    return f"{count} bytes"


def _attempt(url: str, path: Path, checksum: str | None, announcement: str) -> None:
    with open_url(url) as response:
        text = response.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit()):
            raise InputError(f"{url} does not announce the length of the file", "download it and give its path")
        length, received = int(text), 0
        algorithm, _, digits = (checksum or "sha256:").partition(":")
        digest = hashlib.new(algorithm, usedforsecurity=False)
        print(printable(announcement.format(bytes_text(length))), file=sys.stderr, flush=True)
        with atomic_file(path) as file, _progress_bar() as bar:
            task, printed = bar.add_task("", total=length), time.monotonic()
            for chunk in response.iter_raw():
                received += len(chunk)
                if received > length:
                    raise InputError(f"{url} sends more than the {length} bytes it announced", "download it by hand")
                file.write(chunk)
                digest.update(chunk)
                bar.update(task, completed=received)
                if bar.disable and time.monotonic() - printed >= SILENCE:
                    printed = time.monotonic()
                    print(f"{bytes_text(received)} of {bytes_text(length)}", file=sys.stderr, flush=True)
            if not digest.hexdigest().startswith(digits.lower()):
                cause = f"the content of {url} does not match its checksum: {algorithm} must begin with {digits}"
                raise InputError(cause, "check the address and the checksum")


def _progress_bar() -> "Progress":
    """A progress bar on stderr, shown on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True)
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _is_safe(url: str) -> bool:
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and _is_here(url))


def _is_here(url: str) -> bool:
    """Whether the host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
