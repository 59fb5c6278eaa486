"""Independent sets put beside each other by chance: the intervals and tests of pairs hold for them."""

import torch

from eval.comparison.paired_arms import ArmValues, arm_replicates
from eval.comparison.shift import against_baseline
from eval.distances.two_sample_mmd import paired_mmd_test
from eval.statistics.jackknife import deletions, replicates
from pipeline.study.study import Metrics

N = 64
SETTINGS = Metrics(precision_recall_k=3, density_coverage_k=5, resamples=100, level=0.95, seed=0)


def independent(seed: int, n: int = N, dimensions: int = 3) -> torch.Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_interval_of_a_difference_covers_as_often_as_it_says() -> None:
    kept, covered = deletions(torch.arange(N), 0), 0
    for k in range(300):
        ours, theirs = (
            replicates(lambda index, own=own: {"spread": float(own[index].var())}, N, kept)["spread"]  # type: ignore[misc]
            for own in (independent(2 * k), independent(2 * k + 1))
        )
        interval = (ours - theirs).interval(0.95)
        covered += interval.low <= 0 <= interval.high
    # Three binomial deviations of 300 repetitions around 95 %.
    assert 0.91 <= covered / 300 <= 0.99


def test_exchanging_pairs_rejects_equal_distributions_as_rarely_as_it_says() -> None:
    prompts = torch.arange(N)
    p = [paired_mmd_test(independent(2 * k), independent(2 * k + 1), 99, 0, prompts).p for k in range(1000, 1120)]
    assert sum(one <= 0.05 for one in p) <= 14  # 120 x 0.05 and three deviations
    assert 0.35 < sum(p) / len(p) < 0.65


def test_of_images_that_are_no_pairs_nothing_is_said_of_how_far_they_moved() -> None:
    arms = {
        name: ArmValues(independent(seed), {"saturation": independent(seed + 9, N, 1)[:, 0]})
        for name, seed in (("a", 1), ("b", 2))
    }
    prompts = torch.arange(N)
    found = arm_replicates(arms, "a", independent(3, 2 * N), 3, deletions(prompts, 0))
    records = [
        against_baseline(arms["b"], arms["a"], found["b"], found["a"], prompts, SETTINGS, paired=paired)
        for paired in (True, False)
    ]
    assert records[0]["mean_share"] > 0
    assert records[1]["mean_share"] is None
    assert records[1]["dispersion"] is None
    assert records[0]["reference_fd"] == records[1]["reference_fd"]
    assert records[1]["composition"] is None, "no kinds were asked for"
    assert "aesthetic" not in records[1]
