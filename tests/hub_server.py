"""A model hub on loopback: the part of the hub's protocol that its client uses, and plain files."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from huggingface_hub import constants

from vitreous.checkpoints.sources import download

TOKEN = "hf_aTokenThatMayReadAndWrite"


@dataclass
class Repository:
    """Files by path, for each commit; branches and tags point to commits."""

    private: bool = False
    gated: bool = False
    card: dict[str, Any] = field(default_factory=lambda: {"license": "apache-2.0"})
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "", ref: str = "main") -> str:
        """Adds files to those of the ref; returns the commit's hash."""
        files = self.commits.get(self.refs.get(ref, ""), {}) | files
        self.messages.append(message)
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha] = files
        self.refs[ref] = sha
        return sha


class Hub:
    """What the server serves, and the requests it received.

    `pages` are plain addresses: bytes, or a function that answers. `cut` ends each body of weights after that many
    bytes.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.pages: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.cut: int | None = None
        self.address = ""

    def add(self, repo_id: str, files: dict[str, bytes], **options: Any) -> Repository:
        """A new repository with one commit."""
        repository = self.repositories[repo_id] = Repository(**options)
        repository.commit(files)
        return repository

    def fetched(self) -> list[str]:
        """The files whose content was requested."""
        return [r.rpartition("/")[2] for r in self.requests if r.startswith("GET ") and "/resolve/" in r]


@contextmanager
def hub_server() -> Generator[Hub, None, None]:
    """Serves a hub on a free port of 127.0.0.1."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def hub_of_client(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Generator[Hub, None, None]:
    """A hub for huggingface_hub in this block; its cache and ours are in `folder`, and empty."""
    with hub_server() as running:
        template = running.address + "/{repo_id}/resolve/{revision}/{filename}"
        settings = {"ENDPOINT": running.address, "HUGGINGFACE_CO_URL_TEMPLATE": template}
        settings |= {"HF_HUB_CACHE": str(folder / "hub"), "HF_TOKEN_PATH": str(folder / "token")}
        settings |= {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield running


def use_addresses_of(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends every download to the server, with the host as the first folder."""
    real = download.open_url
    monkeypatch.setattr(download, "open_url", lambda url: real(url.replace("https:/", server.address)))


class Refused(Exception):
    """An error answer: status and the hub's error code."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `hub.requests` instead."""

    def do_GET(self) -> None:
        self.route()

    def do_HEAD(self) -> None:
        self.route()

    def do_POST(self) -> None:
        self.route()

    def do_PUT(self) -> None:
        self.route()

    def route(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for pattern, answer in ROUTES:
                match = re.fullmatch(pattern, f"{self.command} {path}")
                if match:
                    return answer(self, *(group and unquote(group) for group in match.groups()))
            page = self.hub.pages.get(unquote(path))
            if page is None:
                raise Refused(404, "")
            page(self) if callable(page) else self.body(page)
        except Refused as refused:
            status, code = refused.args
            self.answer(status, b"{}", {"X-Error-Code": code} if code else {})

    def answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Sends an answer; `headers` may give another length."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def body(self, content: bytes, headers: dict[str, str] | None = None) -> None:
        """Sends a file from the requested offset, cut off at `hub.cut`."""
        first = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        rest = content[first:]
        sent = rest[: self.hub.cut] if self.hub.cut is not None else rest
        self.answer(206 if first else 200, sent, (headers or {}) | {"Content-Length": str(len(rest))})
        if len(sent) < len(rest):
            self.close_connection = True

    def repository(self, repo_id: str) -> Repository:
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and not self.has_token()):
            raise Refused(401 if repository else 404, "RepoNotFound")
        return repository

    def revision(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self.repository(repo_id)
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            raise Refused(404, "RevisionNotFound")
        return commit, repository.commits[commit]

    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"


def model_info(handler: Handler, repo_id: str, revision: str | None) -> None:
    commit, files = handler.revision(repo_id, revision or "main")
    repository = handler.repository(repo_id)
    siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
    card = {"cardData": repository.card, "private": repository.private, "gated": repository.gated}
    handler.json({"id": repo_id, "sha": commit, "siblings": siblings, "tags": []} | card)


def data_info(handler: Handler, repo_id: str, revision: str | None) -> None:
    """A data set's description; the names of its repository begin with "datasets/"."""
    model_info(handler, f"datasets/{repo_id}", revision)


def data_tree(handler: Handler, repo_id: str, revision: str, folder: str | None) -> None:
    """The files below a folder of a data set."""
    _, files = handler.revision(f"datasets/{repo_id}", revision)
    start = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
    names = [name for name in files if name.startswith(start)]
    below = [name.removeprefix(start).split("/") for name in names]
    deepest = max(map(len, below), default=0) if "recursive=true" in handler.path.lower() else 1
    entries = {start + "/".join(parts[:depth]) for parts in below for depth in range(1, deepest + 1)}
    if not entries:
        raise Refused(404, "EntryNotFound")
    handler.json([entry(files, name) for name in sorted(entries)])


def data_paths(handler: Handler, repo_id: str, revision: str) -> None:
    """The entries of the paths that the client asks for."""
    _, files = handler.revision(f"datasets/{repo_id}", revision)
    text = handler.content.decode()
    paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
    present = [path for path in paths if path in files or any(name.startswith(f"{path}/") for name in files)]
    handler.json([entry(files, path) for path in present])


def entry(files: dict[str, bytes], path: str) -> dict[str, Any]:
    """A file or folder as the hub lists it."""
    oid = hashlib.sha1(path.encode() + files.get(path, b"")).hexdigest()
    kind = "file" if path in files else "directory"
    return {"type": kind, "oid": oid, "size": len(files.get(path, b"")), "path": path}


def resolve(handler: Handler, repo_id: str, revision: str, name: str) -> None:
    commit, files = handler.revision(repo_id, revision)
    if handler.repository(repo_id).gated and not handler.has_token():
        raise Refused(403, "GatedRepo")
    if name not in files:
        raise Refused(404, "EntryNotFound")
    content = files[name]
    digest = hashlib.sha256(content).hexdigest()
    handler.body(content, {"ETag": f'"{digest}"', "X-Repo-Commit": commit, "X-Linked-Size": str(len(content))})


def create(handler: Handler) -> None:
    if not handler.has_token():
        raise Refused(401, "")
    request = json.loads(handler.content)
    repo_id = f"{request.get('organization') or 'me'}/{request['name']}"
    private = request.get("visibility") == "private" or bool(request.get("private"))
    exists = repo_id in handler.hub.repositories
    if not exists:
        handler.hub.add(repo_id, {".gitattributes": b""}, private=private)
    handler.json({"url": f"{handler.hub.address}/{repo_id}"}, status=409 if exists else 200)


def preupload(handler: Handler, repo_id: str, revision: str) -> None:
    handler.revision(repo_id, revision)
    names = [file["path"] for file in json.loads(handler.content)["files"]]
    modes = {name: "lfs" if name.endswith((".safetensors", ".npz")) else "regular" for name in names}
    handler.json({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})


def batch(handler: Handler, repo_id: str) -> None:
    handler.repository(repo_id)
    objects = json.loads(handler.content)["objects"]
    address = f"{handler.hub.address}/blobs/"
    uploads = [o | {"actions": {"upload": {"href": address + o["oid"], "header": {}}}} for o in objects]
    handler.json({"transfer": "basic", "objects": uploads})


def upload(handler: Handler, oid: str) -> None:
    assert hashlib.sha256(handler.content).hexdigest() == oid
    handler.hub.blobs[oid] = handler.content
    handler.answer(200)


def commit(handler: Handler, repo_id: str, revision: str) -> None:
    if not handler.has_token():
        raise Refused(403, "")
    files, message = {}, ""
    for line in handler.content.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header":
            message = value["summary"]
        elif entry["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            files[value["path"]] = handler.hub.blobs[value["oid"]]
    sha = handler.repository(repo_id).commit(files, message, revision)
    handler.json({"commitUrl": f"{handler.hub.address}/{repo_id}/commit/{sha}", "commitOid": sha})


NAME = r"([^/]+/[^/]+?)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (rf"GET /api/models/{NAME}(?:/revision/(.+))?", model_info),
    (rf"GET /api/datasets/{NAME}/tree/([^/]+)(/.*)?", data_tree),
    (rf"POST /api/datasets/{NAME}/paths-info/(.+)", data_paths),
    (rf"GET /api/datasets/{NAME}(?:/revision/(.+))?", data_info),
    (r"(?:GET|HEAD) /(datasets/[^/]+/[^/]+?)/resolve/([^/]+)/(.+)", resolve),
    (rf"(?:GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)", resolve),
    (r"POST /api/repos/create", create),
    (r"POST /api/validate-yaml", lambda handler: handler.json({"errors": [], "warnings": []})),
    (rf"POST /api/models/{NAME}/preupload/(.+)", preupload),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", batch),
    (r"PUT /blobs/([0-9a-f]{64})", upload),
    (rf"POST /api/models/{NAME}/commit/(.+)", commit),
]
