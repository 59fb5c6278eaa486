"""What scores pay for colour, and arms against their controls without it: scores with known answers."""

import pytest
import torch
from torch import Tensor

from eval.comparison.arm_measurements import PAIRED_SCORES
from eval.comparison.control_arms import against_control, payments
from eval.comparison.paired_arms import ArmValues, arm_replicates
from eval.statistics.jackknife import deletions
from pipeline.study.arm import Arm, Retouch
from pipeline.study.controls import Control
from pipeline.study.study import Metrics

N, D = 200, 4
PROMPTS = torch.arange(N)
ARMS = {
    "unguided": Arm(method="unguided", scale=1),
    "retouched": Arm(method="cfg", scale=2, retouch=Retouch(saturation=1.4)),
    "retouched@cfg": Arm(method="cfg", scale=1, control=Control(of="retouched")),
    "negative": Arm(method="negative", scale=2, negative_prompt="x"),
    "negative@cfg": Arm(method="cfg", scale=1, control=Control(of="negative")),
}
PAYS = torch.tensor([3.0, -1.0], dtype=torch.float64)


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def settings(params) -> Metrics:
    return Metrics.model_validate(params["metrics"])


def values(colour: Tensor, quality: Tensor, noise: int) -> ArmValues:
    """An arm whose scores are its quality and what they pay for colour, up to a little noise."""
    score = quality + colour @ PAYS + 0.01 * gaussian(N, seed=noise)
    scores = {**dict.fromkeys(PAIRED_SCORES.values(), score), "saturation": colour[:, 0], "contrast": colour[:, 1]}
    return ArmValues(gaussian(N, D, seed=noise), scores)


@pytest.fixture
def arms() -> dict[str, ArmValues]:
    quality, colour = gaussian(N, seed=0), gaussian(N, 2, seed=1).abs()
    more = torch.stack([0.4 * colour[:, 0], 0.1 + 0.1 * gaussian(N, seed=2)], 1)
    better = (gaussian(N, seed=3) > -0.5).double() - 0.5  # most images are better by a half, the others worse
    return {
        "unguided": values(colour, quality, 10),
        "retouched": values(colour + more, quality, 11),
        "retouched@cfg": values(colour, quality, 12),
        "negative": values(colour + 2 * more, quality + better, 13),
        "negative@cfg": values(colour, quality, 14),
    }


def compared(name, arms, settings, paid):
    kept = deletions(PROMPTS, 0)
    found = arm_replicates(arms, "unguided", gaussian(300, D, seed=20), 3, kept)
    return against_control(f"{name}@cfg", ARMS[f"{name}@cfg"], arms, found, PROMPTS, kept, settings, paid)


def test_what_a_score_pays_is_found_on_both_halves(arms, settings):
    paid = payments(ARMS, arms, PROMPTS, settings)
    assert set(paid) == set(PAIRED_SCORES)
    for one in paid.values():
        torch.testing.assert_close(one.slopes, PAYS.expand(2, 2), atol=0.05, rtol=0)


def test_the_fake_method_wins_by_colour_and_no_longer_without_it(arms, settings):
    found = compared("retouched", arms, settings, payments(ARMS, arms, PROMPTS, settings))
    assert found.wins["aesthetic"].low > 0.8
    assert found.adjusted["aesthetic"].low < 0.5 < found.adjusted["aesthetic"].high
    # The lower the better: malformed images are lost by as many.
    assert found.wins["malformed"].high < 0.2


def test_a_gain_that_is_no_colour_stays(arms, settings):
    found = compared("negative", arms, settings, payments(ARMS, arms, PROMPTS, settings))
    true_share = float(((gaussian(N, seed=3) > -0.5).double()).mean())
    assert found.wins["aesthetic"].value > true_share + 0.05
    assert found.adjusted["aesthetic"].value == pytest.approx(true_share, abs=0.02)


def test_without_retouched_arms_nothing_is_adjusted(arms, settings):
    plain = {name: own for name, own in ARMS.items() if not name.startswith("retouched")}
    assert payments(plain, arms, PROMPTS, settings) == {}
    assert compared("negative", arms, settings, {}).adjusted == {}


def test_a_half_is_not_judged_by_itself(arms, settings):
    """Scores that pay in one half alone: the other half's images are adjusted by it, its own are not."""
    paid = payments(ARMS, arms, PROMPTS, settings)["aesthetic"]
    slopes = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    one = type(paid)(slopes)
    found = one(torch.ones(4, 2, dtype=torch.float64), torch.arange(4))
    assert found.tolist() == [0.0, 1.0, 0.0, 1.0]
