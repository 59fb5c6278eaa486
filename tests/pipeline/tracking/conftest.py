"""A small study as `track` finds it, and an MLflow with its tables and no runs."""

import shutil
from pathlib import Path

import pytest
from made_once import made_once
from mlflow import MlflowClient
from small_study import PARAMS, write_study

from pipeline.study.study import Study, parse_study


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite store with MLflow's tables, which take seconds to make."""

    def make(folder: Path) -> None:
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()

    return made_once(tmp_path_factory, "store", make) / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    write_study(tmp_path)
    return tmp_path


@pytest.fixture
def study() -> Study:
    return parse_study(PARAMS, "test")


@pytest.fixture
def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root}/mlflow.db")
