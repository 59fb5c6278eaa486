"""The toy of the autoguidance paper (arXiv 2406.02507, figure 1), with known scores: `python -m docs.toy` plots it.

The class is a mixture of Gaussians in the plane, on a bent arm, beside another class.
CFG steers away from the mixture of both classes, and loses the modes that lie near the other class; autoguidance steers
away from a smoothed version of the same class, whose errors are the main one's, and keeps every mode.
"""

from pathlib import Path

import torch

from pipeline.guidance.algebra import EMPTY, GUIDE, MAIN, NEGATIVE, Guidance, Prediction, Term, Walk
from pipeline.guidance.scale_schedules import Moment
from pipeline.results.colours import BASELINE, push_colour

SCALE = 5.0
STEPS = 60
# Modes of the class on a bent arm, and of the other class beside the third and the last of them.
MODES = torch.tensor([[0.0, 0.0], [0.9, 0.5], [1.6, 1.2], [1.7, 2.2], [1.2, 3.0]], dtype=torch.float64)
OTHER = torch.tensor([[1.75, 1.0], [1.35, 3.2]], dtype=torch.float64)
SPREAD = 0.14
# How much wider the modes are to the guide: a network of less capacity blurs the density it learnt.
SMOOTHING = 0.45


def denoised(x: torch.Tensor, sigma: float, means: torch.Tensor, spread: float) -> torch.Tensor:
    """E[x0 | x] at noise level `sigma` under equal Gaussians at `means` [K, 2] of standard deviation `spread`."""
    variance = spread**2 + sigma**2
    weights = (-(x[:, None] - means).square().sum(-1) / (2 * variance)).softmax(1)  # [N, K]
    posterior = means + (spread**2 / variance) * (x[:, None] - means)
    return (weights[..., None] * posterior).sum(1)


def predictions(x: torch.Tensor, sigma: float) -> dict[Prediction, torch.Tensor]:
    """The exact x0 predictions of main, of both classes together (the empty prompt), of the other class alone (a
    negative prompt that names it), and of the smoothed guide."""
    return {
        MAIN: denoised(x, sigma, MODES, SPREAD),
        EMPTY: denoised(x, sigma, torch.cat([MODES, OTHER.repeat(3, 1)]), SPREAD),
        NEGATIVE: denoised(x, sigma, OTHER, SPREAD),
        GUIDE: denoised(x, sigma, MODES, (SPREAD**2 + SMOOTHING**2) ** 0.5),
    }


def draw(guidance: Guidance, points: int = 4000, seed: int = 0) -> torch.Tensor:
    """Points [N, 2] along the probability flow from sigma 10 to 0.01 (Heun, arXiv 2206.00364), under `guidance`."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.logspace(1, -2, STEPS, dtype=torch.float64).tolist()
    x = levels[0] * torch.randn(points, 2, generator=generator, dtype=torch.float64)
    walk = Walk(guidance)

    def slope(x: torch.Tensor, at: Moment, sigma: float) -> torch.Tensor:
        return (x - walk.combine(predictions(x, sigma), at)) / sigma

    for k, (sigma, following) in enumerate(zip(levels, [*levels[1:], 0.0], strict=True)):
        at = Moment(k, STEPS, 0, sigma, following)
        first = slope(x, at, sigma)
        after = x + (following - sigma) * first
        if following:
            after = x + (following - sigma) * (first + slope(after, at, following)) / 2
        x = after
    return x


GUIDANCES = {
    "none": Guidance(),
    f"CFG, scale {SCALE:g}": Guidance((Term(EMPTY, SCALE),)),
    f"autoguidance, scale {SCALE:g}": Guidance((Term(GUIDE, SCALE),)),
}
# As in the report: none is grey, CFG blue, autoguidance green.
COLOURS = (BASELINE, push_colour(["empty"]), push_colour(["guide"]))


def mode_shares(points: torch.Tensor) -> torch.Tensor:
    """The share of the points that lie within three standard deviations of each mode of the class."""
    return (torch.cdist(points, MODES) < 3 * SPREAD).double().mean(0)


def main() -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), sharex=True, sharey=True)
    for ax, (name, guidance), colour in zip(axes, GUIDANCES.items(), COLOURS, strict=True):
        points = draw(guidance)
        ax.scatter(*points.T.numpy(), s=2, alpha=0.25, color=colour, linewidths=0)
        ax.scatter(*OTHER.T.numpy(), marker="x", color="black", label="other class")
        for mean, share in zip(MODES, mode_shares(points), strict=True):
            ax.add_patch(plt.Circle(mean.tolist(), 3 * SPREAD, fill=False, color="grey", linewidth=0.8))
            ax.annotate(f"{share:.0%}", mean.tolist(), xytext=(22, 0), textcoords="offset points", fontsize=9)
        ax.set_title(name)
        ax.set_aspect("equal")
    axes[0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    path = Path(__file__).with_name("toy.png")
    figure.savefig(path, dpi=110)
    print(f"{path.name}: share of the points within three standard deviations of each mode")


if __name__ == "__main__":
    main()
