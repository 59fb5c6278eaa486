"""Which of NovelAI's prices an arm's images are compared with."""

from typing import Literal

from pydantic import model_validator

from pipeline.settings import Settings

Generation = Literal["v1", "v2", "v3", "v4"]
Tier = Literal["none", "tablet", "scroll", "opus"]

# The generations whose price of SMEA dyn and of the undesired content strength is known.
WITH_SMEA: tuple[Generation, ...] = ("v3",)
WITH_UNCOND_SCALE: tuple[Generation, ...] = ("v2", "v3")


class Anlas(Settings):
    """NovelAI's settings that have no counterpart here and change the price of an image (pipeline/cost/anlas.py).

    `generation` is that of the model, unless given the one that shares the architecture: V1 for SD 1.x and 2.x, V3 for
    SDXL and for every network that NovelAI has no counterpart of. `sm_dyn` prices arms of the sampler smea_like as SMEA
    dyn. `tier` is the subscription. The undesired content strength is an arm's `negative_strength`.
    """

    generation: Generation | None = None
    sm_dyn: bool = False
    tier: Tier = "none"

    @model_validator(mode="after")
    def _price_is_known(self) -> "Anlas":
        given = self.generation
        if given is not None and self.sm_dyn and given not in WITH_SMEA:
            raise ValueError(
                f"the price of sm_dyn is unknown for {given}; leave it out, or take generation {WITH_SMEA[0]}"
            )
        return self

    def generation_of(self, family: str) -> Generation:
        """The generation that networks of a `family` are priced as."""
        return self.generation or ("v1" if family == "sd" else "v3")
