"""What the sections of a study have in common."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# Names become folder names, DVC stage names and MLflow keys.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def inside_project(path: str) -> str:
    """A path of the configuration. Raises ValueError where it leaves the project's folder."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError("must be a path inside the project, without '..'")
    return path
