"""A claim's answer follows from its number and the interval by the rule that the claim writes."""

import pytest

from docs.answers.claims import Case
from docs.answers.page import FAILS, HOLDS, ONLY, OPEN, listed, verdict
from docs.answers.rule import Outcome, parse_rule
from pipeline.results.interval import Interval

HELD, FAILED, LEFT_OPEN = Outcome.HELD, Outcome.FAILED, Outcome.OPEN


def between(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 100)


@pytest.mark.parametrize(
    ("rule", "number", "outcome"),
    [
        ("above 0", between(0.1, 0.3), HELD),
        ("above 0", between(-0.3, -0.1), FAILED),
        ("above 0", between(-0.1, 0.1), LEFT_OPEN),
        ("above 0", between(0, 0), FAILED),
        ("below -0.5", between(-0.9, -0.6), HELD),
        ("below -0.5", between(-0.5, -0.5), FAILED),
        ("below -0.5", between(-0.6, -0.4), LEFT_OPEN),
        ("from -1 to 1", between(-1, 1), HELD),
        ("from -1 to 1", between(2, 3), FAILED),
        ("from -1 to 1", between(0, 2), LEFT_OPEN),
        ("equals 0", between(0, 0), HELD),
        ("equals 0", between(0.01, 0.02), FAILED),
        ("equals 1.1025", between(1.05**2, 1.05**2), HELD),
        ("differs from 0", between(-0.4, -0.1), HELD),
        ("differs from 0", between(0, 0), FAILED),
        ("differs from 0", between(-0.1, 0.1), LEFT_OPEN),
    ],
)
def test_a_rule_holds_where_the_whole_interval_is_on_its_side(rule: str, number: Interval, outcome: Outcome) -> None:
    assert parse_rule(rule)(number) is outcome


@pytest.mark.parametrize(
    ("rule", "other", "outcome"),
    [
        ("above", between(0, 0.9), HELD),
        ("above", between(2.1, 3), FAILED),
        ("above", between(0, 1.1), LEFT_OPEN),
        ("below", between(2.1, 3), HELD),
        ("below", between(0, 0.9), FAILED),
    ],
)
def test_two_numbers_differ_where_their_intervals_lie_apart(rule: str, other: Interval, outcome: Outcome) -> None:
    assert parse_rule(rule)(between(1, 2), other) is outcome


def test_an_unknown_rule_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"rule 'over 3' is unknown; write 'above 0'"):
        parse_rule("over 3")


def test_what_cases_share_is_said_once() -> None:
    assert listed(["the scale is 2", "the scale is 3", "the scale is 5"]) == "the scale is 2, 3 or 5"
    assert listed(["CLIP judges", "the scale is 3"]) == "CLIP judges or the scale is 3"
    assert listed(["contrast is meant", "blur is meant"]) == "contrast is meant or blur is meant"


def cases(*names: str) -> tuple[Case, ...]:
    weight = {"of": "weight", "text": "x", "part": "x", "syntax": "plain"}
    return tuple(
        Case.model_validate({"when": one, "shows": one, "number": weight, "holds": "equals 1"}) for one in names
    )


@pytest.mark.parametrize(
    ("outcomes", "kind", "said"),
    [
        ([HELD, HELD, HELD], HOLDS, "**holds**"),
        ([FAILED, FAILED, FAILED], FAILS, "**does not hold**"),
        ([HELD, FAILED, HELD], ONLY, "**holds only when** a or c"),
        ([HELD, FAILED, LEFT_OPEN], ONLY, "**holds only when** a; undecided when c"),
        ([HELD, HELD, LEFT_OPEN], HOLDS, "**holds when** a or b; undecided when c"),
        ([FAILED, LEFT_OPEN, LEFT_OPEN], FAILS, "**does not hold when** a; undecided when b or c"),
        ([LEFT_OPEN, LEFT_OPEN, LEFT_OPEN], OPEN, "**undecided**: the numbers allow both"),
    ],
)
def test_cases_that_disagree_make_a_condition(outcomes: list[Outcome], kind: str, said: str) -> None:
    assert verdict(cases("a", "b", "c"), outcomes) == (kind, said)
