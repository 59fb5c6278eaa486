"""Noisy images at many noise levels, and what a network predicts of them, with a gradient to what it is told."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.networks.denoisers.unet import DenoisingNetwork, memory_format
from pipeline.networks.text.conditioning import Conditioning


@dataclass(frozen=True)
class NoisyImages(ABC):
    """What a text learns from or is measured on: noisy samples `x` [N, C, H, W] on the main network's path.

    Of each, `timesteps` [N] is what the network's training calls its noise level, and `levels` [N] its place in
    `sigmas`, the noise levels b / a. `chunks` is how many chunks the text is filled up to.
    """

    x: torch.Tensor
    timesteps: torch.Tensor
    levels: torch.Tensor
    sigmas: tuple[float, ...]
    chunks: int

    def __len__(self) -> int:
        return len(self.x)

    @abstractmethod
    def measured(self, rows: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What is reported [B] of outputs [B, C, H, W] of the main network for some `rows` [B] under a text."""

    @abstractmethod
    def losses(self, rows: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What training makes small, [B], of the same."""

    def predicted(self, network: DenoisingNetwork, rows: torch.Tensor, told: Conditioning) -> torch.Tensor:
        """The network's output [B, C, H, W] for some rows [B] that are all told one text, or one each."""
        return predicted(network, self.x[rows], self.timesteps[rows], told)


def predicted(network: DenoisingNetwork, x: torch.Tensor, timesteps: torch.Tensor, told: Conditioning) -> torch.Tensor:
    """The output [B, C, H, W] of a UNet for `x` [B, C, H, W] at `timesteps` [B], with gradients to what it is told.

    `told` has one row for all samples or one for each; the sizes that SDXL is told as well are added. It is what the
    network's own call gives, which generation has without gradients and with one noise level for all samples.
    """
    count, told = len(x), told.adding(network.added_conditions(1, None))
    x = x.to(network.dtype).contiguous(memory_format=memory_format(network.device))
    rows = {name: own.to(x).expand(count, *own.shape[1:]) for name, own in told.items()}
    more: dict[str, Any] = {}
    if network.family.added:
        more["added_cond_kwargs"] = {own: rows[name] for name, own in network.family.added.items()}
    output: torch.Tensor = network.unet(x, timesteps, encoder_hidden_states=rows["tokens"], **more).sample
    return output.float()


def cosine(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The cosine [B] between differences of predictions [B, C, H, W], over all values of a sample, as the trace has it.

    It is the same in every prediction type, whose differences are one multiple of each other at one noise level. A
    difference of length zero has cosine zero.
    """
    return torch.nn.functional.cosine_similarity(first.float().flatten(1), second.float().flatten(1), dim=1, eps=1e-12)
