"""The plots of the report: every arm with its intervals, never by colour alone, drawn by the shipped plotly.js."""

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image as PillowImage
from playwright.sync_api import Browser
from report_browser import Visit, show_plot
from report_numbers import comparison, labelled
from report_study import Inputs

from docs.report_image import WIDTH, page_image
from docs.results import FIGURES, photograph
from eval.report.composition import composition_figure
from eval.report.figures import direction_by_noise, direction_figure, precision_recall_figure, shift_figure
from eval.report.page import figures
from pipeline.errors import InputError
from pipeline.results.comparison import Comparison
from pipeline.results.interval import Interval
from pipeline.results.rates import CalibrationBin, Rates


def test_plots_show_every_arm_with_error_bars(visit: Visit) -> None:
    page = visit.page
    for plot, arms in (("precision-recall", 3), ("shift", 2), ("direction", 2)):
        show_plot(page, plot)
        assert page.locator(f"#plot-{plot} .legendtext").count() == arms
    assert page.locator("#plot-precision-recall .xerror").count() == 3
    assert page.locator("#plot-shift .yerror").count() == 2


def test_figures_are_valid_plotly_and_never_by_colour_alone(inputs: Inputs) -> None:
    compared = Comparison(**comparison())
    directions = direction_by_noise(inputs.traces, ["cfg_3", "negative_long"])
    for figure in (precision_recall_figure(compared), shift_figure(compared), direction_figure(compared, directions)):
        drawn = go.Figure(figure)
        symbols = [trace.marker.symbol for trace in drawn.data]
        assert len(set(symbols)) == len(symbols)


def drawn(plot: str, rates: Rates | None = None) -> list[dict[str, Any]]:
    """The traces of one plot of the page."""
    figure = figures(Comparison(**comparison()), {"cfg_3": [(150.0, 0.1), (4.0, 0.3)]}, rates or labelled())[plot]
    assert figure is not None
    traces: list[dict[str, Any]] = figure["data"]
    return traces


def check_intervals(trace: dict[str, Any], axis: str, numbers: list[dict[str, Any]]) -> None:
    """That a trace shows along `axis` these intervals, by their values and the ends of the error bars."""
    bars = trace[f"error_{axis}"]
    values = np.array(trace[axis])
    shown = np.stack([values, values - bars["arrayminus"], values + bars["array"]], 1)
    np.testing.assert_allclose(shown, [[one["value"], one["low"], one["high"]] for one in numbers], atol=1e-9)


@pytest.mark.parametrize(
    ("plot", "x", "y"),
    [("precision", "recall", "precision"), ("fd", "clip_score", "fd"), ("quality", "shift", "aesthetic")],
)
def test_a_frontier_goes_through_the_numbers_of_its_arms(plot: str, x: str, y: str) -> None:
    for trace, frontier in zip(drawn(f"frontier-{plot}"), comparison()["frontiers"], strict=True):
        assert trace["name"] == frontier["family"]
        for axis, name in (("x", x), ("y", y)):
            check_intervals(trace, axis, [point[name] for point in frontier["points"]])


def test_an_arm_lies_at_its_drift_and_contraction_and_at_its_recall_and_precision() -> None:
    arms = comparison()["arms"]
    for plot, numbers, x, y in (
        ("shift", {arm["arm"]: arm["against_baseline"] for arm in arms[1:]}, "drift", "contraction"),
        ("precision-recall", {arm["arm"]: arm["scores"] for arm in arms}, "recall", "precision"),
    ):
        traces = drawn(plot)
        assert [trace["name"] for trace in traces] == list(numbers)
        for trace in traces:
            check_intervals(trace, "x", [numbers[trace["name"]][x]])
            check_intervals(trace, "y", [numbers[trace["name"]][y]])


@pytest.mark.parametrize(("plot", "of"), [("alignment", "pairs"), ("action", "actions")])
def test_cosines_and_pushes_lie_over_their_noise_levels_but_zero(plot: str, of: str) -> None:
    for trace, one in zip(drawn(plot), comparison()["alignment"][0][of], strict=True):
        pushes = {"empty": "CFG", "negative": "negative prompt", "guide": "weaker network"}
        references = [one["reference"]] if of == "actions" else one["references"]
        assert trace["name"] == " and ".join(pushes[name] for name in references)
        assert trace["x"] == [150, 4]
        check_intervals(trace, "y", [step["value"] for step in one["steps"][:2]])


def test_what_people_saw_lies_over_the_mean_score_of_a_bin() -> None:
    rates = labelled()
    assert rates.calibration is not None
    seen = [Interval(value=0.1, low=0.05, high=0.3, n=9), Interval(value=0.7, low=0.4, high=0.8, n=5)]
    bins = [
        CalibrationBin(low=0, high=0.5, score=0.2, rate=seen[0]),
        CalibrationBin(low=0.5, high=1, score=0.9, rate=seen[1]),
    ]
    calibration = rates.calibration.model_copy(update={"bins": bins})
    perfect, *points = drawn("calibration", rates.model_copy(update={"calibration": calibration}))
    assert perfect["x"] == perfect["y"] == [0, 1]
    assert [trace["x"] for trace in points] == [[0.2], [0.9]]
    for trace, rate in zip(points, seen, strict=True):
        check_intervals(trace, "y", [asdict(rate)])


def test_direction_sizes_lie_over_their_noise_levels() -> None:
    (trace,) = drawn("direction")
    assert (trace["name"], trace["x"], trace["y"]) == ("cfg_3", [150, 4], [0.1, 0.3])


def test_a_sweep_of_scales_is_joined_in_their_order() -> None:
    content = comparison()
    for arm, scale in zip(content["arms"][1:], (5.0, 2.0), strict=True):
        arm.update(family="cfg", scale=scale)
    line = precision_recall_figure(Comparison(**content))["data"][0]
    assert line["mode"] == "lines"
    assert line["x"] == [0.66, 0.52]


def test_direction_is_averaged_over_images_without_the_step_at_zero_noise(inputs: Inputs) -> None:
    steps = direction_by_noise(inputs.traces, ["cfg_3"])["cfg_3"]
    assert [sigma for sigma, _ in steps] == pytest.approx([150, 20, 4, 0.8])
    assert [size for _, size in steps] == pytest.approx([0.25, 0.35, 0.45, 0.55])


def test_the_figures_are_kept_as_images(browser: Browser, page_file: Path, tmp_path: Path) -> None:
    photograph(browser, page_file, tmp_path / "results")
    for name in FIGURES:
        with PillowImage.open(tmp_path / "results" / f"{name}.png") as image:
            colours = image.convert("RGB").getcolors(image.width * image.height)
        assert len(colours) > 20, f"{name} shows something"
    page_file.with_name("empty.html").write_text("<p>nothing</p>")
    with pytest.raises(InputError, match="has no figure 'alignment'"):
        photograph(browser, page_file.with_name("empty.html"), tmp_path / "results")


def test_the_readme_shows_an_image_of_the_page_itself(browser: Browser, page_file: Path, tmp_path: Path) -> None:
    shown = page_image(browser, page_file)
    with PillowImage.open(io.BytesIO(shown)) as image:
        assert image.width == WIDTH
        assert len(image.convert("RGB").getcolors(image.width * image.height)) > 100
    with pytest.raises(InputError, match="make repro"):
        page_image(browser, tmp_path / "index.html")


def test_kinds_are_told_by_hatching_as_well_as_by_colour() -> None:
    bars = go.Figure(composition_figure(Comparison(**comparison()))).data
    assert len({bar.marker.pattern.shape for bar in bars}) == len(bars) == 4
    assert [sum(bar.x[k] for bar in bars) for k in range(3)] == pytest.approx([1, 1, 1])


def test_plots_are_drawn_when_they_come_near_and_all_of_them_for_paper(visit: Visit) -> None:
    page = visit.page
    drawn = ".plot.js-plotly-plot"
    assert page.locator("#plot-calibration.js-plotly-plot").count() == 0
    page.evaluate("ready")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(drawn).count() == page.locator(".plot").count() > 8
    assert page.locator("#plot-shift .main-svg").first.get_attribute("width") == "470", "two beside each other"


def test_a_page_printed_before_plotly_is_unpacked_has_gaps_and_its_plots_are_drawn_later(
    browser: Browser, page_file: Path
) -> None:
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script(
        "addEventListener('DOMContentLoaded', () => {"
        " dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint')); })"
    )
    page.goto(page_file.as_uri())
    show_plot(page, "shift")
    page.close()
    assert errors == []


def test_a_long_legend_makes_a_plot_higher_and_leaves_the_plot_its_height(visit: Visit) -> None:
    page = visit.page
    heights = []
    for width in (1360, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        heights.append(page.locator("#plot-precision-recall").bounding_box()["height"])  # type: ignore[index]
    assert heights[1] > heights[0]
