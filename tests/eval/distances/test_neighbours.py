"""Precision, recall, density and coverage: against a loop over the definitions, and in known situations."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from eval.distances.neighbours import neighbour_metrics


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def four(generated: Tensor, reference: Tensor) -> dict[str, float]:
    found = neighbour_metrics(generated, reference)
    return {name: getattr(found, name) for name in ("precision", "recall", "density", "coverage")}


def by_the_definitions(generated: Tensor, reference: Tensor, k: int, open_k: int) -> dict[str, float]:
    """The papers' sums, written as loops over images."""
    x, y = generated.numpy(), reference.numpy()

    def distance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
        return math.sqrt(sum((p - q) ** 2 for p, q in zip(a.tolist(), b.tolist(), strict=True)))

    def radius(images: npt.NDArray[np.float64], i: int, k: int) -> float:
        return sorted(distance(images[i], other) for j, other in enumerate(images) if j != i)[k - 1]

    def inside(image: npt.NDArray[np.float64], images: npt.NDArray[np.float64]) -> bool:
        return any(distance(image, other) <= radius(images, j, k) for j, other in enumerate(images))

    open_radius = [radius(y, j, open_k) for j in range(len(y))]
    hits = [[distance(a, b) < open_radius[j] for j, b in enumerate(y)] for a in x]
    return {
        "precision": sum(inside(a, y) for a in x) / len(x),
        "recall": sum(inside(b, x) for b in y) / len(y),
        "density": sum(map(sum, hits)) / (open_k * len(x)),
        "coverage": sum(any(column) for column in zip(*hits, strict=True)) / len(y),
    }


@pytest.mark.parametrize(("k", "open_k"), [(3, 5), (1, 2), (4, 1)])
def test_the_metrics_are_those_of_the_papers(k: int, open_k: int) -> None:
    generated, reference = 0.8 * gaussian(17, 3, 1) + 0.9, gaussian(23, 3, 2)
    found = neighbour_metrics(generated, reference, k, open_k)
    expected = by_the_definitions(generated, reference, k, open_k)
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected)
    assert 0 < expected["precision"] < 1
    assert 0 < expected["recall"] < 1
    assert 0 < expected["coverage"] < 1


@pytest.mark.parametrize("rows", [1, 7, 40, 64])
def test_how_the_work_is_cut_changes_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generated, reference = 0.8 * gaussian(40, 5, 3), gaussian(50, 5, 4)
    whole = dataclasses.asdict(neighbour_metrics(generated, reference))
    monkeypatch.setattr("eval.distances.euclidean.ROWS", rows)
    parts = dataclasses.asdict(neighbour_metrics(generated, reference))
    for name, value in whole.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(parts[name])), name


def test_the_metrics_are_means_of_the_images_terms() -> None:
    found = neighbour_metrics(0.8 * gaussian(40, 5, 5), gaussian(50, 5, 6))
    assert [len(t) for t in (found.inside, found.hits)] == [40, 40]
    assert [len(t) for t in (found.reference_found, found.covered)] == [50, 50]
    assert found.precision == pytest.approx(found.inside.double().mean())
    assert found.recall == pytest.approx(found.reference_found.double().mean())
    assert found.density == pytest.approx(found.hits.double().mean() / 5)
    assert found.coverage == pytest.approx(found.covered.double().mean())


def test_a_collapsed_set_keeps_precision_and_loses_recall() -> None:
    # The guard against swapped conventions: torch-fidelity once had precision and recall the other way round.
    reference = gaussian(400, 8, 7)
    equal, collapsed = four(gaussian(400, 8, 8), reference), four(0.3 * gaussian(400, 8, 8), reference)
    assert equal["precision"] > 0.7
    assert equal["recall"] > 0.7
    assert collapsed["precision"] == 1
    assert collapsed["recall"] < 0.05
    assert equal["density"] == pytest.approx(1, abs=0.3)
    assert collapsed["density"] > 2


def test_a_set_that_is_too_wide_keeps_recall_and_loses_precision() -> None:
    wide = four(gaussian(400, 8, 9) / 0.3, gaussian(400, 8, 10))
    assert wide["recall"] == 1
    assert wide["precision"] < 0.05
    assert wide["density"] < 0.05


def test_one_missing_mode_is_missing_from_recall_and_coverage() -> None:
    modes = torch.cat([gaussian(100, 4, 11), gaussian(100, 4, 12) + 50])
    found = neighbour_metrics(gaussian(100, 4, 13), modes)
    assert not found.reference_found[100:].any()
    assert not found.covered[100:].any()
    assert found.reference_found[:100].double().mean() > 0.7
    assert found.precision > 0.7


def test_one_image_over_and_over_has_no_recall() -> None:
    reference = gaussian(60, 4, 14)
    found = four(torch.zeros(60, 4), reference)
    assert found["precision"] == 1
    assert found["recall"] == 0
    assert found["coverage"] < 0.5


def test_copies_of_one_reference_image_find_that_one() -> None:
    # The copies' balls have radius 0 and are closed: 0 <= 0.
    reference = gaussian(60, 64, 15).float() + 100
    found = neighbour_metrics(reference[7].repeat(30, 1), reference)
    assert found.precision == 1
    assert found.reference_found.nonzero().flatten().tolist() == [7]


def test_two_constant_sets_that_agree_are_inside_but_not_dense() -> None:
    # Closed balls of radius 0 hold their centre, open ones hold nothing.
    assert four(torch.ones(6, 4), torch.ones(8, 4)) == {"precision": 1, "recall": 1, "density": 0, "coverage": 0}


def test_a_set_measured_against_itself_is_wholly_inside() -> None:
    x = gaussian(40, 6, 16)
    found = four(x, x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1


def test_an_image_is_not_its_own_neighbour() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    # Radii to the first neighbour are 1, 1, 2, 4; with oneself counted they would all be 0.
    found = neighbour_metrics(torch.tensor([[5.0], [-1.0], [-1.5], [11.5]]), line, 1, 1)
    assert found.inside.tolist() == [True, True, False, False]
    assert found.hits.tolist() == [1, 0, 0, 0]


def test_near_images_far_from_the_origin_do_not_cancel() -> None:
    # Shifts by powers of two are exact, so the answer must be the same to the last image.
    generated = (gaussian(40, 8, 17) * 1024).round() / 1024
    reference = (gaussian(50, 8, 18) * 1024).round() / 1024
    assert four(generated + 2.0**30, reference + 2.0**30) == four(generated, reference)


@settings(max_examples=30)
@given(n=st.integers(6, 20), m=st.integers(6, 20), d=st.integers(1, 6), seed=st.integers(0, 2**31 - 1))
def test_exchanging_the_sets_exchanges_precision_and_recall(n: int, m: int, d: int, seed: int) -> None:
    x, y = gaussian(n, d, seed), 0.5 * gaussian(m, d, seed + 1)
    there, back = four(x, y), four(y, x)
    assert (there["precision"], there["recall"]) == (back["recall"], back["precision"])
    assert 0 <= there["coverage"] <= 1
    assert there["density"] >= 0


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31 - 1), scale=st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_the_order_and_the_unit_of_the_features_change_nothing(seed: int, scale: float) -> None:
    x, y = gaussian(15, 3, seed), gaussian(12, 3, seed + 1)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(seed))
    before, after = neighbour_metrics(x, y), neighbour_metrics(scale * x[order], scale * y)
    assert torch.equal(before.inside[order], after.inside)
    assert torch.equal(before.hits[order], after.hits)
    assert torch.equal(before.covered, after.covered)
    assert torch.equal(before.reference_found, after.reference_found)


def test_too_few_images_are_counted() -> None:
    message = r"precision and recall with k = 3 need at least 4 images per set, found 2 .*2 and 9"
    with pytest.raises(ValueError, match=message):
        neighbour_metrics(gaussian(2, 4, 0), gaussian(9, 4, 1))
    with pytest.raises(ValueError, match=r"density and coverage with k = 5 need at least 6 images per set, found 5"):
        neighbour_metrics(gaussian(9, 4, 0), gaussian(5, 4, 1))
    neighbour_metrics(gaussian(6, 4, 0), gaussian(6, 4, 1))


def test_features_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="one dimension, found 4 and 5"):
        neighbour_metrics(gaussian(9, 4, 0), gaussian(9, 5, 1))
    with pytest.raises(ValueError, match="NaN or infinity in 9 of 9 and 0 of 9 images"):
        neighbour_metrics(gaussian(9, 4, 0) * math.nan, gaussian(9, 4, 1))
    with pytest.raises(ValueError, match="k of at least 1, found 0 for precision and recall and 5"):
        neighbour_metrics(gaussian(9, 4, 0), gaussian(9, 4, 1), precision_recall_k=0)


def test_prdc_counts_the_same_density_and_coverage() -> None:
    generated, reference = 0.8 * gaussian(90, 8, 20) + 0.2, gaussian(120, 8, 21)
    found, theirs = four(generated, reference), compute_prdc(reference.numpy(), generated.numpy(), nearest_k=5)
    assert found["density"] == pytest.approx(theirs["density"], rel=1e-9)
    assert found["coverage"] == pytest.approx(theirs["coverage"], rel=1e-9)


def test_torch_fidelity_finds_the_same_precision_and_recall() -> None:
    generated, reference = 0.7 * gaussian(90, 8, 22) + 0.4, gaussian(120, 8, 23)
    # Its first set is the generated one.
    theirs = prc_features_to_metric(generated, reference, prc_neighborhood=3, prc_batch_size=10000, verbose=False)
    found = four(generated, reference)
    assert found["precision"] == pytest.approx(theirs["precision"])
    assert found["recall"] == pytest.approx(theirs["recall"])
    assert found["precision"] != found["recall"]
