"""The report shows every finding in every feature space, and what this many images show where it is undecided."""

import json
import math

import plotly.graph_objects as go
import pytest
from report_browser import Visit, show_plot
from report_numbers import SPACES, comparison
from report_study import Inputs, study

from eval.report.feature_spaces import SpaceCell, shift_by_space_figure, space_rows, space_tables
from eval.report.page import report
from pipeline.results.comparison import Comparison


def cells() -> dict[tuple[str, str, str], SpaceCell]:
    """The cells by field, arm and space."""
    return {
        (table.key, arm.arm, space): cell
        for table in space_tables(Comparison(**comparison()))
        for arm, row in table.rows
        for space, cell in zip(SPACES, row, strict=True)
    }


def test_a_space_is_told_by_its_extractor_dimensions_floor_and_whether_it_reads_text() -> None:
    first, second = space_rows(Comparison(**comparison()), {"clip"})
    assert first == {
        "name": "efficientnet_lite0_pc48",
        "extractor": "efficientnet_lite0",
        "compared": "48 principal components",
        "explained": "81 %",
        "floor": "1.40 (1.26\N{EN DASH}1.54)",
        "between_sets": "2.10 (1.96\N{EN DASH}2.24)",
        "other_seeds": "",
        "reads": "no",
    }
    assert (second["compared"], second["explained"], second["reads"]) == (
        "unit vectors, all dimensions",
        "100 %",
        "yes",
    )


def test_distances_are_in_floors_of_their_space_and_the_others_as_they_are() -> None:
    found = cells()
    primary, units = SPACES
    assert found["shift", "cfg_3", primary].value == pytest.approx(6.2 / 2.1), "of two sets of real images"
    assert found["shift", "cfg_3", units].value == pytest.approx(0.05 / 0.06)
    assert found["distance", "cfg_3", primary].text == "\N{MINUS SIGN}1.64"
    assert found["distance", "cfg_3", primary].span == "\N{MINUS SIGN}1.71 to \N{MINUS SIGN}1.57"
    assert "\N{MINUS SIGN}2.30 (\N{MINUS SIGN}2.40 to \N{MINUS SIGN}2.20) squared" in (
        found["distance", "cfg_3", primary].hover
    )
    assert "p 0.030" in found["distance", "cfg_3", units].hover
    assert found["spread_ratio", "cfg_3", primary].text == "0.81"
    assert found["variety", "cfg_3", primary].text == "\N{MINUS SIGN}0.19"


def test_what_is_undecided_says_from_what_difference_on_it_would_not_be() -> None:
    found = cells()
    primary, units = SPACES
    seen = {key: cell.seen for key, cell in found.items()}
    assert seen["shift", "negative_long", primary] == "seen from 0.095 on"
    assert seen["distance", "negative_long", units] == "seen from ±0.50 on"
    assert seen["variety", "negative_long", primary] == "seen from ±0.20 on"
    assert seen["spread_ratio", "cfg_3", units] == "seen below 0.980 or above 1.020"
    for cell in found.values():
        assert cell.decided == (cell.seen == "") == (cell.word != "undecided")
    assert [cell.word for key, cell in found.items() if key[:2] == ("spread_ratio", "cfg_3")] == [
        "contracts",
        "undecided",
    ]


def test_a_finding_that_no_verdict_tells_in_a_space_is_undecided() -> None:
    content = comparison() | {"verdicts": []}
    words = {cell.word for table in space_tables(Comparison(**content)) for _, row in table.rows for cell in row}
    assert words == {"undecided"}


def test_shifts_lie_in_floors_on_a_logarithmic_axis_with_their_intervals() -> None:
    figure = shift_by_space_figure(Comparison(**comparison()))
    first, second = go.Figure(figure).data
    assert (first.name, second.name) == SPACES
    assert first.marker.symbol != second.marker.symbol
    assert list(first.x) == pytest.approx([6.2 / 2.1, 1.3 / 2.1])
    assert list(first.error_x.array) == pytest.approx([0.1 / 2.1, 0.1 / 2.1])
    # The second arm did not shift at all in the second space, which has no logarithm.
    assert (list(second.y), list(second.x)) == (["cfg_3"], pytest.approx([0.05 / 0.06]))
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert figure["layout"]["yaxis"]["categoryarray"] == ["cfg_3", "negative_long"]


def test_an_interval_down_to_zero_stays_on_the_logarithmic_axis() -> None:
    content = comparison()
    content["arms"][1]["against_baseline"]["spaces"][SPACES[0]]["shift"] |= {"low": 0.0}
    first = shift_by_space_figure(Comparison(**content))["data"][0]
    assert math.log10(first["x"][0] - first["error_x"]["arrayminus"][0]) == pytest.approx(math.log10(6.2 / 2.1) - 1)


def test_the_page_has_a_table_per_finding_that_sorts(visit: Visit) -> None:
    page = visit.page
    assert page.locator("#spaces-table tbody tr").count() == len(SPACES)
    for key in ("shift", "spread_ratio", "distance", "variety"):
        table = page.locator(f"#space-{key}-table")
        assert table.locator("tbody tr").count() == 2
        assert table.locator("thead th").all_inner_texts() == ["Arm", *SPACES]
    decided = page.locator("#space-spread_ratio-table td.decided")
    assert decided.count() == 1
    assert "contracts" in decided.inner_text()
    grey = page.locator("#space-spread_ratio-table td.undecided")
    assert grey.count() == 3
    assert "undecided; seen below 0.980 or above 1.020" in grey.first.inner_text()
    colours = [one.locator(".value").first.evaluate("e => getComputedStyle(e).color") for one in (decided, grey)]
    assert colours[0] != colours[1], "and never by weight, which would look like size"
    page.locator("#space-shift-table thead button").nth(1).click()
    names = page.locator("#space-shift-table tbody th").evaluate_all("cells => cells.map(cell => cell.dataset.value)")
    assert names == ["negative_long", "cfg_3"]
    show_plot(page, "shift-by-space")
    assert page.locator("#plot-shift-by-space .legendtext").count() == len(SPACES)


def test_the_page_names_the_space_of_its_distances(visit: Visit) -> None:
    for anchor in ("verdicts", "frontiers", "arms", "plots", "against-baseline", "distribution-shift"):
        notes = visit.page.locator(f"#{anchor} .note").all_inner_texts()
        assert SPACES[0] in " ".join(notes), anchor
    assert "clip_unit: extractor clip" in visit.page.locator("footer").inner_text()


def test_a_baseline_alone_has_no_section_of_spaces(own_inputs: Inputs) -> None:
    content = json.loads(own_inputs.comparison.read_text())
    content |= {"arms": content["arms"][:1], "verdicts": [], "frontiers": []}
    own_inputs.comparison.write_text(json.dumps(content))
    alone = study().model_copy(update={"arms": {"unguided": study().arms["unguided"]}})
    page = report(alone, own_inputs.root)
    for anchor in ("feature-spaces", "named-concepts"):
        assert f'id="{anchor}"' not in page
