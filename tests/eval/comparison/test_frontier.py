"""Frontiers: what a method reaches at equal strength."""

import pytest

from eval.comparison.frontier import dominated_area, value_at


def test_a_value_between_two_scales_is_interpolated() -> None:
    assert value_at([1, 2, 4], [10, 20, 0], 3) == 10
    assert value_at([1, 2, 4], [10, 20, 0], 1) == 10
    assert value_at([4, 2, 1], [0, 20, 10], 1.5) == 15


def test_a_strength_that_is_not_reached_has_no_value() -> None:
    assert value_at([1, 2], [10, 20], 2.1) is None
    assert value_at([1, 2], [10, 20], 0.9) is None


def test_a_path_that_turns_back_is_read_where_it_first_arrives() -> None:
    assert value_at([0, 2, 0], [0, 2, 10], 1) == 1


def test_the_area_is_that_of_the_union_of_rectangles() -> None:
    assert dominated_area([0.5], [0.4]) == pytest.approx(0.2)
    assert dominated_area([0.5, 1.0], [1.0, 0.5]) == pytest.approx(0.75)
    assert dominated_area([0.5, 1.0, 0.4], [1.0, 0.5, 0.4]) == pytest.approx(0.75), "a dominated point adds nothing"
    assert dominated_area([1.0], [1.0]) == 1


def test_coordinates_that_are_no_frontier_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 points with both coordinates, found 1 and 1"):
        value_at([1], [1], 1)
    with pytest.raises(ValueError, match="coordinates of at least 0, found -1"):
        dominated_area([1, -1], [1, 1])
