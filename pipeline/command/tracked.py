"""Results of studies that ran here before, from MLflow's registry, where each state of a study is a version."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import InputError
from pipeline.results.comparison import COMPARISON
from pipeline.study.study import load_study
from pipeline.tracking.snapshot import CURRENT, SNAPSHOT, registered_name
from pipeline.tracking.store import explained, local_database, open_store, tracking_uri


def download_results(what: str, folder: Path) -> Path:
    """The compare.json of `<study>` as it was tracked last, or of `<study>@<version>`, as a file below `folder`.

    Raises InputError where nothing of that name was tracked, or MLflow does not answer.
    """
    name, _, number = what.partition("@")
    tracking = load_study().tracking
    uri = tracking_uri(tracking.uri)
    database = local_database(uri, Path())
    if database is not None and not database.exists():
        raise InputError(f"'{what}' was not tracked: there is no {database.name} yet; `guidedrift run` makes it")
    with explained(uri):
        client = open_store(uri, Path())
        version = _version(client, registered_name(tracking.experiment, name), number)
        if version is None:
            prefix = registered_name(tracking.experiment, "")
            known = sorted(one.name.removeprefix(prefix) for one in client.search_registered_models())
            raise InputError(f"'{what}' was not tracked; tracked studies: {', '.join(known) or 'none'}")
        return Path(client.download_artifacts(version.run_id, f"{SNAPSHOT}/{COMPARISON.name}", str(folder)))


def _version(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    try:
        return client.get_model_version(name, number) if number else client.get_model_version_by_alias(name, CURRENT)
    except MlflowException:
        return None
