"""What sampling sees of a network: from a noisy sample, its noise level and the texts to a prediction.

How the network takes them is its family's own: the timestep that it knows the noise level by, with its sign and scale,
packing, position ids, masks and added conditions.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from pipeline.guidance.algebra import Perturbation
from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.guidance.chance import Chance
from pipeline.networks.noise_path import NoisePath
from pipeline.networks.text.conditioning import Conditioning
from pipeline.study.sampler import Canvas


class Denoiser(Protocol):
    """A network that denoises.

    It predicts `prediction_type` from samples on its `path` (pipeline/networks/noise_path.py) and computes on `device`,
    all of it in `module`, whose operations the FLOP counter counts. `sample_shape` is (channels, height, width) of a
    sample at the canvas of its training.
    """

    @property
    def path(self) -> NoisePath: ...

    @property
    def prediction_type(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def module(self) -> torch.nn.Module: ...

    @property
    def sample_shape(self) -> tuple[int, int, int]: ...

    def __call__(
        self,
        x: torch.Tensor,
        sigma: float,
        conditioning: Conditioning,
        texts: int = 1,
        damage: Perturbation | None = None,
        timestep: float | None = None,
        chance: Chance | None = None,
        attention: NAG | VSF | NASA | None = None,
    ) -> torch.Tensor:
        """The prediction [texts B, C, H, W] for noisy `x` [B, C, H, W] on the network's path at sigma = b / a.

        `conditioning` holds a text for every row: with several `texts` those of all samples for the first, then those
        of all samples for the second, and so on. `damage` is done to the network for this one evaluation. `timestep`
        is what the network's training calls `sigma`, for a solver that has laid out its steps by timesteps, whose
        rounding then is not undone; it follows from `sigma` unless given. `chance` holds the random numbers of damage
        that differs for every sample and step. `attention` steers this one evaluation away from the second text
        that `conditioning` then holds.
        Raises InputError where `damage` or `attention` name layers that the network has not.
        """
        ...

    def timestep_at(self, sigma: float) -> float:
        """What the network's training calls the noise level sigma = b / a, in [0, timesteps]."""
        ...

    @property
    def timesteps(self) -> float:
        """The last timestep of the network's training."""
        ...

    def same_schedule(self, other: "Denoiser") -> bool:
        """Whether a timestep means the same noise level to both."""
        ...


class SampledNetwork(Denoiser, Protocol):
    """A network as generation has it: it denoises, knows the canvas of its samples, and makes images of them.

    `schedule` is diffusers' scheduler of its training, `latents` its autoencoder, None for networks of pixels.
    """

    latents: Any

    @property
    def schedule(self) -> Any: ...

    @property
    def place(self) -> str: ...

    @property
    def interface(self) -> dict[str, Any]:
        """What a guide and its main network share (pipeline/networks/checkpoints.py)."""
        ...

    @property
    def factor(self) -> int:
        """Pixels of an image for each position of a sample, in each direction."""
        ...

    def shape_of(self, canvas: Canvas | None) -> tuple[int, int, int]:
        """(channels, height, width) of a sample whose image fills `canvas`."""
        ...

    def steps_of(self, shape: tuple[int, int, int], steps: int) -> Mapping[str, Any]:
        """What its solver's scheduler is told of `steps` levels besides their number, for samples of `shape`."""
        ...

    def added_conditions(self, images: int, canvas: Canvas | None) -> dict[str, torch.Tensor]:
        """What the network is told besides the texts, which follows from the size of the images alone."""
        ...

    def to_pixels(self, x: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W], about in [-1, 1], from finished samples."""
        ...

    def to_images(self, x: torch.Tensor) -> torch.Tensor:
        """uint8 images [B, 3, H, W] from finished samples."""
        ...

    def to_samples(self, images: torch.Tensor) -> torch.Tensor:
        """Finished samples from uint8 images [B, 3, H, W]: the way back from `to_images`."""
        ...

    @property
    def reads_masks(self) -> bool:
        """Whether it was trained to inpaint: with every text it is told what is `around` the mask."""
        ...

    def around(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What a network that `reads_masks` is told of uint8 `images` [B, 3, H, W] outside the mask of pixels."""
        ...

    def to_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """The mask of samples [B, 1 or C, H, W] that a mask of pixels [B, 1, H, W] in [0, 1] means."""
        ...


def converted(output: torch.Tensor, x: torch.Tensor, sigma: float, of: Denoiser, to: Denoiser) -> torch.Tensor:
    """A prediction of the network `of`, for `x` on its path at `sigma`, as a prediction of `to`, all [B, C, H, W]."""
    if (of.prediction_type, of.path) == (to.prediction_type, to.path):
        return output
    x0 = of.path.to_x0(output, of.prediction_type, x, sigma)
    return to.path.from_x0(x0, to.prediction_type, of.path.moved(x, sigma, to.path), sigma)
