"""Each method at its best scale, chosen on one half of the prompts and reported on the other.

The best of several scales, reported on the images that it was chosen by, flatters the method with the most scales.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from eval.comparison.control_arms import vendi_replicates
from eval.comparison.halves import halves
from eval.comparison.paired_arms import ArmValues, arm_replicates
from eval.distances.frechet import FrechetTo
from eval.statistics.bootstrap import bounded
from eval.statistics.jackknife import deletions
from pipeline.results.comparison import ChosenScale
from pipeline.results.metrics import metric
from pipeline.study.arm import Arm
from pipeline.study.study import Metrics

# Differences from the baseline and from the control, by the name of the set's number.
_DIFFERENCES = ("fd", "precision", "recall", "clip_score", "aesthetic")


def chosen_scales(
    paths: Mapping[str, Sequence[str]],
    arms: Mapping[str, Arm],
    values: Mapping[str, ArmValues],
    baseline: str,
    reference: Tensor,
    prompts: Tensor,
    settings: Metrics,
    fewest: int,
) -> list[ChosenScale]:
    """For every method, a path of arms over scales, the scale with the lowest FD on one half; its numbers on the other.

    `values` have features of the primary space. Methods with one scale have nothing to choose and are reported on the
    same half. Empty where a half has fewer than `fewest` images.
    """
    first, second = halves(prompts)
    if min(len(first), len(second)) < fewest:
        return []
    to_reference = FrechetTo(reference)
    controls = {own.control.of: name for name, own in arms.items() if own.control}
    candidates = {
        family: {name: to_reference.shift(values[name].features[first]).fd for name in path if name != baseline}
        for family, path in paths.items()
    }
    if not any(candidates.values()):
        return []
    best = {family: min(found, key=lambda name: found[name]) for family, found in candidates.items() if found}
    needed = dict.fromkeys([baseline, *best.values(), *(controls[name] for name in best.values() if name in controls)])
    kept = deletions(prompts[second], settings.seed)
    on_second = {
        name: ArmValues(values[name].features[second], {key: own[second] for key, own in values[name].scores.items()})
        for name in needed
    }
    found = arm_replicates(on_second, baseline, reference, settings.precision_recall_k, kept, "on the other half")
    vendi = {name: vendi_replicates(own.features, kept) for name, own in on_second.items()}

    def differences(ours: str, theirs: str) -> dict[str, object]:
        rows = {
            name: found[ours][_replicates_of(name)] - found[theirs][_replicates_of(name)] for name in _DIFFERENCES
        } | {"vendi": vendi[ours] - vendi[theirs]}
        return {name: row.interval(settings.level) for name, row in rows.items()}

    return [
        ChosenScale.model_validate(
            {
                "family": family,
                "arm": name,
                "scale": arms[name].scale,
                "candidates": candidates[family],
                "fd": bounded(found[name]["fd"].interval(settings.level), *metric("fd").bounds(len(second))),
                "against_baseline": differences(name, baseline),
                "control": controls.get(name),
                "against_control": differences(name, controls[name]) if name in controls else None,
            }
        )
        for family, name in best.items()
    ]


def _replicates_of(name: str) -> str:
    return "fd_for_differences" if name == "fd" else name
