"""Guidance in attention space: the main prediction is steered away from a second text inside cross-attention.

With Z+ [B, positions, width] what the positions of an image read from the prompt and Z- what they read from the second
text, both before the output projection,

    nag    Z = s Z+ - (s - 1) Z-, shortened to tau |Z+| where it is longer, then alpha Z + (1 - alpha) Z+
           (arXiv 2505.21179, equations 7 to 10; |.| is the L1 norm of a position)
    vsf    one attention over the tokens of both, the second's values times -scale, `bias` off its scores
           (arXiv 2508.10931)
    nasa   Z+ - scale Z- (arXiv 2412.02687, equation 9)

Nothing but cross-attention is evaluated for the second text, so a prediction costs far less than a second evaluation,
and networks that have been distilled of classifier-free guidance can be steered. The layers are changed in
pipeline/networks/attention_space.py.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.guidance.scale_schedules import Constant, NoiseInterval, Window
from pipeline.settings import Name, Settings

Layers = Annotated[tuple[str, ...], Field(min_length=1)]
When = Annotated[Constant | NoiseInterval | Window, Field(discriminator="name")]


class _AttentionSpace(Settings):
    """What the three have in common.

    `text` is the one to steer away from: one of the arm's texts, or empty, negative, unrelated. `layers` are the
    beginnings of the names of the transformer blocks whose cross-attention is changed (`mid_block`), by default all of
    them. At the steps that `schedule` leaves out the prediction is the plain one.
    """

    text: Name = "negative"
    layers: Layers | None = None
    schedule: When = Constant()

    @field_validator("text")
    @classmethod
    def _another_text(cls, text: str) -> str:
        if text == "prompt":
            raise ValueError("is what the network is steered towards; name another text")
        return text


class NAG(_AttentionSpace):
    """Normalized attention guidance (arXiv 2505.21179); scale 1 is none, and so is alpha 0.

    The scale is the authors' code's, phi + 1 of the paper. The paper's values for Stable Diffusion 1.5 are the
    defaults; for SDXL it has alpha 0.5, for FLUX scale 5 and alpha 0.25.
    """

    name: Literal["nag"]
    scale: Annotated[float, Field(ge=1, le=100)] = 3.0
    tau: Annotated[float, Field(ge=1, le=100)] = 2.5
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.375

    @property
    def acts(self) -> bool:
        """Whether it changes a prediction at all."""
        return self.scale != 1 and self.alpha != 0


class VSF(_AttentionSpace):
    """Value sign flip (arXiv 2508.10931); scale 0 is none.

    Scale 0 is not the limit of small scales: appended tokens take a share of the attention from the prompt's, whatever
    their values are. The share falls with `bias`, exp(-bias) to each of them. The second text's padding is left out, as
    the authors do. They give no values for UNets; these are near those of their code for the cross-attention of Wan.
    """

    name: Literal["vsf"]
    scale: Annotated[float, Field(ge=0, le=100)] = 1.0
    bias: Annotated[float, Field(ge=0, le=100)] = 0.2

    @property
    def acts(self) -> bool:
        """Whether it changes a prediction at all."""
        return self.scale != 0


class NASA(_AttentionSpace):
    """Negative-away steer attention (arXiv 2412.02687); scale 0 is none.

    The paper has 0.1 for networks distilled of Stable Diffusion 1.5, 0.2 of 2.1, 0.5 of PixArt.
    """

    name: Literal["nasa"]
    scale: Annotated[float, Field(ge=0, le=100)] = 0.1

    @property
    def acts(self) -> bool:
        """Whether it changes a prediction at all."""
        return self.scale != 0


AttentionSpace = Annotated[NAG | VSF | NASA, Field(discriminator="name")]
# A main prediction that one of them changes is called by its name.
ATTENTION_SPACE = ("nag", "vsf", "nasa")
