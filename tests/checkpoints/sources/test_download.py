"""Files from https addresses, with a server on loopback."""

import gzip
import hashlib
import os
import socket
from http.server import BaseHTTPRequestHandler

import httpx2
import pytest

from tests.hub_server import hub_server
from vitreous.checkpoints.sources import download as module
from vitreous.checkpoints.sources.download import bytes_text, check_address, download, has_checksum
from vitreous.support.errors import InputError

CONTENT = os.urandom(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with hub_server() as running:
        yield running


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache/google/B_16.npz"


def assert_nothing_is_left(path):
    assert not path.parent.exists() or not list(path.parent.iterdir())


def test_a_file_is_fetched_verified_and_kept(server, path, capsys):
    server.pages["/B_16.npz"] = CONTENT
    url = f"{server.address}/B_16.npz"
    download(url, path, SHA256, name="google:B_16", license="Apache-2.0")
    assert path.read_bytes() == CONTENT
    assert capsys.readouterr().err == "google:B_16: 3 MB, license Apache-2.0\n"  # no bar, without a terminal
    assert list(path.parent.iterdir()) == [path]
    download(url, path, SHA256)
    download(url, path)
    assert len(server.requests) == 1
    assert capsys.readouterr().err == ""


def test_first_digits_and_md5_are_checksums_too(server, path):
    server.pages["/x"] = CONTENT
    for checksum in (SHA256[: 7 + 8], f"md5:{hashlib.md5(CONTENT).hexdigest()[:6]}", SHA256[:7] + SHA256[7:].upper()):
        download(f"{server.address}/x", path, checksum)
        assert has_checksum(path, checksum)
        assert not has_checksum(path, "sha256:00000000")
        path.unlink()


def test_other_content_is_refused_and_removed(server, path):
    server.pages["/x"] = CONTENT[:-1]
    with pytest.raises(
        InputError, match=r"the content of http.*/x does not match its checksum: sha256 .* [0-9a-f]{64}"
    ):
        download(f"{server.address}/x", path, SHA256)
    assert_nothing_is_left(path)
    assert len(server.requests) == 1  # another attempt would give the same


def test_a_damaged_copy_is_replaced_only_by_the_right_one(server, path, capsys):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    server.pages["/x"] = b"wrong"
    with pytest.raises(InputError, match="does not match its checksum"):
        download(f"{server.address}/x", path, SHA256)
    assert path.read_bytes() == b"damaged"
    server.pages["/x"] = CONTENT
    download(f"{server.address}/x", path, SHA256)
    assert path.read_bytes() == CONTENT
    assert f"{path} does not match its checksum: downloading it again" in capsys.readouterr().err


def test_a_connection_that_breaks_is_tried_again(server, path):
    tries = []

    def flaky(handler: BaseHTTPRequestHandler) -> None:
        tries.append(handler.path)
        short = CONTENT if len(tries) == 3 else CONTENT[: 1000 * len(tries)]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(short)
        handler.close_connection = True

    server.pages["/x"] = flaky
    download(f"{server.address}/x", path, SHA256)
    assert path.read_bytes() == CONTENT
    assert len(tries) == 3


def test_a_connection_that_keeps_breaking_is_an_error(server, path):
    server.pages["/x"] = CONTENT
    server.cut = 1000
    with pytest.raises(
        InputError, match=r"tried 3 times .*RemoteProtocolError.*expected 3000000\)\); put the file from .* at .*npz"
    ):
        download(f"{server.address}/x", path, SHA256)
    assert_nothing_is_left(path)
    server.pages["/y"] = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)  # no answer at all
    with pytest.raises(InputError, match=r"tried 3 times \(RemoteProtocolError: Server disconnected"):
        download(f"{server.address}/y", path)
    server.pages["/busy"] = lambda handler: handler.answer(503)
    with pytest.raises(InputError, match=r"tried 3 times \(503 Service Unavailable\)"):
        download(f"{server.address}/busy", path)
    assert_nothing_is_left(path)


def test_a_silent_server_times_out(server, path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    monkeypatch.setattr(module, "ATTEMPTS", 1)

    def silent(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.rfile.read(1)  # until the client goes

    server.pages["/x"] = silent
    with pytest.raises(InputError, match=r"tried 1 times \(ReadTimeout"):
        download(f"{server.address}/x", path)
    assert_nothing_is_left(path)


def test_a_missing_file_is_not_tried_again(server, path):
    with pytest.raises(InputError, match=r"/x answered 404 Not Found; put the file from http.*/x at .*B_16.npz"):
        download(f"{server.address}/x", path)
    assert len(server.requests) == 1
    assert_nothing_is_left(path)


def test_without_a_network_the_hint_says_where_to_put_a_copy(path):
    with pytest.raises(InputError) as refused:
        download("http://127.0.0.1:9/B_16.npz", path, name="google:B_16")
    assert str(refused.value).startswith("cannot reach 127.0.0.1 for google:B_16: [Errno 111] Connection refused; ")
    assert str(refused.value).endswith(
        f"put the file from http://127.0.0.1:9/B_16.npz at {path}, or give the path of a copy"
    )
    assert_nothing_is_left(path)


def test_the_announced_length_is_required_and_is_the_bound(server, path):
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()

    server.pages["/endless"] = endless
    with pytest.raises(InputError, match="does not announce the length of the file"):
        download(f"{server.address}/endless", path)

    def longer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "5")
        handler.end_headers()
        handler.wfile.write(b"12345 and more")
        handler.close_connection = True

    server.pages["/longer"] = longer
    download(f"{server.address}/longer", path)
    assert path.read_bytes() == b"12345"
    path.unlink()

    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "5")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"a\r\n1234567890\r\n0\r\n\r\n")

    server.pages["/chunked"] = chunked
    with pytest.raises(InputError):
        download(f"{server.address}/chunked", path)
    assert_nothing_is_left(path)


def test_compressed_content_is_not_unpacked(server, path):
    packed = gzip.compress(bytes(10_000_000))
    server.pages["/x"] = lambda handler: handler.answer(200, packed, {"Content-Encoding": "gzip"})
    download(f"{server.address}/x", path)
    assert path.read_bytes() == packed


def test_redirects_lead_to_https_or_stay_on_this_machine(server, path):
    def to(target: str):
        return lambda handler: handler.answer(302, b"", {"Location": target})

    server.pages |= {"/x": CONTENT, "/here": to(f"{server.address}/x"), "/relative": to("x")}
    for page in ("/here", "/relative"):
        download(f"{server.address}{page}", path, SHA256)
        path.unlink()
    for target in ("http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "//example.org/x"):
        server.pages["/away"] = to(target)
        with pytest.raises(InputError, match=r"not encrypted|answered 302"):
            download(f"{server.address}/away", path)
    server.pages["/circle"] = to("circle")
    with pytest.raises(InputError, match=r"circle redirects too often"):
        download(f"{server.address}/circle", path)
    assert_nothing_is_left(path)


def test_https_does_not_redirect_to_a_server_on_this_machine(monkeypatch):
    def answer(request: httpx2.Request) -> httpx2.Response:
        target = request.url.params.get("to")
        return httpx2.Response(302, headers={"Location": target}) if target else httpx2.Response(200, text="content")

    client = httpx2.Client
    monkeypatch.setattr(httpx2, "Client", lambda **options: client(transport=httpx2.MockTransport(answer), **options))
    for target in ("http://127.0.0.1/x", "http://example.org/x"):
        with pytest.raises(InputError, match="not encrypted"), module.open_url(f"https://example.org/a?to={target}"):
            pass
    with module.open_url("https://example.org/a?to=https://example.org/b") as response:
        assert (str(response.url), response.read()) == ("https://example.org/b", b"content")


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://example.org/x", "not encrypted"),
        ("http://127.0.0.1.example.org/x", "not encrypted"),
        ("ftp://127.0.0.1/x", "not encrypted"),
        ("https:///x", "has no host"),
        ("https://host:port/x", "is not an address"),
        ("https://[::1/x", "is not an address"),
        ("https://me:secret@host/x", "must not contain a user name"),
        ("https://host/a b", "percent-encoded"),
        ("https://host/a\r\nHost: other", "percent-encoded"),
        ("https://host/ä", "percent-encoded"),
    ],
)
def test_unusable_addresses_are_refused(url, cause, path):
    with pytest.raises(InputError, match=cause) as refused:
        download(url, path)
    assert "secret" not in str(refused.value)
    assert_nothing_is_left(path)


def test_usable_addresses_are_not():
    for url in ("https://host/x", "http://127.0.0.1:80/x", "http://localhost/x", "http://[::1]/x", "https://a/%20?b=c"):
        check_address(url)


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot make .* set XDG_CACHE_HOME"):
        download(f"{server.address}/x", tmp_path / "file/x.npz")
    assert server.requests == []


def test_an_error_keeps_no_connection_open(server, path):
    with pytest.raises(InputError) as refused:
        download(f"{server.address}/x", path)
    assert isinstance(refused.value.__cause__, httpx2.HTTPStatusError)
    assert refused.value.__cause__.response.is_closed


def test_a_terminal_gets_a_bar(server, path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    server.pages["/x"] = CONTENT
    download(f"{server.address}/x", path, SHA256)
    assert path.read_bytes() == CONTENT
    lines = capsys.readouterr().err
    assert "3 MB, license unknown" in lines


def test_a_long_download_has_lines_without_a_terminal(server, path, monkeypatch, capsys):
    monkeypatch.setattr(module, "SILENCE", 0.0)
    server.pages["/x"] = CONTENT
    download(f"{server.address}/x", path, SHA256)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    assert lines[-1] == "3 MB of 3 MB"


def test_sizes_are_human_readable():
    sizes = {0: "0 bytes", 999: "999 bytes", 1000: "1 kB", 346_330_000: "346 MB", 1_217_424_000: "1.22 GB"}
    sizes |= {999_700_000: "1000 MB", 999_499: "999 kB", 4_500_000_000_000: "4500 GB"}
    assert {size: bytes_text(size) for size in sizes} == sizes
