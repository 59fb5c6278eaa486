"""MIND: exact optimal transport on the line, averaged over directions."""

import numpy as np
import pytest
import torch

from eval.distances.mind import PROJECTIONS, mind, mind_replicates
from eval.statistics.jackknife import deletion_groups


def gaussian(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def directly(x: torch.Tensor, y: torch.Tensor, seed: int, projections: int) -> float:
    """MIND by repeating each set until both are equally large, direction by direction."""
    directions = torch.randn(
        projections, x.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    squared = []
    for direction in directions:
        unit = direction / direction.norm()
        ours, theirs = (np.sort((points.double() @ unit).numpy()) for points in (x, y))
        squared.append(np.square(np.repeat(ours, len(theirs)) - np.repeat(theirs, len(ours))).mean())
    return 3 * x.shape[1] * float(np.mean(squared))


@pytest.mark.parametrize(("n", "m", "d"), [(20, 20, 4), (20, 33, 4), (33, 20, 1), (2, 7, 3)])
def test_small_sets_have_what_a_direct_computation_gives(n: int, m: int, d: int) -> None:
    x, y = gaussian(n, d, 0) + 0.3, 2 * gaussian(m, d, 1)
    assert mind(x, y, seed=3, projections=50) == pytest.approx(directly(x, y, 3, 50), rel=1e-10)


def test_a_shift_of_a_set_by_v_is_three_times_its_square() -> None:
    x = gaussian(100, 8, 0)
    v = torch.linspace(-1, 1, 8)
    assert mind(x + v, x, seed=0, projections=20_000) == pytest.approx(3 * float(v.square().sum()), rel=0.02)
    # In one dimension there is one direction, up to its sign.
    assert mind(x[:, :1] + 2, x[:, :1], seed=5, projections=3) == pytest.approx(12, rel=1e-5)


def test_gaussians_of_another_mean_and_width_have_their_closed_form() -> None:
    """W2^2 of N(0, 1) and N(2, 9) is 2^2 + (3 - 1)^2; 3 D of it on the line."""
    x, y = gaussian(200_000, 1, 0), 2 + 3 * gaussian(150_000, 1, 1)
    assert mind(x, y, projections=1) == pytest.approx(3 * 8, rel=0.02)


def test_the_scale_of_features_counts_squared_and_their_origin_does_not_count() -> None:
    x, y = gaussian(30, 5, 0).double(), 1 + gaussian(40, 5, 1).double()
    assert mind(3 * x, 3 * y) == pytest.approx(9 * mind(x, y))
    assert mind(x + 100, y + 100) == pytest.approx(mind(x, y))


def test_it_is_symmetric_and_zero_between_equal_sets_in_any_order() -> None:
    x, y = gaussian(30, 5, 0), gaussian(41, 5, 1)
    assert mind(x, y) == pytest.approx(mind(y, x), rel=1e-10)
    assert mind(x, x.flip(0)) == pytest.approx(0, abs=1e-10)
    assert mind(x, x.repeat(3, 1)) == pytest.approx(0, abs=1e-10), "copies change no distribution"


def test_the_seed_alone_chooses_the_directions_of_which_there_are_a_thousand() -> None:
    x, y = gaussian(20, 6, 0), gaussian(25, 6, 1)
    assert PROJECTIONS == 1000
    assert mind(x, y, seed=1) == mind(x, y, seed=1) == mind(x, y, seed=1, projections=1000)
    assert mind(x, y, seed=1) != mind(x, y, seed=2)
    many = mind(x, y, seed=3, projections=50_000)
    errors = [abs(mind(x, y, seed=seed, projections=count) - many) for count in (10, 1000) for seed in range(20)]
    assert sum(errors[20:]) < 0.3 * sum(errors[:20]), "a hundred times as many directions, a tenth of the error"


@pytest.mark.parametrize("groups", [4, 17, 64])
def test_replicates_are_the_distances_without_each_group(groups: int) -> None:
    x, y = gaussian(70, 4, 0) + 0.2, gaussian(90, 4, 1)
    clusters = torch.arange(70) // 3  # the last has one image: groups of unequal size
    group = deletion_groups(clusters if groups < 20 else torch.arange(70), seed=0, groups=groups)
    found = mind_replicates(x, y, group, seed=2, projections=40)
    assert (found.value, found.n) == (pytest.approx(mind(x, y, 2, 40)), 70)
    expected = [mind(x[group != k], y, 2, 40) for k in range(int(group.max()) + 1)]
    assert found.without.tolist() == pytest.approx(expected, rel=1e-9)


def test_blocks_of_directions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = gaussian(20, 4, 0), gaussian(30, 4, 1)
    group = deletion_groups(torch.arange(20), seed=0)
    whole = mind_replicates(x, y, group, seed=0, projections=40)
    monkeypatch.setattr("eval.distances.mind._HELD", 200)
    parts = mind_replicates(x, y, group, seed=0, projections=40)
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    torch.testing.assert_close(parts.without, whole.without)


def test_sets_that_cannot_be_measured_are_refused() -> None:
    x, y = gaussian(20, 4, 0), gaussian(30, 4, 1)
    with pytest.raises(ValueError, match="Monge distances need"):
        mind(x[:1], y)
    with pytest.raises(ValueError, match="Monge distances"):
        mind(x[:, :3], y)
    with pytest.raises(ValueError, match="Monge distances need finite"):
        mind(x.index_fill(0, torch.tensor([1]), torch.nan), y)
