"""Clones of this repository to run the documentation's commands in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from clone import GUIDE, Clone
from documented import commands
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

# What a test is given instead, and what other tests run (tests/repository/test_documentation.py).
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


@contextmanager
def s3_bucket(environment: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a bucket of an S3 server on loopback, which the environment leads to."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.setenv(name, "test")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # fsspec keeps file systems for the next who asks alike, and these would lead to the server before this one.
    S3FileSystem.clear_instance_cache()
    boto3.client("s3").create_bucket(Bucket="studies")
    yield "s3://studies"
    server.stop()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of its own for a test."""
    with s3_bucket(monkeypatch) as address:
        yield address


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Environment variables of a module's tests."""
    with pytest.MonkeyPatch.context() as environment:
        yield environment


@pytest.fixture(scope="module")
def module_bucket(environment: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket for the tests of a module."""
    with s3_bucket(environment) as address:
        yield address
