"""The audit of dependencies, by the real pip-audit against a database on loopback."""

import importlib.util
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from repository_copy import ROOT

spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci/audit.py")
assert spec is not None
assert spec.loader is not None
ci_audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ci_audit)

ID = "GHSA-0000-0000-0000"


class Handler(BaseHTTPRequestHandler):
    """As OSV answers: jinja2 has a vulnerability, nothing else has."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        affected = [{"package": {"name": "jinja2", "ecosystem": "PyPI"}, "ranges": []}]
        vulnerability = {"id": ID, "aliases": ["CVE-0-0"], "summary": "x", "details": "x", "affected": affected}
        content = json.dumps({"vulns": [vulnerability]} if name == "jinja2" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[list[str]]:
    """pip-audit's options that name a database on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/v1/query"]
    server.shutdown()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    (tmp_path / "requirements.lock").write_text("jinja2==3.0.0\ntqdm==4.0.0\n")
    return tmp_path / "requirements.lock"


def test_a_vulnerability_fails_unless_it_is_accepted_by_one_of_its_names(lock: Path, database: list[str]) -> None:
    said, code = ci_audit.audit(lock, database, {})
    assert code == 1
    assert f"jinja2 3.0.0: CVE-0-0 {ID} FOUND" in said
    said, code = ci_audit.audit(lock, database, {"CVE-0-0": "no template of others is read"})
    assert code == 0
    assert "accepted: no template of others is read" in said


def test_a_database_that_cannot_be_reached_is_told_and_fails_nothing(lock: Path) -> None:
    said, code = ci_audit.audit(lock, ["--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:9/"], {})
    assert code == 0
    assert "NOT DONE" in said


def test_what_is_accepted_has_a_reason(tmp_path: Path) -> None:
    assert all(ci_audit.accepted().values())
    (tmp_path / "accepted.txt").write_text("# why\nCVE-1 for a reason\nCVE-2\n")
    with pytest.raises(SystemExit, match="CVE-2 has no reason"):
        ci_audit.accepted(tmp_path / "accepted.txt")
