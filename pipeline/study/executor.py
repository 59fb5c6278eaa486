"""Settings of who draws and embeds. None of them changes a byte of a result."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.settings import Count, Settings
from pipeline.storage.remote_path import known_place

# 0 lets the executor choose.
Workers = Annotated[int, Field(ge=0)]
Retries = Annotated[int, Field(ge=0)]


class LocalExecutor(Settings):
    """Processes of this machine: by default one per GPU, and without GPUs as many as its cores have use for.

    `retries` is how often a task is begun again whose process was killed.
    """

    kind: Literal["local"]
    workers: Workers = 0
    retries: Retries = 3


class RayExecutor(Settings):
    """Actors on a running Ray cluster, each with `cpus` and, where the cluster has GPUs, one of them.

    `address` may be empty where the environment variable RAY_ADDRESS names the cluster. By default there are as many
    workers as the cluster has room for. `storage` is a folder or an fsspec URL that every node can write to
    (s3://bucket/folder): what workers finish lies there and is copied from there; empty where results should come back
    through Ray alone.
    """

    kind: Literal["ray"]
    address: str = ""
    workers: Workers = 0
    cpus: Count = 1
    retries: Retries = 3
    storage: str = ""

    _place = field_validator("storage")(known_place)


Executor = Annotated[LocalExecutor | RayExecutor, Field(discriminator="kind")]
