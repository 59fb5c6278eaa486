"""The tables of the report: one row per arm, one column per number with its interval."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from eval.notation import decimals, number, span
from pipeline.results.comparison import ComparedArm
from pipeline.results.interval import Interval
from pipeline.results.metrics import End, Metric, best_of, metric, of_level, of_space, shown_in


@dataclass(frozen=True)
class Column:
    """A column of intervals. `better` says which end is the good one; None where neither is."""

    key: str
    label: str
    better: End | None = None
    signed: bool = False


@dataclass(frozen=True)
class Cell:
    """One interval of a table, ready to print; `value` is what sorting uses."""

    value: float
    text: str
    span: str
    n: int
    best: bool


def _column(row: Metric) -> Column:
    median = row.level == "image" and row.interval == "subsets"
    return Column(row.name, f"{row.label} (median)" if median else row.label, row.better)


def _difference(row: Metric) -> Column:
    # A change says which way, and not whether that is far enough or too far.
    return Column(row.name, f"Δ {row.label}", signed=True)


_FIRST = shown_in("arms")
SCORE_COLUMNS = [_column(row) for row in _FIRST if not row.optional]
# Scores that a study has only where it asks for them (docs/metrics.md, "Learned scores by name").
LEARNED_COLUMNS = [_column(row) for row in _FIRST if row.optional]
FURTHER_COLUMNS = [_column(row) for row in shown_in("further")]
# Without a good end: arms with other masks cannot be told better from worse by these.
INPAINTING_COLUMNS = [Column(row.name, row.label) for row in of_level("mask")]
SHIFT_COLUMNS = [
    *(Column(row.key, row.label) for row in shown_in("against")),
    *(_difference(row) for row in of_level("image") if row.question),
]


def score_columns(names: Collection[str]) -> list[Column]:
    """The columns of the main table: those of `names` that it always has, and the learned scores."""
    return [column for column in (*SCORE_COLUMNS, *LEARNED_COLUMNS) if column.key in names]


def further_columns(names: Collection[str], primary: str) -> list[Column]:
    """The columns of the second table: every other score of `names`, save the kinds, which have a section.

    The numbers of the `primary` space keep their names, and are not shown again with its name before them.
    """
    shown = {column.key for column in (*SCORE_COLUMNS, *LEARNED_COLUMNS, *FURTHER_COLUMNS)}
    others = [
        name
        for name in names
        if name not in shown
        and not name.startswith("kind_")
        and not ((found := of_space(name)) and found[0] == primary)
    ]
    return [*(column for column in FURTHER_COLUMNS if column.key in names), *map(_of_other_extractor, others)]


def shift_columns(numbers: Collection[str]) -> list[Column]:
    """The columns against the baseline: those of `numbers` that it always has, and the learned scores."""
    usual = [column for column in SHIFT_COLUMNS if column.key in numbers]
    learned = [column for column in LEARNED_COLUMNS if column.key in numbers]
    return [*usual, *(_difference(metric(one.key)) for one in learned)]


def _of_other_extractor(name: str) -> Column:
    """A column `<extractor>_<metric>`; under its own name where no such metric is known."""
    if found := of_space(name):
        space, row = found
        return Column(name, f"{space}: {row.label}", row.better)
    return Column(name, name)


def table(
    rows: Sequence[tuple[ComparedArm, Mapping[str, Interval]]], columns: Sequence[Column]
) -> list[tuple[ComparedArm, list[Cell]]]:
    """A row of cells per arm; what cannot be told apart from the best is marked with it, and nothing where all is."""
    cells: list[list[Cell]] = [[] for _ in rows]
    for column in columns:
        intervals: list[Interval] = [numbers[column.key] for _, numbers in rows]
        values = [interval.value for interval in intervals]
        places = decimals(values)
        best = best_of(values, column.better)
        tied = [best is not None and (one.value == best or one.low <= best <= one.high) for one in intervals]
        marked = [not all(tied) and tie for tie in tied]
        for row, interval, mark in zip(cells, intervals, marked, strict=True):
            text = number(interval.value, places, column.signed)
            ends = span(interval, places, column.signed)
            row.append(Cell(interval.value, text, ends, interval.n, mark))
    return [(arm, row) for (arm, _), row in zip(rows, cells, strict=True)]
