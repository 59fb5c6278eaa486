"""The Vendi score: vendi-score's number, and sets of known variety."""

import pytest
import torch
from torch import Tensor
from vendi_score import vendi

from eval.distances.vendi import vendi_score


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "d"), [(300, 16), (20, 64)])
def test_vendi_score_computes_the_same(n: int, d: int) -> None:
    x = gaussian(n, d, 1) + 0.5
    assert vendi_score(x) == pytest.approx(vendi.score_dual(x.double().numpy()), rel=1e-6)


def test_copies_count_once_and_unrelated_images_each() -> None:
    assert vendi_score(gaussian(1, 8, 2).repeat(50, 1)) == pytest.approx(1)
    assert vendi_score(torch.eye(6)) == pytest.approx(6)
    assert vendi_score(torch.eye(6).repeat(5, 1)) == pytest.approx(6)
    assert vendi_score(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]) * 7) == pytest.approx(2)


def test_the_order_and_the_length_of_the_vectors_change_nothing() -> None:
    x = gaussian(40, 8, 3)
    assert vendi_score(3 * x.flip(0)) == pytest.approx(vendi_score(x))


def test_bad_features_are_refused_with_their_counts() -> None:
    with pytest.raises(ValueError, match=r"at least 1 image, found \[0, 4\]"):
        vendi_score(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 3"):
        vendi_score(torch.tensor([[1.0], [torch.nan], [2.0]]))
    with pytest.raises(ValueError, match="found 2 of 3 that are 0"):
        vendi_score(torch.tensor([[1.0], [0.0], [0.0]]))
