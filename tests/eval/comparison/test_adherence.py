"""Does a negative prompt remove what it names: sets with known answers."""

import pytest
import torch
from torch import Tensor

from eval.comparison.adherence import adherence, concept_readers, shown_concepts_by_arm
from eval.comparison.named_concepts import ShiftsWithout, TaggedImages, collateral
from eval.comparison.paired_arms import ArmValues, arm_replicates
from eval.statistics.jackknife import deletions
from pipeline.study.study import Metrics

D, SUBJECTS, N = 8, 80, 120
AXES = torch.eye(D, dtype=torch.float64)
FAR = 6.0


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def tagged() -> TaggedImages:
    """Subjects alone, `blurry` along the first axis, `loud` along the second; `faint` is drawn and cannot be seen."""
    plain = gaussian(SUBJECTS, D, seed=1)
    moved = [plain, plain + FAR * AXES[0], plain + FAR * AXES[1], plain + 1e-3 * gaussian(SUBJECTS, D, seed=2)]
    concepts = [frozenset(own) for own in ((), ("blurry",), ("loud",), ("faint",)) for _ in range(SUBJECTS)]
    return TaggedImages(torch.cat(moved), concepts, torch.arange(SUBJECTS).repeat(4))


@pytest.fixture
def settings(params) -> Metrics:
    return Metrics.model_validate(params["metrics"])


def arm_of(blurry: int, elsewhere: float = 0.0) -> Tensor:
    """N images of which the first `blurry` are, moved along the last axis."""
    images = gaussian(N, D, seed=5)
    images[:blurry] += FAR * AXES[0]
    return images + elsewhere * AXES[-1]


def test_what_nobody_can_see_has_no_reader(tagged):
    readers = concept_readers(["blurry", "loud", "faint"], tagged, 0)
    assert [reader.concept for reader in readers] == ["blurry", "loud"]
    assert all(reader.auc > 0.98 for reader in readers)


def found_for(tagged, settings, arms, names, clusters=None):
    readers = concept_readers(["blurry", "loud"], tagged, 0)
    rows, shows = shown_concepts_by_arm(readers, arms, "unguided", clusters, settings)
    scores = {"clip_score": gaussian(N, seed=8), "aesthetic": gaussian(N, seed=9)}
    values = {name: ArmValues(own, scores) for name, own in arms.items()}
    kept = deletions(torch.arange(N), 0)
    found = arm_replicates(values, "unguided", gaussian(200, D, seed=3), 3, kept)
    return rows, adherence(names, shows, found, ShiftsWithout(tagged, arms, "unguided", kept), clusters, settings)


def test_a_negative_that_removes_what_it_names_is_obeyed(tagged, settings):
    arms = {"unguided": arm_of(60), "negative": arm_of(0)}
    rows, (found,) = found_for(tagged, settings, arms, {"negative": {"blurry"}})
    blurry, loud = rows
    assert blurry.shares["unguided"].value == pytest.approx(0.5, abs=0.03)
    assert blurry.shares["negative"].value == pytest.approx(0, abs=0.03)
    assert loud.shares["unguided"].value == pytest.approx(0, abs=0.05)
    assert found.names == ["blurry"]
    assert found.obeyed.value == pytest.approx(0.5, abs=0.04)
    assert found.obeyed.low > 0.35
    assert found.collateral.high < 0.1  # nothing else has moved
    assert found.kept.value == found.quality.value == 0


def test_a_negative_that_moves_something_else_is_not_obeyed_and_all_of_it_is_collateral(tagged, settings):
    arms = {"unguided": arm_of(60), "negative": arm_of(60, elsewhere=3.0)}
    _, (found,) = found_for(tagged, settings, arms, {"negative": {"blurry"}})
    assert abs(found.obeyed.value) < 0.03
    assert found.collateral.value > 0.9


def test_a_negative_that_brings_what_it_names_is_below_zero(tagged, settings):
    arms = {"unguided": arm_of(0), "negative": arm_of(40)}
    _, (found,) = found_for(tagged, settings, arms, {"negative": {"blurry", "unheard of"}})
    assert found.obeyed.high < 0


def test_an_arm_that_names_nothing_readable_has_no_adherence(tagged, settings):
    arms = {"unguided": arm_of(10), "cfg": arm_of(0), "negative": arm_of(0)}
    _, rows = found_for(tagged, settings, arms, {"cfg": frozenset(), "negative": {"unheard of"}})
    assert rows == []


def test_images_of_a_prompt_are_taken_together(tagged, settings):
    arms = {"unguided": arm_of(60), "negative": arm_of(0)}
    alone, together = (
        found_for(tagged, settings, arms, {"negative": {"blurry"}}, clusters)[1][0].obeyed
        for clusters in (None, torch.arange(12).repeat_interleave(10))
    )
    assert together.high - together.low > alone.high - alone.low


def test_collateral_of_an_arm_that_has_not_moved_is_all_of_nothing(tagged):
    arm = arm_of(30)
    without = ShiftsWithout(tagged, {"unguided": arm, "negative": arm}, "unguided", deletions(torch.arange(N), 0))
    found = collateral(("blurry",), ["negative"], without, 0.95)
    assert 0 <= found["negative"].value <= 1 + 1e-6
