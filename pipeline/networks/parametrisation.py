"""Noise, v and x0 predictions, and the way from one to another.

At signal level a and noise level b (a^2 + b^2 = 1) the noisy picture is x = a x0 + b e, and v = a e - b x0
(arXiv 2202.00512, appendix D). diffusers calls them "sample" (x0), "epsilon" (e) and "v_prediction" (v).

The noise level sigma = b / a is what two training noise schedules have in common: the same sigma is another timestep.
"""

import torch

PREDICTION_TYPES = ("sample", "epsilon", "v_prediction")
# The a^2 of a schedule that ends without signal (arXiv 2305.08891), where sigma would be infinite: "close to 0 without
# being 0" as diffusers' own schedulers have it.
_LEAST_SIGNAL = 2.0**-24


def to_x0(
    output: torch.Tensor, kind: str, x: torch.Tensor, a: float | torch.Tensor, b: float | torch.Tensor
) -> torch.Tensor:
    """x0 from a network's output of type `kind`; `x` is the noisy picture, all [B, C, H, W].

    Raises ValueError for a kind that is not in PREDICTION_TYPES.
    """
    if kind == "sample":
        return output
    if kind == "epsilon":
        return (x - b * output) / a
    if kind == "v_prediction":
        return a * x - b * output
    raise ValueError(f"prediction type '{kind}' is unknown; known types: {', '.join(PREDICTION_TYPES)}")


def from_x0(
    x0: torch.Tensor, kind: str, x: torch.Tensor, a: float | torch.Tensor, b: float | torch.Tensor
) -> torch.Tensor:
    """The inverse of `to_x0`."""
    if kind == "sample":
        return x0
    if kind == "epsilon":
        return (x - a * x0) / b
    if kind == "v_prediction":
        return (a * x - x0) / b
    raise ValueError(f"prediction type '{kind}' is unknown; known types: {', '.join(PREDICTION_TYPES)}")


def x0_per_output(kind: str, a: float, b: float) -> float:
    """|d x0 / d output|: turns the size of a difference of outputs into a size in x0."""
    return {"sample": 1.0, "epsilon": b / a, "v_prediction": b}[kind]


def noise_to_signal(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The noise levels sigma = b / a of a schedule's a^2; 4096 where there is no signal."""
    alphas = alphas_cumprod.clamp(min=_LEAST_SIGNAL)
    return ((1 - alphas) / alphas).sqrt()


def signal_and_noise(sigma: float) -> tuple[float, float]:
    """(a, b) of x = a x0 + b e with a^2 + b^2 = 1 at the noise level sigma = b / a."""
    a = 1 / (1 + sigma**2) ** 0.5
    return a, sigma * a


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
