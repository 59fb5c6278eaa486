"""The numbers of every arm with and without each group of pairs, so that any two arms can be compared pair by pair."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from eval.distances.frechet import FrechetTo
from eval.distances.neighbour_deletions import RemainingNeighbours
from eval.distances.neighbours import neighbour_metrics
from eval.statistics.jackknife import Replicates, replicates, with_pairs


@dataclass(frozen=True)
class ArmValues:
    """One arm's features [N, D] and per-image scores [N] by name; row k of every arm is pair k.

    A score is NaN where an image has none, as LPIPS within a prompt of one image.
    """

    features: Tensor
    scores: Mapping[str, Tensor]


def arm_replicates(
    arms: Mapping[str, ArmValues], baseline: str, reference: Tensor, k: int, kept: list[Tensor], space: str = ""
) -> dict[str, dict[str, Replicates]]:
    """For every arm: `fd`, `drift`, `contraction`, `spread_ratio`, `precision` and `recall` (of k neighbours) against
    the reference set [M, D], the same from the baseline under `shift_...`, and the mean of every score over the
    images that have it. `fd_for_differences` is `fd` with the replicates that differences of arms need: they cover
    better without the jackknife's bias, a single arm's distance, skewed as it is, with it (docs/statistics.md).

    The reference set is held fixed; `space` names what progress is shown of. Raises ValueError for arms of unequal size
    and for features that do not fit.
    """
    sizes = {name: len(arm.features) for name, arm in arms.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            "paired arms need the same number of images each, found " + ", ".join(f"{n} {m}" for n, m in sizes.items())
        )
    to_reference = FrechetTo(reference)
    to_baseline: dict[tuple[int, ...], FrechetTo] = {}
    base = arms[baseline].features
    most_left_out = len(base) - min(len(index) for index in kept)

    def from_baseline(index: Tensor) -> FrechetTo:
        # All arms meet the same deletions, so the baseline is factored once for each.
        key = tuple(index.tolist())
        if key not in to_baseline:
            to_baseline[key] = FrechetTo(base[index])
        return to_baseline[key]

    def measured(arm: ArmValues) -> dict[str, Replicates]:
        inside = neighbour_metrics(arm.features, reference, k, k).inside.double()
        neighbours = RemainingNeighbours(arm.features, reference, k, k, most_left_out)

        def statistic(index: Tensor) -> dict[str, float]:
            own = arm.features[index]
            remaining = torch.zeros(len(arm.features), dtype=torch.bool)
            remaining[index] = True
            return {
                **vars(to_reference.shift(own)),
                **{f"shift_{name}": value for name, value in vars(from_baseline(index).shift(own)).items()},
                "precision": float(inside[index].mean()),
                "recall": neighbours.recall(remaining),
                **{name: float(values[index].nanmean()) for name, values in arm.scores.items()},
            }

        found = replicates(statistic, len(arm.features), kept)
        # Where two arms are hardly apart, the difference is mostly quadratic in the images.
        found["fd_for_differences"] = with_pairs(
            found["fd"], lambda index: to_reference.shift(arm.features[index]).fd, kept
        )
        return found

    bar = tqdm(arms.items(), f"leave groups out {space}".rstrip(), unit="arm", disable=None)
    return {name: measured(arm) for name, arm in bar}
