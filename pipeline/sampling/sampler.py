"""The sampling loop: from seeds and texts to images, under any guidance, with a trace of every step.

The solvers are diffusers'. All random numbers of an image come from its own seed, drawn on the CPU, so an
image does not depend on the batch it is drawn in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from pipeline.guidance.algebra import Guidance, Network, Prediction, Text, Walk, by_way
from pipeline.guidance.chance import Chance
from pipeline.guidance.scale_schedules import Moment
from pipeline.guidance.trace import TraceStep, trace_step
from pipeline.networks.denoiser import Denoiser, converted
from pipeline.networks.noise_path import OutputSpaces
from pipeline.networks.text.conditioning import Conditioning, joined, noised, told
from pipeline.sampling.starts import FromNoise, Start
from pipeline.sampling.steppers import Stepper


@torch.inference_mode()
def sample(
    networks: Mapping[Network, Denoiser],
    conditioning: Mapping[Text, Conditioning],
    guidance: Guidance,
    stepper: Stepper,
    steps: int,
    seeds: Sequence[int],
    shape: tuple[int, int, int] | None = None,
    start: Start | None = None,
    watched: int = 0,
) -> tuple[torch.Tensor, list[TraceStep]]:
    """Draw one image per seed.

    `conditioning` holds every text that the guidance reads; `shape` is (channels, height, width) of a sample, the main
    network's own unless given; `start` says how they begin, from noise unless given. Returns finished samples
    [B, C, H, W] in the main network's sample space, and the trace, with what the first `watched` samples were taken
    for at every step.
    """
    main = networks["main"]
    start = start or FromNoise()
    beginning = start.begin(stepper, steps, seeds, shape or main.sample_shape, main.device)
    x, generators = beginning.x, beginning.generators
    evaluate = _Evaluation(networks, conditioning, seeds)
    walk = Walk(guidance)
    trace = []

    def to_x0(output: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return main.path.to_x0(output, main.prediction_type, x, sigma)

    for at in stepper.moments():
        scaled = stepper.scaled(x, at)  # [B, C, H, W] on the stepper's path, which is the main network's
        predicted = evaluate(walk.predictions(at), scaled, at)
        guided = walk.combine(predicted, at, OutputSpaces(main.path, main.prediction_type, scaled, at.sigma))
        used = guidance.main_at(at)
        main_x0 = to_x0(predicted[used], scaled, at.sigma)
        per_output = main.path.x0_per_output(main.prediction_type, at.sigma)
        traced = trace_step(at, guided, predicted, used, main_x0, per_output)
        estimates = to_x0(guided[:watched], scaled[:watched], at.sigma)
        trace.append(replace(traced, probed=walk.probed(at), estimates=estimates))
        stepped = stepper.step(guided, x, at, generators)
        if share := walk.renoise_share(at):
            (along,) = guidance.along
            # The noise of two predictions of one sample differs by their x0 over sigma, with the sign turned.
            noise = (to_x0(guided, scaled, at.sigma) - to_x0(predicted[along], scaled, at.sigma)) / at.sigma
            stepped = stepped + share * at.next_sigma * stepper.signal_after(at) * noise
        after = start.kept(stepped, at, stepper, beginning)
        if walk.follows_steps:
            x0 = {p: to_x0(output, scaled, at.sigma) for p, output in predicted.items()}
            before = scaled / main.path.signal_and_noise(at.sigma)[0]
            walk.follow(at, before, after / stepper.signal_after(at), x0)
        x = after
    return x, [step.cpu() for step in trace]


class _Evaluation:
    """Evaluates predictions, those of one network in one call, as outputs of the main network's type."""

    def __init__(
        self, networks: Mapping[Network, Denoiser], conditioning: Mapping[Text, Conditioning], seeds: Sequence[int]
    ):
        self.networks, self.conditioning, self.seeds = networks, conditioning, tuple(seeds)
        self._same_schedule = {name: network.same_schedule(networks["main"]) for name, network in networks.items()}
        self._joined: dict[tuple[tuple[Text, ...], ...], Conditioning] = {}

    def __call__(
        self, predictions: Sequence[Prediction], x: torch.Tensor, at: Moment
    ) -> dict[Prediction, torch.Tensor]:
        main = self.networks["main"]
        outputs: dict[Prediction, torch.Tensor] = {}
        chance = Chance(self.seeds, at.index)
        for way, wanted in by_way(predictions).items():
            network = self.networks[way.network]
            # Where the schedules differ, the same noise level is another timestep.
            own = at.timestep if self._same_schedule[way.network] else None
            if way.time:
                own = _told(network, network.timestep_at(at.sigma) if own is None else own, way.time)
            seen = main.path.moved(x, at.sigma, network.path)
            texts = self._texts(wanted, at, chance)
            output = network(seen, at.sigma, texts, len(wanted), way.perturbation, own, chance, way.attention)
            for prediction, part in zip(wanted, output.chunk(len(wanted)), strict=True):
                outputs[prediction] = converted(part, seen, at.sigma, network, main)
        # In the order asked for: the trace names references in it.
        return {prediction: outputs[prediction] for prediction in predictions}

    def _texts(self, wanted: Sequence[Prediction], at: Moment, chance: Chance) -> Conditioning:
        if any(prediction.noise for prediction in wanted):
            left = 1 - at.index / at.steps
            return joined([noised(told(self.conditioning, own), own.noise, left, chance) for own in wanted])
        texts = tuple(prediction.texts for prediction in wanted)
        if texts not in self._joined:
            self._joined[texts] = joined([told(self.conditioning, prediction) for prediction in wanted])
        return self._joined[texts]


def _told(network: Denoiser, timestep: float, shift: float) -> float:
    """The timestep that a network is told where a reference shifts it by `shift` thousandths, inside its range."""
    return min(max(timestep + shift / 1000 * network.timesteps, 0.0), network.timesteps)
