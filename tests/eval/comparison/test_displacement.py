"""The displacement of pairs between two arms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eval.comparison.displacement import paired_displacement
from eval.distances.frechet import decompose


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_step_for_all_images_is_wholly_common() -> None:
    y = gaussian(20, 2, 0)
    found = paired_displacement(y + torch.tensor([3.0, 4.0]), y)
    assert found.mean_norm == pytest.approx(5)
    assert found.mean_share == pytest.approx(1)
    assert found.dispersion == pytest.approx(0, abs=1e-12)


def test_opposite_steps_have_nothing_in_common() -> None:
    y = gaussian(2, 2, 1)
    found = paired_displacement(y + torch.tensor([[3.0, 4.0], [-3.0, -4.0]]), y)
    assert found.mean_norm == pytest.approx(0, abs=1e-12)
    assert found.mean_share == pytest.approx(0, abs=1e-12)
    assert found.dispersion == pytest.approx(25)


def test_unrelated_steps_share_one_part_in_n() -> None:
    found = [paired_displacement(gaussian(50, 32, 2 * k), gaussian(50, 32, 2 * k + 1)) for k in range(40)]
    assert sum(f.mean_share for f in found) / len(found) == pytest.approx(1 / 50, rel=0.1)


def test_an_arm_has_not_moved_from_itself() -> None:
    y = gaussian(5, 3, 2)
    found = paired_displacement(y, y)
    assert (found.mean_norm, found.mean_share, found.dispersion) == (0, 0, 0)


def test_pairs_see_movement_that_the_distributions_do_not() -> None:
    y = gaussian(30, 4, 3)
    assert decompose(y.flip(0), y).fd == pytest.approx(0, abs=1e-9)
    assert paired_displacement(y.flip(0), y).dispersion > 1


@settings(max_examples=50)
@given(n=st.integers(2, 20), d=st.integers(1, 8), seed=st.integers(0, 2**31 - 1))
def test_the_common_part_and_the_dispersion_make_up_the_displacement(n: int, d: int, seed: int) -> None:
    x, y = gaussian(n, d, seed) + 1, gaussian(n, d, seed + 1)
    found = paired_displacement(x, y)
    total = float((x - y).square().sum(1).mean())
    assert found.mean_norm**2 + found.dispersion == pytest.approx(total)
    assert found.mean_share == pytest.approx(found.mean_norm**2 / total)
    assert found.mean_norm**2 == pytest.approx(decompose(x, y).drift)
    assert 0 <= found.mean_share <= 1


def test_sets_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many images in both sets, found 5 and 7"):
        paired_displacement(gaussian(5, 3, 0), gaussian(7, 3, 1))
    with pytest.raises(ValueError, match="paired displacements need at least 2 images per set, found 1"):
        paired_displacement(gaussian(1, 3, 0), gaussian(1, 3, 1))
    with pytest.raises(ValueError, match="one dimension, found 3 and 4"):
        paired_displacement(gaussian(5, 3, 0), gaussian(5, 4, 1))
    with pytest.raises(ValueError, match="NaN or infinity in 5 of 5 and 0 of 5"):
        paired_displacement(gaussian(5, 3, 0) * math.nan, gaussian(5, 3, 1))
