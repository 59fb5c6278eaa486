"""What a learned embedding does on images that training did not see, beside what written negative prompts do there."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tqdm import tqdm

from pipeline.embeddings.noisy_images import NoisyImages
from pipeline.networks.denoisers.unet import DenoisingNetwork
from pipeline.networks.text.conditioning import Conditioning

Told = Callable[[int], Conditioning]


@torch.no_grad()
def on_held_out(
    network: DenoisingNetwork, images: NoisyImages, texts: Mapping[str, Told], batch: int
) -> dict[str, dict[str, Any]]:
    """What is measured of some texts on held-out images, by the texts' names.

    `texts` give what a network is told of one text beside prompts of a number of chunks. Of each the result holds the
    `mean` over levels and images, its `standard_error` over images, and the mean of each of the `levels`.
    """
    shown = tqdm(texts.items(), desc="measure", unit="text", disable=None)
    return {name: _summed(images, _measured(network, images, told(images.chunks), batch)) for name, told in shown}


def _measured(network: DenoisingNetwork, images: NoisyImages, told: Conditioning, batch: int) -> torch.Tensor:
    rows = torch.arange(len(images), device=network.device)
    batches = [rows[first : first + batch] for first in range(0, len(rows), batch)]
    return torch.cat([images.measured(own, images.predicted(network, own, told)) for own in batches])


def _summed(images: NoisyImages, measured: torch.Tensor) -> dict[str, Any]:
    # Level by level, as both kinds of noisy images lie; levels of one image are not independent.
    table = measured.double().cpu().view(len(images.sigmas), -1)
    means = table.mean(0)
    error = float(means.std() / len(means) ** 0.5) if len(means) > 1 else 0.0
    return {"mean": float(means.mean()), "standard_error": error, "levels": table.mean(1).tolist()}


def ceiling(
    network: DenoisingNetwork,
    images: NoisyImages,
    told: Conditioning,
    levels: list[int],
    count: int,
    steps: int,
    rate: float,
) -> dict[int, float]:
    """What is measured where every sample is told what suits it best: by level, the mean over `count` images.

    In place of one text for all, the embeddings of each sample at each noise level are learned freely for `steps` steps
    of Adam from those of `told`. No text encoder gives such embeddings: no text of any length can be expected to reach
    more, as far as the search finds what is best.
    """
    found = {}
    for level in tqdm(levels, desc="ceiling", unit="level", disable=None):
        rows = (images.levels == level).nonzero().flatten()[:count]
        free = {name: own.detach().float().expand(len(rows), *own.shape[1:]).clone() for name, own in told.items()}
        learned = [free[name].requires_grad_() for name in ("tokens", "pooled") if name in free]
        optimiser = torch.optim.Adam(learned, lr=rate)
        for _ in range(steps):
            losses = images.losses(rows, images.predicted(network, rows, Conditioning(free)))
            optimiser.zero_grad()
            losses.sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            best = images.measured(rows, images.predicted(network, rows, Conditioning(free)))
        found[level] = float(best.mean())
    return found
