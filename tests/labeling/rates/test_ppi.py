"""Prediction-powered estimates: the classical ones as a limit, and what scores must not do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.statistics.wilson import wilson_bounds
from labeling.rates.ppi import difference, rate

LEVEL = 0.95
samples = st.integers(12, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n),
        st.lists(st.floats(0, 1), min_size=100, max_size=100),
    )
)


def bounds(found):
    return found.value, found.low, found.high


@settings(max_examples=40)
@given(samples)
def test_lambda_zero_is_the_classical_estimate(sample):
    labels, scores = sample
    equal = np.full(len(labels), 0.2)
    powered = rate(labels, equal, LEVEL, 100, scores[: len(labels)], scores, tuning=0.0)
    assert bounds(powered) == pytest.approx(bounds(rate(labels, equal, LEVEL, 100)))
    mean = np.mean(labels)
    assert bounds(powered) == pytest.approx((mean, *wilson_bounds(mean, len(labels), LEVEL)))


@settings(max_examples=40)
@given(samples, st.floats(0.05, 1))
def test_equal_probabilities_are_no_weights(sample, probability):
    labels, scores = sample
    own = scores[: len(labels)]
    ones = rate(labels, np.ones(len(labels)), LEVEL, 100, own, scores)
    assert bounds(rate(labels, np.full(len(labels), probability), LEVEL, 100, own, scores)) == pytest.approx(
        bounds(ones)
    )


@settings(max_examples=40)
@given(samples, st.floats(0.1, 10), st.floats(-5, 5))
def test_the_scale_of_the_score_does_not_matter(sample, factor, offset):
    """Only how the score orders and spaces images counts, so an uncalibrated one does no harm."""
    labels, scores = sample
    scores = np.round(scores, 3)
    equal = np.full(len(labels), 0.2)
    plain = rate(labels, equal, LEVEL, 100, scores[: len(labels)], scores)
    moved = scores * factor + offset
    found = rate(labels, equal, LEVEL, 100, moved[: len(labels)], moved)
    assert bounds(found) == pytest.approx(bounds(plain), abs=1e-6)


@settings(max_examples=40)
@given(samples)
def test_counting_the_other_side_mirrors_the_interval(sample):
    labels, scores = sample
    equal = np.full(len(labels), 0.2)
    one = rate(labels, equal, LEVEL, 100, scores[: len(labels)], scores)
    other = rate(1 - np.array(labels), equal, LEVEL, 100, scores[: len(labels)], scores)
    assert (1 - other.value, 1 - other.high, 1 - other.low) == pytest.approx(bounds(one), abs=1e-9)


def test_a_perfect_score_leaves_the_uncertainty_of_the_images_alone():
    """With every label known from the score, 2,000 images tell what 2,000 labels would."""
    truth = (np.arange(2000) % 5 == 0).astype(float)
    chosen = np.random.default_rng(0).permutation(2000)[:100]
    found = rate(truth[chosen], np.full(100, 0.05), LEVEL, 2000, truth[chosen], truth)
    assert found.value == pytest.approx(0.2)
    assert found.scores_used == pytest.approx(1)
    # Were it not for the one label that stands for errors unseen, it would be 2,000.
    assert found.effective_n > 1500


def test_the_estimate_is_ppi_plus_plus():
    """Equation 5 of 2311.01453 with the plug-in lambda of its section 6, written with the disjoint unlabelled part."""
    random = np.random.default_rng(1)
    truth = random.uniform(size=500) < 0.3
    score = np.clip(0.6 * truth + random.uniform(0, 0.4, 500), 0, 1)
    n, rest = 100, 400
    y, f, unlabelled = truth[:n].astype(float), score[:n], score[n:]
    lam = np.cov(y, f)[0, 1] / ((1 + n / rest) * np.var(f, ddof=1))
    theirs = y.mean() + lam * (unlabelled.mean() - f.mean())
    found = rate(y, np.full(n, 0.2), LEVEL, 500, f, score)
    assert found.value == pytest.approx(theirs)
    assert found.scores_used * rest / 500 == pytest.approx(lam)


def test_all_labels_alike_give_wilsons_interval_without_scores():
    found = rate(np.zeros(30), np.full(30, 0.3), LEVEL, 100, np.linspace(0, 1, 30), np.linspace(0, 1, 100))
    assert bounds(found) == pytest.approx((0.0, *wilson_bounds(0, 30, LEVEL)))
    none = difference(np.zeros(30), np.full(30, 0.3), LEVEL, 100)
    assert none.low < 0 < none.high


def test_few_labels_leave_the_scores_out():
    found = rate([1, 0, 0, 1], np.full(4, 0.1), LEVEL, 40, [0.9, 0.1, 0.2, 0.8], np.linspace(0, 1, 40))
    assert found.scores_used == 0
    assert bounds(found) == pytest.approx((0.5, *wilson_bounds(0.5, 4, LEVEL)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], LEVEL, 10), "at least one label"),
        (([1.0, 0.0], [0.5], LEVEL, 10), "2 labels and 1 inclusion probabilities"),
        (([1.0], [0.0], LEVEL, 10), r"lie in \(0, 1\], found 0"),
        (([1.0, 1.0], [0.5, 0.5], LEVEL, 1), "2 labels of 1 images"),
        (([2.0], [0.5], LEVEL, 10), r"lie in \[0, 1\], found 2"),
        (([1.0], [0.5], LEVEL, 10, [0.5], [0.5]), "found 1 and 1 scores for 1 labelled of 10 images"),
        (([float("nan")], [0.5], LEVEL, 10), "finite numbers"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rate(*arguments)


def test_scores_unlike_those_of_the_labelled_images_are_not_extrapolated_to():
    """Four malformed images of 60 with scores near 0, and one image that nobody labelled with a score of 0.24."""
    labels = [1.0 if k % 15 == 0 else 0.0 for k in range(60)]
    scores = [0.0002 if label else 0.0001 * (k % 15) for k, label in enumerate(labels)]
    every = [*scores, *scores, *scores[:11], 0.24]
    found = rate(labels, np.full(60, 60 / 132), LEVEL, 132, scores, every)
    classical = rate(labels, np.full(60, 60 / 132), LEVEL, 132)
    assert found.scores_used == 0
    assert bounds(found) == pytest.approx(bounds(classical))
