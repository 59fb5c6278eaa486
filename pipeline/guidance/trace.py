"""The trace: what guidance did at every step, and how the directions away from the references lie to each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import torch

from pipeline.guidance.algebra import MAIN, Prediction


@dataclass(frozen=True)
class TraceStep:
    """One step, one entry a picture in each tensor, all sizes in x0.

    `sigma` is the noise level b / a. `direction` [B] is the root mean square per value of guided - main.
    `references` names what was evaluated beside main, `probed` those of them that guidance did not use.
    `relative_norms` [B, R] are |main - reference| / |main| in that order, `cosines` [B, R (R - 1) / 2] those between
    the directions main - reference of every two references, in the order of itertools.combinations. `estimates`
    [W, C, H, W] are the guided x0 of the pictures that are watched, the first ones of the batch.
    """

    step: int
    timestep: float
    sigma: float
    direction: torch.Tensor
    references: tuple[str, ...]
    relative_norms: torch.Tensor
    cosines: torch.Tensor
    probed: tuple[str, ...] = ()
    estimates: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def cpu(self) -> "TraceStep":
        """The step with its tensors on the CPU."""
        sizes = {name: getattr(self, name).cpu() for name in ("direction", "relative_norms", "cosines", "estimates")}
        return replace(self, **sizes)


def trace_step(
    step: int,
    timestep: float,
    sigma: float,
    guided: torch.Tensor,
    predicted: Mapping[Prediction, torch.Tensor],
    main_x0: torch.Tensor,
    per_output: float,
) -> TraceStep:
    """Measure one step from predictions [B, C, H, W] in one parametrisation.

    `per_output` is |d x0 / d output| of that parametrisation. Nothing is read off the device here, so that a GPU
    does not wait for the CPU at every step. A direction of length zero has cosine zero with all others.
    """
    main = predicted[MAIN]
    references = [prediction for prediction in predicted if prediction != MAIN]
    direction = (guided - main).float().square().mean(dim=(1, 2, 3)).sqrt() * per_output
    directions = torch.stack([(main - predicted[r]).float().flatten(1) for r in references], 1) if references else None
    if directions is None:
        nothing = direction.new_zeros(len(direction), 0)
        return TraceStep(step, timestep, sigma, direction, (), nothing, nothing)
    gram = directions @ directions.mT  # [B, R, R]
    norms = gram.diagonal(dim1=1, dim2=2).sqrt()
    relative = norms * per_output / main_x0.float().flatten(1).norm(dim=1, keepdim=True)
    pairs = list(combinations(range(len(references)), 2))
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    tiny = torch.finfo(gram.dtype).tiny
    cosines = gram[:, first, second] / (norms[:, first] * norms[:, second]).clamp(min=tiny)
    return TraceStep(step, timestep, sigma, direction, tuple(r.name for r in references), relative, cosines)


def trace_rows(trace: Sequence[TraceStep], picture: int) -> dict[str, list[object]]:
    """The trace of one picture of the batch as the columns of a shard, one row a step."""
    return {
        "step": [step.step for step in trace],
        "timestep": [step.timestep for step in trace],
        "sigma": [step.sigma for step in trace],
        "direction": [float(step.direction[picture]) for step in trace],
        "references": [list(step.references) for step in trace],
        "relative_norms": [step.relative_norms[picture].tolist() for step in trace],
        "cosines": [step.cosines[picture].tolist() for step in trace],
    }
