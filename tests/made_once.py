"""Folders that all processes of a test session share, each made by whoever needs it first."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The session's folder `name`, which `make` has filled; the other workers of pytest-xdist wait for it."""
    session = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent  # a worker's folder lies in that of the session
    folder, partial = session / name, session / f"{name}.partial"
    with (session / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder


def copied_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The same as a copy of this process, for tests that write into it."""
    return Path(shutil.copytree(made_once(factory, name, make), factory.getbasetemp() / f"{name}-copied"))
