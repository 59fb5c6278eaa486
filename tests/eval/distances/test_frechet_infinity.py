"""FD-infinity: it takes the bias of few images away, and its interval is for its own spread."""

import pytest
import torch
from torch import Tensor

from eval.distances.frechet import frechet_distance
from eval.distances.frechet_infinity import frechet_infinity, frechet_infinity_replicates
from eval.statistics.jackknife import deletion_groups


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_extrapolation_takes_the_bias_of_few_images_away() -> None:
    reference = gaussian(20_000, 16, 25)
    found = [
        (
            frechet_infinity(gaussian(200, 16, 30 + k), reference, seed=k),
            frechet_distance(gaussian(200, 16, 30 + k), reference),
        )
        for k in range(8)
    ]
    extrapolated, plain = (sum(values) / len(values) for values in zip(*found, strict=True))
    assert plain > 0.3  # 0 for infinitely many
    assert abs(extrapolated) < plain / 3


def test_extrapolation_is_seeded_and_counts_its_images() -> None:
    x, y = gaussian(60, 8, 40), gaussian(90, 8, 41)
    assert frechet_infinity(x, y, seed=3) == frechet_infinity(x, y, seed=3)
    assert frechet_infinity(x, y, seed=3) != frechet_infinity(x, y, seed=4)
    with pytest.raises(ValueError, match="extrapolated Fréchet distances need at least 4 images per set, found 3"):
        frechet_infinity(x[:3], y, seed=0)


def test_the_standard_error_is_the_spread_over_other_images() -> None:
    reference, repetitions = gaussian(200, 4, 50), 40
    found = [
        frechet_infinity_replicates(gaussian(60, 4, 100 + k) * 1.2, reference, groups=torch.arange(60) % 10, seed=k)
        for k in range(repetitions)
    ]
    spread = float(torch.tensor([one.value for one in found]).std())
    errors = torch.tensor([one.standard_error for one in found])
    assert float(errors.square().mean().sqrt()) == pytest.approx(spread, rel=0.35)


def test_the_value_of_the_replicates_is_the_extrapolation() -> None:
    x, y = gaussian(60, 8, 40), gaussian(90, 8, 41)
    groups = deletion_groups(torch.arange(60), seed=0)
    assert frechet_infinity_replicates(x, y, groups, seed=3).value == frechet_infinity(x, y, seed=3)
