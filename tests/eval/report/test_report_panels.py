"""The small figures lie where the numbers are, and the three seeds are those with the numbers."""

import json
from typing import Any

import pytest
import torch
from report_numbers import ARMS, alignment, comparison, interval
from report_study import PRIMARY, Inputs, study

from eval.report.first_screen.image_rows import by_number, image_rows
from eval.report.first_screen.panels import MOST_ROWS, Panel, panels, shown_arms
from eval.report.page import report
from pipeline.results.comparison import Comparison


def drawn(content: dict[str, Any] | None = None) -> dict[str, Panel]:
    return {panel.key: panel for panel in panels(Comparison(**content or comparison()))}


def test_a_row_of_the_first_figure_is_a_cosine_and_the_line_is_the_same_direction() -> None:
    panel = drawn()["direction"]
    assert [(row.label, row.numbers) for row in panel.rows] == [
        ("negative, weaker network", "0.40"),
        ("CFG, weaker network", "0.20"),
        ("negative, CFG", "0.00"),
    ]
    (strip,) = panel.strips
    assert strip.neutral == strip.right, "a cosine of 1"
    negative, cfg, between = (mark.x for mark in panel.marks)
    assert negative - cfg == pytest.approx(cfg - between, abs=0.2), "0.4, 0.2 and 0"


def test_shifts_lie_on_a_logarithmic_axis_around_the_floor_and_hollow_in_other_spaces() -> None:
    panel = drawn()["shift"]
    assert [(row.label, row.numbers) for row in panel.rows] == [
        ("cfg 3", "0.83\N{EN DASH}3.0"),
        ("negative 3", "0.62"),
    ]
    (strip,) = panel.strips
    marks = {(mark.y, mark.hollow): mark for mark in panel.marks}
    first, second = (row.y for row in panel.rows)
    assert marks[first, False].x > strip.neutral > marks[first, True].x
    assert (second, True) not in marks, "a shift of 0 has no logarithm"
    for mark in panel.marks:
        assert strip.left <= mark.low <= mark.x <= mark.high <= strip.right


def test_the_floor_of_other_seeds_is_named_and_has_its_interval() -> None:
    content = comparison()
    assert drawn(content)["shift"].strips[0].title == "1: two sets of real images"
    for one in [content["floor"], *(space["floor"] for space in content["spaces"])]:
        one["other_seeds"] = interval(3.1, 2.48, 3.72)
    panel = drawn(content)["shift"]
    (strip,) = panel.strips
    assert strip.title == "1: unguided, other seeds"
    assert "1: unguided from other seeds, its interval grey." in panel.note
    assert strip.band is not None
    assert strip.left < strip.band[0] < strip.neutral < strip.band[1] < strip.right
    # 6.2 and 0.05 squared feature units.
    assert panel.rows[0].numbers == "0.016\N{EN DASH}2.0"


def test_prices_are_changes_on_axes_of_their_own_and_hollow_where_undecided() -> None:
    panel = drawn()["price"]
    assert [row.numbers for row in panel.rows] == ["2×", "2×"]
    assert [strip.title for strip in panel.strips] == ["Δ Aesthetic", "Δ CLIP score"]
    aesthetic, prompt = panel.strips
    decided = [mark for mark in panel.marks if mark.y == panel.rows[0].y]
    assert [mark.hollow for mark in decided] == [False, False]
    assert decided[0].x > aesthetic.neutral
    assert decided[1].x > prompt.neutral
    undecided = [mark for mark in panel.marks if mark.y == panel.rows[1].y]
    assert [mark.hollow for mark in undecided] == [True, True]
    assert all(mark.low < strip.neutral < mark.high for mark, strip in zip(undecided, panel.strips, strict=True))


def test_without_probes_and_effective_scales_there_is_no_figure_of_directions() -> None:
    assert set(drawn(comparison() | {"alignment": []})) == {"shift", "price"}


def test_a_baseline_alone_has_no_figures_and_three_images(own_inputs: Inputs) -> None:
    content = json.loads(own_inputs.comparison.read_text())
    content |= {"arms": content["arms"][:1], "verdicts": [], "frontiers": [], "alignment": [alignment()], "named": None}
    assert set(drawn(content)) == {"direction"}, "the directions along its own images"
    own_inputs.comparison.write_text(json.dumps(content))
    alone = study().model_copy(update={"arms": {"unguided": study().arms["unguided"]}})
    page = report(alone, own_inputs.root)
    assert "How far are the images of unguided from real ones?" in page
    assert "most unusual" in page


def test_many_arms_are_shown_by_one_of_each_family_and_untold_ones_by_themselves() -> None:
    content = comparison()
    more = [content["arms"][1] | {"arm": f"cfg_{k}", "scale": k} for k in range(4, 4 + MOST_ROWS)]
    content["arms"] += more
    assert [arm.arm for arm in shown_arms(Comparison(**content))] == ["cfg_8", "negative_long"]
    content["arms"][2]["prompt"] = "empty"
    assert [arm.arm for arm in shown_arms(Comparison(**content))] == ["cfg_8"]


def test_the_median_the_longest_and_the_most_typical_displacement_are_chosen() -> None:
    moved = torch.tensor([[1.0, 0], [2, 0], [0, 3], [4, 0], [9, 0]])
    # Lengths 1, 2, 3, 4, 9; the mean is (3.2, 0.6), to which (4, 0) is nearest.
    assert by_number(moved) == [2, 4, 3]
    assert by_number(torch.zeros(4, 2)) == [1, 3, 0], "equal ones in their order, and none twice"
    assert by_number(torch.zeros(1, 2)) == [0]


def test_rows_are_of_the_arm_that_the_question_is_about(inputs: Inputs) -> None:
    found = image_rows(Comparison(**comparison()), inputs.sets, inputs.features, PRIMARY)
    # negative_long moved image k by 10 - k: 5 to 10, on average 7.5.
    assert [(row.why, row.seed) for row in found.rows] == [
        ("median change", 103),
        ("most moved", 100),
        ("most typical", 102),
    ]
    assert [column.arm for column in found.columns] == list(ARMS)
    assert all(len(set(row.images)) == len(ARMS) for row in found.rows)
    assert found.canvas == "64x64"
