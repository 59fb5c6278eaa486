"""The report's section on what each feature space says about every arm."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from eval.notation import number, p_value, percent, quoted, span
from eval.report.figures import Look, error_bars, layout, looks, marker, numbered_symbol
from pipeline.results.colours import BASELINE
from pipeline.results.comparison import UNDECIDED, ComparedArm, ComparedSpace, Comparison, InSpace
from pipeline.results.floor import floor_between
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric


@dataclass(frozen=True)
class Finding:
    """What is asked in every space: a field of InSpace, and the metric that has the question.

    Distances are shown in floors, since each space has its own units: `floor` is the field of Floor that is one, and
    `{floor}` in the note stands for the two sets that shifts are counted in.
    """

    field: str
    metric: str
    title: str
    note: str
    floor: Literal["shift", "fd"] | None = None
    signed: bool = False


FINDINGS = (
    Finding(
        "shift",
        "shift_fd",
        "Shift",
        "FD to the baseline; one floor is that of {floor}.",
        floor="shift",
    ),
    Finding(
        "spread_ratio", "shift_spread_ratio", "Spread", "Variance divided by that of the baseline; below 1 is narrower."
    ),
    Finding(
        "distance",
        "fd",
        "Distance to real images",
        "Difference of the FDs to the reference set, arm minus baseline; one floor is that of as many real images, and "
        "below 0 is closer.",
        floor="fd",
        signed=True,
    ),
    Finding("variety", "recall", "Variety", "Difference of recall, arm minus baseline.", signed=True),
)


@dataclass(frozen=True)
class SpaceCell:
    """A finding about one arm in one space, ready to print; `value` is what sorting uses.

    `seen` is empty where the finding is decided; `hover` has the numbers in the space's own units.
    """

    value: float
    text: str
    span: str
    word: str
    decided: bool
    seen: str
    hover: str


@dataclass(frozen=True)
class SpaceTable:
    """One finding: a row per guided arm, a cell per space."""

    key: str
    title: str
    note: str
    rows: list[tuple[ComparedArm, list[SpaceCell]]]


def space_rows(comparison: Comparison, readers: Collection[str]) -> list[dict[str, str]]:
    """What each space is; `readers` are the extractors that read text."""
    return [
        {
            "name": space.name,
            "extractor": space.extractor,
            "compared": ("unit vectors, " if space.unit else "")
            + (f"{space.components} principal components" if space.components else "all dimensions"),
            "explained": percent(space.explained),
            "floor": quoted(space.floor.fd),
            "between_sets": quoted(space.floor.between_sets),
            "other_seeds": quoted(space.floor.other_seeds) if space.floor.other_seeds is not None else "",
            "reads": "yes" if space.extractor in readers else "no",
        }
        for space in comparison.spaces
    ]


def space_tables(comparison: Comparison) -> list[SpaceTable]:
    """Every finding in every space; an undecided one with the difference that this many images show."""
    words = {
        (one.arm, answer.topic, space): word
        for one in comparison.verdicts
        for answer in one.verdicts
        for space, word in answer.spaces.items()
    }
    tables = []
    for finding in FINDINGS:
        topic = metric(finding.metric).asked.topic
        rows = [
            (
                arm,
                [
                    _cell(
                        finding, space, against.spaces[space.name], words.get((arm.arm, topic, space.name), UNDECIDED)
                    )
                    for space in comparison.spaces
                ],
            )
            for arm, against in comparison.guided
        ]
        note = finding.note.format(floor=floor_between(comparison))
        tables.append(SpaceTable(finding.field, finding.title, note, rows))
    return tables


def _cell(finding: Finding, space: ComparedSpace, own: InSpace, word: str) -> SpaceCell:
    key = metric(finding.metric).asked.key
    interval: Interval = getattr(own, finding.field)
    unit: float = getattr(space.floor, finding.floor).value if finding.floor else 1.0
    shown = _times(interval, 1 / unit)
    places = _places(shown)
    decided = word != UNDECIDED
    own_units = f"{quoted(interval, finding.signed)} squared feature units, " if finding.floor else ""
    return SpaceCell(
        value=shown.value,
        text=number(shown.value, places, finding.signed),
        span=span(shown, places, finding.signed),
        word=word,
        decided=decided,
        seen="" if decided else _seen(finding, own.detectable[key] / unit, places),
        hover=f"{own_units}p {p_value(own.adjusted_p[key])}, N = {interval.n}",
    )


def _seen(finding: Finding, least: float, places: int) -> str:
    """From what difference on the finding is decided in four of five repetitions."""
    if metric(finding.metric).asked.neutral == 1:
        return f"seen below {number(1 / least, places)} or above {number(least, places)}"
    return f"seen from {'±' if finding.signed else ''}{number(least, places)} on"


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor, interval.n)


def _places(interval: Interval) -> int:
    """How many decimals, at most 3, show two digits of the interval's width."""
    width = interval.high - interval.low
    return min(3, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else 2


def shift_by_space_figure(comparison: Comparison) -> dict[str, Any]:
    """Plotly figure: the shift in floors along x, one row per guided arm, one symbol per space.

    A shift of 0 has no place on a logarithmic axis.
    """
    data = []
    colours = {name: look.colour for name, look in looks(comparison).items()}
    for k, space in enumerate(comparison.spaces):
        found = {
            arm.arm: _times(against.spaces[space.name].shift, 1 / space.floor.shift.value)
            for arm, against in comparison.guided
        }
        shown = {arm: interval for arm, interval in found.items() if interval.value > 0}
        look = Look(BASELINE, numbered_symbol(k), "solid")
        bars = error_bars(list(shown.values()), look)
        # What reaches down to 0 is drawn to the next power of ten.
        bars["arrayminus"] = [
            min(length, 0.9 * interval.value)
            for length, interval in zip(bars["arrayminus"], shown.values(), strict=True)
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "orientation": "h",
                "name": space.name,
                "x": [interval.value for interval in shown.values()],
                "y": list(shown),
                "error_x": bars,
                "marker": marker(look, size=10) | {"color": [colours[arm] for arm in shown]},
                "hovertemplate": "%{y}: %{x:.3g} floors",
            }
        )
    style = layout("shift in floors", "")
    style["xaxis"] |= {"type": "log", "dtick": 1, "minor": {"showgrid": False, "ticks": "outside"}}
    # The first arm on top, as in the tables, also where a space shows nothing of it.
    names = [arm.arm for arm, _ in comparison.guided]
    style["yaxis"] |= {"type": "category", "categoryarray": names, "autorange": "reversed", "showgrid": False}
    style["shapes"] = [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": 1,
            "x1": 1,
            "y0": 0,
            "y1": 1,
            "line": {"color": "#808080", "dash": "dot", "width": 1},
        }
    ]
    # The spaces of an arm lie below each other.
    style |= {"scattermode": "group", "scattergap": 0.4, "height": 90 + 18 * len(names) * len(comparison.spaces)}
    return {"data": data, "layout": style}
