"""A Hugging Face Hub on the loopback: as much of its API as the real clients ask for, and every way in which it fails.

    with running() as hub:
        hub.commit("datasets/owner/name", {"data/train.parquet": b"…"})
        hub.fault("/api/datasets/owner/name", status=503, times=2)
        …  # clients with HF_ENDPOINT=hub.address
        hub.log  # what they asked for

Large files are stored as the Hub does it: git holds a pointer, and /resolve/ redirects to another host. Only one of
`writers` may write: create a repository, announce files, send large ones by way of LFS, and commit.
"""

import base64
import hashlib
import http.server
import json
import os
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

LARGE = (".parquet", ".safetensors", ".bin")
ADDRESS = re.compile(
    r"/(?P<api>api/)?(?:(?P<kind>models|datasets)/)?(?P<name>[^/]+/[^/]+)"
    r"(?:/(?P<verb>revision|tree|paths-info|resolve|refs|auth-check)(?:/(?P<revision>[^/]+)(?:/(?P<path>.*))?)?)?"
)

LFS = re.compile(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
WRITE = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)/(?P<verb>preupload|commit)/main")
LICENCES = ["apache-2.0", "mit", "cc-by-nc-sa-4.0", "gpl-2.0", "other"]  # some of the Hub's


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Fault:
    """What goes wrong with the next requests whose path has `part`.

    status: answer with it. hang_up: do not answer. Otherwise the content of a file is spoilt: `drop` closes the
    connection in its middle, `reset` breaks the connection there, `short` claims that half of it is all, `changed` has
    another first byte.
    """

    part: str
    status: int | None
    spoil: str | None
    hang_up: bool
    times: int


@dataclass
class Repository:
    """Commits by id, and branches that point to them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    readers: set[str] | None = None  # tokens that may read a gated repository
    private: bool = False

    def resolve(self, revision: str) -> str | None:
        revision = self.branches.get(revision, revision)
        return revision if revision in self.commits else None


class Hub(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.writers: dict[str, set[str]] = {}  # token → owners whose repositories it may write to

    def commit(self, name: str, files: dict[str, bytes | None]) -> str:
        """Put files into a repository beside those it has, or take them out (None); gives the id of the commit."""
        repository = self.repositories.setdefault(name, Repository())
        before = repository.commits.get(repository.branches.get("main", ""), {})
        tree = {path: content for path, content in {**before, **files}.items() if content is not None}
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in sorted(tree.items())}
        revision = hashlib.sha1(repr((name, digests)).encode()).hexdigest()
        repository.commits[revision], repository.branches["main"] = tree, revision
        self.blobs |= {digests[path]: content for path, content in tree.items()}
        return revision

    def fault(
        self, part: str, *, status: int | None = None, spoil: str | None = None, hang_up: bool = False, times: int = 1
    ) -> None:
        self.faults.append(Fault(part, status, spoil, hang_up, times))

    def next_fault(self, path: str, wants: str) -> Fault | None:
        for fault in self.faults:
            if fault.part in path and fault.times and getattr(fault, wants):
                fault.times -= 1
                return fault
        return None


@contextmanager
def running() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer(content: bytes) -> bytes:
    """What git holds of a large file."""
    digest = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()


def described(path: str, content: bytes, sibling: bool) -> dict[str, Any]:
    """A file as /tree and /paths-info describe it, or as the list of siblings does, which has other names for it."""
    if not path.endswith(LARGE):
        lfs, blob = None, blob_id(content)
    else:
        digest, blob = hashlib.sha256(content).hexdigest(), blob_id(pointer(content))
        lfs = {"size": len(content), "sha256" if sibling else "oid": digest, "pointerSize": len(pointer(content))}
    file = {"size": len(content), **({"lfs": lfs} if lfs else {})}
    return (
        {"rfilename": path, "blobId": blob, **file} if sibling else {"type": "file", "path": path, "oid": blob, **file}
    )


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.server.log.append(Request(self.command, path, self.headers.get("Range"), token))
        fault = self.server.next_fault(path, "status")
        if fault:
            return self.refuse(fault.status, "Out of order")
        if self.server.next_fault(path, "hang_up"):
            self.close_connection = True
            return None
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        if path.startswith("/upload/"):
            self.server.blobs[path.removeprefix("/upload/")] = body
            return self.send_json({})
        if path == "/api/repos/create" or LFS.fullmatch(path) or (self.command == "POST" and WRITE.fullmatch(path)):
            return self.write(path, token, body)
        if path.startswith("/cdn/"):
            return self.send_content(path, self.server.blobs[path.removeprefix("/cdn/").partition("/")[0]])
        address = ADDRESS.fullmatch(path)
        key = f"{address['kind'] or 'models'}/{address['name']}" if address else ""
        repository = self.server.repositories.get(key)
        if repository is None:  # strangers are not told whether it exists
            return self.refuse(404 if token else 401, "Repository not found", "RepoNotFound")
        closed = repository.readers is not None and token not in repository.readers
        if closed and address["verb"] in ("resolve", "auth-check"):
            return self.refuse(403 if token else 401, "Access to this repository is restricted", "GatedRepo")
        if address["verb"] == "auth-check":
            return self.send_json({})
        if address["verb"] == "refs":
            heads = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": revision}
                for name, revision in repository.branches.items()
            ]
            return self.send_json({"branches": heads, "converts": [], "tags": []})
        revision = repository.resolve(address["revision"] or "main")
        if revision is None:
            return self.refuse(404, "Invalid rev id", "RevisionNotFound")
        files = repository.commits[revision]
        if address["verb"] == "resolve":
            return self.resolve(revision, address["path"], files.get(address["path"]))
        if address["verb"] == "tree":
            return self.send_json(self.tree(files, address["path"] or ""))
        if address["verb"] == "paths-info":
            wanted = urllib.parse.parse_qs(body.decode())["paths"]
            return self.send_json([described(path, files[path], False) for path in wanted if path in files])
        siblings = [described(path, content, True) for path, content in files.items()]
        about = {"id": address["name"], "sha": revision, "siblings": siblings, "cardData": {"license": "cc0-1.0"}}
        return self.send_json({**about, "gated": "auto" if repository.readers is not None else False})

    do_HEAD = do_POST = do_PUT = do_GET

    def validate(self, card: str) -> None:
        """Checks a card's metadata as far as the Hub does: it is YAML, and the Hub knows the licence."""
        found = yaml.safe_load(card.split("---\n")[1])
        wrong = [] if found["license"] in LICENCES else [{"message": f'"license" must be one of {LICENCES}'}]
        return self.send_json({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def write(self, path: str, token: str | None, body: bytes) -> None:
        asked = json.loads(body) if not path.endswith("/commit/main") else None
        created, large, there = path == "/api/repos/create", LFS.fullmatch(path), WRITE.fullmatch(path)
        name = f"{asked['organization']}/{asked['name']}" if created else (large or there)["name"]
        if token not in self.server.writers:
            return self.refuse(401, "Invalid username or password.")
        if name.partition("/")[0] not in self.server.writers[token]:
            return self.refuse(403, "You don't have the rights to write there", "")
        key = f"models/{name}"
        if created:
            known = key in self.server.repositories
            self.server.repositories.setdefault(key, Repository(private=asked.get("visibility") == "private"))
            url = f"{self.server.address}/{name}"
            return self.send_json({"url": url, "error": "You already created this model repo"}, 409 if known else 200)
        repository = self.server.repositories[key]
        files = repository.commits.get(repository.branches.get("main", ""), {})
        if large:
            return self.send_json({"transfer": "basic", "objects": [self.place(**file) for file in asked["objects"]]})
        if there["verb"] == "preupload":
            return self.send_json({"files": [self.mode(files, file["path"]) for file in asked["files"]]})
        added = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                added[value["path"]] = self.server.blobs[value["oid"]]
        revision = self.server.commit(key, added)
        return self.send_json({"commitUrl": f"{self.server.address}/{name}/commit/{revision}", "commitOid": revision})

    def place(self, oid: str, size: int) -> dict[str, Any]:
        """Where a large file is to be put; nowhere, if the Hub has it."""
        upload = {"upload": {"href": f"{self.server.address}/upload/{oid}"}}
        return {"oid": oid, "size": size, **({} if oid in self.server.blobs else {"actions": upload})}

    def mode(self, files: dict[str, bytes], path: str) -> dict[str, Any]:
        """How a file is to be sent, and which file of that name is there."""
        large = path.endswith(LARGE)
        there = files.get(path)
        oid = None if there is None else hashlib.sha256(there).hexdigest() if large else blob_id(there)
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def tree(self, files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
        recursive = "recursive=true" in self.path.lower()
        prefix = f"{folder}/" if folder else ""
        found: dict[str, dict[str, Any]] = {}
        for path, content in files.items():
            if not path.startswith(prefix):
                continue
            steps = path.removeprefix(prefix).split("/")
            for depth in range(1, len(steps) if recursive else min(len(steps), 2)):
                inner = prefix + "/".join(steps[:depth])
                found[inner] = {"type": "directory", "path": inner, "oid": blob_id(inner.encode()), "size": 0}
            if recursive or len(steps) == 1:
                found[path] = described(path, content, False)
        return list(found.values())

    def resolve(self, revision: str, path: str, content: bytes | None) -> None:
        if content is None:
            return self.refuse(404, "Entry not found", "EntryNotFound")
        if not path.endswith(LARGE):
            return self.send_content(path, content, {"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": revision})
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/cdn/{digest}/{path}")
        self.send_header("X-Repo-Commit", revision)
        self.send_header("X-Linked-ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, value: Any, status: int = 200) -> None:
        self.send_content("", json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        body = json.dumps({"error": message}).encode()
        self.send_response(status)
        for name, value in {"X-Error-Code": code, "X-Error-Message": message, "Retry-After": "0"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_content(self, path: str, content: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        """Send a file, or the part of it that is asked for, and spoil it if that is due."""
        fault = self.server.next_fault(path, "spoil") if path and self.command == "GET" else None
        spoil = fault.spoil if fault else None
        if spoil == "changed":
            content = bytes([content[0] ^ 1]) + content[1:]
        if spoil == "short":
            content = content[: len(content) // 2]
        whole, part = len(content), self.headers.get("Range")
        start = int(part.removeprefix("bytes=").partition("-")[0]) if part else 0
        content = content[start:]
        self.send_response(206 if part else status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if part:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if spoil in ("drop", "reset"):
            self.close_connection = True
            self.wfile.write(content[: len(content) // 2])
            if spoil == "reset":
                time.sleep(0.1)  # so that the client has read what has come
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())
            return
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Keep the test's output clean."""
