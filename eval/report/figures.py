"""The plots of the report, as plotly figures.

An arm is never told by its colour alone: symbols tell families, labels and dashes tell scales.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.results.answer import told_arms
from pipeline.results.colours import BASELINE, arm_colours, family_colours, push_colour
from pipeline.results.comparison import AXES, Alignment, ComparedArm, Comparison, TraceStep
from pipeline.results.interval import Interval
from pipeline.results.metrics import Metric, metric
from pipeline.results.rates import SIMULATED, Rates
from pipeline.storage.shards import read_set

_SYMBOLS = (
    *("square", "diamond", "triangle-up", "cross", "x", "star"),
    *("triangle-down", "pentagon", "hexagram", "hourglass", "bowtie", "star-square"),
)
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
# What no arm is: bins of labels, kinds of images.
NEUTRAL = "#6B6B6B"


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: never by colour alone."""

    colour: str
    symbol: str
    dash: str


def looks(comparison: Comparison) -> dict[str, Look]:
    """One look per arm, the same in every plot: colour and symbol by family, shade and dash by scale."""
    colours = arm_colours(comparison.arms, comparison.baseline)
    found = {comparison.baseline: Look(BASELINE, "circle", "solid")}
    guided = [arm for arm, _ in comparison.guided]
    families = list(dict.fromkeys(arm.family for arm in guided))
    for arm in guided:
        scales = sorted({other.scale for other in guided if other.family == arm.family}, reverse=True)
        found[arm.arm] = Look(
            colours[arm.arm],
            _SYMBOLS[families.index(arm.family) % len(_SYMBOLS)],
            _DASHES[scales.index(arm.scale) % len(_DASHES)],
        )
    return found


def family_looks(comparison: Comparison) -> dict[str, Look]:
    """One look per family of guided arms as a whole."""
    colours = family_colours(comparison.arms, comparison.baseline)
    return {
        family: Look(colour, _SYMBOLS[k % len(_SYMBOLS)], _DASHES[k % len(_DASHES)])
        for k, (family, colour) in enumerate(colours.items())
    }


def precision_recall_figure(comparison: Comparison) -> dict[str, Any]:
    """Plotly figure: recall along x, precision along y, one marker with error bars per arm."""
    points = [(arm, arm.scores["recall"], arm.scores["precision"]) for arm in comparison.arms]
    return _scatter(points, looks(comparison), metric("recall").in_words, metric("precision").in_words)


def shift_figure(comparison: Comparison) -> dict[str, Any]:
    """Plotly figure: drift along x, spread change along y, one marker with error bars per guided arm."""
    points = [(arm, against.drift, against.contraction) for arm, against in comparison.guided]
    titles = (metric(name).in_words for name in ("shift_drift", "shift_contraction"))
    figure = _scatter(points, looks(comparison), *titles)
    for axis in ("xaxis", "yaxis"):
        figure["layout"][axis]["rangemode"] = "tozero"
    return figure


def direction_figure(comparison: Comparison, directions: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Plotly figure: mean direction size over noise level, one line per arm of `directions`."""
    look = looks(comparison)
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": arm,
            "x": [sigma for sigma, _ in steps],
            "y": [size for _, size in steps],
            "line": {"color": look[arm].colour, "dash": look[arm].dash, "width": 2},
            "marker": marker(look[arm], size=7),
            "hovertemplate": "\N{GREEK SMALL LETTER SIGMA} %{x:.3g}<br>direction %{y:.3g}",
        }
        for arm, steps in directions.items()
    ]
    style = layout("noise level \N{GREEK SMALL LETTER SIGMA}", "mean direction size (RMS in x0)")
    # Sampling starts at the highest noise, so it reads from left to right.
    style["xaxis"] |= {"type": "log", "autorange": "reversed", "dtick": 1, "exponentformat": "power"}
    style["yaxis"]["rangemode"] = "tozero"
    return {"data": data, "layout": style}


def calibration_figure(rates: Rates) -> dict[str, Any] | None:
    """Plotly figure: mean P(malformed) of a bin along x, the rate that people saw along y; None without labels."""
    if rates.calibration is None:
        return None
    look = Look(NEUTRAL, "circle", "solid")
    mark = f" ({SIMULATED})" if rates.calibration.simulated else ""
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "perfect calibration",
            "x": [0, 1],
            "y": [0, 1],
            "line": {"color": BASELINE, "dash": "dot", "width": 1},
            "hoverinfo": "skip",
        }
    ]
    for k, found in enumerate(rates.calibration.bins):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"labels{mark}",
                "showlegend": k == 0,
                "x": [found.score],
                "y": [found.rate.value],
                "error_y": error_bars([found.rate], look),
                "marker": marker(look, size=10),
                "hovertemplate": f"P(malformed) %{{x:.3f}}<br>people: %{{y:.3f}} ({found.rate.low:.3f} to "
                f"{found.rate.high:.3f}), {found.rate.n} images<extra></extra>",
            }
        )
    return {"data": data, "layout": layout("mean P(malformed)", f"rate of malformed humans{mark}")}


def good_corner(x: str, y: str) -> str:
    """Where in a plot of two metrics the good ends of both lie: `Up and to the right is better.`

    Shift has no good end: it is the price, and less of it is better.
    """
    right, up = (metric(name).better == "higher" for name in (x, y))
    return f"{'Up' if up else 'Down'} and to the {'right' if right else 'left'} is better."


def frontier_figure(comparison: Comparison, x: str, y: str) -> dict[str, Any]:
    """Plotly figure: a line with error bars for every family, its scales at its arms in their order."""
    x_title, y_title = (_axis_title(metric(AXES.get(name, name))) for name in (x, y))
    known, shades = family_looks(comparison), looks(comparison)
    data = []
    for frontier in comparison.frontiers:
        look = known.get(frontier.family, shades[comparison.baseline])
        xs, ys = ([getattr(point, name) for point in frontier.points] for name in (x, y))
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers+text",
                "name": frontier.family,
                "x": [value.value for value in xs],
                "y": [value.value for value in ys],
                "error_x": error_bars(xs, look),
                "error_y": error_bars(ys, look),
                "line": {"color": look.colour, "dash": look.dash, "width": 2},
                "marker": marker(look, size=10) | {"color": [shades[point.arm].colour for point in frontier.points]},
                "text": [f"{point.scale:g}" for point in frontier.points],
                "textposition": "top left",
                "customdata": [point.arm for point in frontier.points],
                "hovertemplate": f"%{{customdata}}, scale %{{text}}<br>{x_title} %{{x:.4g}}<br>{y_title} %{{y:.4g}}",
            }
        )
    return {"data": data, "layout": layout(x_title, y_title)}


def trade_off_figure(comparison: Comparison) -> dict[str, Any]:
    """Plotly figure: aesthetic score over shift for every family, with the point where all have the same shift.

    Families without the baseline's prompts are left out: they have another start.
    """
    told = {arm.family for arm in told_arms(comparison)}
    compared = comparison.model_copy(update={"frontiers": [one for one in comparison.frontiers if one.family in told]})
    figure = frontier_figure(compared, "shift", "aesthetic")
    known = family_looks(comparison)
    for family, level, values in equal_strength(compared):
        figure["data"].append(
            {
                "type": "scatter",
                "mode": "markers",
                "showlegend": False,
                "name": f"{family} at equal shift",
                "x": [level],
                "y": [values["aesthetic"].value],
                "error_y": error_bars([values["aesthetic"]], known[family]),
                "marker": marker(known[family], size=14) | {"symbol": "circle-open"},
                "hovertemplate": "shift %{x:.3g}<br>aesthetic score %{y:.3g}",
            }
        )
    figure["layout"]["xaxis"]["rangemode"] = "tozero"
    return figure


def equal_strength(comparison: Comparison) -> list[tuple[str, float, dict[str, Interval]]]:
    """(family, shift, its numbers there) of every family that reaches the shift at which families are compared."""
    return [
        (frontier.family, matched.level, matched.values)
        for frontier in comparison.frontiers
        for matched in frontier.matched
        if matched.axis == "shift" and "aesthetic" in matched.values
    ]


def _axis_title(row: Metric) -> str:
    return f"{row.label} to the reference set" if row.level == "set" and row.better == "lower" else row.in_words


def alignment_figure(alignment: Alignment) -> dict[str, Any]:
    """Plotly figure: the cosine between every two references over noise level, with its interval as a band."""
    names = [" and ".join(map(_push, pair.references)) for pair in alignment.pairs]
    figure = over_noise(
        names,
        [pair.steps for pair in alignment.pairs],
        "cosine",
        _told_apart([push_colour(pair.references) for pair in alignment.pairs]),
    )
    figure["layout"]["yaxis"]["range"] = [-0.3, 1.02]
    return figure


def action_figure(alignment: Alignment) -> dict[str, Any]:
    """Plotly figure: |main - reference| / |main| of every reference over noise level."""
    names = [action.reference for action in alignment.actions]
    looked = _told_apart([push_colour([name]) for name in names])
    figure = over_noise(
        list(map(_push, names)), [action.steps for action in alignment.actions], "relative size of the push", looked
    )
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def _push(reference: str) -> str:
    """The push away from a reference, as people call it."""
    return {"empty": "CFG", "negative": "negative prompt", "guide": "weaker network"}.get(reference, reference)


def _told_apart(colours: Sequence[str]) -> list[Look]:
    """Looks of these colours, each with its own symbol and dash."""
    return [Look(colour, _SYMBOLS[k % len(_SYMBOLS)], _DASHES[k % len(_DASHES)]) for k, colour in enumerate(colours)]


def over_noise(
    names: Sequence[str], lines: Sequence[Sequence[TraceStep]], y_title: str, known: Sequence[Look]
) -> dict[str, Any]:
    """Plotly figure: a line with intervals for every name, over noise level from high to low."""
    data: list[dict[str, Any]] = []
    for name, steps, look in zip(names, lines, known, strict=True):
        # Sigma 0 has no logarithm.
        shown = [step for step in steps if step.sigma > 0]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [step.sigma for step in shown],
                "y": [step.value.value for step in shown],
                "error_y": error_bars([step.value for step in shown], look),
                "line": {"color": look.colour, "dash": look.dash, "width": 2},
                "marker": marker(look, size=7),
                "hovertemplate": "\N{GREEK SMALL LETTER SIGMA} %{x:.3g}<br>" + y_title + " %{y:.3g}",
            }
        )
    style = layout("noise level \N{GREEK SMALL LETTER SIGMA}", y_title)
    style["xaxis"] |= {"type": "log", "autorange": "reversed", "dtick": 1, "exponentformat": "power"}
    return {"data": data, "layout": style}


def numbered_symbol(k: int) -> str:
    """The symbol of the k-th of several things that share a plot."""
    return _SYMBOLS[k % len(_SYMBOLS)]


def _scatter(
    points: Sequence[tuple[ComparedArm, Interval, Interval]], look: dict[str, Look], x_title: str, y_title: str
) -> dict[str, Any]:
    data = [*_sweeps(points)]
    for arm, x, y in points:
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": arm.arm,
                "text": [f"{arm.scale:g}"],
                "textposition": "top left",
                "x": [x.value],
                "y": [y.value],
                "error_x": error_bars([x], look[arm.arm]),
                "error_y": error_bars([y], look[arm.arm]),
                "marker": marker(look[arm.arm], size=12),
                "hovertemplate": f"{x_title} %{{x:.4g}} ({x.low:.4g} to {x.high:.4g})<br>"
                f"{y_title} %{{y:.4g}} ({y.low:.4g} to {y.high:.4g})",
            }
        )
    return {"data": data, "layout": layout(x_title, y_title)}


def _sweeps(points: Sequence[tuple[ComparedArm, Interval, Interval]]) -> list[dict[str, Any]]:
    """Thin lines through the arms of one family, in order of their scale."""
    groups: dict[str, list[tuple[ComparedArm, Interval, Interval]]] = {}
    for point in points:
        arm = point[0]
        groups.setdefault(arm.family, []).append(point)
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [x.value for _, x, _ in group],
            "y": [y.value for _, _, y in group],
            "line": {"color": BASELINE, "dash": "dot", "width": 1},
            "showlegend": False,
            "hoverinfo": "skip",
        }
        for group in (sorted(points, key=lambda point: point[0].scale) for points in groups.values())
        if len(group) > 1
    ]


def error_bars(intervals: Sequence[Interval], look: Look) -> dict[str, Any]:
    """Plotly's error bars from the values to the ends of their intervals."""
    # A percentile interval may lie beside its value; plotly knows no negative lengths.
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, interval.high - interval.value) for interval in intervals],
        "arrayminus": [max(0.0, interval.value - interval.low) for interval in intervals],
        "color": look.colour,
        "thickness": 1.5,
        "width": 4,
    }


def marker(look: Look, size: int) -> dict[str, Any]:
    """A marker of that look."""
    # The grey rim keeps yellow and light blue visible on white.
    return {"color": look.colour, "symbol": look.symbol, "size": size, "line": {"color": "#6B6B6B", "width": 1}}


def layout(x_title: str, y_title: str) -> dict[str, Any]:
    """What all plots share. The page adds to the height what its legend takes (plots.js)."""
    grid = {"gridcolor": "rgba(128,128,128,0.22)", "linecolor": "#808080", "zeroline": False, "showline": True}
    return {
        "xaxis": {**grid, "title": {"text": x_title, "standoff": 8}, "automargin": True},
        "yaxis": {**grid, "title": {"text": y_title, "standoff": 8}, "automargin": True},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        # The template's stylesheet replaces this grey by the theme's own.
        "font": {"color": "#808080", "family": "system-ui, sans-serif", "size": 13},
        # Plotly would give it half of the height and a scroll bar.
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "maxheight": 1},
        "height": 390,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "showlegend": True,
        "hovermode": "closest",
    }


def direction_by_noise(traces: Path, arms: Iterable[str]) -> dict[str, list[tuple[float, float]]]:
    """For each arm, (sigma, direction averaged over its images) at every step, from high noise to low.

    Steps whose sigma has no logarithm are left out. Raises InputError where a trace is missing or unreadable.
    """
    result = {}
    for arm in arms:
        trace = read_set(traces / arm, ["step", "sigma", "direction"])
        means = trace.group_by("step").aggregate([("sigma", "mean"), ("direction", "mean")]).sort_by("step")
        steps = zip(means["sigma_mean"].to_pylist(), means["direction_mean"].to_pylist(), strict=True)
        result[arm] = [(s, size) for s, size in steps if s > 0 and math.isfinite(s) and math.isfinite(size)]
    return result
