"""Which Label Studio a study uses, and how the local one is set up, without starting one."""

import re
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from labeling.label_studio.connection import (
    CREDENTIALS,
    Connection,
    Credentials,
    ServerUnavailable,
    configured,
    read_credentials,
    required,
    write_credentials,
)
from labeling.label_studio.server import settings
from pipeline.errors import InputError

GOOD = '{"url": "http://127.0.0.1:9", "username": "a", "password": "pass-word", "token": "token"}'


@pytest.fixture(autouse=True)
def _no_server_named(monkeypatch):
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)


def write(root: Path, content: str, mode: int = 0o600) -> None:
    (root / CREDENTIALS.parent).mkdir()
    (root / CREDENTIALS).write_text(content)
    (root / CREDENTIALS).chmod(mode)


def test_without_a_server_the_way_to_one_is_told(tmp_path):
    assert configured(tmp_path) is None
    with pytest.raises(ServerUnavailable, match="`make label-studio` starts a server"):
        required(tmp_path)


def test_a_local_server_that_does_not_run_is_none(tmp_path):
    write(tmp_path, GOOD)
    assert configured(tmp_path) is None


def test_the_environment_names_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", "https://user:secret@labels.example.org/studio/")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "key")
    connection = configured(tmp_path)
    assert isinstance(connection, Connection)
    assert connection.shown == "https://labels.example.org/studio"
    assert "secret" not in connection.shown


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("http://127.0.0.1:9", "", "LABEL_STUDIO_API_KEY is not set"),
        ("", "key", "LABEL_STUDIO_URL is not set"),
        ("127.0.0.1:9", "key", "LABEL_STUDIO_URL is not an http or https address"),
        ("http://127.0.0.1:80a0", "key", "LABEL_STUDIO_URL is not an http or https address"),
    ],
)
def test_half_a_server_is_refused(tmp_path, monkeypatch, url, key, message):
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    with pytest.raises(InputError, match=message):
        configured(tmp_path)


def test_damaged_credentials_are_refused_without_showing_them(tmp_path):
    write(tmp_path, GOOD.replace("token", "tokne", 1))
    with pytest.raises(InputError, match=r"credentials\.json is damaged") as error:
        configured(tmp_path)
    assert "pass-word" not in str(error.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_credentials_that_others_can_reach_are_refused(tmp_path, mode):
    write(tmp_path, GOOD, mode)
    with pytest.raises(InputError, match=rf"\(mode {mode:03o}\); run: chmod 600 .*credentials\.json"):
        configured(tmp_path)


def test_credentials_are_written_for_their_owner_alone(tmp_path):
    (tmp_path / CREDENTIALS.parent).mkdir()
    (tmp_path / CREDENTIALS).write_text("of old, and readable by all")
    write_credentials(tmp_path / CREDENTIALS, Credentials.model_validate_json(GOOD))
    assert stat.S_IMODE((tmp_path / CREDENTIALS).stat().st_mode) == 0o600
    assert read_credentials(tmp_path / CREDENTIALS) == Credentials.model_validate_json(GOOD)


@pytest.mark.parametrize("url", ["http://192.0.2.1:8080", "http://127.0.0.1:80@evil.example", "file:///etc/passwd"])
def test_the_local_server_s_token_goes_to_loopback_alone(tmp_path, url):
    write(tmp_path, GOOD.replace("http://127.0.0.1:9", url))
    with pytest.raises(InputError, match=r"credentials\.json is damaged"):
        configured(tmp_path)


def test_a_connection_shows_neither_key_nor_password():
    connection = Connection("http://ann:pass-word@labels.example.org", SecretStr("the-key"), "LABEL_STUDIO_API_KEY")
    assert not {"pass-word", "the-key"} & set(re.split(r"[^\w-]+", f"{connection!r} {connection} {connection.shown}"))


def test_a_database_url_becomes_the_server_s_own_settings(tmp_path):
    credentials = Credentials.model_validate_json(GOOD)
    got = settings(tmp_path, credentials, "postgresql://ann:p%40ss@db.example.org/labels")
    assert {name: value for name, value in got.items() if name.startswith(("POSTGRE", "DJANGO"))} == {
        "DJANGO_DB": "default",
        "POSTGRE_USER": "ann",
        "POSTGRE_PASSWORD": "p@ss",
        "POSTGRE_HOST": "db.example.org",
        "POSTGRE_PORT": "5432",
        "POSTGRE_NAME": "labels",
    }
    assert settings(tmp_path, credentials, None)["DJANGO_DB"] == "sqlite"
    for wrong in ("mysql://ann:secret@db/labels", "postgresql://ann:se/secret@db:5432/labels"):
        with pytest.raises(InputError, match="DATABASE_URL is not a PostgreSQL address") as error:
            settings(tmp_path, credentials, wrong)
        assert "secret" not in str(error.value)


def test_the_server_sends_nothing_home(tmp_path):
    got = settings(tmp_path, Credentials.model_validate_json(GOOD), None)
    assert got["LABEL_STUDIO_COLLECT_ANALYTICS"] == "false"
    assert got["LABEL_STUDIO_SENTRY_DSN"] == got["LABEL_STUDIO_FRONTEND_SENTRY_DSN"] == ""
