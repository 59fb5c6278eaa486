"""How a guide is made from a network, as conf/ describes it (pipeline/networks/weaken.py does it)."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.settings import Seed, Settings
from pipeline.study.main_lora import SafeFile

# The key that names the guide's LoRA file.
WEAKEN = "model.weaken.file"


class WeightNoise(Settings):
    """Gaussian noise on every weight, `strength` times the standard deviation of its tensor."""

    name: Literal["weight_noise"]
    strength: Annotated[float, Field(gt=0, le=10)]
    seed: Seed = 0


class Dropout(Settings):
    """Each input channel of the layers inside the blocks is left out with probability `rate`; the others make up for
    it. One mask for all images and steps: a new mask each time would be noise, not a weaker network."""

    name: Literal["dropout"]
    rate: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed = 0


class DropLayers(Settings):
    """Transformer blocks under `layers` (beginnings of module names) are left out."""

    name: Literal["drop_layers"]
    layers: Annotated[tuple[str, ...], Field(min_length=1)]


class LowBits(Settings):
    """Weights of matrices and convolutions rounded to `bits`, symmetric, with one step for each output channel."""

    name: Literal["low_bits"]
    bits: Annotated[int, Field(ge=2, le=8)]


class LoraFile(Settings):
    """A LoRA file and the scale that it is added at; docs/compatibility.md lists the layouts."""

    file: SafeFile
    scale: float = 1.0


class Lora(LoraFile):
    """The network at `model.guide` with a LoRA."""

    name: Literal["lora"]


Weaken = Annotated[WeightNoise | Dropout | DropLayers | LowBits | Lora, Field(discriminator="name")]
