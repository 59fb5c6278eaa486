"""The tables of the report: numbers with intervals, best values marked, sorted by click and by keyboard."""

import pytest
from playwright.sync_api import Page
from report_browser import Visit
from report_numbers import comparison

from eval.comparison.verdicts import arm_verdicts, verdict
from eval.notation import decimals, number, span
from eval.report.details import cost_rows, matched_columns, matched_rows
from eval.report.tables import SCORE_COLUMNS, table
from pipeline.results.comparison import Comparison
from pipeline.results.interval import Interval


def column(page: Page, table_id: str, k: int) -> list[str]:
    return page.locator(f"#{table_id} tbody tr").evaluate_all(
        "(rows, k) => rows.map(row => row.cells[k].dataset.value)", k
    )


def test_numbers_come_with_their_interval_and_n(visit: Visit) -> None:
    row = visit.page.locator("#arms-table tbody tr", has_text="cfg_3").inner_text()
    assert "0.810" in row
    assert "0.790\N{EN DASH}0.830" in row
    assert "2000" in row


def test_the_best_of_a_column_is_marked_with_all_that_cannot_be_told_apart_from_it(visit: Visit) -> None:
    best = visit.page.locator("#arms-table td.best")
    assert "best" in best.first.inner_text()
    # FD: 10.1 (9.7 to 10.5) is the best, and no interval of another arm reaches it; P(malformed): all reach it.
    rows = visit.page.locator("#arms-table tbody tr")
    marked = [rows.nth(k).locator("td").nth(3).get_attribute("class") == "best" for k in range(3)]
    assert marked == [False, True, False]
    heads = visit.page.locator("#arms-table thead th").all_inner_texts()
    (malformed,) = (k for k, head in enumerate(heads) if head.startswith("P(malformed)"))
    assert [rows.nth(k).locator("th, td").nth(malformed).get_attribute("class") for k in range(3)] == [None] * 3


def test_table_sorts_by_click(visit: Visit) -> None:
    page = visit.page
    header = page.locator("#arms-table thead th").nth(4)
    assert header.get_attribute("aria-sort") == "none"
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert column(page, "arms-table", 4) == ["10.1", "12.1", "12.4"]
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert column(page, "arms-table", 4) == ["12.4", "12.1", "10.1"]
    page.locator("#arms-table thead button").first.click()
    assert header.get_attribute("aria-sort") == "none"
    assert column(page, "arms-table", 0) == ["cfg_3", "negative_long", "unguided"]


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_table_sorts_by_keyboard(visit: Visit, key: str) -> None:
    page = visit.page
    page.locator("#arms-table thead button").nth(3).focus()
    page.keyboard.press("Tab")
    page.keyboard.press(key)
    assert page.locator("#arms-table thead th").nth(4).get_attribute("aria-sort") == "ascending"
    assert column(page, "arms-table", 4) == ["10.1", "12.1", "12.4"]


@pytest.mark.parametrize(
    ("intervals", "marked"),
    [
        ([(1, 0.9, 1.1), (2, 1.9, 2.1), (3, 2.9, 3.1)], [False, False, True]),
        ([(1, 0.9, 1.1), (2.9, 2.7, 3.1), (3, 2.8, 3.2)], [False, True, True]),
        ([(3, 2.9, 3.1), (3, 2.9, 3.1), (1, 0.9, 1.1)], [True, True, False]),
        ([(2, 1, 3), (2, 1, 3), (2, 1, 3)], [False, False, False]),
        ([(2, 1, 3), (2.5, 1.5, 3.5), (3, 2, 4)], [False, False, False]),
    ],
)
def test_ties_with_the_best_are_all_marked_or_none_is(
    intervals: list[tuple[float, float, float]], marked: list[bool]
) -> None:
    arm = Comparison(**comparison()).arms[0]
    rows = [(arm, {"precision": Interval(*one, n=9)}) for one in intervals]
    column = next(one for one in SCORE_COLUMNS if one.key == "precision")
    assert [cell.best for _, (cell,) in table(rows, [column])] == marked


def test_numbers_keep_their_sign_and_three_digits() -> None:
    assert number(0.8123, decimals([0.8123])) == "0.812"
    assert number(123.4, decimals([123.4])) == "123"
    assert number(-0.03, 2, signed=True) == "\N{MINUS SIGN}0.03"
    assert number(0.03, 2, signed=True) == "+0.03"
    assert number(-0.0001, 2, signed=True) == "0.00"
    assert span(Interval(value=0.8, low=0.75, high=0.85, n=9), 2) == "0.75\N{EN DASH}0.85"
    assert span(Interval(value=0.0, low=-0.1, high=0.1, n=9), 1, signed=True) == "\N{MINUS SIGN}0.1 to +0.1"


def test_verdicts_decide_only_below_the_adjusted_p_value() -> None:
    compared = Comparison(**comparison())
    told = {
        one.arm: {answer.topic: answer for answer in one.verdicts}
        for one in arm_verdicts(compared.arms, compared.baseline, compared.spaces, compared.level)
    }
    assert {topic: answer.verdict for topic, answer in told["cfg_3"].items()} == {
        "Shift": "shifts the distribution",
        "Spread": "contracts (in 1 of 2 feature spaces)",
        "Distance": "closer to the reference set",
        "Variety": "covers less of the reference set (in 1 of 2 feature spaces)",
        "Quality": "raises the aesthetic score",
        "Malformed": "fewer malformed images",
        "Prompt": "follows the prompt more",
        "Cost": "2 times the evaluations",
    }
    undecided = [answer.verdict for topic, answer in told["negative_long"].items() if topic != "Cost"]
    assert set(undecided) == {"undecided"}
    assert "0.810 (0.790\N{EN DASH}0.830)" in told["cfg_3"]["Spread"].numbers
    assert "\N{MINUS SIGN}0.0310 (\N{MINUS SIGN}0.0400 to \N{MINUS SIGN}0.0220)" in told["cfg_3"]["Malformed"].numbers


def test_pairs_that_were_asked_for_nothing_follow_no_prompt() -> None:
    content = comparison() | {"prompted": False}
    for arm in content["arms"][1:]:
        del arm["against_baseline"]["adjusted_p"]["prompt"]
    compared = Comparison(**content)
    for one in arm_verdicts(compared.arms, compared.baseline, compared.spaces, compared.level):
        assert [answer.topic for answer in one.verdicts][-2:] == ["Malformed", "Cost"]
    assert "CLIP score" not in [column.label for column in matched_columns(compared)]
    rows = matched_rows(compared)
    assert {len(row["cells"]) for row in rows if row["cells"]} == {len(matched_columns(compared))}


@pytest.mark.parametrize(
    ("value", "p", "expected"),
    [(0.1, 0.01, "more"), (-0.1, 0.01, "less"), (0.1, 0.05, "undecided"), (0.1, 0.9, "undecided"), (0, 0, "undecided")],
)
def test_the_side_of_the_value_and_the_p_value_make_the_word(value: float, p: float, expected: str) -> None:
    interval = Interval(value=value, low=value - 1, high=value + 1, n=9)
    assert verdict(interval, p, 0.05, 0, above="more", below="less") == expected


def test_a_price_that_is_unknown_is_said_to_be() -> None:
    content = comparison()
    content["arms"][1]["cost"]["anlas_per_image"] = None
    assert [row["anlas"] for row in cost_rows(Comparison(**content), alone=True)][:3] == [2, "unknown", 2]
