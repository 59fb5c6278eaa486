"""The tests of a shift find none where there is none, and a known one where there is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from eval.comparison.contraction import leading_directions
from eval.comparison.prompt_diversity import within_prompt_spread
from eval.distances.composition import jensen_shannon, paired_composition_p_value, total_variation
from eval.distances.frechet import FrechetTo
from eval.distances.two_sample_classifier import _delong, classifier_auc
from eval.distances.two_sample_mmd import mmd_test, paired_mmd_test
from eval.statistics.holm import holm


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def auc(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    found = classifier_auc(x, y, torch.arange(len(x)), torch.arange(len(y)), 0.95)
    return found.low, found.value, found.high


@pytest.mark.parametrize("sizes", [[32] * 6, [24] * 8, [150] + [1] * 42])
def test_sets_that_are_apart_are_told_apart_however_prompts_fall_into_folds(sizes: list[int]) -> None:
    prompts = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x, y = gaussian(len(prompts), 4, seed=0) + 20, gaussian(512, 4, seed=1)
    assert classifier_auc(x, y, prompts, len(sizes) + torch.arange(512), 0.95).value == 1


def test_an_arm_has_not_shifted_from_itself() -> None:
    x = gaussian(60, 4, seed=0)
    assert auc(x, x) == (0.5, 0.5, 0.5)
    assert paired_mmd_test(x, x, 99, 0).mmd2 == 0
    assert paired_mmd_test(x, x, 99, 0).p == 1
    assert vars(FrechetTo(x).shift(x)) == pytest.approx({"fd": 0, "drift": 0, "contraction": 0, "spread_ratio": 1})


def test_arms_that_only_share_seeds_are_not_told_apart() -> None:
    shared = gaussian(200, 4, seed=0)
    x, y = shared + gaussian(200, 4, seed=1), shared + gaussian(200, 4, seed=2)
    low, _, high = auc(x, y)
    assert low < 0.5 < high
    assert paired_mmd_test(x, y, 199, 0).p > 0.05


def test_a_known_drift_has_its_known_auc_and_is_found() -> None:
    x, y = gaussian(400, 3, seed=0), gaussian(400, 3, seed=1)
    x[:, 0] += 1
    # Of two normal variables one standard deviation apart, the larger one is right with Phi(1 / sqrt 2).
    expected = 0.5 * (1 + math.erf(0.5))
    low, value, high = auc(x, y)
    assert low < expected < high
    assert value == pytest.approx(expected, abs=0.03)
    assert paired_mmd_test(x, y, 199, 0).p == mmd_test(x, y, 199, 0).p == 1 / 200


def test_exchanging_the_arms_mirrors_the_auc_not_at_all_and_keeps_the_mmd() -> None:
    x, y = gaussian(60, 3, seed=0) + 0.3, gaussian(60, 3, seed=1)
    assert auc(x, y) == pytest.approx(auc(y, x))
    assert paired_mmd_test(x, y, 99, 0).mmd2 == pytest.approx(paired_mmd_test(y, x, 99, 0).mmd2)
    assert paired_mmd_test(x, y, 99, 0).p == paired_mmd_test(y, x, 99, 0).p


def test_both_permutation_tests_know_one_mmd() -> None:
    x, y = gaussian(50, 3, seed=0) + 0.5, gaussian(50, 3, seed=1)
    # They differ in the pairs' own terms alone, 1 part in n.
    assert paired_mmd_test(x, y, 99, 0).mmd2 == pytest.approx(mmd_test(x, y, 99, 0).mmd2, abs=0.02)


def test_the_direction_that_was_squeezed_leads() -> None:
    x, y = gaussian(400, 6, seed=0), gaussian(400, 6, seed=1)
    x[:, 2] *= 0.3
    y[:, 2] *= 2
    (leading,) = leading_directions(x, y, 1)
    assert abs(float(leading.axis[2])) > 0.95
    assert leading.ratio == pytest.approx((0.3 / 2) ** 2, rel=0.5)


def test_directions_of_noise_are_not_taken_for_a_change() -> None:
    x, y = gaussian(200, 50, seed=0), gaussian(200, 50, seed=1)
    ratios = [direction.ratio for direction in leading_directions(x, y, 10)]
    assert sum(ratios) / 10 == pytest.approx(1, abs=0.25)


def test_compositions_have_their_textbook_distances() -> None:
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert (total_variation(p, p), jensen_shannon(p, p)) == (0, 0)
    assert (total_variation(p, q), jensen_shannon(p, q)) == (1, 1)
    half = torch.tensor([0.5, 0.5])
    assert total_variation(p, half) == 0.5
    assert jensen_shannon(p, half) == pytest.approx(0.311278, abs=1e-6)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**31 - 1))
def test_composition_distances_are_symmetric_and_bounded(seed: int) -> None:
    p, q = gaussian(2, 5, seed=seed).mul(3).softmax(1)
    for distance in (total_variation, jensen_shannon):
        assert 0 <= distance(p, q) <= 1
        assert distance(p, q) == pytest.approx(distance(q, p))


def test_a_change_of_composition_is_found_and_none_is_not() -> None:
    people = torch.nn.functional.one_hot(torch.tensor([0] * 60 + [1] * 40), 3)
    fewer = torch.nn.functional.one_hot(torch.tensor([0] * 40 + [1] * 40 + [2] * 20), 3)
    assert paired_composition_p_value(fewer, people, 999, 0) < 0.01
    assert paired_composition_p_value(people, people, 999, 0) == 1


def test_what_changes_every_prompt_its_own_way_is_no_change_over_prompts() -> None:
    # By nothing on average: pairs alone take that for a change.
    clusters, n = torch.arange(16).repeat_interleave(12), 40
    found = []
    for k in range(n):
        share = (0.5 + 0.2 * gaussian(16, seed=k).clamp(-2, 2)).repeat_interleave(12)
        ours, theirs = torch.stack([share, 1 - share], 1), torch.full((192, 2), 0.5).double()
        x, y = (0.3 * gaussian(192, 3, seed=seed) for seed in (k, 100 + k))
        x += gaussian(16, 3, seed=200 + k).repeat_interleave(12, 0)
        y += gaussian(16, 3, seed=300 + k).repeat_interleave(12, 0)
        found.append(
            [
                paired_composition_p_value(ours, theirs, 199, 0),
                paired_mmd_test(x, y, 199, 0).p,
                paired_composition_p_value(ours, theirs, 199, 0, clusters),
                paired_mmd_test(x, y, 199, 0, clusters).p,
            ]
        )
    below = (torch.tensor(found) <= 0.05).sum(0)
    assert (below[:2] > n / 3).all()
    assert (below[2:] <= 5).all()


def test_pairs_on_their_own_are_clusters_of_one() -> None:
    x, y = gaussian(40, 3, seed=0) + 0.2, gaussian(40, 3, seed=1)
    alone = torch.arange(40)
    assert paired_mmd_test(x, y, 199, 0) == paired_mmd_test(x, y, 199, 0, alone)
    ours, theirs = x.softmax(1), y.softmax(1)
    assert paired_composition_p_value(ours, theirs, 199, 0) == paired_composition_p_value(ours, theirs, 199, 0, alone)


def test_many_real_images_do_not_stand_in_for_prompts_that_are_few() -> None:
    # Five images with a prompt each against 100 real ones, which vary in nothing.
    pairs, right = np.repeat([100.0, 5.0], [5, 100]), np.repeat(4.0, 105)
    right[:5] = [100, 80, 60, 90, 70]
    found = _delong(pairs, right, np.arange(105), 5, 0.95)
    error = math.sqrt(5 / 4 * 1000) / 500
    assert found.value == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - stats.t.ppf(0.975, 4) * error)


def test_images_of_a_prompt_that_are_alike_have_no_diversity() -> None:
    prompts = torch.tensor([0, 0, 1, 1, 1, 2])
    features = torch.tensor([[0.0], [0.0], [5.0], [5.0], [5.0], [9.0]])
    assert within_prompt_spread(features, prompts) == 0
    features[1] = 2
    # Variance 2 in the first prompt with weight 1, 0 in the second with weight 2.
    assert within_prompt_spread(features, prompts) == pytest.approx(2 / 3)
    assert within_prompt_spread(features + 100 * prompts[:, None], prompts) == pytest.approx(2 / 3)


def test_holms_correction_has_its_textbook_values() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"only": 0.04}) == {"only": 0.04}
    assert holm({}) == {}
    with pytest.raises(ValueError, match=r"found 1\.5 for 'a'"):
        holm({"a": 1.5})


def test_sets_that_cannot_be_tested_are_refused_with_their_counts() -> None:
    x = gaussian(20, 3, seed=0)
    with pytest.raises(ValueError, match="equally many images in both sets, found 20 and 19"):
        paired_mmd_test(x, x[:19], 99, 0)
    with pytest.raises(ValueError, match="one dimension, found 3 and 2"):
        mmd_test(x, x[:, :2], 99, 0)
    with pytest.raises(ValueError, match="at least 10 images per set, found 4"):
        auc(x[:4], x)
    with pytest.raises(ValueError, match="a prompt with 2 images; 20 prompts have 1 each"):
        within_prompt_spread(x, torch.arange(20))
    with pytest.raises(ValueError, match="there are 3 directions, 4 were asked for"):
        leading_directions(x, x, 4)
    with pytest.raises(ValueError, match="shares that add up to 1"):
        paired_composition_p_value(x, x, 99, 0)
