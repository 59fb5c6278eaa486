"""The three small figures of the first screen, as positions that a template draws in SVG.

A panel has one row per arm (or per two directions) and one or more strips, each with its own axis. Drawn here and
not by plotly.js, they are there with the first paint, print as they are and can be saved as one file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from eval.notation import percent
from pipeline.results.answer import cosine, direction, family_arms, size, told_arms
from pipeline.results.colours import arm_colours, push_colour
from pipeline.results.comparison import ComparedArm, Comparison
from pipeline.results.floor import floors, has_other_seeds
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.study.from_folder import EXTERNAL

# In pixels of the drawing, which a phone shows at nine tenths of its size.
WIDTH = 400
ROW = 17
# Above the rows, where strips have titles and where they have none.
TOP, UNTITLED = 22, 6
AXIS = 22
# What a letter of a label takes, and the most that all of them may.
LETTER, MOST_LABEL = 6.8, 160
# The numbers at the right end of a row.
NUMBERS = 58
GAP = 14
# With more arms each family is shown by one of them.
MOST_ROWS = 9


@dataclass(frozen=True)
class Mark:
    """A dot at (x, y) with its interval; hollow where the number is undecided or of another than the primary space."""

    x: float
    y: float
    low: float
    high: float
    colour: str
    hollow: bool
    title: str


@dataclass(frozen=True)
class Tick:
    """A number below an axis; `anchor` is the end or the middle of the text, empty for its start."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Strip:
    """An axis from `left` to `right`, and where the number lies that others are compared with, with the ends of its
    interval if it has one."""

    left: float
    right: float
    title: str
    ticks: list[Tick]
    neutral: float
    band: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """A row's label and its numbers, and where it lies."""

    label: str
    colour: str
    y: float
    numbers: str


@dataclass(frozen=True)
class Panel:
    """A small figure; `note` says what a reader needs beside its title, `head` what the rows' numbers are."""

    key: str
    title: str
    note: str
    rows: list[Row]
    strips: list[Strip]
    marks: list[Mark] = field(default_factory=list)
    head: str = ""
    width: int = WIDTH
    top: int = TOP
    axis: int = AXIS

    @property
    def height(self) -> float:
        return self.top + ROW * len(self.rows) + self.axis

    @property
    def spoken(self) -> str:
        """The panel for those who do not see it."""
        return "; ".join(f"{row.label}: {row.numbers}" for row in self.rows)


def panels(comparison: Comparison) -> list[Panel]:
    """The small figures that the study has numbers for."""
    found = (_direction_panel(comparison), _shift_panel(comparison), _price_panel(comparison))
    return [panel for panel in found if panel is not None]


def shown_arms(comparison: Comparison) -> list[ComparedArm]:
    """The arms of the first screen, family by family in order of their scale; one per family where they are many."""
    arms = told_arms(comparison)
    if len(arms) > MOST_ROWS:
        return family_arms(comparison)[:MOST_ROWS]
    families = list(dict.fromkeys(arm.family for arm in arms))
    return sorted(arms, key=lambda arm: (families.index(arm.family), arm.scale))


def arm_label(arm: ComparedArm) -> str:
    """An arm's family and scale; the name of an external one, whose scale no one here knows."""
    return arm.arm if arm.method == EXTERNAL else f"{arm.family} {arm.scale:g}"


def _direction_panel(comparison: Comparison) -> Panel | None:
    found = direction(comparison)
    if found is None:
        return _elsewhere_panel(comparison)
    asked = (
        ("negative", "guide", "negative, weaker network"),
        ("empty", "guide", "CFG, weaker network"),
        ("negative", "empty", "negative, CFG"),
    )
    known = [(label, push_colour((a, b)), value) for a, b, label in asked if (value := cosine(found, a, b)) is not None]
    least = min(0.0, *(value.low for _, _, value in known))
    return _one_strip(
        "direction",
        "Same direction?",
        f"Cosine of two pushes along the images of {found.arm}.",
        [(label, colour, f"{value.value:.2f}", [(value, False, _spoken(value))]) for label, colour, value in known],
        _Linear(least, 1.0),
        [(0.0, "0 unrelated"), (1.0, "1 the same")],
        1.0,
    )


def _elsewhere_panel(comparison: Comparison) -> Panel | None:
    """Without probes, how much of each push is CFG's."""
    arms = [arm for arm in shown_arms(comparison) if arm.effective]
    if not arms:
        return None
    colours = arm_colours(comparison.arms, comparison.baseline)
    rows = [
        (arm_label(arm), colours[arm.arm], percent(one.value), [(one, False, _spoken(one))])
        for arm in arms
        if arm.effective and (one := arm.effective.elsewhere)
    ]
    ticks = [(0.0, "0 all CFG’s"), (1.0, "1 none of it")]
    note = "Share of the squared push across CFG’s own direction."
    return _one_strip("direction", "Same direction as CFG?", note, rows, _Linear(0, 1), ticks, 0.0)


def _shift_panel(comparison: Comparison) -> Panel | None:
    arms = shown_arms(comparison)
    colours = arm_colours(comparison.arms, comparison.baseline)
    primary = comparison.spaces[0].name
    rows = []
    for arm in arms:
        assert arm.against_baseline is not None
        shifts = {name: one for name, one in floors(comparison, arm.against_baseline).items() if one.value > 0}
        values = [one.value for one in shifts.values()]
        numbers = _range(min(values), max(values)) if values else "0"
        marks = [(one, name != primary, f"{name}: {_spoken(one)}") for name, one in reversed(shifts.items())]
        rows.append((arm_label(arm), colours[arm.arm], numbers, marks))
    everywhere = [one.value for _, _, _, marks in rows for one, _, _ in marks]
    if not everywhere:
        return None
    axis = _Log(min(0.5, *everywhere) / 1.3, max(2.0, *everywhere) * 1.3)
    ticks = [(10.0**k, f"{10.0**k:g}") for k in range(math.ceil(axis.low), math.floor(axis.high) + 1)]
    base = comparison.by_name(comparison.baseline)
    if has_other_seeds(comparison):
        head, one = f"1: {base.arm}, other seeds", f"{base.arm} from other seeds"
    else:
        head, one = "1: two sets of real images", f"two sets of {base.n} real images"
    shared = ", same seeds" if comparison.row_word == "seed" else ""
    note = (
        f"Fréchet distance to {base.arm}{shared}; 1: {one}, its interval grey. Filled: {primary}; hollow: other spaces."
    )
    floor = comparison.spaces[0].floor.shift
    band = (floor.low / floor.value, floor.high / floor.value) if floor.value > 0 else None
    title = (
        "How far apart are they?" if comparison.baseline in comparison.external else "Does it shift the distribution?"
    )
    return _one_strip("shift", title, note, rows, axis, ticks, 1.0, head, band)


def _price_panel(comparison: Comparison) -> Panel | None:
    """Changes of the scores that have a good end, each on its own axis, and the price in evaluations."""
    arms, base = shown_arms(comparison), comparison.by_name(comparison.baseline)
    if not arms:
        return None
    colours = arm_colours(comparison.arms, comparison.baseline)
    asked = ["aesthetic", *(["clip_score"] if comparison.prompted else [])]
    names = [name for name in asked if all(getattr(arm.against_baseline, name) is not None for arm in arms)]
    if not names:
        return _nearness_panel(comparison, arms)
    left = _label_width([arm_label(arm) for arm in arms])
    room = (WIDTH - left - NUMBERS - GAP * (len(names) - 1)) / len(names)
    strips, marks = [], []
    for k, name in enumerate(names):
        changes = [getattr(arm.against_baseline, name) for arm in arms]
        least, most = min(0.0, *(one.low for one in changes)), max(0.0, *(one.high for one in changes))
        begin = left + k * (room + GAP)
        axis = _Linear(least, most) if most > least else _Linear(-1, 1)
        ends = [(value, _signed(value)) for value in _round_ends(least, most)]
        ticks = _ticks(ends, axis, begin, begin + room)
        strips.append(Strip(begin, begin + room, f"Δ {metric(name).label}", ticks, axis.place(0, begin, begin + room)))
        for row, (arm, change) in enumerate(zip(arms, changes, strict=True)):
            assert arm.against_baseline is not None
            undecided = arm.against_baseline.adjusted_p[metric(name).asked.key] >= 1 - comparison.level
            title = f"{arm.arm}, {metric(name).in_words}: {_spoken(change)}" + (", undecided" if undecided else "")
            marks.append(_mark(change, _y(row), axis, begin, begin + room, colours[arm.arm], undecided, title))
    rows = [Row(arm_label(arm), colours[arm.arm], _y(row), _evaluations(arm, base)) for row, arm in enumerate(arms)]
    note = f"Change from {base.arm}; hollow: cannot be told apart from 0. Cost: network evaluations, {base.arm} 1×."
    return Panel("price", "What does it cost and bring?", note, rows, strips, marks, head="cost")


def _nearness_panel(comparison: Comparison, arms: Sequence[ComparedArm]) -> Panel:
    """Of arms without scores of single images: how far every one lies from the real ones, the baseline among them."""
    colours = arm_colours(comparison.arms, comparison.baseline)
    unit = comparison.spaces[0].floor.fd.value or 1.0
    rows: list[_Shown] = []
    for arm in (comparison.by_name(comparison.baseline), *arms):
        own = arm.scores["fd"]
        one = Interval(own.value / unit, own.low / unit, own.high / unit, own.n)
        rows.append((arm.arm, colours[arm.arm], size(one.value), [(one, False, f"{arm.arm}: {_spoken(one)}")]))
    everywhere = [one for _, _, _, marks in rows for one, _, _ in marks]
    axis = _Log(min(0.5, *(one.value for one in everywhere)) / 1.3, max(2.0, *(one.high for one in everywhere)) * 1.3)
    ticks = [(10.0**k, f"{10.0**k:g}") for k in range(math.ceil(axis.low), math.floor(axis.high) + 1)]
    note = f"Fréchet distance to the reference set in {comparison.spaces[0].name}."
    head = "1: as many real images"
    return _one_strip("nearness", "How far from real images?", note, rows, axis, ticks, 1.0, head)


def _evaluations(arm: ComparedArm, base: ComparedArm) -> str:
    if arm.cost is None or base.cost is None:
        return "not known"
    return f"{arm.cost.nfe_per_image / base.cost.nfe_per_image:.2g}×"


@dataclass(frozen=True)
class _Linear:
    low: float
    high: float

    def place(self, value: float, left: float, right: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return left + min(1.0, max(0.0, share)) * (right - left)


class _Log(_Linear):
    def __init__(self, low: float, high: float):
        super().__init__(math.log10(low), math.log10(high))

    def place(self, value: float, left: float, right: float) -> float:
        # What reaches down to 0 ends at the axis.
        return super().place(math.log10(value) if value > 0 else self.low, left, right)


_Shown = tuple[str, str, str, list[tuple[Interval, bool, str]]]


def _one_strip(
    key: str,
    title: str,
    note: str,
    rows: Sequence[_Shown],
    axis: _Linear,
    ticks: Sequence[tuple[float, str]],
    neutral: float,
    head: str = "",
    band: tuple[float, float] | None = None,
) -> Panel:
    left, right = _label_width([label for label, *_ in rows]), WIDTH - NUMBERS
    top = TOP if head else UNTITLED
    ends = None if band is None else (axis.place(band[0], left, right), axis.place(band[1], left, right))
    return Panel(
        key,
        title,
        note,
        [Row(label, colour, _y(row, top), numbers) for row, (label, colour, numbers, _) in enumerate(rows)],
        [Strip(left, right, head, _ticks(ticks, axis, left, right), axis.place(neutral, left, right), ends)],
        [
            _mark(one, _y(row, top), axis, left, right, colour, hollow, said)
            for row, (_, colour, _, marks) in enumerate(rows)
            for one, hollow, said in marks
        ],
        top=top,
    )


def _ticks(ticks: Sequence[tuple[float, str]], axis: _Linear, left: float, right: float) -> list[Tick]:
    found = []
    for value, text in ticks:
        x = axis.place(value, left, right)
        half = LETTER * len(text) / 2
        anchor = "" if x - half < left - GAP else "end" if x + half > right + GAP else "middle"
        found.append(Tick(round(x, 1), text, anchor))
    return found


def _mark(
    one: Interval, y: float, axis: _Linear, left: float, right: float, colour: str, hollow: bool, title: str
) -> Mark:
    x, low, high = (round(axis.place(value, left, right), 1) for value in (one.value, one.low, one.high))
    return Mark(x, y, low, high, colour, hollow, title)


def _y(row: int, top: int = TOP) -> float:
    return top + ROW * (row + 0.5)


def _label_width(labels: Sequence[str]) -> float:
    return min(MOST_LABEL, 8 + LETTER * max(map(len, labels)))


def _range(least: float, most: float) -> str:
    ends = list(dict.fromkeys((size(least), size(most))))
    return "\N{EN DASH}".join(ends)


def _spoken(one: Interval) -> str:
    return f"{one.value:.3g} ({one.low:.3g} to {one.high:.3g})".replace("-", "\N{MINUS SIGN}")


def _signed(value: float) -> str:
    return f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _round_ends(least: float, most: float) -> list[float]:
    """Round numbers near the ends of an axis, and 0."""
    ends = []
    for end in (least, most):
        if abs(end) < 0.15 * (most - least):
            continue
        power = 10 ** math.floor(math.log10(abs(end)))
        ends.append(math.copysign(math.floor(abs(end) / power) * power, end))
    return sorted({0.0, *ends})
