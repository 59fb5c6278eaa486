"""LoRAs of the main network: as conf/ describes them, and as they are added, whoever asked for them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.settings import Settings, inside_project


def _safetensors(file: str) -> str:
    if Path(file).suffix != ".safetensors":
        raise ValueError("must be a .safetensors file; pickles can run code when they are read")
    return inside_project(file)


SafeFile = Annotated[str, AfterValidator(_safetensors)]
_Weight = Annotated[float, Field(ge=-1000, le=1000)]


class MainLora(Settings):
    """A LoRA file and its weights; docs/compatibility.md lists the layouts.

    `weight` is the network's and, unless `text_weight` gives another, that of the text encoders.
    """

    file: SafeFile
    weight: _Weight = 1.0
    text_weight: _Weight | None = None


@dataclass(frozen=True)
class AddedLora:
    """A LoRA of the main network, the weights that it and its text encoders get it at, and what named the file."""

    key: str
    file: Path
    weight: float
    text_weight: float

    @property
    def where(self) -> str:
        """What errors call it."""
        return f"{self.key} {self.file}"
