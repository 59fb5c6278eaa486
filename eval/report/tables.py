"""The tables of the report: a row an arm, a column a number with its interval."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from eval.notation import decimals, number, span
from pipeline.results.comparison import ComparedArm
from pipeline.results.interval import Interval


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
# Scores that a study has only where it asks for them (docs/metrics.md, "Learned scores by name").
LEARNED_COLUMNS = (
    Column("pickscore", "PickScore", "higher"),
    Column("hpsv2_1", "HPSv2.1", "higher"),
    Column("imagereward", "ImageReward", "higher"),
    Column("lpips", "LPIPS within prompt"),
)
FURTHER_COLUMNS = (
    Column("fd_infinity", "FD\N{INFINITY}", "lower"),
    Column("kid", "KID", "lower"),
    Column("cmmd", "CMMD", "lower"),
    Column("vendi", "Vendi score"),
    Column("realism", "Realism (median)", "higher"),
    Column("saturation", "Saturation"),
    Column("contrast", "Contrast"),
    Column("sharpness", "Sharpness"),
)
# What is measured with further extractors, whose names come first.
OF_OTHER_EXTRACTORS = (*SCORE_COLUMNS[:5], Column("vendi", "Vendi score"))
SHIFT_COLUMNS = (
    Column("fd", "FD to baseline"),
    Column("drift", "Drift"),
    Column("contraction", "Contraction"),
    Column("spread_ratio", "Spread ratio"),
    Column("clip_score", "Δ CLIP score", signed=True),
    Column("aesthetic", "Δ Aesthetic", signed=True),
    Column("malformed", "Δ P(malformed)", signed=True),
)


def score_columns(names: Collection[str]) -> list[Column]:
    """The columns of the main table: those of `names` that it always has, and the learned scores."""
    return [column for column in (*SCORE_COLUMNS, *LEARNED_COLUMNS) if column.key in names]


def further_columns(names: Collection[str]) -> list[Column]:
    """The columns of the second table: every other score of `names`, save the kinds, which have a section."""
    shown = {column.key for column in (*SCORE_COLUMNS, *LEARNED_COLUMNS, *FURTHER_COLUMNS)}
    others = [name for name in names if name not in shown and not name.startswith("kind_")]
    return [*(column for column in FURTHER_COLUMNS if column.key in names), *map(_of_other_extractor, others)]


def shift_columns(numbers: Collection[str]) -> list[Column]:
    """The columns against the baseline: those of `numbers` that it always has, and the learned scores."""
    usual = [column for column in SHIFT_COLUMNS if column.key in numbers]
    learned = [column for column in LEARNED_COLUMNS if column.key in numbers]
    return [*usual, *(Column(one.key, f"Δ {one.label}", signed=True) for one in learned)]


def _of_other_extractor(name: str) -> Column:
    """A column `<extractor>_<metric>`; under its own name where no such metric is known."""
    for known in OF_OTHER_EXTRACTORS:
        extractor = name.removesuffix(f"_{known.key}")
        if extractor != name:
            return Column(name, f"{extractor}: {known.label}", known.better)
    return Column(name, name)


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
