"""A stand-in for the Hugging Face Hub on loopback: the wire protocol of the real client, and nothing of its storage.

Repositories with commits, tags and privacy; uploads through Git LFS (https://github.com/git-lfs/git-lfs/blob/main/docs/
api/batch.md); files by resolve, also in ranges. It counts what it is sent, and can break off in the middle.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USER = "anna"
_LARGE = ("*.parquet", "*.safetensors")
_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LARGE).encode()


@dataclass
class Commit:
    """One commit: its files as content."""

    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """One repository, newest commit last."""

    private: bool
    commits: list[Commit]
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        wanted = self.commits[-1].oid if revision == "main" else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == wanted), None)


class Hub:
    """The state behind the server, for tests to look at.

    `sent` counts whole uploads of large files by their digest, `uploads` those that began. After `breaks_after` of them
    the server hangs up on every further one. `refuses` answers requests to paths that match the key with the status and
    the reason.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.url = ""
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.sent: Counter[str] = Counter()
        self.uploads = 0
        self.breaks_after: int | None = None
        self.refuses: dict[str, tuple[int, str]] = {}
        self.requests: list[str] = []
        self.lock = Lock()

    def repository(self, repo_id: str, kind: str = "dataset") -> Repository:
        return self.repositories[(kind, repo_id)]

    def create(self, repo_id: str, kind: str = "dataset", private: bool = True) -> Repository:
        first = Commit(_oid(repo_id, 0), "initial commit", {".gitattributes": _ATTRIBUTES})
        self.repositories[(kind, repo_id)] = Repository(private, [first])
        return self.repositories[(kind, repo_id)]


def _oid(*of: object) -> str:
    return hashlib.sha1(repr(of).encode(), usedforsecurity=False).hexdigest()


def _is_large(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in _LARGE)


def _remote_oid(path: str, content: bytes) -> str:
    if _is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def serve(token: str) -> Iterator[Hub]:
    """A running server with one user, whose token is `token`."""
    hub = Hub(token)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_REPO = r"(?P<owner>[^/]+)/(?P<name>[^/]+)"
_API = rf"/api/(?P<kind>dataset|model)s/{_REPO}"
_ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET", rf"{_API}/refs", "refs"),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?", "tree"),
    ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"{_API}/tag/(?P<revision>[^/]+)", "tag"),
    ("GET", rf"{_API}(/revision/(?P<revision>[^/]+))?", "info"),
    ("POST", rf"(/(?P<kind>dataset)s)?/{_REPO}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/upload/(?P<digest>[0-9a-f]{64})", "upload"),
    ("GET", rf"(/(?P<kind>dataset)s)?/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._route("GET")

    def do_HEAD(self) -> None:
        self._route("GET")

    def do_POST(self) -> None:
        self._route("POST")

    def do_PUT(self) -> None:
        self._route("PUT")

    def _route(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.query = parse_qs(urlsplit(self.path).query)
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
        for pattern, (status, reason) in self.hub.refuses.items():
            if re.search(pattern, path):
                self._body()
                return self._refuse(status, reason)
        for wanted, pattern, name in _ROUTES:
            found = re.fullmatch(pattern, path)
            if wanted == method and found:
                parts = found.groupdict()
                if name != "upload" and not self._may(method, name, parts):
                    return None
                return getattr(self, name)(**parts)
        self._body()
        return self._refuse(404, "no such page")

    def _may(self, method: str, name: str, parts: dict[str, str]) -> bool:
        known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        repository = self._repository(parts) if "owner" in parts else None
        if known or (method == "GET" and repository is not None and not repository.private):
            if "owner" not in parts or repository is not None:
                return True
            self._body()
            self._refuse(404, "Repository not found", "RepoNotFound")
        else:
            self._body()
            # Like the Hub, which does not tell strangers that a private repository exists.
            self._refuse(401, "Invalid username or password.", "RepoNotFound" if "owner" in parts else None)
        return False

    def _repository(self, parts: dict[str, Any]) -> Repository | None:
        kind = parts.get("kind") or "model"
        return self.hub.repositories.get((kind, f"{parts['owner']}/{parts['name']}"))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while length := int(self.rfile.readline().strip(), 16):
                content += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, reason: str, code: str | None = None) -> None:
        headers = {"X-Error-Message": reason, **({"X-Error-Code": code} if code else {})}
        self._answer({"error": reason}, status, headers)

    def _at(self, parts: dict[str, Any]) -> tuple[Repository, Commit] | None:
        repository = self._repository(parts)
        assert repository is not None
        commit = repository.at(parts.get("revision") or "main")
        if commit is None:
            self._refuse(404, "Invalid rev id", "RevisionNotFound")
            return None
        return repository, commit

    def whoami(self) -> None:
        self._answer({"type": "user", "name": USER, "auth": {"type": "access_token"}, "orgs": []})

    def create(self) -> None:
        wanted = json.loads(self._body())
        owner = wanted.get("organization") or USER
        key = (wanted.get("type", "model"), f"{owner}/{wanted['name']}")
        if owner != USER:
            return self._refuse(403, f"You don't have the rights to create a repository under {owner}")
        if key in self.hub.repositories:
            return self._refuse(409, "You already created this repository")
        self.hub.create(key[1], key[0], wanted.get("visibility", "public") == "private")
        return self._answer({"url": f"{self.hub.url}/{'datasets/' if key[0] == 'dataset' else ''}{key[1]}"})

    def validate_yaml(self) -> None:
        content = json.loads(self._body())["content"]
        try:
            yaml.safe_load(content.split("---\n")[1])
            self._answer({"errors": [], "warnings": []})
        except (yaml.YAMLError, IndexError) as error:
            self._answer({"errors": [{"message": str(error)}], "warnings": []}, 400)

    def info(self, **parts: Any) -> None:
        if found := self._at(parts):
            repository, commit = found
            siblings = [{"rfilename": path} for path in sorted(commit.files)]
            name = f"{parts['owner']}/{parts['name']}"
            content = {"_id": "0", "id": name, "sha": commit.oid, "private": repository.private, "siblings": siblings}
            self._answer({**content, "tags": [], "downloads": 0, "likes": 0})

    def refs(self, **parts: Any) -> None:
        repository = self._repository(parts)
        assert repository is not None
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": oid} for n, oid in repository.tags.items()]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commits[-1].oid}
        self._answer({"branches": [main], "converts": [], "tags": tags})

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
        if _is_large(path):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return entry

    def tree(self, **parts: Any) -> None:
        if found := self._at(parts):
            _, commit = found
            below = f"{parts['path']}/" if parts.get("path") else ""
            inside = sorted(path for path in commit.files if path.startswith(below))
            recursive = self.query.get("recursive", ["false"])[0].lower() in ("1", "true")
            files = [path for path in inside if recursive or "/" not in path.removeprefix(below)]
            folders = {
                "/".join(path.split("/")[: depth + 1])
                for path in inside
                for depth in range(below.count("/"), path.count("/") if recursive else below.count("/") + 1)
                if depth < path.count("/")
            }
            if not inside:
                return self._refuse(404, f"{parts['path']} does not exist", "EntryNotFound")
            entries = [{"type": "directory", "path": path, "oid": _oid(path), "size": 0} for path in sorted(folders)]
            return self._answer(entries + [self._entry(path, commit.files[path]) for path in files])
        return None

    def paths_info(self, **parts: Any) -> None:
        body = self._body().decode()
        wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        if found := self._at(parts):
            _, commit = found
            entries = [self._entry(path, commit.files[path]) for path in wanted if path in commit.files]
            for path in wanted:
                if any(name.startswith(f"{path}/") for name in commit.files):
                    entries.append({"type": "directory", "path": path, "oid": _oid(path), "size": 0})
            self._answer(entries)

    def preupload(self, **parts: Any) -> None:
        wanted = json.loads(self._body())["files"]
        if found := self._at(parts):
            _, commit = found
            self._answer(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if _is_large(file["path"]) else "regular",
                            "shouldIgnore": False,
                            "oid": _remote_oid(file["path"], commit.files[file["path"]])
                            if file["path"] in commit.files
                            else None,
                        }
                        for file in wanted
                    ]
                }
            )

    def batch(self, **_: Any) -> None:
        objects = []
        for wanted in json.loads(self._body())["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.large:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/upload/{wanted['oid']}"}}
            objects.append(entry)
        self._answer({"transfer": "basic", "objects": objects})

    def upload(self, digest: str) -> None:
        with self.hub.lock:
            self.hub.uploads += 1
            broken = self.hub.breaks_after is not None and self.hub.uploads > self.hub.breaks_after
        if broken:
            self.rfile.read(1)
            self.close_connection = True
            return
        content = self._body()
        assert hashlib.sha256(content).hexdigest() == digest
        with self.hub.lock:
            self.hub.sent[digest] += 1
            self.hub.large[digest] = content
        self._answer({})

    def commit(self, **parts: Any) -> None:
        lines = [json.loads(line) for line in self._body().splitlines()]
        repository = self._repository(parts)
        assert repository is not None
        head, header = repository.commits[-1], lines[0]["value"]
        if header.get("parentCommit", head.oid) != head.oid:
            return self._refuse(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = _oid(head.oid, sorted(files))
        repository.commits.append(Commit(oid, header["summary"], files))
        url = f"{self.hub.url}/{parts['owner']}/{parts['name']}/commit/{oid}"
        return self._answer({"success": True, "commitOid": oid, "commitUrl": url})

    def tag(self, **parts: Any) -> None:
        wanted = json.loads(self._body())["tag"]
        if found := self._at(parts):
            repository, commit = found
            if wanted in repository.tags:
                return self._refuse(409, "Tag reference exists already")
            repository.tags[wanted] = commit.oid
            return self._answer({})
        return None

    def resolve(self, **parts: Any) -> None:
        if found := self._at(parts):
            _, commit = found
            content = commit.files.get(parts["path"])
            if content is None:
                return self._refuse(404, "Entry not found", "EntryNotFound")
            headers = {
                "Content-Type": "application/octet-stream",
                "ETag": f'"{_remote_oid(parts["path"], content)}"',
                "X-Repo-Commit": commit.oid,
                "Accept-Ranges": "bytes",
            }
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if wanted is None:
                return self._answer(content, headers=headers)
            start = int(wanted[1])
            stop = min(int(wanted[2]) + 1, len(content)) if wanted[2] else len(content)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            return self._answer(content[start:stop], 206, headers)
        return None
