"""The matrix of verdicts: how much in every cell, and whether it is settled, never one shown as the other."""

from playwright.sync_api import Browser
from report_browser import Visit
from report_numbers import SPACES, comparison
from report_study import Inputs

from eval.report.matrix import Matrix, MatrixCell, matrix
from pipeline.results.comparison import Comparison


def cells(found: Matrix, row: int) -> dict[str, MatrixCell | None]:
    return dict(zip((column.topic for column in found.columns), found.told[row].cells, strict=True))


def test_a_cell_says_how_much_with_one_interval_and_whether_its_sign_is_settled() -> None:
    content = comparison()
    for one in content["verdicts"]:
        word = "raises the aesthetic score" if one["arm"] == "cfg_3" else "undecided"
        one["verdicts"].append({"topic": "Quality", "verdict": word, "numbers": "", "decided": word != "undecided"})
    first, second = (cells(matrix(Comparison(**content)), row) for row in range(2))
    quality = first["Quality"]
    assert quality is not None
    assert (quality.text, quality.span, quality.settled) == ("+0.62", "+0.55 to +0.69", True)
    shift = first["Shift"]
    assert shift is not None
    # 6.2 squared units; two sets of real images are 2.1 apart.
    assert (shift.text, shift.settled) == ("3.0", True)
    other = second["Quality"]
    assert other is not None
    assert (other.text, other.settled) == ("+0.02", False)
    assert first["Malformed"] is None, "no verdict was asked for"


def test_spaces_that_contradict_each_other_are_marked_and_those_that_leave_it_open_are_not() -> None:
    content = comparison()
    for answer in content["verdicts"][0]["verdicts"]:
        if answer["topic"] == "Spread":
            answer["spaces"] = dict(zip(SPACES, ("contracts", "widens"), strict=True))
    first = cells(matrix(Comparison(**content)), 0)
    assert [topic for topic, cell in first.items() if cell and cell.apart] == ["Spread"]
    variety = first["Variety"]
    assert variety is not None
    assert variety.settled, "in the primary space, whose number it is"


def test_arms_that_were_not_told_the_prompt_are_in_a_comparison_of_their_own() -> None:
    content = comparison()
    content["arms"][2]["prompt"] = "empty"
    content["verdicts"][1]["verdicts"].append(
        {"topic": "Prompt", "verdict": "follows the prompt less", "numbers": "", "decided": True}
    )
    found = matrix(Comparison(**content))
    assert [row.arm.arm for row in found.told] == ["cfg_3"]
    assert [row.arm.arm for row in found.untold] == ["negative_long"]
    assert found.untold[0].cells[-1] is None, "nobody told it what to follow"


def test_an_arm_that_does_nothing_says_so_beside_its_name() -> None:
    content = comparison()
    content["verdicts"][0]["verdicts"].insert(
        0, {"topic": "Effect", "verdict": "does nothing", "numbers": "", "decided": True}
    )
    assert [row.caution for row in matrix(Comparison(**content)).told] == ["does nothing", ""]


def test_what_is_open_is_grey_and_no_number_is_bold(visit: Visit) -> None:
    values = visit.page.locator("#matrix-table td .value")
    weights = values.evaluate_all("cells => [...new Set(cells.map(cell => getComputedStyle(cell).fontWeight))]")
    assert weights == ["400"]
    colours = visit.page.locator("#matrix-table tbody tr").evaluate_all(
        "rows => rows.map(row => getComputedStyle(row.querySelector('td .value')).color)"
    )
    assert colours[0] != colours[1]


def test_seconds_are_shown_only_where_they_are_an_arms_own(browser: Browser, own_inputs: Inputs) -> None:
    assert '<th scope="col">Seconds</th>' not in own_inputs.report(), "several workers share the machine"
