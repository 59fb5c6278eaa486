"""Strengths of arms from choices: the package choix as a peer, and what ties and names must not do."""

import choix
import numpy as np
import pytest

from labeling.rates.bradley_terry import connected, fit, strengths

ARMS = ["a", "b", "c", "d"]


def tournament(rounds=400, truth=(-1.0, -0.2, 0.3, 0.9), seed=0):
    random = np.random.default_rng(seed)
    choices = []
    for _ in range(rounds):
        i, j = random.choice(4, 2, replace=False)
        choices.append((ARMS[i], ARMS[j], float(random.uniform() < 1 / (1 + np.exp(truth[j] - truth[i])))))
    return choices


def wins(choices):
    table = np.zeros((4, 4))
    for one, other, share in choices:
        table[ARMS.index(one), ARMS.index(other)] += share
        table[ARMS.index(other), ARMS.index(one)] += 1 - share
    return table


def test_strengths_are_those_of_choix():
    choices = tournament()
    data = [(ARMS.index(o), ARMS.index(t)) if s else (ARMS.index(t), ARMS.index(o)) for o, t, s in choices]
    assert fit(wins(choices), prior_ties=0) == pytest.approx(choix.opt_pairwise(4, data), abs=1e-4)


def test_a_tie_is_half_a_win_of_each():
    """choix knows no ties; every choice twice and every tie once each way is the same likelihood, squared."""
    choices = [(o, t, 0.5 if k % 5 == 0 else s) for k, (o, t, s) in enumerate(tournament())]
    data = []
    for one, other, share in choices:
        i, j = ARMS.index(one), ARMS.index(other)
        data += {1.0: [(i, j)] * 2, 0.0: [(j, i)] * 2, 0.5: [(i, j), (j, i)]}[share]
    assert fit(wins(choices), prior_ties=0) == pytest.approx(choix.opt_pairwise(4, data), abs=1e-4)


def test_strengths_follow_the_arms_whatever_their_order():
    choices = tournament(100)
    found = strengths(choices, range(100), ARMS, 100, 0.95, 0)
    again = strengths([(t, o, 1 - s) for o, t, s in choices], range(100), ARMS[::-1], 100, 0.95, 0)
    for arm in ARMS:
        assert again[arm].value == pytest.approx(found[arm].value)
        assert (again[arm].low, again[arm].high) == pytest.approx((found[arm].low, found[arm].high))
        assert found[arm].low <= found[arm].value <= found[arm].high
    assert sum(strength.n for strength in found.values()) == 200


def test_an_arm_that_never_lost_has_a_finite_strength():
    found = strengths([("a", "b", 1.0)] * 10, range(10), ARMS, 100, 0.95, 0)
    assert list(found) == ["a", "b"]
    # 10 wins and the prior's half tie: log odds 10.25 to 0.25.
    assert found["a"].value - found["b"].value == pytest.approx(np.log(10.25 / 0.25))


def test_arms_that_never_met_have_no_common_scale():
    choices = [("a", "b", 1.0), ("c", "d", 0.0)]
    assert not connected(choices, ARMS)
    assert connected([*choices, ("b", "c", 0.5)], ARMS)
    with pytest.raises(ValueError, match="do not connect the arms a, b, c, d"):
        strengths(choices, range(2), ARMS, 100, 0.95, 0)


def test_intervals_cover_the_truth():
    truth = np.array([-1.0, -0.2, 0.3, 0.9])
    covered = 0
    for seed in range(20):
        found = strengths(tournament(120, seed=seed), range(120), ARMS, 100, 0.95, 0)
        covered += sum(found[a].low <= t <= found[a].high for a, t in zip(ARMS, truth, strict=True))
    assert covered >= 0.85 * 80
