"""Clones of this repository to run the documentation's commands in."""

from pathlib import Path

import pytest
from clone import GUIDE, Clone
from documented import commands

# What a test is given instead, and what other tests run (tests/test_documentation.py).
ELSEWHERE = (
    ".venv/bin/hf download",
    "make setup",
    "make label-studio",
    "make publish REPO=<owner>/<name>",
    "make mlflow",
)


@pytest.fixture(scope="session")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which every command of the guide has been run, with the embedded networks standing in."""
    clone = Clone.make(tmp_path_factory.mktemp("followed") / "clone")
    for command in commands(GUIDE):
        if not command.startswith(ELSEWHERE) or "DRY_RUN" in command:
            clone.shell(command.replace("<owner>/<name>", "anna/mine"))
    return clone


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A fresh clone with the guide's files."""
    return Clone.make(tmp_path / "clone")
