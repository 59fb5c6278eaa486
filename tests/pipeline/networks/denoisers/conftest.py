"""The small random pipelines along rectified flow, in the current folder."""

from pathlib import Path
from typing import Any

import pytest
from flow_studies import Flows


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where texts that one test has encoded are found by the next."""
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture
def flows(
    params: dict[str, Any], flows_folder: Path, embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Flows:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(embeddings))
    return Flows(params, flows_folder)


@pytest.fixture
def cache(flows: Flows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"
