"""The study in MLflow's model registry: a version for each of its states, with what a reader needs to repeat it."""

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

# The folder of a run's artifacts that a version points to.
SNAPSHOT = "study"
# What `models:/<name>@current` is: the state that was tracked last.
CURRENT = "current"
# MLflow's column, which sqlite does not hold to and PostgreSQL does.
_LONGEST_DESCRIPTION = 5000
FINGERPRINT_TAG = "guidedrift.fingerprint"
# An alias that is not there is an invalid value for MLflow.
_MISSING = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}


def registered_name(experiment: str, study: str) -> str:
    """The name of a study in the registry."""
    return f"{experiment}-{study}"


def current_run(client: MlflowClient, name: str) -> str | None:
    """The run of the state that was tracked last; None where none was, or its run was deleted."""
    try:
        run_id = client.get_model_version_by_alias(name, CURRENT).run_id
        return str(run_id) if client.get_run(run_id).info.lifecycle_stage == "active" else None
    except MlflowException as error:
        if error.error_code in _MISSING:
            return None
        raise


def register(client: MlflowClient, name: str, run_id: str, mark: str, description: str) -> str:
    """The version of the state `mark`, new where there is none yet, which becomes the current one.

    A version whose run was deleted, because it broke off, is replaced.
    """
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        client.create_registered_model(
            name, description="A version is one state of the study: its params, numbers and report."
        )
    number, shown = None, description[:_LONGEST_DESCRIPTION]
    for version in client.search_model_versions(f"name='{name}'"):
        if version.tags.get(FINGERPRINT_TAG) == mark:
            if version.run_id == run_id:
                number = version.version
                if version.description != shown:  # what labels say may be new
                    client.update_model_version(name, number, shown)
            else:
                client.delete_model_version(name, version.version)
    if number is None:
        number = client.create_model_version(
            name,
            source=f"runs:/{run_id}/{SNAPSHOT}",
            run_id=run_id,
            tags={FINGERPRINT_TAG: mark},
            description=shown,
        ).version
    client.set_registered_model_alias(name, CURRENT, number)
    return str(number)
