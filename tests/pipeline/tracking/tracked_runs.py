"""What MLflow holds of a study."""

import json
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run


def all_runs(client: MlflowClient) -> tuple[list[Run], list[Run]]:
    """(parents, children) that are not deleted."""
    experiment = client.get_experiment_by_name("guidedrift")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return [run for run in runs if run not in children], children


def artifacts(client: MlflowClient, run_id: str) -> set[str]:
    paths: set[str] = set()
    folders: list[str | None] = [None]
    while folders:
        for item in client.list_artifacts(run_id, folders.pop()):
            if item.is_dir:
                folders.append(item.path)
            else:
                paths.add(item.path)
    return paths


def table_of(client: MlflowClient, run_id: str, path: str) -> list[dict[str, Any]]:
    """The rows of a table among a run's artifacts."""
    table = json.loads(Path(client.download_artifacts(run_id, path)).read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
