"""Which project a command is about: the one of the folder that it is called in, or of one above it."""

import os
import sys
from pathlib import Path

from pipeline.errors import InputError

# What every project has in its folder.
_MARKS = ("dvc.yaml", "conf/config.yaml", "pipeline/command/app.py")
_CALLED_FROM = "GUIDEDRIFT_CALLED_FROM"
# What `make` exports: nothing is asked of the network, and no one is told of the use.
_SETTINGS = {
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def project_folder(start: Path) -> Path | None:
    """The nearest folder from `start` upwards that is a project; None where there is none."""
    return next(
        (folder for folder in (start, *start.parents) if all((folder / mark).is_file() for mark in _MARKS)), None
    )


def enter_project() -> None:
    """Go to the project's folder, and to its own code where another project's is running.

    Two clones may share an environment, whose command belongs to one of them. Raises InputError outside of projects.
    """
    os.environ.setdefault(_CALLED_FROM, str(Path.cwd()))
    folder = project_folder(Path.cwd())
    if folder is None:
        raise InputError(f"{Path.cwd()} lies in no guidedrift project; cd to your clone of the repository")
    os.chdir(folder)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    own = Path(__file__).resolve().parent
    if own != (folder / "pipeline/command").resolve():
        # Python looks for modules in the working folder first, and it is the project's.
        os.execv(sys.executable, [sys.executable, "-m", "pipeline.command", *sys.argv[1:]])  # noqa: S606 (no shell is wanted)


def as_called(path: str) -> str:
    """A path that the caller wrote, relative to the project's folder. Raises InputError where it lies outside."""
    full = Path(os.environ.get(_CALLED_FROM, "."), path).resolve()
    try:
        return str(full.relative_to(Path.cwd().resolve()))
    except ValueError:
        raise InputError(f"{path} lies outside the project; copy it into prompts/ and name it there") from None


def found_by_caller(path: str) -> str:
    """A path that the caller wrote as it is found from the project's folder; as written where nothing is there."""
    full = Path(os.environ.get(_CALLED_FROM, "."), path)
    return str(full.resolve()) if path and full.exists() else path
