"""The sampling loop: from seeds and texts to pictures, under any guidance, with a trace of every step.

The schedulers are diffusers'. All random numbers of a picture come from its own seed, drawn on the CPU, so a
picture does not depend on the batch it is drawn in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from pipeline.conditioning import Conditioning, joined
from pipeline.guidance import MAIN, Guidance, Network, Prediction, Text, by_network
from pipeline.networks import DenoisingNetwork
from pipeline.parametrisation import x0_per_output
from pipeline.schedulers import Start, begin


@dataclass(frozen=True)
class TraceStep:
    """What guidance did at one step: `sigma` is the noise level b / a, `direction` the size of the guided minus
    the main prediction, root mean square per value in x0, one number a picture."""

    step: int
    timestep: float
    sigma: float
    direction: tuple[float, ...]


@torch.inference_mode()
def sample(
    networks: Mapping[Network, DenoisingNetwork],
    conditioning: Mapping[Text, Conditioning],
    guidance: Guidance,
    scheduler: SchedulerMixin,
    steps: int,
    seeds: Sequence[int],
    shape: tuple[int, int, int] | None = None,
    start: Start | None = None,
) -> tuple[torch.Tensor, list[TraceStep]]:
    """Draw one picture a seed.

    `conditioning` holds every text that the guidance reads; `shape` is (channels, height, width) of a sample, the main
    network's own unless given; with `start` pictures are drawn over others. Returns finished samples
    [B, C, H, W] in the main network's sample space, and the trace.
    """
    main = networks["main"]
    device = main.unet.device
    beginning = begin(scheduler, steps, seeds, shape or main.sample_shape, device, start)
    x, generators = beginning.x, beginning.generators
    groups = by_network(guidance.predictions())
    trace = []
    for step, timestep in enumerate(scheduler.timesteps[beginning.skipped :]):
        scaled = scheduler.scale_model_input(x, timestep)
        predicted: dict[Prediction, torch.Tensor] = {}
        for name, wanted in groups.items():
            network = networks[name]
            outputs = network(
                scaled.repeat(len(wanted), 1, 1, 1),
                timestep,
                joined([conditioning[prediction.text] for prediction in wanted]),
            ).chunk(len(wanted))
            for prediction, output in zip(wanted, outputs, strict=True):
                predicted[prediction] = network.converted(output, scaled, timestep, main)
        guided = guidance.combine(predicted)
        a, b = main.signal_and_noise(timestep)
        size = (guided - predicted[MAIN]).square().mean(dim=(1, 2, 3)).sqrt() * x0_per_output(
            main.prediction_type, a, b
        )
        trace.append(TraceStep(step, float(timestep), b / a, tuple(size.tolist())))
        x = _step(scheduler, guided, timestep, x, generators)
    return x, trace


def _step(
    scheduler: SchedulerMixin,
    guided: torch.Tensor,
    timestep: torch.Tensor,
    x: torch.Tensor,
    generators: list[torch.Generator],
) -> torch.Tensor:
    return scheduler.step(guided, timestep, x, generator=generators, return_dict=False)[0]  # type: ignore[no-any-return]
