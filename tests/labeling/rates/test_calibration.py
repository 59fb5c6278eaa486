"""The score against the labels: bins, Brier score and AUC equal hand-computed ones."""

import numpy as np
import pytest

from eval.statistics.wilson import wilson_bounds
from labeling.rates.calibration import auc, brier, calibrate

EQUAL = np.full(4, 0.5)


def test_brier_and_auc_by_hand():
    labels, scores = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9])
    assert brier(labels, scores, EQUAL) == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert auc(labels, scores, EQUAL) == pytest.approx(3 / 4)
    assert auc(np.zeros(4), scores, EQUAL) is None


def test_rarely_drawn_images_count_more():
    labels, scores = np.array([0.0, 1, 1, 1]), np.array([0.5, 1, 1, 1])
    assert brier(labels, scores, np.array([0.1, 1, 1, 1])) == pytest.approx(10 * 0.25 / 13)


def test_bins_hold_the_rate_that_people_see():
    labels = np.array([0.0, 0, 0, 1, 1, 1, 1, 0])
    scores = np.array([0.0, 0.05, 0.02, 0.08, 0.95, 1.0, 0.91, 0.93])
    found = calibrate(labels, scores, np.full(8, 0.5), range(8), 100, 0.95, 0)
    low, high = found.bins
    assert (low.low, low.high, low.rate.value) == (0.0, 0.1, 0.25)
    assert (high.low, high.high, high.rate.value) == (0.9, 1.0, 0.75)
    assert (low.rate.low, low.rate.high) == pytest.approx(wilson_bounds(0.25, 4, 0.95))
    assert low.score == pytest.approx(0.0375)
    for value, bottom, top in (found.brier, found.auc):
        assert bottom <= value <= top


def test_images_of_one_seed_are_drawn_together():
    """Five copies of every image tell nothing new, so the interval stays as wide."""
    random = np.random.default_rng(0)
    truth = (random.uniform(size=60) < 0.4).astype(float)
    scores = np.clip(truth * 0.3 + random.uniform(size=60) * 0.7, 0, 1)
    once = calibrate(truth, scores, np.ones(60), range(60), 400, 0.95, 0)
    copies = calibrate(
        np.repeat(truth, 5), np.repeat(scores, 5), np.ones(300), np.repeat(np.arange(60), 5).tolist(), 400, 0.95, 0
    )
    width, width_of_copies = (x.brier[2] - x.brier[1] for x in (once, copies))
    assert width_of_copies == pytest.approx(width, rel=0.15)
