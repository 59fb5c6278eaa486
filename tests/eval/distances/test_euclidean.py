"""Screened distances: every comparison as double-precision differences would have it."""

import pytest
import torch
from torch import Tensor

from eval.distances.euclidean import exact_squared, near_pairs, neighbour_radii, screens, settled


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def exact(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([(row - y.double()).square().sum(1)[None] for row in x.double()])


def sets(kind: str) -> tuple[Tensor, Tensor]:
    x, y = gaussian(60, 32, 1), gaussian(70, 32, 2)
    if kind == "far":
        return x + 1000, y + 1000
    if kind == "duplicates":
        return torch.cat([x[:20].repeat(2, 1), y[:20]]), torch.cat([y[:35].repeat(2, 1)])
    if kind == "near duplicates":
        return y[:60] + 1e-6 * x, y
    if kind == "constant":
        return torch.full((60, 32), 0.1), torch.full((70, 32), 0.1)
    if kind == "outlier":
        y[3] *= 1e6
        return x, y
    return x, y


KINDS = ["plain", "far", "duplicates", "near duplicates", "constant", "outlier"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_screen_bounds_its_own_error(kind: str) -> None:
    x, y = sets(kind)
    for screen in screens(x, y):
        assert ((screen.squared.double() - exact(x[screen.rows], y)).abs() <= screen.error).all()


@pytest.mark.parametrize(
    "cut", [(512, 2048, 2048, 6), (8, 32, 20, 16), (16, 8, 40, 16), (7, 9, 3, 16), (8, 24, 16, 1), (8, 24, 1, 0)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_radii_are_those_of_exact_distances(
    kind: str, cut: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("ROWS", "COLUMNS", "SAMPLE", "_WAITING"), cut, strict=True):
        monkeypatch.setattr(f"eval.distances.euclidean.{name}", value)
    _, y = sets(kind)
    distances = exact(y, y).fill_diagonal_(torch.inf)
    expected = distances.sort(1).values
    for ranks in ([1, 2, 3, 4, 5], [3, 5], [5, 3], [1], [69]):
        found = neighbour_radii(y, ranks)
        torch.testing.assert_close(found, expected[:, [rank - 1 for rank in ranks]], rtol=1e-12, atol=0)


@pytest.mark.parametrize("cut", [(512, 2048), (8, 16), (7, 9)])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_ball_tests_are_those_of_exact_distances_on_the_rim_too(
    kind: str, closed: bool, cut: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("ROWS", "COLUMNS"), cut, strict=True):
        monkeypatch.setattr(f"eval.distances.euclidean.{name}", value)
    x, y = sets(kind)
    i, j = torch.arange(len(x)).repeat_interleave(len(y)), torch.arange(len(y)).repeat(len(x))
    distances = exact_squared(x, y, i, j).reshape(len(x), len(y))
    # Radii that are distances themselves: the rim decides.
    of_y, of_x = distances[7], distances[:, 5]
    of_both = torch.zeros(2, len(x), len(y), dtype=torch.bool)
    for pairs in near_pairs(x, y, of_x, of_y):
        squared = settled(pairs, x, y, (of_y[pairs.j], of_x[pairs.i]))
        for found, radius in zip(of_both, (of_y[pairs.j], of_x[pairs.i]), strict=True):
            found[pairs.i, pairs.j] = squared <= radius if closed else squared < radius
    for found, radii in zip(of_both, (of_y[None], of_x[:, None]), strict=True):
        assert torch.equal(found, distances <= radii if closed else distances < radii)


def test_duplicates_have_no_distance() -> None:
    x = gaussian(10, 64, 3) + 100
    assert neighbour_radii(x.repeat(2, 1), [1]).unique().tolist() == [0]
