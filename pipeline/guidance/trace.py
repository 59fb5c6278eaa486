"""The trace: what guidance did at every step, and how the directions away from the references lie to each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import torch

from pipeline.guidance.algebra import EMPTY, MAIN, Prediction
from pipeline.guidance.scale_schedules import Moment

# Differences below this share of a prediction are rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class TraceStep:
    """One step, one entry an image in each tensor, all sizes in x0.

    `sigma` is the noise level b / a. `direction` [B] is the root mean square per value of guided - main.
    `references` names what was evaluated beside main, `probed` those of them that guidance did not use.
    `relative_norms` [B, R] are |main - reference| / |main| in that order, `cosines` [B, R (R - 1) / 2] those between
    the directions main - reference of every two references, in the order of itertools.combinations. `estimates`
    [W, C, H, W] are the guided x0 of the images that are watched, the first ones of the batch. `main` is the name of
    the step's main prediction.

    With D = prompt - empty, both of the main network and undamaged, and push = guided - empty, `effective_scale` [B] is
    <push, D> / <D, D> (arXiv 2602.22570), the scale of the plain CFG that has the same component along D, and
    `elsewhere` [B] is the share of |push|^2 across D; both are NaN where one of the two was not evaluated, or where D
    is rounding. They are the same in every prediction type, whose differences are one multiple of each other.
    """

    step: int
    timestep: float
    sigma: float
    direction: torch.Tensor
    references: tuple[str, ...]
    relative_norms: torch.Tensor
    cosines: torch.Tensor
    effective_scale: torch.Tensor
    elsewhere: torch.Tensor
    probed: tuple[str, ...] = ()
    estimates: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    main: str = MAIN.name

    def cpu(self) -> "TraceStep":
        """The step with its tensors on the CPU."""
        tensors: dict[str, Any] = {
            name: value.cpu() for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **tensors)


def trace_step(
    at: Moment,
    guided: torch.Tensor,
    predicted: Mapping[Prediction, torch.Tensor],
    main_prediction: Prediction,
    main_x0: torch.Tensor,
    per_output: float,
) -> TraceStep:
    """Measure one step from predictions [B, C, H, W] in one parametrisation.

    `per_output` is |d x0 / d output| of that parametrisation. Nothing is read off the device here, so that a GPU
    does not wait for the CPU at every step. A direction of length zero has cosine zero with all others.
    """
    main = predicted[main_prediction]
    references = [prediction for prediction in predicted if prediction != main_prediction]
    direction = (guided - main).float().square().mean(dim=(1, 2, 3)).sqrt() * per_output
    directions = torch.stack([(main - predicted[r]).float().flatten(1) for r in references], 1) if references else None
    if directions is None:
        nothing, unknown = direction.new_zeros(len(direction), 0), torch.full_like(direction, torch.nan)
        step = TraceStep(at.index, at.timestep, at.sigma, direction, (), nothing, nothing, unknown, unknown)
        return replace(step, main=main_prediction.name)
    gram = directions @ directions.mT  # [B, R, R]
    norms = gram.diagonal(dim1=1, dim2=2).sqrt()
    relative = norms * per_output / main_x0.float().flatten(1).norm(dim=1, keepdim=True)
    pairs = list(combinations(range(len(references)), 2))
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    tiny = torch.finfo(gram.dtype).tiny
    cosines = gram[:, first, second] / (norms[:, first] * norms[:, second]).clamp(min=tiny)
    names = tuple(reference.name for reference in references)
    push = effective_push(guided, predicted)
    step = TraceStep(at.index, at.timestep, at.sigma, direction, names, relative, cosines, *push)
    return replace(step, main=main_prediction.name)


def effective_push(
    guided: torch.Tensor, predicted: Mapping[Prediction, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """`effective_scale` and `elsewhere` [B] of TraceStep, from predictions [B, C, H, W] in one parametrisation."""
    if MAIN not in predicted or EMPTY not in predicted:
        unknown = guided.new_full((len(guided),), torch.nan)
        return unknown, unknown
    empty = predicted[EMPTY].float()
    push, towards = ((x.float() - empty).flatten(1) for x in (guided, predicted[MAIN]))
    along, squared, pushed = (push * towards).sum(1), towards.square().sum(1), push.square().sum(1)
    # A prompt that is the empty text up to rounding has no direction.
    directed = squared > (_ROUNDING**2) * empty.flatten(1).square().sum(1)
    scale = torch.where(directed, along / squared, torch.nan)
    across = 1 - along.square() / (squared * pushed).clamp(min=torch.finfo(torch.float32).tiny)
    return scale, torch.where(directed & (pushed > 0), across.clamp(min=0), torch.nan)


def trace_rows(trace: Sequence[TraceStep], image: int) -> dict[str, list[object]]:
    """The trace of one image of the batch as the columns of a shard, one row a step."""
    return {
        "step": [step.step for step in trace],
        "timestep": [step.timestep for step in trace],
        "sigma": [step.sigma for step in trace],
        "direction": [float(step.direction[image]) for step in trace],
        "references": [list(step.references) for step in trace],
        "relative_norms": [step.relative_norms[image].tolist() for step in trace],
        "cosines": [step.cosines[image].tolist() for step in trace],
        "effective_scale": [float(step.effective_scale[image]) for step in trace],
        "elsewhere": [float(step.elsewhere[image]) for step in trace],
    }
