"""The MLflow that runs go to: reached, with its errors in one line, and a run that ends as what it was."""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import requests
from sqlalchemy.exc import SQLAlchemyError

from pipeline.credentials import masked
from pipeline.errors import InputError

# MLflow reads its settings when it is imported. Its own patience with a server that is down is four minutes, and
# the address it prints at the end of a run shows the password in it.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking.context.registry import resolve_tags  # noqa: E402

NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
# MLflow's limit on the values of tags.
TAG_LENGTH = 8000


def tracking_uri(configured: str) -> str:
    """Where runs go: MLFLOW_TRACKING_URI, or what the study says."""
    return os.environ.get("MLFLOW_TRACKING_URI") or configured


def local_database(uri: str, root: Path) -> Path | None:
    """The file of a sqlite store, a relative one below `root`; None for a server. Raises InputError for no database."""
    match = re.fullmatch(r"sqlite:///([^?]+)", uri)
    if match is None:
        return None
    path = (root / match[1]).resolve()
    if path.exists():
        # MLflow retries on a damaged file for more than a minute.
        try:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} is not a sqlite database ({error}); move it away to start again") from None
    return path


def artifact_folder(database: Path) -> Path:
    """Where the artifacts of a sqlite store lie."""
    return database.parent / "mlartifacts"


def open_store(uri: str, root: Path) -> MlflowClient:
    """A client of the MLflow at `uri`. Raises InputError for a file that is not a database."""
    database = local_database(uri, root)
    return MlflowClient(f"sqlite:///{database}" if database else uri)


def open_experiment(client: MlflowClient, name: str, database: Path | None) -> str:
    """The id of the experiment called `name`, which is made where there is none.

    Raises InputError where it was deleted, or its artifacts are gone with a folder.
    """
    location = artifact_folder(database).as_uri() if database else None
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return str(client.create_experiment(name, artifact_location=location))
    if experiment.lifecycle_stage != "active":
        raise InputError(
            f"tracking.experiment '{name}' was deleted in MLflow; restore it with `mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}` or choose another name"
        )
    known = experiment.artifact_location
    if (
        location
        and known != location
        and known.startswith("file:")
        and not Path(known.removeprefix("file://")).is_dir()
    ):
        raise InputError(
            f"{database} keeps the artifacts of experiment '{name}' in {known}, which is not a folder any more; "
            "move it back, or move the database away to start again"
        )
    return str(experiment.experiment_id)


@contextmanager
def open_run(client: MlflowClient, experiment: str, name: str, tags: dict[str, str]) -> Iterator[str]:
    """A new run's id; the run is FINISHED or, where the body raised, FAILED."""
    cut = {key: value[:TAG_LENGTH] for key, value in tags.items()}
    # The context tags are MLflow's own: who ran what, at which commit.
    run_id = str(client.create_run(experiment, tags=resolve_tags(cut), run_name=name).info.run_id)
    try:
        yield run_id
    except BaseException:
        # Where MLflow itself is the reason, it may not take the status either; the first error is the one to tell.
        with suppress(MlflowException, SQLAlchemyError, OSError):
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def delete_with_children(client: MlflowClient, experiment: str, parent: str) -> None:
    """Delete a run and the runs below it."""
    for child in client.search_runs([experiment], f"tags.`{PARENT}` = '{parent}'"):
        client.delete_run(child.info.run_id)
    client.delete_run(parent)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """MLflow's errors as one InputError, with the fix and without the secrets of the address."""
    retries = logging.getLogger("urllib3.connectionpool")
    level = retries.level
    retries.setLevel(logging.ERROR)
    try:
        yield
    # requests' errors are OSErrors; a database without its driver is an ImportError.
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        reason = " ".join(masked(str(error).replace(uri, masked(uri))).split())[:300]
        silent = any(isinstance(cause, requests.ConnectionError | requests.Timeout) for cause in _causes(error))
        problem = "does not answer" if silent else f"refuses: {reason}"
        raise InputError(
            f"MLflow at {masked(uri)} {problem}; fix that or set MLFLOW_TRACKING_URI to another one "
            "(sqlite:///mlflow.db needs no server), then run `dvc repro track`"
        ) from None
    finally:
        retries.setLevel(level)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
