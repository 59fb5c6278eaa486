"""A disk that takes no more stops a stage with one line and no half file, and the same command continues."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from repository_copy import ROOT

from pipeline.errors import run_stage
from pipeline.storage.shards import shard_paths


def reference(project: Path, longest: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess[str]:
    """The stage `reference` where no file can be longer than so many bytes, which ends a write as a full disk does."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.reference.build"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_write_that_ends_early_leaves_no_file_and_the_next_run_goes_on(project: Path) -> None:
    refused = reference(project, longest=4096)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: File too large")
    assert not [path for path in (project / "data").rglob("*") if path.is_file()]
    assert reference(project).returncode == 0
    assert len(shard_paths(project / "data/reference")) == 1


def test_a_folder_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def stage() -> None:
        raise OSError(errno.EROFS, "Read-only file system", "data/sets")

    with pytest.raises(SystemExit) as refused:
        run_stage(stage)
    assert refused.value.code == 2
    assert "error: Read-only file system (data/sets); what was finished is kept" in capsys.readouterr().err


def test_another_fault_of_the_system_is_no_fault_of_the_disk() -> None:
    def stage() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        run_stage(stage)
