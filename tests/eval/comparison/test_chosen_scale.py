"""The best scale is chosen on one half of the prompts and reported on the other."""

import pytest
import torch
from torch import Tensor

from eval.comparison.chosen_scale import chosen_scales
from eval.comparison.halves import halves
from eval.comparison.paired_arms import ArmValues
from eval.distances.frechet import frechet_distance
from pipeline.study.arm import Arm
from pipeline.study.controls import Control
from pipeline.study.study import Metrics

N, D = 80, 4


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def settings(params) -> Metrics:
    return Metrics.model_validate(params["metrics"])


def values(features: Tensor) -> ArmValues:
    return ArmValues(features, {"clip_score": features[:, 0], "aesthetic": features[:, 1]})


ARMS = {
    "unguided": Arm(method="unguided", scale=1),
    "cfg": Arm(method="cfg", scale=2),
    "cfg_3": Arm(method="cfg", scale=3),
    "cfg_3@cfg": Arm(method="cfg", scale=1, control=Control(of="cfg_3")),
}
PATHS = {"cfg": ["unguided", "cfg", "cfg_3"]}


def test_pairs_of_one_prompt_stay_together():
    prompts = torch.tensor([5, 5, 7, 9, 9, 11])
    first, second = halves(prompts)
    assert (first.tolist(), second.tolist()) == ([0, 1, 3, 4], [2, 5])


def found(features, settings, prompts=None, fewest=10):
    prompts = torch.arange(N) if prompts is None else prompts
    own = {name: values(one) for name, one in features.items()}
    return chosen_scales(PATHS, ARMS, own, "unguided", gaussian(200, D, seed=9), prompts, settings, fewest)


def test_the_scale_is_chosen_on_one_half_and_reported_on_the_other(settings):
    """cfg is near on the half that chooses and far on the other; cfg_3 the other way round."""
    first, second = halves(torch.arange(N))
    base = gaussian(N, D, seed=0)
    near_then_far, far_then_near = base.clone(), base.clone()
    near_then_far[second] += 3
    far_then_near[first] += 3
    features = {"unguided": base + 1, "cfg": near_then_far, "cfg_3": far_then_near, "cfg_3@cfg": base}
    (one,) = found(features, settings)
    assert one.arm == "cfg"
    assert set(one.candidates) == {"cfg", "cfg_3"}
    assert one.candidates["cfg"] == pytest.approx(frechet_distance(base[first], gaussian(200, D, seed=9)))
    assert one.fd.value == pytest.approx(frechet_distance(base[second] + 3, gaussian(200, D, seed=9)))
    assert one.against_baseline["fd"].low > 0  # on the half that did not choose it, it is farther
    assert (one.control, one.against_control) == (None, None)


def test_a_chosen_arm_is_held_against_its_control(settings):
    base = gaussian(N, D, seed=0)
    features = {"unguided": base + 2, "cfg": base + 1, "cfg_3": base, "cfg_3@cfg": base + 1}
    (one,) = found(features, settings)
    assert (one.arm, one.control) == ("cfg_3", "cfg_3@cfg")
    assert one.against_control is not None
    assert one.against_control["fd"].high < 0
    assert one.against_control["clip_score"].value == pytest.approx(-1)


def test_halves_that_are_too_small_choose_nothing(settings):
    features = dict.fromkeys(ARMS, gaussian(N, D, seed=0))
    assert found(features, settings, torch.zeros(N)) == []
