"""Agreement of people: Krippendorff's alpha against its author's numbers and the package of that name."""

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labeling.rates.agreement import alpha_interval, krippendorff_alpha, repeat_agreement

verdicts = st.sampled_from(["legit_human", "malformed_human", "object_or_scenery", "pattern", None])
tables = st.lists(st.lists(verdicts, min_size=3, max_size=3), min_size=2, max_size=20)


def units(table):
    return [[verdict for verdict in row if verdict] for row in table]


@settings(max_examples=40)
@given(tables)
def test_alpha_is_that_of_the_package(table):
    found = krippendorff_alpha(units(table))
    assume(found is not None)
    names = sorted({verdict for row in table for verdict in row if verdict})
    numbers = [[names.index(verdict) if verdict else np.nan for verdict in row] for row in table]
    peer = krippendorff.alpha(reliability_data=np.array(numbers).T, level_of_measurement="nominal")
    assert found == pytest.approx(peer)


def test_identical_labels_have_alpha_one_and_random_ones_about_zero():
    random = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    same = [[name] * 3 for name in random.choice(names, 50)]
    assert krippendorff_alpha(same) == 1
    noise = [list(random.choice(names, 3)) for _ in range(3000)]
    assert krippendorff_alpha(noise) == pytest.approx(0, abs=0.03)


def test_alpha_needs_two_verdicts_of_an_image_and_two_kinds():
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert alpha_interval([["a"], ["b"]], 100, 0.95, 0) is None


def test_the_interval_holds_alpha_and_narrows_with_images():
    random = np.random.default_rng(0)
    table = [[a, a if random.uniform() < 0.8 else "c"] for a in random.choice(["a", "b"], 400)]
    few, many = (alpha_interval(table[:n], 300, 0.95, 0) for n in (40, 400))
    for value, low, high in (few, many):
        assert low <= value <= high
    assert many[2] - many[1] < 0.5 * (few[2] - few[1])


@pytest.mark.parametrize("verdicts", [[["a", "a"], ["b", "b"], ["a", "a"]], [["a", "b"]]])
def test_three_images_say_nothing_of_agreement(verdicts):
    value, low, high = alpha_interval(verdicts, 100, 0.95, 0)
    assert value == krippendorff_alpha(verdicts)
    assert (low, high) == (-1, 1)


def test_repeats_are_compared_with_the_same_persons_first_verdict():
    given_verdicts = {
        ("a", "p1"): "pattern",
        ("a2", "p1"): "pattern",
        ("b", "p1"): "pattern",
        ("b2", "p1"): "legit_human",
        ("a2", "p2"): "legit_human",
    }
    assert repeat_agreement(given_verdicts, {"a2": "a", "b2": "b"}) == {"p1": (1, 2)}
