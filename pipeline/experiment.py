"""A failed `dvc exp run` leaves params.yaml as it was.

DVC composes an experiment's params into params.yaml and leaves them there where a stage fails, so that the next plain
run would be of a study that no one asked for. `compose` and `preflight` keep a copy of what holds outside experiments,
and a stage that fails within one puts it back.
"""

import os
import shutil
import subprocess
from pathlib import Path

from pipeline.layout import PARAMS

_COPY = Path(".dvc/tmp/guidedrift")
_IN_EXPERIMENT = "DVC_EXP_BASELINE_REV"


def remember_params() -> None:
    """Keep a copy of params.yaml, unless this is part of an experiment or DVC has no folder here."""
    if _IN_EXPERIMENT in os.environ or not PARAMS.is_file() or not _COPY.parent.parent.is_dir():
        return
    _COPY.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PARAMS, _COPY / PARAMS.name)
    (_COPY / "commit").write_bytes(_git("rev-parse", "HEAD") or b"")


def restore_params() -> bool:
    """Put back what params.yaml held before the experiment that this is part of; False where this is part of none.

    That is the copy, or the commit's where another commit has been checked out since the copy was made.
    """
    if _IN_EXPERIMENT not in os.environ:
        return False
    before = _copied() or _git("show", f"HEAD:./{PARAMS}")
    if before is None or (PARAMS.is_file() and PARAMS.read_bytes() == before):
        return False
    temporary = PARAMS.with_name(f".{PARAMS.name}.{os.getpid()}.tmp")
    temporary.write_bytes(before)
    os.replace(temporary, PARAMS)
    return True


def _copied() -> bytes | None:
    try:
        copy, commit = (_COPY / PARAMS.name).read_bytes(), (_COPY / "commit").read_bytes()
    except OSError:
        return None
    return copy if commit == (_git("rev-parse", "HEAD") or b"") else None


def _git(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)  # noqa: S607  # users have git in PATH
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
