"""The small random pipelines along rectified flow: copies in the current folder, and pairs with diffusers' own."""

from collections.abc import Callable
from functools import cache as remembered
from pathlib import Path
from typing import Any

import pytest
from flow_studies import Flows
from parity_pairs import Pair


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


@pytest.fixture(scope="module")
def pair_of(flows_folder: Path) -> Callable[..., Pair]:
    """Loads a pair once, by the folder's name and the precision."""
    return remembered(lambda name, dtype="float32": Pair(flows_folder / name, dtype))
