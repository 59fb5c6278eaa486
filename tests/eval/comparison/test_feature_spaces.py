"""What is asked in every feature space: verdicts that agree or not, and what so many images can show."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_study import comparison
from torch import Tensor

from eval.comparison.compare import check_baseline, copied_images, distinct_images
from eval.comparison.feature_spaces import detectable, exchanged_shift, floors, in_space
from eval.comparison.paired_arms import ArmValues, arm_replicates
from eval.comparison.verdicts import DEPENDS, UNDECIDED, agreed, arm_verdicts
from eval.distances.frechet import frechet_distance
from eval.statistics.jackknife import Replicates, deletions
from pipeline.errors import InputError
from pipeline.results.comparison import Comparison, InSpace, Verdict
from pipeline.results.floor import is_shift
from pipeline.study.study import Metrics

N, D = 60, 4
PROMPTS = torch.arange(N)


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def settings(params: dict[str, dict[str, object]]) -> Metrics:
    return Metrics.model_validate(params["metrics"])


def asked(arms: dict[str, Tensor], settings: Metrics, reseeded: Tensor | None = None) -> dict[str, dict[str, object]]:
    kept = deletions(PROMPTS, 0)
    everything = arms if reseeded is None else {**arms, "reseeded": reseeded}
    values = {name: ArmValues(own, {}) for name, own in everything.items()}
    found = arm_replicates(values, "base", gaussian(200, D, seed=99), 3, kept)
    return in_space(arms, "base", found, PROMPTS, settings, 999, None if reseeded is None else "reseeded")


def test_every_question_is_answered_where_its_answer_is_plain(settings: Metrics) -> None:
    both, noise = 1.5 * gaussian(N, D, seed=1), 0.3 * gaussian(2, N, D, seed=2)
    base, same = both + noise[0], both + noise[1]
    found = asked({"base": base, "same": same, "far": same + 4, "narrow": 0.5 * base}, settings)
    assert {name: own["adjusted_p"]["shift"] < 0.05 for name, own in found.items()} == {
        "same": False,
        "far": True,
        "narrow": True,
    }
    assert found["narrow"]["adjusted_p"]["spread"] < 0.05 <= found["far"]["adjusted_p"]["spread"]
    assert found["narrow"]["spread_ratio"].high < 1
    assert found["far"]["distance"].low > 0
    assert found["far"]["variety"].value < -0.5
    # Drift is a part of the shift: all of it where nothing but the mean moved.
    assert found["far"]["drift"].value == pytest.approx(found["far"]["shift"].value, rel=0.05)


def test_an_effect_is_seen_from_the_detectable_one_on(settings: Metrics) -> None:
    base = gaussian(N, D, seed=3)
    noise = 0.3 * gaussian(N, D, seed=4)
    for size, seen in ((0.0, False), (1.0, True)):
        found = asked({"base": base, "arm": base + noise + size}, settings)["arm"]
        assert (found["shift"].value > found["detectable"]["shift"]) == seen
        assert (found["adjusted_p"]["shift"] < 0.05) == seen


def test_a_shift_that_is_sure_may_be_less_than_that_of_other_seeds(settings: Metrics) -> None:
    base, reseeded = gaussian(N, D, seed=3), gaussian(N, D, seed=13)
    nudged, far = base + 0.1 + 0.02 * gaussian(N, D, seed=4), base + 3
    alone = asked({"base": base, "nudged": nudged}, settings)["nudged"]
    assert alone["beyond_floor"] is None
    assert is_shift(InSpace.model_validate(alone), 0.05)
    found = asked({"base": base, "nudged": nudged, "far": far}, settings, reseeded)
    own = {name: InSpace.model_validate(one) for name, one in found.items()}
    assert own["nudged"].adjusted_p["shift"] < 0.05
    assert own["nudged"].beyond_floor is not None
    assert own["nudged"].beyond_floor.value < 0
    assert own["nudged"].detectable["shift"] > frechet_distance(reseeded, base)
    assert {name: is_shift(one, 0.05) for name, one in own.items()} == {"nudged": False, "far": True}


def test_four_of_five_repetitions_decide_a_detectable_difference() -> None:
    """Means, whose power is known: the share of samples whose t test rejects at the effect that is named."""
    n, effect, decided = 40, [], 0
    for seed in range(200):
        x = gaussian(n, seed=seed)
        without = (x.sum() - x) / (n - 1)
        effect.append(detectable(Replicates(float(x.mean()), without, n), 0.05))
    typical = float(torch.tensor(effect).mean())
    for seed in range(1000, 1400):
        x = gaussian(n, seed=seed) + typical
        found = Replicates(float(x.mean()), (x.sum() - x) / (n - 1), n)
        decided += found.p_value() < 0.05
    assert 0.73 < decided / 400 < 0.87


def test_pairs_that_differ_in_nothing_lie_below_the_exchanged_shift() -> None:
    above = 0
    for seed in range(60):
        base, noise = gaussian(N, D, seed=seed), gaussian(2, N, D, seed=1000 + seed)
        x, y = base + 0.5 * noise[0], base + 0.5 * noise[1]
        above += frechet_distance(x, y) > exchanged_shift(x, y, PROMPTS, seed, 0.1)
    assert above <= 14  # of 60 at chance 0.1: more has a chance of 0.1 %
    assert above > 0


def test_equal_sets_exchange_nothing() -> None:
    x = gaussian(N, D, seed=5)
    assert exchanged_shift(x, x, PROMPTS, 0, 0.05) == pytest.approx(0, abs=1e-9)


def test_images_of_one_prompt_are_exchanged_together() -> None:
    prompts = torch.arange(N // 10).repeat_interleave(10)
    of_prompt = gaussian(2, N // 10, D, seed=6).repeat_interleave(10, 1)
    x, y = of_prompt[0], of_prompt[1]
    assert exchanged_shift(x, y, prompts, 0, 0.05) > 2 * exchanged_shift(x, y, PROMPTS, 0, 0.05)


def test_the_floors_are_those_of_real_images(settings: Metrics) -> None:
    real = gaussian(150, D, seed=7)
    found = floors(real, N, settings)
    assert found["fd"].value == pytest.approx(frechet_distance(real[:N], real[N:]))
    assert found["between_sets"].value == pytest.approx(frechet_distance(real[:N], real[N : 2 * N]))


def test_what_spaces_agree_on_is_the_verdict() -> None:
    def why(space: str) -> str:
        return f"{space} sees colours" if space == "a" else ""

    assert agreed({"a": "widens", "b": "widens"}, why) == ("widens", "")
    assert agreed({"a": UNDECIDED, "b": UNDECIDED}, why) == (UNDECIDED, "")
    assert agreed({"a": "widens", "b": UNDECIDED, "c": "widens"}, why) == ("widens (in 2 of 3 feature spaces)", "")
    verdict, reason = agreed({"a": "closer", "b": UNDECIDED, "c": "farther", "d": "closer"}, why)
    assert verdict == f"{DEPENDS}: closer in a and d, farther in c"
    assert reason == "a sees colours"


def test_images_that_are_the_same_are_counted_once() -> None:
    x = gaussian(20, D, seed=8).float()
    assert distinct_images(x) == 20
    same = x[:1].repeat(20, 1)
    same[7:] *= 1 + 1e-7  # as another batch would round
    assert distinct_images(same) == 1
    assert distinct_images(torch.cat([x[:5]] * 4)) == 5
    assert distinct_images(torch.zeros(6, D)) == 1


def test_copies_of_real_images_are_counted() -> None:
    real = gaussian(30, D, seed=9).float()
    images = gaussian(20, D, seed=10).float()
    assert copied_images(images, real) == 0
    images[:5] = real[10:15] * (1 + 1e-6)  # as another batch would round
    images[5] = images[4]
    assert copied_images(images, real) == 6
    assert copied_images(real, real) == 30
    assert copied_images(torch.zeros(4, D), torch.zeros(6, D)) == 4
    near = real[:4] + 0.01 * gaussian(4, D, seed=11).float()
    assert copied_images(near, real) == 0


def test_a_baseline_of_one_image_is_refused_by_name() -> None:
    # The ratio of spreads would be 0 / 0.
    check_baseline("unguided", gaussian(20, D, seed=12))
    with pytest.raises(
        InputError, match=r"baseline 'unguided': all 20 images are the same, .* look at data/sets/unguided"
    ):
        check_baseline("unguided", torch.zeros(20, D))


def test_one_image_far_from_all_others_decides_no_spread(settings: Metrics) -> None:
    narrow = 0.5 * gaussian(N, D, seed=13)
    narrow[0] = 60
    vectors = {"ours": narrow, "base": gaussian(N, D, seed=14)}
    arms = {name: ArmValues(one, {}) for name, one in vectors.items()}
    found = arm_replicates(arms, "base", gaussian(90, D, seed=15), 3, deletions(torch.arange(N), 0))
    own = in_space(vectors, "base", found, torch.arange(N), settings, 99)["ours"]
    assert own["spread_ratio"].value > 3
    assert own["adjusted_p"]["spread"] > 0.1
    assert own["variety"].value < 0


def verdicts_of(
    change: Callable[[dict[str, Any]], None],
    reference: tuple[int, int] | None = None,
    scores: dict[str, tuple[float, float]] | None = None,
) -> dict[str, Verdict]:
    """The verdicts on the arm `cfg` of a small comparison that is changed first; `scores` of cfg and of the others."""
    content = comparison()
    for name, (own, other) in (scores or {}).items():
        for arm in content["arms"]:
            value = own if arm["arm"] == "cfg" else other
            arm["scores"][name] = {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 16}
    change(next(arm for arm in content["arms"] if arm["arm"] == "cfg"))
    for arm in content["arms"]:
        if arm["against_baseline"]:
            for own in arm["against_baseline"]["spaces"].values():
                own["spread_ratio"] |= {"value": 1.4, "low": 1.3, "high": 1.5}
            adjusted = dict.fromkeys(("shift", "spread", "distance", "quality", "malformed", "prompt"), 0.5)
            arm["against_baseline"]["adjusted_p"] = adjusted | {"variety": 0.5}
    compared = Comparison.model_validate(content)
    found = arm_verdicts(compared.arms, compared.baseline, compared.spaces, 0.95, reference=reference)
    return {answer.topic: answer for answer in next(one for one in found if one.arm == "cfg").verdicts}


@pytest.mark.parametrize(("difference", "said"), [(-0.3, "spread and recall disagree in pyramid"), (0.3, "")])
def test_a_set_that_widens_and_reaches_less_is_a_disagreement(difference: float, said: str) -> None:
    def change(arm: dict[str, Any]) -> None:
        own = arm["against_baseline"]["spaces"]["pyramid"]
        own["adjusted_p"] |= {"spread": 0.001, "variety": 0.001}
        own["variety"] |= {"value": difference, "low": difference - 0.1, "high": difference + 0.1}

    variety = verdicts_of(change)["Variety"]
    assert variety.spaces["pyramid"].startswith("covers less" if difference < 0 else "covers more")
    assert ("disagree" in variety.verdict) == bool(said)
    assert said in variety.verdict
    assert ("it widens and covers less" in variety.reason) == bool(said)
    assert "Coverage" in variety.numbers


@pytest.mark.parametrize(("distinct", "said"), [(1, "all 16 images are the same"), (3, "only 3 of 16 images differ"),
                                                (16, None), (None, None)])  # fmt: skip
def test_an_arm_of_equal_images_says_so_first(distinct: int | None, said: str | None) -> None:
    found = verdicts_of(lambda arm: arm.update(distinct=distinct))
    assert (next(iter(found)) == "Images") == (said is not None)
    assert said is None or found["Images"].verdict == said


@pytest.mark.parametrize(
    ("recall", "scores", "said"),
    [
        # Two real images far from all others let noise into their balls, and few real images are covered.
        (0.3, {"coverage": (0.1, 0.6)}, "covers more of the reference set; recall and coverage disagree in"),
        (-0.3, {"coverage": (0.8, 0.6)}, "covers less of the reference set; recall and coverage disagree in"),
        (-0.3, {"coverage": (0.1, 0.6)}, ""),
        (-0.3, {"coverage": (0.62, 0.6)}, ""),
        (-0.3, {"vendi": (9.0, 4.0)}, "recall and vendi score disagree in"),
        (0.0, {"coverage": (0.8, 0.6)}, ""),
    ],
)
def test_recall_that_another_number_of_variety_contradicts_says_so(
    recall: float, scores: dict[str, tuple[float, float]], said: str
) -> None:
    def change(arm: dict[str, Any]) -> None:
        for own in arm["against_baseline"]["spaces"].values():
            own["adjusted_p"] |= {"variety": 0.001, "spread": 0.5}
            own["variety"] |= {"value": recall, "low": recall - 0.1, "high": recall + 0.1}

    variety = verdicts_of(change, scores=scores)["Variety"]
    assert ("disagree in efficientnet_lite0_pc4" in variety.verdict) == bool(said)
    assert said in variety.verdict
    assert ("is 0." in variety.reason or "is 9." in variety.reason) == bool(said)


def test_copies_in_the_reference_set_and_of_it_are_said_first() -> None:
    found = verdicts_of(lambda arm: arm.update(copied=3), (128, 1024))
    assert [*found][:2] == ["Reference", "Images"]
    assert found["Reference"].verdict == "only 128 of 1,024 real images differ"
    assert found["Images"].verdict.startswith("3 of 16 images are copies of real ones")
    assert "Reference" not in verdicts_of(lambda arm: None, (1024, 1024))
    assert "Images" not in verdicts_of(lambda arm: arm.update(copied=0, distinct=16))
