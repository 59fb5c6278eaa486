"""The direction away from the guide along unguided trajectories: what the best negative prompt would point along."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.embeddings.noisy_images import NoisyImages, cosine
from pipeline.generation.loaded_model import LoadedModel
from pipeline.networks.denoiser import converted
from pipeline.networks.denoisers.unet import DenoisingNetwork
from pipeline.sampling.starts import FromNoise
from pipeline.sampling.steppers import build_stepper


@dataclass(frozen=True)
class GuideDirections(NoisyImages):
    """Samples along unguided trajectories, with `main` and `away` [N, C, H, W] under their prompts.

    `main` is the main network's output, `away` is main - guide, the direction that autoguidance pushes along. What is
    measured of a text is the cosine between main - output and that direction.
    """

    main: torch.Tensor
    away: torch.Tensor

    def measured(self, rows: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return cosine(self.main[rows] - output, self.away[rows])

    def losses(self, rows: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return 1 - self.measured(rows, output)


@torch.no_grad()
def along_trajectories(model: LoadedModel, prompts: Sequence[str], seeds: Sequence[int]) -> GuideDirections:
    """Walk an unguided trajectory for each prompt and seed [B], and keep every sample on the way.

    The trajectories are those of an unguided arm of the study. N is B times the number of network evaluations, level by
    level. Raises InputError where a network cannot be loaded, or the guide does not fit.
    """
    main, guide = model.main, model.guide
    assert isinstance(main, DenoisingNetwork), "learn_negative.py refuses families of other networks"
    sampler = model.study.sampler
    told = model.encode({"prompt": prompts})["prompt"].adding(main.added_conditions(len(seeds), None))
    chunks = model.text_encoder.number(model.text_encoder.cut(prompt) for prompt in prompts)
    shape, same = main.shape_of(None), guide.same_schedule(main)
    stepper = build_stepper(sampler, main.schedule.config, main.path, main.steps_of(shape, sampler.steps))
    beginning = FromNoise().begin(stepper, sampler.steps, seeds, shape, main.device)
    x, moments = beginning.x, stepper.moments()
    found: dict[str, list[torch.Tensor]] = {"x": [], "main": [], "away": []}
    for at in moments:
        scaled = stepper.scaled(x, at)
        output = main(scaled, at.sigma, told, timestep=at.timestep)
        seen = main.path.moved(scaled, at.sigma, guide.path)
        guided = guide(seen, at.sigma, told, timestep=at.timestep if same else None)
        guided = converted(guided, seen, at.sigma, guide, main)
        for name, tensor in {"x": scaled, "main": output, "away": output - guided}.items():
            found[name].append(tensor)
        x = stepper.step(output, x, at, beginning.generators)
    # Joined outside of inference mode, so that gradients may pass by.
    tensors = {name: torch.cat(own).float() for name, own in found.items()}
    levels = torch.arange(len(moments), device=main.device).repeat_interleave(len(seeds))
    timesteps = torch.tensor([at.timestep for at in moments], device=main.device)[levels]
    return GuideDirections(
        x=tensors["x"],
        timesteps=timesteps,
        levels=levels,
        sigmas=tuple(at.sigma for at in moments),
        chunks=chunks,
        main=tensors["main"],
        away=tensors["away"],
    )
