"""The effective scale of a trace with known answers, and pairs that are won by known shares."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from eval.comparison.control_arms import win_rate
from eval.comparison.effective_scale import effective_scale, in_words, pushes
from pipeline.results.interval import Interval
from pipeline.study.study import Metrics

N, STEPS = 40, 5


@pytest.fixture
def settings(params) -> Metrics:
    return Metrics.model_validate(params["metrics"])


def trace(scale: np.ndarray, elsewhere: np.ndarray) -> pa.Table:
    n, steps = scale.shape
    return pa.table(
        {
            "image_id": [f"a-{k:03}" for k in range(n) for _ in range(steps)],
            "step": list(range(steps)) * n,
            "sigma": [10.0 / (k + 1) for k in range(steps)] * n,
            "effective_scale": scale.ravel(),
            "elsewhere": elsewhere.ravel(),
        }
    )


def test_means_are_over_steps_and_then_over_images(settings):
    by_image, by_step = np.linspace(1, 3, N)[:, None], np.linspace(-0.5, 0.5, STEPS)[None]
    found = effective_scale(trace(by_image + by_step, np.full((N, STEPS), 0.04)), torch.arange(N), settings)
    assert found is not None
    assert found.scale.value == pytest.approx(2)
    assert found.scale.low < 2 < found.scale.high
    assert [step.value.value for step in found.steps] == pytest.approx([1.5, 1.75, 2.0, 2.25, 2.5])
    assert found.over_steps == pytest.approx(by_step.std())
    assert found.over_images == pytest.approx(by_image.std())
    assert (
        found.answer == "this is CFG at 2.00 (1.50 at the first step, 2.50 at the last) with 4 % of its push elsewhere"
    )


def test_plain_cfg_is_called_so(settings):
    found = effective_scale(trace(np.full((N, STEPS), 2.5), np.full((N, STEPS), 1e-7)), torch.arange(N), settings)
    assert found is not None
    assert found.answer == "this is CFG at 2.50"
    assert found.over_steps == found.over_images == 0


def test_images_without_a_direction_are_left_out_and_counted(settings):
    scale = np.full((N, STEPS), 2.0)
    scale[:3, 1] = np.nan
    found = effective_scale(trace(scale, np.zeros((N, STEPS))), torch.arange(N), settings)
    assert found is not None
    assert (found.without_direction, found.scale.n) == (3, N - 3)
    scale[:, 0] = np.nan
    assert effective_scale(trace(scale, scale), torch.arange(N), settings) is None


def test_a_trace_of_an_earlier_version_has_none(settings):
    assert effective_scale(pa.table({"image_id": ["a"], "step": [0]}), torch.arange(1), settings) is None


def test_a_trace_without_a_step_is_refused():
    whole = trace(np.ones((N, STEPS)), np.ones((N, STEPS)))
    with pytest.raises(ValueError, match="which is not as many steps for each"):
        pushes(whole.slice(0, len(whole) - 1))


def test_intervals_take_the_images_of_a_prompt_together(settings):
    scale = np.repeat(np.random.default_rng(0).normal(2, 0.5, 10), 4)[:, None] + np.zeros((N, STEPS))
    own = trace(scale, np.zeros((N, STEPS)))
    alone = effective_scale(own, torch.arange(N), settings)
    together = effective_scale(own, torch.arange(10).repeat_interleave(4), settings)
    assert alone is not None
    assert together is not None
    assert together.scale.high - together.scale.low > 1.5 * (alone.scale.high - alone.scale.low)


def test_a_push_beside_cfg_s_is_said_without_a_change_over_steps():
    assert in_words(Interval(1.3, 1.2, 1.4, 9), Interval(0.5, 0.4, 0.6, 9), np.array([1.3, 1.3])) == (
        "this is CFG at 1.30 with 50 % of its push elsewhere"
    )


def test_a_win_rate_counts_ties_half_and_turns_with_the_good_end(settings):
    ours, theirs = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.0, 3.0, 3.0, 0.0])
    higher = win_rate(ours, theirs, True, None, settings)
    assert higher.value == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert win_rate(ours, theirs, False, None, settings).value == pytest.approx(1 - higher.value)
    assert (higher.low >= 0, higher.high <= 1) == (True, True)


def test_a_win_rate_of_all_pairs_still_has_an_interval(settings):
    found = win_rate(torch.ones(20), torch.zeros(20), True, None, settings)
    assert (found.value, found.high) == (1, 1)
    assert 0.8 < found.low < 0.9  # Wilson's


def test_pairs_without_a_score_are_left_out(settings):
    ours = torch.tensor([1.0, float("nan"), 1.0, 0.0])
    assert win_rate(ours, torch.full((4,), 0.5), True, None, settings).n == 3


def test_equal_images_win_half(settings):
    found = win_rate(torch.ones(30), torch.ones(30), True, None, settings)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_a_scale_that_changes_along_cfg_alone_is_said_so() -> None:
    said = in_words(Interval(0.8, 0.7, 0.9, 9), Interval(0.004, 0, 0.01, 9), np.array([1.0, -0.18]))
    assert said == "this is CFG at 0.80 (1.00 at the first step, \N{MINUS SIGN}0.18 at the last)"
