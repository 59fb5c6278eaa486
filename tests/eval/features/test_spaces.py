"""Feature spaces: what becomes of an extractor's vectors, and what their names say."""

import pytest
import torch
from torch import Tensor

from eval.distances.frechet import frechet_distance
from eval.features.extraction import SetFeatures
from eval.features.spaces import Space, check_comparable
from pipeline.errors import InputError
from pipeline.study.extractors import FeatureSpace

M, D = 200, 12


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference() -> Tensor:
    """Vectors whose variance falls from one dimension to the next, far from the origin."""
    return gaussian(M, D) * torch.linspace(4, 0.1, D) + 7


def test_a_space_of_more_images_than_dimensions_is_the_vectors_themselves() -> None:
    space = Space(FeatureSpace("net"), reference(), images=D + 1)
    assert (space.name, space.components, space.explained) == ("net", None, 1.0)
    assert torch.equal(space.reference, reference())


def test_few_images_get_a_quarter_as_many_components_of_the_reference_set() -> None:
    x = gaussian(D, D, seed=1) + 7
    space = Space(FeatureSpace("net"), reference(), images=D)
    assert (space.name, space.components) == ("net_pc3", 3)
    # Components are orthogonal directions of the largest variance, in order.
    found = space.reference.double()
    covariance = torch.cov(found.T)
    assert torch.allclose(covariance, torch.diag(covariance.diagonal()), atol=1e-4)
    values = torch.linalg.eigvalsh(torch.cov(reference().double().T)).flip(0)
    assert torch.allclose(covariance.diagonal(), values[:3], rtol=1e-5)
    assert space.explained == pytest.approx(float(values[:3].sum() / values.sum()), rel=1e-6)
    # What is compared is centred where the reference set is, whatever the arm.
    assert torch.allclose(found.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-4)
    assert space(x).shape == (D, 3)
    assert not torch.allclose(space(x).mean(0), torch.zeros(3), atol=1e-2)


def test_there_are_at_least_two_components() -> None:
    assert Space(FeatureSpace("net"), reference(), images=4).components == 2


def test_axes_may_turn_without_changing_a_distance() -> None:
    x, space = gaussian(40, D, seed=2) + 6, Space(FeatureSpace("net"), reference(), images=12)
    turned = Space(FeatureSpace("net"), reference().flip(1), images=12)
    distances = [frechet_distance(one(x), one.reference) for one in (space,)]
    distances += [frechet_distance(turned(x.flip(1)), turned.reference)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


def test_lengths_mean_nothing_among_unit_vectors() -> None:
    x = gaussian(30, D, seed=3)
    space = Space(FeatureSpace("clip", unit=True), reference(), images=100)
    assert space.name == "clip_unit"
    assert torch.allclose(space(x).norm(dim=1), torch.ones(30))
    assert torch.allclose(space(x), space(5 * x), atol=1e-6)
    assert Space(FeatureSpace("clip", unit=True), reference(), images=12).name == "clip_unit_pc3"


def test_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="space net_pc3 takes vectors of 12 dimensions, not 11"):
        Space(FeatureSpace("net"), reference(), images=12)(gaussian(5, 11))


@pytest.mark.parametrize("key", ["extractor", "extractor_digest", "resize", "precision"])
def test_features_of_another_instrument_are_refused_by_name(key: str) -> None:
    made = {"extractor": "net", "extractor_digest": "a", "resize": "r", "precision": "float32"}
    ours, theirs = (SetFeatures([], gaussian(0, D), gaussian(0, 0), own) for own in ({**made, key: "b"}, made))
    check_comparable("cfg", theirs, theirs)
    with pytest.raises(InputError, match=f"features of 'cfg' and of the reference differ in {key}: b and"):
        check_comparable("cfg", ours, theirs)
