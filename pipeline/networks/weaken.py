"""Guides made from a network: a weakened copy, or another training epoch of its LoRA.

Autoguidance asks for a guide with the same kind of errors, only stronger (arXiv 2406.02507, section 5): less training
and less capacity work, arbitrary damage mostly does not. Weakened copies are here so that this can be measured.
Everything is drawn from a seed on the CPU and written into the weights, so the guide is one fixed network.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.networks.perturbation import skip_for_good
from pipeline.networks.weights.lora import fuse, fuse_main
from pipeline.study.main_lora import AddedLora
from pipeline.study.weaken import DropLayers, Dropout, LoraFile, LowBits, WeightNoise

# Where the blocks of UNets and of transformers lie.
_BLOCKS = (
    *("down_blocks", "mid_block", "up_blocks"),
    *("transformer_blocks", "single_transformer_blocks"),
    *("layers", "noise_refiner", "context_refiner"),
)


Change = WeightNoise | Dropout | DropLayers | LowBits | LoraFile | AddedLora


@torch.no_grad()
def weaken(network: torch.nn.Module, how: Change | Sequence[Change]) -> None:
    """Change the weights of `network` in place, by several changes in their order.

    Raises InputError for layers and LoRA files that do not fit.
    """
    if isinstance(how, Sequence):
        for change in how:
            weaken(network, change)
    elif isinstance(how, WeightNoise):
        generator = torch.Generator().manual_seed(how.seed)
        weight: torch.Tensor
        for weight in network.parameters():
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            deviation = weight.std() if weight.numel() > 1 else weight.abs().sum()
            weight.add_(noise * deviation * how.strength)
    elif isinstance(how, Dropout):
        generator = torch.Generator().manual_seed(how.seed)
        for name, weight in _matrices(network):
            if name.startswith(_BLOCKS):
                keep = torch.rand(weight.shape[1], generator=generator) >= how.rate
                weight.mul_((keep / (1 - how.rate)).to(weight).view(1, -1, *(1,) * (weight.ndim - 2)))
    elif isinstance(how, DropLayers):
        skip_for_good(network, how.layers)
    elif isinstance(how, LowBits):
        for _, weight in _matrices(network):
            axes = tuple(range(1, weight.ndim))
            step = weight.abs().amax(axes, keepdim=True).clamp(min=1e-12) / (2 ** (how.bits - 1) - 1)
            weight.copy_((weight / step).round() * step)
    elif isinstance(how, AddedLora):
        fuse_main(network, how)
    else:
        fuse(network, Path(how.file), how.scale)


def _matrices(network: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return [(name, module.weight) for name, module in network.named_modules() if isinstance(module, kinds)]
