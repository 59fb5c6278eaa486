"""The noise schedule of a network's training: which noise level each of its timesteps has.

The noise level sigma = b / a is what two schedules have in common: the same sigma is another timestep.
"""

import torch

# The a^2 of a schedule that ends without signal (arXiv 2305.08891), where sigma would be infinite: "close to 0 without
# being 0" as diffusers' own schedulers have it.
_LEAST_SIGNAL = 2.0**-24


def noise_to_signal(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The noise levels sigma = b / a of a schedule's a^2 [T]; 4096 where there is no signal."""
    alphas = alphas_cumprod.clamp(min=_LEAST_SIGNAL)
    return ((1 - alphas) / alphas).sqrt()


def most_noise() -> float:
    """The noise level sigma = b / a where there is no signal, in place of infinity: 4096."""
    return float(noise_to_signal(torch.tensor(0.0)))


def timestep_at(sigma: float, alphas_cumprod: torch.Tensor) -> float:
    """The timestep, fractional as a rule, at which a training schedule has the noise level `sigma`.

    `alphas_cumprod` [T] is the schedule's a^2. log sigma is interpolated linearly over the timesteps, as diffusers and
    k-diffusion do; below the first and above the last level it is the first and the last timestep.
    """
    alphas = alphas_cumprod.double().cpu().clamp(min=_LEAST_SIGNAL)
    levels = ((1 - alphas) / alphas).log() / 2
    wanted = torch.tensor(sigma, dtype=torch.float64).log()
    if wanted <= levels[0]:
        return 0.0
    if wanted >= levels[-1]:
        return float(len(levels) - 1)
    above = int(torch.searchsorted(levels, wanted))
    below = above - 1
    return below + float((wanted - levels[below]) / (levels[above] - levels[below]))
