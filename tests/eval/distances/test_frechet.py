"""The Fréchet distance: closed forms, two computations of it, and the laws it obeys."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from eval.distances.frechet import (
    FrechetTo,
    Moments,
    decompose,
    frechet_distance,
    frechet_from_moments,
    moments,
)


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int) -> Tensor:
    turn: Tensor = torch.linalg.qr(gaussian(d, d, seed)).Q
    return turn


# Sizes on both sides of N = D, so that both forms are drawn.
sizes = st.integers(2, 12)
seeds = st.integers(0, 2**31 - 1)


def test_gaussians_with_diagonal_covariances_have_the_closed_form() -> None:
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 1.0, 0.0]).double()
    mean = torch.tensor([1.0, 2.0, 2.0]).double()
    turn = rotation(3, 0)  # shared by both, so the covariances commute and the closed form stays
    x = Moments(10, mean @ turn.T, turn @ a.diag() @ turn.T)
    y = Moments(10, torch.zeros(3).double(), turn @ b.diag() @ turn.T)
    closed_form = 9.0 + float((a.sqrt() - b.sqrt()).square().sum())
    # y is singular: the root of a rounding error is near 1e-8.
    assert frechet_from_moments(x, y) == pytest.approx(closed_form, rel=1e-8)


def test_covariances_that_do_not_commute_have_the_two_by_two_closed_form() -> None:
    # For 2 x 2 matrices Tr sqrt(M) = sqrt(Tr M + 2 sqrt(det M)).
    a = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()
    b = torch.tensor([[1.0, -0.3], [-0.3, 3.0]]).double()
    product = a @ b
    root_trace = math.sqrt(float(product.trace()) + 2 * math.sqrt(float(torch.linalg.det(product))))
    zero = torch.zeros(2).double()
    closed_form = float(a.trace() + b.trace()) - 2 * root_trace
    assert frechet_from_moments(Moments(9, zero, a), Moments(9, zero, b)) == pytest.approx(closed_form, rel=1e-12)


def test_a_large_sample_comes_near_the_distance_of_its_gaussians() -> None:
    x, y = gaussian(100_000, 4, 1), 2 * gaussian(100_000, 4, 2) + 1.5
    assert frechet_distance(x, y) == pytest.approx(4 * 1.5**2 + 4 * (2 - 1) ** 2, rel=0.02)


@pytest.mark.parametrize(("n", "m", "d"), [(5, 9, 16), (40, 9, 16), (16, 16, 16), (17, 40, 16), (200, 300, 16)])
def test_the_nuclear_norm_and_the_eigenvalues_agree(n: int, m: int, d: int) -> None:
    x, y = gaussian(n, d, 1), 0.7 * gaussian(m, d, 2) + 0.3
    assert frechet_distance(x, y) == pytest.approx(frechet_from_moments(moments(x), moments(y)), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (400, 600)])
def test_torchmetrics_computes_the_same_distance(n: int, m: int) -> None:
    x, y = gaussian(n, 24, 3), gaussian(m, 24, 4) @ rotation(24, 5) * torch.linspace(0.2, 2, 24) + 0.1
    theirs = _compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert frechet_distance(x, y) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("n", [6, 60])
def test_a_set_has_no_distance_from_itself(n: int) -> None:
    x = gaussian(n, 12, 6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-9)


def test_more_noise_is_a_greater_distance() -> None:
    x, noise = gaussian(300, 16, 7), gaussian(300, 16, 8)
    distances = [frechet_distance(x + level * noise, x) for level in (0.0, 0.25, 0.5, 1.0, 2.0)]
    assert distances == sorted(distances)
    assert distances[-1] > 4


def test_single_precision_features_are_measured_in_double() -> None:
    x, y = gaussian(200, 16, 9).float() + 100, gaussian(200, 16, 10).float() + 100
    assert frechet_distance(x, y) == frechet_distance(x.double(), y.double())


def test_a_moved_set_drifts_and_does_not_contract() -> None:
    x = gaussian(50, 8, 11)
    shift = decompose(x + 2, x)
    assert shift.drift == pytest.approx(8 * 4)
    assert shift.contraction == pytest.approx(0, abs=1e-9)
    assert shift.spread_ratio == pytest.approx(1)


@pytest.mark.parametrize("n", [6, 50])
def test_a_shrunk_set_contracts_and_does_not_drift(n: int) -> None:
    x = gaussian(n, 8, 12)
    x = x - x.mean(0)
    shift = decompose(0.5 * x, x)
    assert shift.drift == pytest.approx(0, abs=1e-9)
    assert shift.contraction == pytest.approx(0.25 * float(moments(x).covariance.trace()))
    assert shift.spread_ratio == pytest.approx(0.25)
    assert decompose(x, 0.5 * x).spread_ratio == pytest.approx(4)


def test_a_collapsed_set_leaves_the_whole_spread_of_the_other() -> None:
    y = gaussian(50, 8, 13)
    shift = decompose(torch.zeros(50, 8), y)
    assert shift.contraction == pytest.approx(float(moments(y).covariance.trace()))
    assert shift.spread_ratio == 0


@settings(max_examples=50)
@given(n=sizes, m=sizes, d=st.integers(1, 8), scale=st.floats(0.01, 10), seed=seeds)
def test_the_distance_is_symmetric_and_its_parts_sum_to_it(n: int, m: int, d: int, scale: float, seed: int) -> None:
    x, y = gaussian(n, d, seed), scale * gaussian(m, d, seed + 1) + 1
    there, back = decompose(x, y), decompose(y, x)
    assert there.fd == there.drift + there.contraction
    assert min(there.drift, there.contraction) >= 0
    assert there.fd == pytest.approx(back.fd, rel=1e-6, abs=1e-6)
    assert there.spread_ratio * back.spread_ratio == pytest.approx(1)


@settings(max_examples=50)
@given(n=sizes, m=sizes, d=st.integers(1, 8), seed=seeds)
def test_turning_and_moving_both_sets_changes_nothing(n: int, m: int, d: int, seed: int) -> None:
    x, y, turn = gaussian(n, d, seed), gaussian(m, d, seed + 1), rotation(d, seed + 2)
    assert frechet_distance(x @ turn + 3, y @ turn + 3) == pytest.approx(frechet_distance(x, y), rel=1e-6, abs=1e-6)


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(ValueError, match=r"Fréchet distances need at least 2 images per set, found 1 .*1 and 5"):
        frechet_distance(gaussian(1, 4, 0), gaussian(5, 4, 1))


def test_features_of_two_extractors_are_refused() -> None:
    with pytest.raises(ValueError, match="need features of one dimension, found 4 and 6"):
        frechet_distance(gaussian(5, 4, 0), gaussian(5, 6, 1))


def test_features_without_an_image_axis_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[N, D\], found \[5\] and \[5\]"):
        frechet_distance(gaussian(5, 1, 0)[:, 0], gaussian(5, 1, 1)[:, 0])


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_features_are_counted(broken: float) -> None:
    y = gaussian(7, 4, 1)
    y[2, 1] = y[2, 3] = y[5, 0] = broken
    with pytest.raises(ValueError, match="NaN or infinity in 0 of 5 and 2 of 7 images"):
        frechet_distance(gaussian(5, 4, 0), y)
    with pytest.raises(ValueError, match="moments need finite features"):
        moments(y)


def test_numbers_that_are_finite_and_whose_sum_is_not_are_measured() -> None:
    x = gaussian(30, 4, 25).float() + 3e38 * (torch.arange(4) == 0)
    assert not torch.isfinite(x.sum())
    assert frechet_distance(x, x) == 0
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 30 and 0 of 30 images"):
        frechet_distance(x.index_fill(0, torch.tensor(3), math.inf), x)


@pytest.mark.parametrize(("n", "m", "d"), [(10, 30, 16), (60, 40, 16)])
def test_a_prepared_reference_gives_the_same_distance(n: int, m: int, d: int) -> None:
    x, y = gaussian(n, d, 20), gaussian(m, d, 21) + 0.2
    assert FrechetTo(y)(x) == pytest.approx(frechet_distance(x, y), rel=1e-9)


@pytest.mark.parametrize(("m", "d"), [(200, 8), (20, 32)])
def test_a_prepared_reference_gives_the_same_parts(m: int, d: int) -> None:
    y = gaussian(m, d, 0)
    for n in (60, 12):
        x = 1.3 * gaussian(n, d, 1) + 0.2
        assert vars(FrechetTo(y).shift(x)) == pytest.approx(vars(decompose(x, y)), rel=1e-6)


def test_torch_fidelity_computes_the_same_distance() -> None:
    x, y = gaussian(400, 24, 22), 1.2 * gaussian(500, 24, 23) + 0.1
    theirs = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), verbose=False)
    assert frechet_distance(x, y) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)


def test_moments_of_many_rows_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gaussian(500, 300, 24).float() + 3
    monkeypatch.setattr("eval.distances.frechet._ROWS", 64)
    found = moments(x)
    torch.testing.assert_close(found.mean, x.double().mean(0))
    torch.testing.assert_close(found.covariance, x.double().T.cov())


@pytest.mark.parametrize(("n", "m", "d"), [(12, 40, 30), (20, 15, 30), (30, 90, 8)])
def test_distances_of_subsets_are_those_of_the_rows_they_choose(n: int, m: int, d: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, d, generator=generator) * (k + 1) + k for k, rows in enumerate((n, m)))
    distance = FrechetTo(y)
    found = distance.of_subsets(x)
    everything = torch.arange(n)
    assert found(everything) == distance(x)
    for _ in range(5):
        index = torch.randperm(n, generator=generator)[: max(2, 4 * n // 5)]
        assert found(index) == pytest.approx(distance(x[index]), rel=1e-6)
    with pytest.raises(ValueError, match="need at least 2 images per set, found 1"):
        found(everything[:1])
    with pytest.raises(ValueError, match="NaN or infinity in 1 of"):
        distance.of_subsets(x.index_fill(0, torch.tensor([1]), torch.nan))
