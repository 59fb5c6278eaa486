"""What all settings of a study have in common."""

import difflib
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# Names become folder names, DVC stage names and MLflow keys.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
# What the name of a control arm ends in (pipeline/study/controls.py).
CONTROL = "@cfg"
# An arm's own name, or that of its control.
ArmName = Annotated[str, StringConstraints(pattern=rf"^[a-z][a-z0-9_]{{0,39}}({CONTROL})?$")]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

_LONGEST_NAME = 255


class Settings(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def watched_path(path: str, folder: str) -> str:
    """A path of the configuration below `folder`, which dvc.yaml names, so that DVC sees what changes there.

    Raises ValueError.
    """
    if not path.startswith(f"{folder}/"):
        raise ValueError(f"must lie in {folder}/, the folder that DVC watches")
    return inside_project(path)


def inside_project(path: str) -> str:
    """A path of the configuration, relative to the project's folder.

    Raises ValueError where it leaves that folder, on this system or on Windows, or no file can have such a name.
    """
    # Windows' reading takes both kinds of slashes as such, and knows drives.
    windows = PureWindowsPath(path)
    if windows.drive or windows.root or ".." in windows.parts:
        raise ValueError("must be a path inside the project, without '..'")
    if not path.isprintable() or any(len(part.encode()) > _LONGEST_NAME for part in Path(path).parts):
        raise ValueError(f"must be a path of printable names, each of at most {_LONGEST_NAME} bytes")
    return path


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that somebody who wrote `word` most likely meant; empty where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.66)
    return near[0] if near else ""
