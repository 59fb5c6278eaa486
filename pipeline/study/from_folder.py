"""An external arm: a folder of images that someone generated elsewhere, in place of a way to generate."""

from typing import Annotated, Any

from pydantic import AfterValidator, model_validator

from pipeline.layout import IMAGES
from pipeline.settings import Settings, watched_path

# What an external arm's method is called: no one here knows how its images were made.
EXTERNAL = "external"


def _watched(path: str) -> str:
    return watched_path(path, str(IMAGES))


class FromFolder(Settings):
    """The folder in images/ that holds an arm's images, and a table of `scores` that others gave them.

    A text stands for the folder alone. `scores` is a CSV or parquet file in images/, with a column `file`.
    """

    folder: Annotated[str, AfterValidator(_watched)]
    scores: Annotated[str, AfterValidator(_watched)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _text_is_the_folder(cls, content: Any) -> Any:
        return {"folder": content} if isinstance(content, str) else content
