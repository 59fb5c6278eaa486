"""The shift of an arm from the baseline and from the reference set: every number that compares two sets."""

import math
from typing import Any

import torch
from torch import Tensor

from eval.comparison.arm_measurements import KIND_COLUMNS, NAMING, PAIRED_SCORES
from eval.comparison.contraction import leading_directions
from eval.comparison.displacement import paired_displacement
from eval.comparison.paired_arms import ArmValues
from eval.comparison.prompt_diversity import within_prompt_spread
from eval.distances.composition import jensen_shannon, paired_composition_p_value, total_variation
from eval.distances.two_sample_classifier import classifier_auc
from eval.distances.two_sample_mmd import mmd_test, paired_mmd_test
from eval.scorers.kinds import KINDS
from eval.scorers.tags import TagReader
from eval.statistics.bootstrap import bounded
from eval.statistics.jackknife import Replicates, combined, deletions, replicates
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric, shown_in
from pipeline.study.study import Metrics

DIRECTIONS = 4
# Of two sets: against the baseline, and against the reference set.
DISTANCES = {row.key: row for row in shown_in("against")}
# Fewer prompts with several images than this say nothing about the diversity within a prompt.
REPEATED_PROMPTS = 10
# The least; see `permutations`.
PERMUTATIONS = 999
# How many of the tags that changed most are named.
NAMED_TAGS = 5


def against_baseline(
    arm: ArmValues,
    baseline: ArmValues,
    found: dict[str, Replicates],
    base: dict[str, Replicates],
    prompts: Tensor,
    settings: Metrics,
    permuted: int = PERMUTATIONS,
    paired: bool = True,
) -> dict[str, Any]:
    """The record AgainstBaseline of one arm, with unadjusted `p_values` in place of the adjusted ones.

    `permuted` is how many permutations the permutation tests have. Where the two were put beside each other by chance,
    and are not `paired`, nothing is said of how far an image moved.
    """
    level, seed = settings.level, settings.seed
    scores = [name for name, column in PAIRED_SCORES.items() if column in found]
    differences = {name: found[PAIRED_SCORES[name]] - base[PAIRED_SCORES[name]] for name in scores}
    differences["reference_fd"] = found["fd_for_differences"] - base["fd_for_differences"]
    preferences = {name: (found[name] - base[name]).interval(level) for name in settings.scorers}
    mmd = paired_mmd_test(arm.features, baseline.features, permuted, seed, prompts)
    moved = paired_displacement(arm.features, baseline.features) if paired else None
    # Images of one seed differ less than those of two; held out together, a pair cannot tell on itself.
    auc = classifier_auc(arm.features, baseline.features, prompts, prompts, level)
    return {
        **{
            name: bounded(found[row.name].interval(level), *row.bounds(len(prompts))) for name, row in DISTANCES.items()
        },
        **{name: difference.interval(level) for name, difference in differences.items()},
        "mean_share": moved and moved.mean_share,
        "dispersion": moved and moved.dispersion,
        "two_sample": {"mmd2": mmd.mmd2, "mmd_p": mmd.p, "auc": auc},
        "composition": composition(arm, baseline, found, base, prompts, settings, permuted) if has_kinds(arm) else None,
        "directions": named_directions(arm, baseline),
        "within_prompt": within_prompt(arm, baseline, prompts, settings),
        "lpips": lpips_difference(found, base, prompts, settings),
        "preferences": preferences,
        "p_values": {metric(name).asked.key: differences[name].p_value() for name in scores},
    }


def against_reference(
    arm: ArmValues, found: dict[str, Replicates], reference: Tensor, prompts: Tensor, settings: Metrics
) -> dict[str, Any]:
    """The record AgainstReference of one arm; real images are independent of the arm's, each on its own.

    Images of one prompt are not: the permutation test takes the first of each, as a pool in which some are copies of
    one another and others are not is not exchangeable.
    """
    mmd = mmd_test(arm.features[first_of_each(prompts)], reference, PERMUTATIONS, settings.seed)
    own = torch.arange(len(reference)) + int(prompts.max()) + 1
    auc = classifier_auc(arm.features, reference, prompts, own, settings.level)
    return {
        **{
            name: bounded(found[name].interval(settings.level), *row.bounds(len(prompts)))
            for name, row in DISTANCES.items()
            if name != "fd"
        },
        "two_sample": {"mmd2": mmd.mmd2, "mmd_p": mmd.p, "auc": auc},
    }


def first_of_each(prompts: Tensor) -> Tensor:
    """The numbers of the first image of each prompt, int64 and ascending, given every image's prompt [N]."""
    names, numbers = torch.unique(prompts, return_inverse=True)
    first = torch.full((len(names),), len(prompts))
    return first.scatter_reduce(0, numbers, torch.arange(len(prompts)), "amin").sort().values


def permutations(arms: int, level: float) -> int:
    """How many permutations let each of `arms` guided arms be decided at `level` after Holm's correction.

    The smallest p-value is 1 / (1 + permutations), and the correction multiplies it by up to the number of arms; ten
    times as many as just reach 1 - level.
    """
    return max(PERMUTATIONS, math.ceil(10 * arms / (1 - level)) - 1)


def composition(
    arm: ArmValues,
    baseline: ArmValues,
    found: dict[str, Replicates],
    base: dict[str, Replicates],
    prompts: Tensor,
    settings: Metrics,
    permuted: int,
) -> dict[str, Any]:
    """How the shares of the kinds changed, with intervals over pairs, or prompts where these repeat."""
    shares = [*(found[column] for column in KIND_COLUMNS), *(base[column] for column in KIND_COLUMNS)]

    def distance(measure: Any) -> Interval:
        def of_shares(*values: float) -> float:
            halves = torch.tensor(values, dtype=torch.float64).reshape(2, len(KINDS))
            return float(measure(halves[0], halves[1]))

        return bounded(combined(of_shares, *shares).interval(settings.level), 0, 1)

    return {
        "total_variation": distance(total_variation),
        "jensen_shannon": distance(jensen_shannon),
        "p": paired_composition_p_value(kind_chances(arm), kind_chances(baseline), permuted, settings.seed, prompts),
    }


def tag_composition(
    reader: TagReader, ours: Tensor, theirs: Tensor, kept: list[Tensor], prompts: Tensor, settings: Metrics
) -> dict[str, Any]:
    """The record TagComposition of two arms' tag shares [N, T], with intervals over pairs, or prompts."""

    def statistic(index: Tensor) -> dict[str, float]:
        p, q = ours[index].mean(0), theirs[index].mean(0)
        differences = {f"tag {tag}": float(value) for tag, value in zip(reader.tags, p - q, strict=True)}
        return {"total_variation": total_variation(p, q), "jensen_shannon": jensen_shannon(p, q), **differences}

    found = replicates(statistic, len(ours), kept)
    shares, base_shares = (dict(zip(reader.tags, x.mean(0).tolist(), strict=True)) for x in (ours, theirs))
    most = sorted(reader.tags, key=lambda tag: -abs(found[f"tag {tag}"].value))[:NAMED_TAGS]
    return {
        "total_variation": bounded(found["total_variation"].interval(settings.level), 0, 1),
        "jensen_shannon": bounded(found["jensen_shannon"].interval(settings.level), 0, 1),
        "p": paired_composition_p_value(ours, theirs, PERMUTATIONS, settings.seed, prompts),
        "readable": len(reader.tags),
        "changed": [
            {
                "tag": tag,
                "share": shares[tag],
                "baseline_share": base_shares[tag],
                "difference": found[f"tag {tag}"].interval(settings.level),
            }
            for tag in most
        ],
    }


def named_directions(arm: ArmValues, baseline: ArmValues) -> list[dict[str, Any]]:
    """The leading directions of the covariance change, each with the per-image score that goes with it most."""
    pooled = torch.cat([arm.features, baseline.features])
    scores = {name: torch.cat([arm.scores[name], baseline.scores[name]]) for name in NAMING if name in arm.scores}
    result = []
    for direction in leading_directions(arm.features, baseline.features, min(DIRECTIONS, pooled.shape[1])):
        along = pooled @ direction.axis
        correlations = {name: _correlation(along, values) for name, values in scores.items()}
        name = max(correlations, key=lambda one: abs(correlations[one]))
        # An axis has no sign by itself.
        result.append({"ratio": direction.ratio, "score": name, "correlation": abs(correlations[name])})
    return result


def within_prompt(arm: ArmValues, baseline: ArmValues, prompts: Tensor, settings: Metrics) -> Interval | None:
    """The spread within a prompt over the baseline's, with its interval over prompts; None where too few repeat."""
    repeated = torch.unique(prompts, return_counts=True)[1] > 1
    if int(repeated.sum()) < REPEATED_PROMPTS:
        return None
    kept = torch.isin(prompts, torch.unique(prompts)[repeated])
    ours, theirs, numbers = arm.features[kept], baseline.features[kept], prompts[kept]

    def statistic(index: Tensor) -> dict[str, float]:
        spreads = [within_prompt_spread(features[index], numbers[index]) for features in (ours, theirs)]
        return {"ratio": spreads[0] / spreads[1]}

    found = replicates(statistic, len(numbers), deletions(numbers, settings.seed))
    return bounded(found["ratio"].interval(settings.level), 0)


def lpips_difference(
    found: dict[str, Replicates], base: dict[str, Replicates], prompts: Tensor, settings: Metrics
) -> Interval | None:
    """The difference of LPIPS within a prompt; None where the study does not ask for it, or too few prompts repeat."""
    repeated = int((torch.unique(prompts, return_counts=True)[1] > 1).sum())
    if not settings.lpips or repeated < REPEATED_PROMPTS:
        return None
    return (found["lpips"] - base["lpips"]).interval(settings.level)


def has_kinds(arm: ArmValues) -> bool:
    """Whether the study asks what its images are of."""
    return set(KIND_COLUMNS) <= set(arm.scores)


def kind_chances(arm: ArmValues) -> Tensor:
    """The chances [N, K] of each image's kinds."""
    return torch.stack([arm.scores[column] for column in KIND_COLUMNS], 1)


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size else 0.0
