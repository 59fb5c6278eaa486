"""`make label-studio`: the real Label Studio on loopback, from a separate environment.

It pins packages older than the project's, so it never shares the project's environment. Its migrations take a minute
or two and always end in the same empty database, so that is kept beside the environment and copied for a new server.
"""

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from labeling.label_studio.connection import (
    CREDENTIALS,
    GO_ON,
    SERVER_FOLDER,
    Credentials,
    answers,
    has_port_or_none,
    read_credentials,
    write_credentials,
)
from pipeline.credentials import masked
from pipeline.errors import InputError, run_stage
from pipeline.storage.files import file_digest

ENVIRONMENT = Path(".venv-label-studio")
REQUIREMENTS = Path(__file__).parent / "server-requirements.txt"
FIRST_PORT = 8080
USERNAME = "admin@localhost"

_DATABASE = "label_studio.sqlite3"
_QUIET = {
    # No analytics, no error reports, no look for a newer version. Both addresses of Sentry have defaults.
    "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
    "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
    "LABEL_STUDIO_SENTRY_DSN": "",
    "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
}
# A first start on PostgreSQL migrates, which takes minutes on a busy machine; a server that ends is seen at once.
_START_SECONDS = 900


def make_environment(environment: Path) -> Path:
    """Make or renew the server's environment and its empty, migrated database; returns that database's path.

    Both are made once for a state of server-requirements.txt. Raises InputError where an installation fails.
    """
    migrated = environment / f"migrated-{file_digest(REQUIREMENTS)}.sqlite3"
    if migrated.exists():
        return migrated
    print("Label Studio's own environment is made (once, a few minutes) ...", file=sys.stderr, flush=True)
    python = environment / "bin/python"
    _run(
        [
            sys.executable,
            "-m",
            "uv",
            "venv",
            "--quiet",
            "--allow-existing",
            "--python",
            sys.executable,
            str(environment),
        ]
    )
    install = [sys.executable, "-m", "uv", "pip", "sync", "--quiet", "--compile-bytecode"]
    _run([*install, "--python", str(python), str(REQUIREMENTS)])
    folder = environment / "migration"
    shutil.rmtree(folder, ignore_errors=True)
    print("its database is migrated (once, a minute or two) ...", file=sys.stderr, flush=True)
    # Any command migrates; this one does nothing else.
    own = {"LABEL_STUDIO_BASE_DATA_DIR": str(folder.resolve()), "DJANGO_DB": "sqlite"}
    _run([str(environment / "bin/label-studio"), "version"], {**os.environ, **_QUIET, **own})
    os.replace(folder / _DATABASE, migrated)
    # The rest of that folder is the secret that signs sessions: every server makes its own.
    shutil.rmtree(folder)
    return migrated


def settings(folder: Path, credentials: Credentials, database_url: str | None) -> dict[str, str]:
    """The environment variables of a server that keeps its things in `folder`.

    The login and the token are read at the first start only. Raises InputError for a `database_url` that is not
    PostgreSQL's.
    """
    return {
        **_QUIET,
        **_database(database_url),
        "LABEL_STUDIO_BASE_DATA_DIR": str((folder / "data").resolve()),
        "LABEL_STUDIO_HOST": credentials.url,
        "LABEL_STUDIO_USERNAME": credentials.username,
        "LABEL_STUDIO_PASSWORD": credentials.password.get_secret_value(),
        "LABEL_STUDIO_USER_TOKEN": credentials.token.get_secret_value(),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str((folder / "images").resolve()),
    }


@contextmanager
def running_server(
    folder: Path, environment: Path, port: int | None = None, database_url: str | None = None
) -> Iterator[tuple[Credentials, subprocess.Popen[bytes]]]:
    """A running server on loopback: its credentials and process. The process ends with the block.

    `port` None keeps the last one, or takes the first free one. Raises InputError where the port is taken or the
    server does not come up.
    """
    migrated = make_environment(environment)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    database = folder / "data" / _DATABASE
    if not database_url and not database.exists():
        database.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(migrated, database.with_suffix(".tmp"))
        os.replace(database.with_suffix(".tmp"), database)
    (folder / "images").mkdir(mode=0o700, exist_ok=True)
    credentials = _credentials(folder / CREDENTIALS.name, port)
    address = urlsplit(credentials.url)
    command = [str(environment / "bin/label-studio"), "start", "--no-browser"]
    command += ["--internal-host", "127.0.0.1", "--port", str(address.port)]
    variables = {**os.environ, **settings(folder, credentials, database_url)}
    log = folder / "server.log"
    log.unlink(missing_ok=True)
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        # What the server writes is for its owner alone, too: labels, people's addresses, the key that signs sessions.
        # A separate session: Ctrl-C reaches this process alone, which then ends the server in order.
        process = subprocess.Popen(
            command, env=variables, stdout=file, stderr=file, start_new_session=True, umask=0o077
        )
    try:
        _wait(process, credentials.url, log)
        yield credentials, process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _database(url: str | None) -> dict[str, str]:
    # Label Studio itself reads no DATABASE_URL.
    if not url:
        return {"DJANGO_DB": "sqlite"}
    parts = urlsplit(url)
    if (
        parts.scheme not in ("postgres", "postgresql")
        or not parts.hostname
        or not parts.path.strip("/")
        or not has_port_or_none(url)
    ):
        raise InputError(
            "DATABASE_URL is not a PostgreSQL address; use the form postgresql://user:password@host:5432/name, with "
            "slashes and colons of the password written as %2F and %3A"
        )
    return {
        "DJANGO_DB": "default",
        "POSTGRE_USER": unquote(parts.username or "postgres"),
        "POSTGRE_PASSWORD": unquote(parts.password or ""),
        "POSTGRE_HOST": parts.hostname,
        "POSTGRE_PORT": str(parts.port or 5432),
        "POSTGRE_NAME": unquote(parts.path.strip("/")),
    }


def _credentials(path: Path, port: int | None) -> Credentials:
    known = read_credentials(path)
    if port is None and known:
        port = urlsplit(known.url).port
    if port is None:
        port = next((p for p in range(FIRST_PORT, FIRST_PORT + 100) if _free(p)), FIRST_PORT)
    if not _free(port):
        raise InputError(f"port {port} is taken (by a Label Studio that already runs?); choose another: LABEL_PORT=...")
    url = f"http://127.0.0.1:{port}"
    if known:
        credentials = known.model_copy(update={"url": url})
    else:
        credentials = Credentials(
            url=url,
            username=USERNAME,
            password=SecretStr(secrets.token_urlsafe(12)),
            token=SecretStr(secrets.token_hex(20)),
        )
    write_credentials(path, credentials)
    return credentials


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise InputError(f"Label Studio ended with code {process.returncode} while starting; {log} says why")
        if answers(url):
            return
        time.sleep(0.5)
    raise InputError(f"Label Studio did not answer at {url} within {_START_SECONDS} s; {log} says why")


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        # uv names the index that it asked, with its password where the address holds one.
        tail = masked(" ".join((done.stderr or done.stdout).split()))[-300:]
        raise InputError(f"`{Path(command[0]).name} {' '.join(command[1:4])} ...` failed: {tail}")


def _login(credentials: Credentials, new: bool) -> str:
    """The login in words: with the password where it is new and a person looks on, else with the place that has it."""
    # A log or a pipe may be anybody's to read.
    if new and sys.stdout.isatty():
        return f"{credentials.username}, password {credentials.password.get_secret_value()} (kept in {CREDENTIALS})"
    return f"{credentials.username}, password in {CREDENTIALS}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help=f"default: the last one, else a free one from {FIRST_PORT}")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    new = not CREDENTIALS.exists()
    with running_server(SERVER_FOLDER, ENVIRONMENT, arguments.port, os.environ.get("DATABASE_URL")) as started:
        credentials, process = started
        try:
            # Within the try: who reads the second line may end the server before the next one runs.
            print(f"Label Studio: {credentials.url}   login: {_login(credentials, new)}   (Ctrl-C ends the server)")
            print(f"next: {GO_ON} in another terminal sends the images and says where to label them", flush=True)
            # Negative where a signal ended it, such as the kernel's for lack of memory.
            code = process.wait()
        except KeyboardInterrupt:
            code = 0
    if code:
        raise InputError(f"Label Studio ended with code {code}; {SERVER_FOLDER / 'server.log'} says why")


if __name__ == "__main__":
    run_stage(main)
