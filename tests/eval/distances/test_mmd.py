"""KID and CMMD: the peers' numbers, direct computations, and what the discrepancies must obey."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric

from eval.distances.mmd import cmmd, cmmd_replicates, kid, kid_replicates
from eval.statistics.jackknife import Replicates, deletion_groups


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_torch_fidelity_computes_the_same_kid_within_its_own_error() -> None:
    x, y = gaussian(600, 32, 1), 1.1 * gaussian(700, 32, 2) + 0.1
    theirs = kid_features_to_metric(
        x, y, kid_subsets=100, kid_subset_size=300, kid_degree=3, kid_gamma=None, kid_coef0=1, rng_seed=0, verbose=False
    )
    error = theirs["kernel_inception_distance_std"]
    assert abs(kid(x, y) - theirs["kernel_inception_distance_mean"]) < error
    assert kid(x, y) > 3 * error


def test_kid_is_the_unbiased_sum_over_pairs() -> None:
    x, y = gaussian(9, 4, 3).double(), gaussian(7, 4, 4).double()

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 4 + 1) ** 3)

    xx = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (9 * 8)
    yy = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (7 * 6)
    xy = sum(k(a, b) for a in x for b in y) / (9 * 7)
    assert kid(x, y) == pytest.approx(xx + yy - 2 * xy)


def test_cmmd_is_the_mean_over_pairs_of_unit_vectors() -> None:
    x, y = gaussian(9, 4, 5), 3 * gaussian(7, 4, 6)
    u, v = (torch.nn.functional.normalize(t.double(), dim=1) for t in (x, y))

    def mean(a: Tensor, b: Tensor) -> float:
        return float(torch.exp(-(a[:, None] - b[None]).square().sum(2) / (2 * 10**2)).mean())

    assert cmmd(x, y) == pytest.approx(1000 * (mean(u, u) + mean(v, v) - 2 * mean(u, v)), rel=1e-6)


def test_kid_of_equal_distributions_is_unbiased() -> None:
    found = torch.tensor([kid(gaussian(40, 4, 2 * k), gaussian(40, 4, 2 * k + 1)) for k in range(60)])
    assert abs(float(found.mean())) < 3 * float(found.std()) / 60**0.5
    assert (found < 0).any()


def test_equal_sets_have_no_cmmd_and_more_noise_is_more() -> None:
    x, noise = gaussian(200, 16, 7), gaussian(200, 16, 8)
    assert cmmd(x, x.flip(0)) == pytest.approx(0, abs=1e-9)
    for distance in (kid, cmmd):
        found = [distance(x + 1 + level * noise, x + 1) for level in (0.0, 0.5, 1.0, 2.0)]
        assert found == sorted(found)


@pytest.mark.parametrize(("distance", "replicates"), [(kid, kid_replicates), (cmmd, cmmd_replicates)])
def test_replicates_are_the_distances_of_what_stays_when_a_group_is_left_out(
    distance: Callable[[Tensor, Tensor], float], replicates: Callable[[Tensor, Tensor, Tensor], Replicates]
) -> None:
    x, y = gaussian(50, 8, 11), 1.1 * gaussian(60, 8, 12) + 0.3
    groups = deletion_groups(torch.arange(50) // 2, seed=0, groups=7)
    found = replicates(x, y, groups)
    assert (found.value, found.n) == (pytest.approx(distance(x, y)), 50)
    assert found.without.tolist() == pytest.approx([distance(x[groups != k], y) for k in range(7)])


def test_how_the_work_is_cut_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = gaussian(50, 8, 9), gaussian(60, 8, 10)
    whole = kid(x, y), cmmd(x, y)
    monkeypatch.setattr("eval.distances.mmd._ROWS", 7)
    assert (kid(x, y), cmmd(x, y)) == pytest.approx(whole, rel=1e-9)


def test_bad_features_are_refused_with_their_counts() -> None:
    with pytest.raises(ValueError, match="kernel distances need at least 2 images per set, found 1"):
        kid(gaussian(1, 4, 0), gaussian(5, 4, 1))
    with pytest.raises(ValueError, match="one dimension, found 4 and 5"):
        cmmd(gaussian(5, 4, 0), gaussian(5, 5, 1))
    with pytest.raises(ValueError, match="found 2 of 5 that are 0"):
        cmmd(gaussian(5, 4, 0), torch.cat([gaussian(3, 4, 1), torch.zeros(2, 4)]))
