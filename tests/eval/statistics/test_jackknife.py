"""Intervals by leaving out groups: they pair, they keep prompts together, and they cover."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from eval.distances.composition import paired_composition_p_value
from eval.distances.frechet import FrechetTo
from eval.distances.frechet_infinity import frechet_infinity, frechet_infinity_replicates
from eval.distances.mind import mind, mind_replicates
from eval.distances.mmd import cmmd, cmmd_replicates, kid, kid_replicates
from eval.distances.two_sample_mmd import mmd_test, paired_mmd_test
from eval.statistics.jackknife import Replicates, combined, deletion_groups, deletions, replicates, with_pairs

REPETITIONS = 400


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean_of(values: Tensor, clusters: Tensor | None = None) -> Replicates:
    kept = deletions(torch.arange(len(values)) if clusters is None else clusters, seed=0)
    return replicates(lambda index: {"mean": float(values[index].mean())}, len(values), kept)["mean"]


def test_the_standard_error_of_a_mean_is_the_textbooks() -> None:
    values = gaussian(64, seed=0)
    assert mean_of(values).standard_error == pytest.approx(float(values.std()) / 8)
    assert mean_of(gaussian(6400, seed=1)).standard_error == pytest.approx(1 / 80, rel=0.2)


def test_pairing_cancels_what_the_seeds_share() -> None:
    shared = 10 * gaussian(100, seed=3)
    a, b = mean_of(shared + 0.1 * gaussian(100, seed=4)), mean_of(shared + 0.1 * gaussian(100, seed=5))
    assert (a - b).standard_error < a.standard_error / 20
    assert (a - b).value == pytest.approx(a.value - b.value)


def test_images_of_one_prompt_count_as_one_where_they_are_alike() -> None:
    prompts = torch.arange(40).repeat_interleave(5)
    values = gaussian(40, seed=6).repeat_interleave(5)
    by_prompt, by_image = mean_of(values, prompts), mean_of(values)
    assert by_prompt.standard_error == pytest.approx(5**0.5 * by_image.standard_error, rel=0.25)
    for kept in deletions(prompts, seed=0):
        left_out = set(range(200)) - set(kept.tolist())
        assert len(left_out) == 5
        assert len({k // 5 for k in left_out}) == 1


def test_every_image_is_left_out_once_and_the_seed_decides_with_which() -> None:
    kept = deletions(torch.arange(100), seed=1)
    left_out = [set(range(100)) - set(index.tolist()) for index in kept]
    assert sorted(k for group in left_out for k in group) == list(range(100))
    assert {len(group) for group in left_out} == {1, 2}
    again = deletions(torch.arange(100), seed=1)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(kept, deletions(torch.arange(100), seed=2), strict=True))


def test_a_statistic_that_never_varies_is_what_it_is() -> None:
    nothing = mean_of(torch.zeros(20))
    assert nothing.interval(0.95).low == nothing.interval(0.95).high == 0
    assert nothing.p_value() == 1
    assert nothing.p_value(neutral=1) == 0


def test_relabelling_the_arms_turns_the_sign_and_nothing_else() -> None:
    a, b = mean_of(gaussian(50, seed=7)), mean_of(gaussian(50, seed=8))
    assert (a - b).value == -(b - a).value
    assert (a - b).standard_error == pytest.approx((b - a).standard_error)
    assert (a - b).p_value() == pytest.approx((b - a).p_value())


def test_a_function_of_several_statistics_has_the_delta_methods_error() -> None:
    a, b = mean_of(gaussian(4000, seed=9) + 10), mean_of(gaussian(4000, seed=10) + 5)
    ratio = combined(lambda x, y: x / y, a, b)
    expected = ((a.standard_error / 5) ** 2 + (2 * b.standard_error / 5) ** 2) ** 0.5
    assert ratio.standard_error == pytest.approx(expected, rel=0.2)


def test_a_mean_has_no_quadratic_part_to_take_off() -> None:
    values = gaussian(128, seed=11)
    plain, kept = mean_of(values), deletions(torch.arange(128), seed=0)
    corrected = with_pairs(plain, lambda index: float(values[index].mean()), kept)
    assert corrected.standard_error == pytest.approx(plain.standard_error)
    assert 20 < corrected.degrees <= plain.degrees == 63


def test_what_is_quadratic_is_counted_once() -> None:
    # The sum of 40 squares of standard normals has variance 80; all of it is quadratic in the 256 images.
    plain, corrected = [], []
    for k in range(100):
        values = gaussian(256, 40, seed=1000 + k)

        def square(index: Tensor, values: Tensor = values) -> float:
            return len(index) * float(values[index].mean(0).square().sum())

        kept = deletions(torch.arange(256), seed=k)
        found = replicates(lambda index, square=square: {"square": square(index)}, 256, kept)["square"]  # type: ignore[misc]
        plain.append(found.variance)
        corrected.append(with_pairs(found, square, kept).variance)
    assert sum(plain) / 100 == pytest.approx(160, rel=0.15)
    assert sum(corrected) / 100 == pytest.approx(80, rel=0.15)


def test_a_difference_keeps_the_pairs_where_both_have_them() -> None:
    values, kept = gaussian(64, 2, seed=12), deletions(torch.arange(64), seed=0)
    a, b = (mean_of(values[:, k]) for k in (0, 1))
    a, b = (with_pairs(x, lambda i, k=k: float(values[i, k].mean()), kept) for k, x in enumerate((a, b)))  # type: ignore[misc]
    assert (a - b).without_two is not None
    torch.testing.assert_close((a - b).without_two, a.without_two - b.without_two)
    assert (a - mean_of(values[:, 1])).without_two is None


def test_too_few_images_are_counted() -> None:
    with pytest.raises(ValueError, match="need at least 3 images or prompts, found 2"):
        deletions(torch.tensor([0, 0, 1, 1]), seed=0)


def coverage(draw: Callable[[int], Replicates], truth: float) -> float:
    """How often the nominal 95 % interval of `draw(repetition)` holds the truth."""
    intervals = (draw(repetition).interval(0.95) for repetition in range(REPETITIONS))
    return sum(interval.low <= truth <= interval.high for interval in intervals) / REPETITIONS


@pytest.mark.slow
def test_intervals_of_means_and_of_paired_differences_cover_95_percent() -> None:
    def difference(k: int) -> Replicates:
        shared = gaussian(200, seed=3 * k)
        return mean_of(shared + gaussian(200, seed=3 * k + 1).exp()) - mean_of(shared + gaussian(200, seed=3 * k + 2))

    found = {
        "mean": coverage(lambda k: mean_of(gaussian(200, seed=k) + 2), 2),
        "paired difference": coverage(difference, float(torch.tensor(0.5).exp())),
    }
    print(found)
    assert all(0.93 <= share <= 0.97 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("apart", ["clearly", "hardly"])
@pytest.mark.parametrize(("n", "d"), [(100, 8), (128, 32)])
def test_intervals_of_differences_of_frechet_distances_cover_95_percent(n: int, d: int, apart: str) -> None:
    # Like features: falling variances and heavy tails (a scale of its own for each image).
    scale = torch.arange(1, d + 1).double().pow(-0.5)
    from_reference = FrechetTo(gaussian(4 * n, d, seed=1) * scale)
    drift, widths = 0.3 * scale * gaussian(d, seed=2).sign(), 1 + 0.2 * gaussian(d, seed=3).sign()

    def arms(k: int) -> tuple[Tensor, Tensor]:
        shared, heavy = gaussian(n, d, seed=10 * k), (0.3 * gaussian(n, 1, seed=10 * k + 1)).exp()
        a, b = (0.8 * shared + 0.6 * gaussian(n, d, seed=10 * k + j) for j in (2, 3))
        if apart == "hardly":
            return a * heavy * scale * 1.02, b * heavy * scale + 0.05 * scale
        return a * heavy * scale * widths + drift, b * heavy * scale * 1.05 + 0.1 * scale

    def difference(k: int) -> Replicates:
        a, b = arms(k)
        kept = deletions(torch.arange(n), seed=k)

        def difference_of(index: Tensor) -> float:
            return from_reference.shift(a[index]).fd - from_reference.shift(b[index]).fd

        found = replicates(lambda index: {"fd": difference_of(index)}, n, kept)["fd"]
        return with_pairs(found, difference_of, kept)

    truths = []
    for k in range(10_000, 13_000):
        a, b = arms(k)
        truths.append(from_reference.shift(a).fd - from_reference.shift(b).fd)
    found = coverage(difference, sum(truths) / len(truths))
    print(n, d, apart, found)
    assert 0.93 <= found <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kid", "cmmd", "fd_infinity", "mind"])
def test_intervals_of_other_distances_cover_95_percent(name: str) -> None:
    n, d = 100, 8
    scale = torch.arange(1, d + 1).double().pow(-0.5)
    reference = gaussian(4 * n, d, seed=1) * scale
    groups = deletion_groups(torch.arange(n), seed=0, groups=32)

    def arm(k: int) -> Tensor:
        heavy = (0.3 * gaussian(n, 1, seed=2 * k)).exp()
        return gaussian(n, d, seed=2 * k + 1) * heavy * scale * 1.2 + 0.2 * scale

    value: Callable[[int], float] = {
        "kid": lambda k: kid(arm(k), reference),
        "cmmd": lambda k: cmmd(arm(k), reference),
        "fd_infinity": lambda k: frechet_infinity(arm(k), reference, seed=k),
        "mind": lambda k: mind(arm(k), reference),
    }[name]
    interval: Callable[[int], Replicates] = {
        "kid": lambda k: kid_replicates(arm(k), reference, groups),
        "cmmd": lambda k: cmmd_replicates(arm(k), reference, groups),
        "fd_infinity": lambda k: frechet_infinity_replicates(arm(k), reference, groups, seed=k),
        "mind": lambda k: mind_replicates(arm(k), reference, groups, seed=0),
    }[name]
    truth = sum(value(k) for k in range(10_000, 13_000)) / 3000
    found = coverage(interval, truth)
    print(name, found)
    # Skewed by heavy tails, as the distance of a single arm is, KID the most: docs/statistics.md.
    assert 0.87 <= found <= 0.98


@pytest.mark.slow
def test_permutation_p_values_are_uniform_where_nothing_shifted() -> None:
    def pair(k: int) -> tuple[Tensor, Tensor]:
        shared = gaussian(40, 3, seed=3 * k)
        return shared + gaussian(40, 3, seed=3 * k + 1), shared + gaussian(40, 3, seed=3 * k + 2)

    found = {
        "paired": [paired_mmd_test(*pair(k), 199, k).p for k in range(REPETITIONS)],
        "independent": [
            mmd_test(gaussian(30, 3, seed=2 * k), gaussian(50, 3, seed=2 * k + 1), 199, k).p for k in range(REPETITIONS)
        ],
        # Shares are smooth, or equal totals of whole images would pile up the p-values.
        "composition": [
            paired_composition_p_value(*(x.softmax(1) for x in pair(k)), 199, k) for k in range(REPETITIONS)
        ],
    }
    tests = {name: float(stats.kstest(values, "uniform").pvalue) for name, values in found.items()}
    print(tests)
    assert min(tests.values()) > 0.01, tests
