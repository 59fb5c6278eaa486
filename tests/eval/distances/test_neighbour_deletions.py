"""Recall and coverage without groups of images, against leaving the images out; and what their intervals cover."""

import pytest
import torch
from torch import Tensor

from eval.distances.neighbour_deletions import deleted_recall_and_coverage
from eval.distances.neighbours import neighbour_metrics
from eval.statistics.jackknife import deletion_groups


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "m", "count"), [(60, 90, 60), (150, 70, 16), (40, 300, 7)])
def test_each_group_is_left_out_as_if_its_images_were_not_there(n: int, m: int, count: int) -> None:
    generated, reference = gaussian(n, 6, seed=0) * 0.9, gaussian(m, 6, seed=1)
    generated[3] = generated[7]
    groups = deletion_groups(torch.arange(n), 0, count)
    recall, coverage = deleted_recall_and_coverage(generated, reference, 3, 5, groups)
    whole = neighbour_metrics(generated, reference, 3, 5)
    assert (recall.value, coverage.value) == (whole.recall, whole.coverage)
    assert (recall.n, coverage.n) == (n, n)
    for group in range(count):
        left = neighbour_metrics(generated[groups != group], reference, 3, 5)
        assert float(recall.without[group]) == pytest.approx(left.recall), group
        assert float(coverage.without[group]) == pytest.approx(left.coverage), group


def test_whole_prompts_can_be_left_out() -> None:
    generated, reference = gaussian(48, 4, seed=2), gaussian(100, 4, seed=3)
    groups = deletion_groups(torch.arange(12).repeat_interleave(4), 0)
    recall, _ = deleted_recall_and_coverage(generated, reference, 3, 5, groups)
    assert len(recall.without) == 12
    assert float(recall.without[0]) == pytest.approx(neighbour_metrics(generated[groups != 0], reference, 3, 5).recall)


def test_sets_hardly_larger_than_k_have_their_replicates() -> None:
    generated, reference = gaussian(10, 3, seed=4), gaussian(12, 3, seed=5)
    recall, coverage = deleted_recall_and_coverage(generated, reference, 3, 5, torch.arange(10))
    assert bool(((recall.without >= 0) & (recall.without <= 1)).all())
    assert float(recall.without[2]) == pytest.approx(
        neighbour_metrics(generated[torch.arange(10) != 2], reference, 3, 5).recall
    )
    assert len(coverage.without) == 10


@pytest.mark.slow
def test_what_the_intervals_cover(capsys: pytest.CaptureFixture[str]) -> None:
    """Of recall and coverage at N = 192, against the mean over other arms of the same N, for 200 arms."""
    reference = gaussian(768, 8, seed=0)
    lines = []
    for name, spread in (("an arm as wide as the reference", 1.0), ("a narrower arm", 0.7)):
        found = []
        for seed in range(200):
            arm = spread * gaussian(192, 8, seed=1000 + seed)
            groups = deletion_groups(torch.arange(192), seed)
            found.append(deleted_recall_and_coverage(arm, reference, 3, 5, groups))
        for measure, replicates in zip(("recall", "coverage"), zip(*found, strict=True), strict=True):
            truth = sum(one.value for one in replicates) / len(replicates)
            inside = [one.interval(0.95).low <= truth <= one.interval(0.95).high for one in replicates]
            lines.append(f"{measure}, {name}: {100 * sum(inside) / len(inside):.1f} % of 95 %")
            assert sum(inside) >= 0.9 * len(inside), lines[-1]
    with capsys.disabled():
        print("\n".join(["", *lines]))
