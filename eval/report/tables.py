"""The tables of the report: a row an arm, a column a number with its interval."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from eval.notation import decimals, number, span
from pipeline.comparison import ComparedArm, Interval


@dataclass(frozen=True)
class Column:
    """A column of intervals. `better` says which end is the good one; None where neither is."""

    key: str
    label: str
    better: Literal["higher", "lower"] | None = None
    signed: bool = False


@dataclass(frozen=True)
class Cell:
    """One interval of a table, ready to print; `value` is what sorting uses."""

    value: float
    text: str
    span: str
    n: int
    best: bool


SCORE_COLUMNS = (
    Column("fd", "FD", "lower"),
    Column("precision", "Precision", "higher"),
    Column("recall", "Recall", "higher"),
    Column("density", "Density", "higher"),
    Column("coverage", "Coverage", "higher"),
    Column("clip_score", "CLIP score", "higher"),
    Column("aesthetic", "Aesthetic", "higher"),
    Column("malformed", "P(malformed)", "lower"),
)
SHIFT_COLUMNS = (
    Column("fd", "FD to baseline"),
    Column("drift", "Drift"),
    Column("contraction", "Contraction"),
    Column("spread_ratio", "Spread ratio"),
    Column("clip_score", "Δ CLIP score", signed=True),
    Column("aesthetic", "Δ Aesthetic", signed=True),
    Column("malformed", "Δ P(malformed)", signed=True),
)


def score_columns(names: Iterable[str]) -> list[Column]:
    """A column for each score of `names`: the known ones first and in their order, others under their own name."""
    names = list(names)
    known = [column for column in SCORE_COLUMNS if column.key in names]
    return [*known, *(Column(name, name) for name in names if name not in {column.key for column in known})]


def table(
    rows: Sequence[tuple[ComparedArm, Mapping[str, Interval]]], columns: Sequence[Column]
) -> list[tuple[ComparedArm, list[Cell]]]:
    """A row of cells an arm; equal best values are all marked, and none where there is nothing to compare."""
    cells: list[list[Cell]] = [[] for _ in rows]
    for column in columns:
        intervals: list[Interval] = [numbers[column.key] for _, numbers in rows]
        values = [interval.value for interval in intervals]
        places = decimals(values)
        best = None
        if column.better is not None and len(set(values)) > 1:
            best = max(values) if column.better == "higher" else min(values)
        for row, interval in zip(cells, intervals, strict=True):
            text = number(interval.value, places, column.signed)
            ends = span(interval, places, column.signed)
            row.append(Cell(interval.value, text, ends, interval.n, interval.value == best))
    return [(arm, row) for (arm, _), row in zip(rows, cells, strict=True)]
