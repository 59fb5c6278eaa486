"""What guidance moves away from in the embedded networks, step by step along one image's trajectory:
`python -m docs.trajectory` plots it.

The image is the first waving person of the default study, generated without guidance. At every step the networks say
what they take the noised image for: the prompt's, the empty prompt's and the negative prompt's x0 by the main network,
and the guide's. Guidance adds a multiple of the difference between the prompt's and one of the others.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from docs.mechanisms import MECHANISMS
from pipeline.compose import compose
from pipeline.errors import run_stage
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.shard_plan import arm_texts
from pipeline.guidance.algebra import EMPTY, GUIDE, MAIN, NEGATIVE, Prediction, by_way
from pipeline.layout import CONF
from pipeline.networks.denoiser import SampledNetwork
from pipeline.results.colours import push_colour
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.study.study import parse_study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = {MAIN: "prompt", EMPTY: "no prompt", NEGATIVE: "negative", GUIDE: "weaker network"}
SCALE = 3.0
# The steps that the static figure shows, of 20.
_STEPS = (2, 7, 12, 17)
Pixels = NDArray[np.float64]


class Recorded:
    """A network that keeps what it was asked and answered; everything else is the network's own."""

    def __init__(self, network: SampledNetwork):
        self._network = network
        self.calls: list[tuple[Tensor, float, Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, x: Tensor, sigma: float, *told: Any) -> Tensor:
        output: Tensor = self._network(x, sigma, *told)
        self.calls.append((x, sigma, output))
        return output


@dataclass(frozen=True)
class Step:
    """One step: its noise level, and what each prediction takes the noised image for, [3, H, W] of about -1 to 1."""

    sigma: float
    estimates: dict[Prediction, Pixels]

    def plane(self) -> tuple[dict[Prediction, tuple[float, float]], float]:
        """The estimates in the plane nearest to them, and the share of their squared differences that the plane holds.

        The prompt's is the origin, and the unit the root mean square of a pixel.
        """
        main = self.estimates[MAIN]
        others = [prediction for prediction in self.estimates if prediction != MAIN]
        rows = np.stack([(self.estimates[prediction] - main).ravel() for prediction in others]) / np.sqrt(main.size)
        _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
        # The empty prompt's lies to the left, and the negative's above it: signs of singular vectors are arbitrary.
        placed = rows @ axes[:2].T
        placed *= np.where(placed[[0, 1], [0, 1]] * [-1, 1] < 0, -1, 1)
        places = {prediction: (float(x), float(y)) for prediction, (x, y) in zip(others, placed, strict=True)}
        return {MAIN: (0.0, 0.0), **places}, float((sizes[:2] ** 2).sum() / (sizes**2).sum())


@dataclass(frozen=True)
class Trajectory:
    """The prompt, the negative prompt and the seed of the image, and its steps from noise on."""

    prompt: str
    negative: str
    seed: int
    steps: list[Step]


@cache
def trajectory() -> Trajectory:
    """The embedded networks along the image's way. Raises InputError where they are missing."""
    study = parse_study(compose(CONF, []), "the default study")
    texts = arm_texts(study, study.baseline)
    first = next(k for k, prompt in enumerate(texts["prompt"]) if "waving" in prompt)
    seed = study.generate.first_seed + first
    generator = ArmGenerator(study, study.baseline, torch.device("cpu"))
    networks = {name: Recorded(network) for name, network in generator.networks.items()}
    main = networks["main"]
    own = {text: prompts[first : first + 1] for text, prompts in texts.items()}
    conditioning = generator.model.encode(own)
    steps_of_it = main.steps_of(main.sample_shape, study.sampler.steps)
    stepper = build_stepper(study.sampler, main.schedule.config, main.path, steps_of_it)
    sample(networks, conditioning, generator.guidance, stepper, study.sampler.steps, [seed])
    asked = {way.network: found for way, found in by_way(generator.guidance.predictions()).items()}
    steps = []
    for calls in zip(*(networks[name].calls for name in asked), strict=True):
        estimates = {}
        for (name, wanted), (x, sigma, output) in zip(asked.items(), calls, strict=True):
            network = networks[name]
            for prediction, part in zip(wanted, output.chunk(len(wanted)), strict=True):
                x0 = network.path.to_x0(part, network.prediction_type, x, sigma)
                estimates[prediction] = network.to_pixels(x0)[0].double().numpy()
        steps.append(Step(calls[0][1], {prediction: estimates[prediction] for prediction in SHOWN}))
    return Trajectory(own["prompt"][0], own["negative"][0], seed, steps)


def guided(step: Step, reference: Prediction, scale: float) -> Pixels:
    """The guided estimate, reference + scale (prompt - reference)."""
    away = step.estimates[reference]
    return away + scale * (step.estimates[MAIN] - away)


def as_bytes(estimate: Pixels) -> NDArray[np.uint8]:
    """An estimate as pixels [H, W, 3], clipped to what an image can show."""
    return ((estimate.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)


def _plane(ax: "Axes", step: Step) -> None:
    places, share = step.plane()
    for prediction, said in SHOWN.items():
        colour = "black" if prediction == MAIN else push_colour([prediction.name])
        ax.plot(*places[prediction], "o", color=colour, fillstyle="full" if prediction == MAIN else "none", label=said)
        if prediction != MAIN:
            end = [-(SCALE - 1) * value for value in places[prediction]]
            ax.annotate("", end, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
            ax.plot(*end, alpha=0)  # the window holds the arrows' ends
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.12)
    ax.annotate(f"{share:.0%} in this plane", (0.03, 0.03), xycoords="axes fraction", fontsize=8)


def _shown(step: Step) -> list[tuple[str, Pixels]]:
    """The images of a step with their titles: the prompt's, and for each mechanism the reference's and the guided."""
    found = [("prompt", step.estimates[MAIN])]
    for one in MECHANISMS:
        found += [(one.called, step.estimates[one.reference])]
        found += [(f"away from {one.called}", guided(step, one.reference, SCALE))]
    return found


def main() -> None:
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "trajectory", "font.size": 9})
    found = trajectory()
    columns = 2 + 2 * len(MECHANISMS)
    figure, axes = plt.subplots(
        len(_STEPS), columns, figsize=(15.0, 7.6), gridspec_kw={"width_ratios": [1.35] + [1] * (columns - 1)}
    )
    titles = [said for said, _ in _shown(found.steps[0])]
    for ax, said in zip(axes[0], ["in their plane", *titles], strict=True):
        ax.set_title(said, fontsize=9)
    for row, number in zip(axes, _STEPS, strict=True):
        step = found.steps[number]
        row[0].set_ylabel(f"step {number + 1} of {len(found.steps)}, noise {step.sigma:.2g}")
        _plane(row[0], step)
        for ax, (_, estimate) in zip(row[1:], _shown(step), strict=True):
            ax.imshow(as_bytes(estimate), interpolation="nearest")
    axes[0, 0].legend(loc="upper left", fontsize=7)
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
    figure.tight_layout()
    path = Path(__file__).with_name("trajectory.svg")
    figure.savefig(path, metadata={"Date": None})
    print(f"{path.name}: seed {found.seed}, '{found.prompt}', scale {SCALE:g}")


if __name__ == "__main__":
    run_stage(main)
