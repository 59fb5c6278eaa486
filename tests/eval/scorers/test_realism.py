"""The realism score: the paper's equation as a loop, copies, and far images."""

import math
import statistics

import pytest
import torch
from torch import Tensor

from eval.distances.neighbours import neighbour_metrics
from eval.scorers.realism import realism


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_realism_is_that_of_the_paper() -> None:
    generated, reference, k = gaussian(9, 3, 1), gaussian(21, 3, 2), 3
    radius = [
        sorted(math.dist(a, b) for j, b in enumerate(reference.tolist()) if j != i)[k - 1]
        for i, a in enumerate(reference.tolist())
    ]
    kept = [(b, r) for b, r in zip(reference.tolist(), radius, strict=True) if r <= statistics.median_low(radius)]
    expected = [max(r / math.dist(a, b) for b, r in kept) for a in generated.tolist()]
    assert realism(generated, reference, k).tolist() == pytest.approx(expected)


def test_images_of_realism_one_and_more_are_inside_the_manifold() -> None:
    generated, reference = gaussian(60, 6, 3), gaussian(80, 6, 4)
    score, inside = realism(generated, reference), neighbour_metrics(generated, reference).inside
    assert 0 < (score >= 1).sum() < 60
    assert inside[score >= 1].all()


def test_farther_images_are_less_real_and_copies_are_the_most() -> None:
    reference = gaussian(50, 6, 5)
    direction = torch.ones(6).double()
    scores = realism(torch.stack([direction * t for t in (3.0, 6.0, 12.0)]), reference)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert realism(reference, reference).max() == math.inf


def test_a_reference_of_one_image_over_and_over_has_its_copies_on_the_rim() -> None:
    score = realism(torch.tensor([[0.0, 0.0], [1.0, 0.0]]).repeat(2, 1), torch.zeros(8, 2))
    assert score.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("rows", [1, 7])
def test_how_the_work_is_cut_changes_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generated, reference = gaussian(20, 5, 6), gaussian(30, 5, 7)
    whole = realism(generated, reference)
    monkeypatch.setattr("eval.distances.euclidean.ROWS", rows)
    torch.testing.assert_close(realism(generated, reference), whole)


def test_too_few_images_are_counted() -> None:
    with pytest.raises(ValueError, match=r"realism with k = 3 needs at least 4 reference images, found 3"):
        realism(gaussian(9, 4, 0), gaussian(3, 4, 1))
