"""Confidence intervals: they cover, they pair, and the seed decides them."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eval.distances.frechet import frechet_distance
from eval.statistics.bootstrap import mean_interval, paired_difference_interval, statistic_interval, wilson_interval


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_intervals_of_a_mean_cover_it_as_often_as_they_say() -> None:
    intervals = [mean_interval(gaussian(60, seed=k) + 2, 200, 0.9, k) for k in range(150)]
    covered = sum(i.low <= 2 <= i.high for i in intervals) / len(intervals)
    assert 0.83 <= covered <= 0.96


@pytest.mark.parametrize(("n", "d"), [(60, 6), (20, 32)])
def test_intervals_of_the_frechet_distance_cover_its_expectation_at_this_n(n: int, d: int) -> None:
    reference = gaussian(100, d, seed=10_000)

    def distance_of(x: Tensor) -> Callable[[Tensor], float]:
        return lambda index: frechet_distance(x[index], reference)

    def arm(seed: int) -> Tensor:
        return 0.8 * gaussian(n, d, seed=seed) + 0.3

    everything = torch.arange(n)
    distances = torch.tensor([distance_of(arm(20_000 + k))(everything) for k in range(100)])
    intervals = [statistic_interval(distance_of(arm(k)), n, 40, 0.9, k) for k in range(40)]
    covered = sum(i.low <= float(distances.mean()) <= i.high for i in intervals) / len(intervals)
    assert 0.75 <= covered <= 0.98
    # Covering is no merit of an interval that is too wide, as the bootstrap's is for n < D.
    width = sum(i.high - i.low for i in intervals) / len(intervals)
    assert width == pytest.approx(2 * 1.645 * float(distances.std()), rel=0.3)
    assert all(i.low <= i.value <= i.high for i in intervals)


def test_intervals_of_a_paired_difference_of_distances_cover_none_between_equal_arms() -> None:
    reference = gaussian(60, 4, seed=10_000)

    def difference_of(x: Tensor, y: Tensor) -> Callable[[Tensor], float]:
        return lambda index: frechet_distance(x[index], reference) - frechet_distance(y[index], reference)

    covered = 0
    for k in range(40):
        shared = gaussian(40, 4, seed=k)
        x, y = shared + 0.5 * gaussian(40, 4, seed=500 + k), shared + 0.5 * gaussian(40, 4, seed=1000 + k)
        interval = statistic_interval(difference_of(x, y), 40, 25, 0.9, k)
        covered += interval.low <= 0 <= interval.high
    assert 0.75 <= covered / 40 <= 0.98


def test_a_set_statistic_sees_every_image_once_and_then_subsets_without_repeats() -> None:
    seen: list[Tensor] = []

    def record(index: Tensor) -> float:
        seen.append(index)
        return float(index.double().mean())

    statistic_interval(record, 11, 20, 0.95, 0)
    assert seen[0].tolist() == list(range(11))
    assert [len(set(index.tolist())) for index in seen[1:]] == [9] * 20
    assert len({tuple(index.tolist()) for index in seen}) == 21


def test_a_statistic_without_bias_has_the_interval_of_its_mean() -> None:
    values = gaussian(100, seed=1)
    mean = mean_interval(values, 2000, 0.95, 3)
    moved = statistic_interval(lambda index: float(values[index].mean()), 100, 2000, 0.95, 3)
    assert moved.value == pytest.approx(mean.value)
    assert moved.low == pytest.approx(mean.low, abs=0.01)
    assert moved.high == pytest.approx(mean.high, abs=0.01)


def test_the_interval_of_a_mean_is_that_of_the_central_limit() -> None:
    values = gaussian(400, seed=2)
    interval = mean_interval(values, 4000, 0.95, 0)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * float(values.std()) / 20, rel=0.05)
    assert interval.value == pytest.approx(float(values.mean()))
    assert interval.n == 400


def test_pairing_cancels_what_the_seeds_share() -> None:
    shared = 10 * gaussian(100, seed=3)
    a, b = shared + 0.1 * gaussian(100, seed=4) + 0.2, shared + 0.1 * gaussian(100, seed=5)
    paired = paired_difference_interval(a, b, 500, 0.95, 0)
    unpaired = paired_difference_interval(a, b.flip(0), 500, 0.95, 0)
    assert 0.1 < paired.low < paired.value < paired.high < 0.3
    assert unpaired.high - unpaired.low > 20 * (paired.high - paired.low)


def test_the_seed_decides_the_interval_and_leaves_torch_alone() -> None:
    values = gaussian(50, seed=6)
    state = torch.get_rng_state()
    assert mean_interval(values, 100, 0.95, 1) == mean_interval(values, 100, 0.95, 1)
    assert mean_interval(values, 100, 0.95, 1) != mean_interval(values, 100, 0.95, 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_flags_of_images_have_a_rate() -> None:
    interval = mean_interval(torch.tensor([True, False, True, True] * 25), 500, 0.95, 0)
    assert interval.value == 0.75
    assert 0.6 < interval.low < 0.75 < interval.high < 0.9


def test_wilsons_interval_has_its_published_value() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for successes, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        interval = wilson_interval(successes, n, 0.95)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
        assert interval.value == successes / n


@given(n=st.integers(1, 500), share=st.floats(0, 1), level=st.floats(0.51, 0.999))
def test_wilsons_interval_holds_the_rate_and_mirrors(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    interval, mirrored = wilson_interval(successes, n, level), wilson_interval(n - successes, n, level)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("kind", ["mean", "statistic"])
def test_intervals_over_few_prompts_cover_as_often_as_those_over_many(kind: str) -> None:
    prompts, images, covered = 10, 6, 0
    clusters = torch.arange(prompts).repeat_interleave(images)
    for k in range(150):
        values = gaussian(prompts, seed=k).repeat_interleave(images) + 0.3 * gaussian(60, seed=1000 + k)
        if kind == "mean":
            interval = mean_interval(values, 200, 0.95, k, clusters)
        else:
            interval = statistic_interval(lambda index, v=values: float(v[index].mean()), 60, 200, 0.95, k, clusters)  # type: ignore[misc]
        covered += interval.low <= 0 <= interval.high
        assert values.min() <= interval.low or kind == "statistic"
    assert covered / 150 >= 0.92, "the bootstrap covers 89 %, random subsets 88 %"


def test_too_few_images_are_counted() -> None:
    with pytest.raises(ValueError, match="means need at least 2 values, found 1"):
        mean_interval(torch.ones(1), 100, 0.95, 0)
    with pytest.raises(ValueError, match="the same number of values of both arms, found 3 and 4"):
        paired_difference_interval(torch.ones(3), torch.ones(4), 100, 0.95, 0)
    with pytest.raises(ValueError, match="need at least 3 images, found 2"):
        statistic_interval(lambda index: 0.0, 2, 100, 0.95, 0)
    with pytest.raises(ValueError, match="found 0 of 0"):
        wilson_interval(0, 0, 0.95)
    with pytest.raises(ValueError, match="found 5 of 4"):
        wilson_interval(5, 4, 0.95)


def test_broken_values_are_counted() -> None:
    with pytest.raises(ValueError, match="NaN or infinity in 2 of 4"):
        mean_interval(torch.tensor([1.0, math.nan, 2.0, math.inf]), 100, 0.95, 0)
    with pytest.raises(ValueError, match=r"values of shape \[N\], found \[4, 1\]"):
        mean_interval(torch.ones(4, 1), 100, 0.95, 0)
