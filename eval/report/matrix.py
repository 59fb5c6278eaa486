"""The matrix of verdicts: arms by questions, how much in every cell, and whether the numbers settle it.

How much and how sure are kept apart: a cell shows a size, and one whose sign is open is grey, whatever its size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.notation import number, span
from pipeline.results.answer import told_arms, untold_arms
from pipeline.results.comparison import UNDECIDED, AgainstBaseline, ComparedArm, Comparison, Verdict
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric


@dataclass(frozen=True)
class MatrixColumn:
    """A question; `unit` says what its numbers count, `neutral` is the number that changes nothing."""

    topic: str
    unit: str
    neutral: float


@dataclass(frozen=True)
class MatrixCell:
    """How much, with its one interval; `settled` is whether its sign is, `apart` whether feature spaces contradict it.

    `word` is the verdict in words, with what lies behind it.
    """

    interval: Interval
    text: str
    span: str
    settled: bool
    apart: bool
    word: str


@dataclass(frozen=True)
class MatrixRow:
    """An arm's cells; None where a question was not asked. `caution` is what to know before reading them."""

    arm: ComparedArm
    cells: list[MatrixCell | None]
    cost: str
    caution: str


@dataclass(frozen=True)
class Matrix:
    """`told` arms got the baseline's prompts; `untold` ones did not, and are compared among themselves."""

    columns: list[MatrixColumn]
    told: list[MatrixRow]
    untold: list[MatrixRow]


_Number = Callable[[AgainstBaseline], Interval]
# The scores of single images that have a question, with what their numbers count.
_SCORES = {"aesthetic": "score", "malformed": "share", "clip_score": "score"}


def matrix(comparison: Comparison) -> Matrix:
    """The verdicts of every guided arm that is not a control."""
    primary = comparison.spaces[0]
    between, to_real = primary.floor.shift.value, primary.floor.fd.value
    asked: list[tuple[str, str, _Number]] = [
        ("shift_fd", "floors", lambda own: _over(own.fd, between)),
        ("shift_spread_ratio", "times", lambda own: own.spread_ratio),
        ("fd", "floors", lambda own: _over(own.reference_fd, to_real)),
        ("recall", "share", lambda own: own.spaces[primary.name].variety),
        *((name, unit, _score(name)) for name, unit in _SCORES.items() if _is_asked(comparison, name)),
    ]
    columns = [MatrixColumn(metric(name).asked.topic, unit, metric(name).asked.neutral) for name, unit, _ in asked]
    verdicts = {one.arm: one.verdicts for one in comparison.verdicts}
    numbers = [read for _, _, read in asked]

    def rows(arms: Sequence[ComparedArm], told: bool) -> list[MatrixRow]:
        """Digits are those of the column, so that numbers stand below each other."""
        guided = [(arm, arm.against_baseline) for arm in arms if arm.against_baseline]
        by_column = []
        for column, read in zip(columns, numbers, strict=True):
            found = [read(own) for _, own in guided]
            places = _places([one.value for one in found])
            asked_of = {} if column.topic == metric("clip_score").asked.topic and not told else verdicts
            by_column.append(
                [
                    _cell(column, one, places, _of(asked_of.get(arm.arm, []), column.topic), primary.name)
                    for (arm, _), one in zip(guided, found, strict=True)
                ]
            )
        return [
            MatrixRow(
                arm,
                [cells[k] for cells in by_column],
                _evaluations(arm, comparison),
                _caution(verdicts.get(arm.arm, [])),
            )
            for k, (arm, _) in enumerate(guided)
        ]

    return Matrix(columns, rows(told_arms(comparison), True), rows(untold_arms(comparison), False))


def _score(name: str) -> _Number:
    def read(own: AgainstBaseline) -> Interval:
        change: Interval = getattr(own, name)
        return change

    return read


def _is_asked(comparison: Comparison, name: str) -> bool:
    asked = comparison.prompted or name != "clip_score"
    return asked and all(getattr(own, name) is not None for _, own in comparison.guided)


def _cell(column: MatrixColumn, one: Interval, places: int, verdict: Verdict | None, primary: str) -> MatrixCell | None:
    if verdict is None:
        return None
    signed = column.neutral == 0 and column.topic != metric("shift_fd").asked.topic
    decided = {word for word in verdict.spaces.values() if word != UNDECIDED}
    said = [verdict.verdict, verdict.numbers, *(f"{space}: {word}" for space, word in verdict.spaces.items())]
    return MatrixCell(
        interval=one,
        text=number(one.value, places, signed),
        span=span(one, places, signed),
        settled=verdict.spaces.get(primary, verdict.verdict) != UNDECIDED,
        apart=len(decided) > 1,
        word="; ".join(said),
    )


def _places(values: Sequence[float]) -> int:
    """Two digits of the column's middle number, and four decimals at most."""
    sizes = sorted(abs(value) for value in values if value)
    return min(4, max(0, 1 - math.floor(math.log10(sizes[len(sizes) // 2])))) if sizes else 2


def _over(one: Interval, unit: float) -> Interval:
    # Without a floor the distance stays in its own units.
    return Interval(one.value / unit, one.low / unit, one.high / unit, one.n) if unit else one


def _of(verdicts: Sequence[Verdict], topic: str) -> Verdict | None:
    return next((one for one in verdicts if one.topic == topic), None)


def _evaluations(arm: ComparedArm, comparison: Comparison) -> str:
    base = comparison.by_name(comparison.baseline).cost
    return f"{arm.cost.nfe_per_image / base.nfe_per_image:.2g}×" if arm.cost and base else "not known"


def _caution(verdicts: Sequence[Verdict]) -> str:
    """That an arm does nothing, or that its images repeat; the verdict about the reference set is not the arm's."""
    return "; ".join(one.verdict for one in verdicts if one.topic in ("Effect", "Images"))
