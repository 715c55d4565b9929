"""A small stand-in for the Hugging Face Hub: the parts of its API that the files of model repositories need."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Hub", "hub"]

_MODEL = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info|preupload|commit)/([^/?]+))?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LFS_SUFFIXES = (".safetensors", ".faiss")


@dataclass
class Hub:
    """Repositories: the files of each commit, and the commits that branches name.

    Attributes:
        token: needed to write, and to read private repositories.
    """

    url: str = ""
    token: str = "hf_secret"
    private: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def files(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]]:
        commit = self.branches[repository].get(unquote(revision), revision)
        return commit, self.commits[repository][commit]

    def commit(self, repository: str, branch: str, files: dict[str, bytes]) -> str:
        content = repr(sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items()))
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits.setdefault(repository, {})[oid] = files
        self.branches.setdefault(repository, {})[branch] = oid
        return oid


class _RefusedError(Exception):
    """Status and error code of an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    _was_read = False

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, answer: Any) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        self._was_read = False
        with suppress(OSError):
            try:
                answer(unquote(urlsplit(self.path).path))
            except _RefusedError as error:
                status, code = error.args
                self._body()
                self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _body(self) -> bytes:
        """The body of the request, the first time."""
        length, self._was_read = 0 if self._was_read else int(self.headers.get("Content-Length") or 0), True
        return self.rfile.read(length)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _files(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]]:
        is_known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repository not in self.hub.branches or (repository in self.hub.private and not is_known):
            raise _RefusedError(404 if is_known else 401, "RepoNotFound")
        try:
            return self.hub.files(repository, revision)
        except KeyError:
            raise _RefusedError(404, "RevisionNotFound") from None

    def _get(self, path: str) -> None:
        if match := _FILE.fullmatch(path):
            self._send_file(*match.groups())
            return
        match = _MODEL.fullmatch(path)
        assert match is not None, path
        repository, kind, revision = match.groups()
        commit, files = self._files(repository, revision or "main")
        if kind == "tree":
            self._json([_entry(name, data) for name, data in files.items()])
        else:
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "tags": [],
                        "private": False, "downloads": 0, "likes": 0})  # fmt: skip

    def _send_file(self, repository: str, revision: str, name: str) -> None:
        commit, files = self._files(repository, revision)
        if name not in files:
            raise _RefusedError(404, "EntryNotFound")
        data, status = files[name], 200
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), int(match[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}"
            data, status = data[start : end + 1], 206
        self._send(status, data, headers)

    def _put(self, path: str) -> None:
        self.hub.large[path.rpartition("/")[2]] = self._body()
        self._send(200, b"")

    def _post(self, path: str) -> None:
        if path == "/api/validate-yaml":
            self._body()
            self._json({"errors": [], "warnings": []})
            return
        if path.endswith("paths-info/main") or "/paths-info/" in path:
            self._send_paths(path)
            return
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            raise _RefusedError(401, "")
        if path == "/api/repos/create":
            asked = json.loads(self._body())
            repository = f"{asked['organization']}/{asked['name']}"
            if repository in self.hub.branches:
                self._send(409, json.dumps({"url": f"{self.hub.url}/{repository}"}).encode())
                return
            self.hub.commit(repository, "main", {".gitattributes": b"*.safetensors filter=lfs\n"})
            self._json({"url": f"{self.hub.url}/{repository}"})
        elif path.endswith("/objects/batch"):
            objects = json.loads(self._body())["objects"]
            actions = [{**o, "actions": {"upload": {"href": f"{self.hub.url}/large/{o['oid']}"}}} for o in objects]
            self._json({"transfer": "basic", "objects": actions})
        else:
            self._write(path)

    def _send_paths(self, path: str) -> None:
        match = _MODEL.fullmatch(path)
        assert match is not None
        body = self._body()
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode())["paths"]
        _, files = self._files(match[1], match[3])
        self._json([_entry(name, files[name]) for name in paths if name in files])

    def _write(self, path: str) -> None:
        match = _MODEL.fullmatch(path)
        assert match is not None, path
        repository, kind, branch = match.groups()
        _, files = self._files(repository, branch)
        if kind == "preupload":
            names = [file["path"] for file in json.loads(self._body())["files"]]
            modes = [
                {
                    "path": name,
                    "shouldIgnore": False,
                    "uploadMode": "lfs" if name.endswith(_LFS_SUFFIXES) else "regular",
                }
                for name in names
            ]
            self._json({"files": modes})
            return
        files = dict(files)
        for line in filter(None, self._body().split(b"\n")):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.hub.commit(repository, branch, files)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repository}/commit/{oid}"})


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(_LFS_SUFFIXES):
        entry["lfs"] = {"size": len(data), "oid": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
    return entry


@contextmanager
def hub() -> Iterator[Hub]:
    """A Hub without repositories, until the block ends."""
    made = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": made}))
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
