"""The numbers of every arm with and without each group of pairs, so that any two arms can be compared pair by pair."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from eval.distances.frechet import FrechetTo
from eval.statistics.jackknife import Replicates, replicates, with_pairs


@dataclass(frozen=True)
class ArmValues:
    """One arm's features [N, D] and per-image scores [N] by name; row k of every arm is pair k.

    A score is NaN where a picture has none, as LPIPS within a prompt of one picture.
    """

    features: Tensor
    scores: Mapping[str, Tensor]


def arm_replicates(
    arms: Mapping[str, ArmValues], baseline: str, reference: Tensor, k: int, kept: list[Tensor]
) -> dict[str, dict[str, Replicates]]:
    """For every arm: `fd`, `drift`, `contraction`, `spread_ratio`, `precision` and `recall` (of k neighbours) against
    the reference set [M, D], the same from the baseline under `shift_...`, and the mean of every score over the
    pictures that have it. `fd_for_differences` is `fd` with the replicates that differences of arms need: they cover
    better without the jackknife's bias, a single arm's distance, skewed as it is, with it (docs/statistics.md).

    The reference set is held fixed. Raises ValueError for arms of unequal size and for features that do not fit.
    """
    sizes = {name: len(arm.features) for name, arm in arms.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            "paired arms need as many pictures each, found " + ", ".join(f"{n} {m}" for n, m in sizes.items())
        )
    to_reference = FrechetTo(reference)
    to_baseline: dict[tuple[int, ...], FrechetTo] = {}
    base = arms[baseline].features

    def from_baseline(index: Tensor) -> FrechetTo:
        # All arms meet the same deletions, so the baseline is factored once for each.
        key = tuple(index.tolist())
        if key not in to_baseline:
            to_baseline[key] = FrechetTo(base[index])
        return to_baseline[key]

    def measured(arm: ArmValues) -> dict[str, Replicates]:
        neighbours = _Neighbours(arm.features, reference, k)

        def statistic(index: Tensor) -> dict[str, float]:
            own = arm.features[index]
            return {
                **vars(to_reference.shift(own)),
                **{f"shift_{name}": value for name, value in vars(from_baseline(index).shift(own)).items()},
                "precision": neighbours.precision(index),
                "recall": neighbours.recall(index),
                **{name: float(values[index].nanmean()) for name, values in arm.scores.items()},
            }

        found = replicates(statistic, len(arm.features), kept)
        # Where two arms are hardly apart, the difference is mostly quadratic in the pictures.
        found["fd_for_differences"] = with_pairs(
            found["fd"], lambda index: to_reference.shift(arm.features[index]).fd, kept
        )
        return found

    bar = tqdm(arms.items(), "leave groups out", unit="arm", disable=None)
    return {name: measured(arm) for name, arm in bar}


class _Neighbours:
    """Precision and recall (1904.06991) of any subset of one arm, from distances that are computed once."""

    def __init__(self, x: Tensor, reference: Tensor, k: int):
        x, reference = x.double(), reference.double()
        exact = "donot_use_mm_for_euclid_dist"
        self._k = k
        self._own = torch.cdist(x, x, compute_mode=exact).fill_diagonal_(torch.inf)
        self._to_reference = torch.cdist(x, reference, compute_mode=exact)
        among = torch.cdist(reference, reference, compute_mode=exact).fill_diagonal_(torch.inf)
        self._inside = (self._to_reference <= among.kthvalue(k).values).any(1).double()

    def precision(self, index: Tensor) -> float:
        return float(self._inside[index].mean())

    def recall(self, index: Tensor) -> float:
        radius = self._own[index][:, index].kthvalue(self._k).values
        return float((self._to_reference[index] <= radius[:, None]).any(0).double().mean())
