"""Where MLflow is: which address counts, and one line without secrets where it cannot be used."""

import contextlib
import shutil
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from mlflow import MlflowClient
from small_study import URI
from tracked_runs import all_runs

from pipeline.credentials import masked
from pipeline.errors import InputError
from pipeline.study.study import Study
from pipeline.tracking import server
from pipeline.tracking import track as track_module
from pipeline.tracking.track import track


def test_make_mlflow_names_the_server_that_has_the_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["server"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://anna:s3cret@mlflow.example.org")
    server.main()
    assert capsys.readouterr().out == "the runs are at https://***@mlflow.example.org; look there\n"


def test_the_environment_overrides_the_studys_address(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["track"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    shutil.copy(root / "mlflow.db", root / "elsewhere.db")
    track_module.main()
    assert client.get_experiment_by_name("guidedrift") is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    track_module.main()
    assert len(all_runs(client)[0]) == 1
    output = capfd.readouterr()
    assert output.err == ""
    first, second = output.out.splitlines()
    assert "sqlite:///elsewhere.db" in first
    assert "3 arms" in second
    assert "`make mlflow`" in second


def test_a_server_that_hangs_up_is_asked_three_times_at_most(study: Study, root: Path) -> None:
    asked = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            nonlocal asked
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    asked += 1
                    connection.close()

        thread = Thread(target=hang_up, daemon=True)
        thread.start()
        with pytest.raises(InputError, match="does not answer"):
            track(study, root, f"http://127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert 1 <= asked <= 3


def test_a_server_that_is_down_is_one_line_without_secrets(
    study: Study, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as error:
        track(study, root, "http://anna:s3cr@t@127.0.0.1:9")
    assert "MLflow at http://***@127.0.0.1:9 does not answer" in str(error.value)
    assert "MLFLOW_TRACKING_URI" in str(error.value)
    shown = str(error.value) + "".join(capfd.readouterr())
    assert not any(secret in shown for secret in ("anna", "s3cr", "\n"))


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403, "no entry")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_refuses_is_one_line_with_its_reason(study: Study, root: Path, refusing_server: str) -> None:
    with pytest.raises(InputError) as error:
        track(study, root, f"http://anna:s3cret@{refusing_server}")
    assert f"MLflow at http://***@{refusing_server} refuses: " in str(error.value)
    assert "403" in str(error.value)
    assert not any(secret in str(error.value) for secret in ("anna", "s3cret", "\n"))


@pytest.mark.parametrize("uri", ["./mlruns", "nonsense://x", "postgresql://anna:s3cret@127.0.0.1:9/mlflow"])
def test_an_address_that_mlflow_cannot_use_is_an_input_error(study: Study, root: Path, uri: str) -> None:
    with pytest.raises(InputError, match="MLflow at") as error:
        track(study, root, uri)
    assert "s3cret" not in str(error.value)


def test_a_damaged_database_is_named(study: Study, root: Path) -> None:
    (root / "mlflow.db").write_text("no database " * 100)
    with pytest.raises(InputError, match=r"mlflow\.db is not a sqlite database"):
        track(study, root, URI)


def test_a_deleted_experiment_is_not_filled_again(study: Study, root: Path, client: MlflowClient) -> None:
    track(study, root, URI)
    experiment = client.get_experiment_by_name("guidedrift")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(InputError, match="'guidedrift' was deleted"):
        track(study, root, URI)


def test_a_moved_project_is_told_where_its_artifacts_were(study: Study, root: Path, tmp_path: Path) -> None:
    track(study, root, URI)
    moved = tmp_path / "moved"
    moved.mkdir()
    for item in [item for item in root.iterdir() if item != moved]:
        item.rename(moved / item.name)
    with pytest.raises(InputError, match="not a folder any more"):
        track(study, moved, URI)


def test_credentials_are_masked_wherever_they_stand() -> None:
    assert masked("https://anna:a/b?c@host/x") == "https://***@host/x"
    assert masked("postgresql://host/db?password=s3cret") == "postgresql://host/db?***"
    assert masked("sqlite:///mlflow.db") == "sqlite:///mlflow.db"
