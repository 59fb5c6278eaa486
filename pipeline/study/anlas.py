"""Which of NovelAI's prices an arm's images are compared with."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

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
    dyn. `uncond_scale` is the undesired content strength of arms with a negative prompt, 1 for 100%. `tier` is the
    subscription.
    """

    generation: Generation | None = None
    sm_dyn: bool = False
    uncond_scale: Annotated[float, Field(gt=0, le=1.5)] = 1.0
    tier: Tier = "none"

    @model_validator(mode="after")
    def _price_is_known(self) -> "Anlas":
        given = self.generation
        if given is not None and self.sm_dyn and given not in WITH_SMEA:
            raise ValueError(
                f"the price of sm_dyn is unknown for {given}; leave it out, or take generation {WITH_SMEA[0]}"
            )
        if given is not None and self.uncond_scale != 1 and given not in WITH_UNCOND_SCALE:
            raise ValueError(
                f"the price of uncond_scale {self.uncond_scale:g} is unknown for {given}; take 1, or generation "
                f"{' or '.join(WITH_UNCOND_SCALE)}"
            )
        return self

    def generation_of(self, family: str) -> Generation:
        """The generation that networks of a `family` are priced as."""
        return self.generation or ("v1" if family == "sd" else "v3")
