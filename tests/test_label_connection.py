"""Which Label Studio a study uses, and how the local one is set up, without starting one."""

import pytest

from labeling.connection import CREDENTIALS, Connection, Credentials, ServerUnavailable, configured, required
from labeling.server import settings
from pipeline.errors import InputError

GOOD = '{"url": "http://127.0.0.1:9", "username": "a", "password": "pass-word", "token": "token"}'


@pytest.fixture(autouse=True)
def _no_server_named(monkeypatch):
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)


def test_without_a_server_the_way_to_one_is_told(tmp_path):
    assert configured(tmp_path) is None
    with pytest.raises(ServerUnavailable, match="`make label-studio` starts a server"):
        required(tmp_path)


def test_a_local_server_that_does_not_run_is_none(tmp_path):
    (tmp_path / CREDENTIALS.parent).mkdir()
    (tmp_path / CREDENTIALS).write_text(GOOD)
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
        ("127.0.0.1:9", "key", "LABEL_STUDIO_URL is no http or https address"),
    ],
)
def test_half_a_server_is_refused(tmp_path, monkeypatch, url, key, message):
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    with pytest.raises(InputError, match=message):
        configured(tmp_path)


def test_damaged_credentials_are_refused_without_showing_them(tmp_path):
    (tmp_path / CREDENTIALS.parent).mkdir()
    (tmp_path / CREDENTIALS).write_text(GOOD.replace("token", "tokne", 1))
    with pytest.raises(InputError, match=r"credentials\.json is damaged") as error:
        configured(tmp_path)
    assert "pass-word" not in str(error.value)


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
    with pytest.raises(InputError, match="DATABASE_URL is no address of PostgreSQL") as error:
        settings(tmp_path, credentials, "mysql://ann:secret@db/labels")
    assert "secret" not in str(error.value)


def test_the_server_sends_nothing_home(tmp_path):
    got = settings(tmp_path, Credentials.model_validate_json(GOOD), None)
    assert got["LABEL_STUDIO_COLLECT_ANALYTICS"] == "false"
    assert got["LABEL_STUDIO_SENTRY_DSN"] == got["LABEL_STUDIO_FRONTEND_SENTRY_DSN"] == ""
