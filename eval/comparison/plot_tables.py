"""The tables behind `dvc plots`: arms, shift, frontiers, cosines and sizes of the guidance direction.

Every row has the `colour` that its arm has everywhere (pipeline/results/colours.py); the templates take it as it is.
"""

import csv
import io
from collections.abc import Mapping

import pyarrow as pa

from pipeline.results.colours import arm_colours, push_colour
from pipeline.results.comparison import ComparedArm, Comparison
from pipeline.study.study import Study

# The columns of plots that may have no rows: a study without guided arms or without probes.
COLUMNS = {
    "arms": ["arm", "colour"],
    "shift": ["arm", "colour", "drift", "contraction"],
    "frontier": ["family", "arm", "colour", "recall", "precision"],
    "alignment": ["arm", "colour", "step", "cosine"],
    "direction": ["arm", "colour", "step", "direction"],
}


def direction_sizes(
    study: Study, traces: Mapping[str, pa.Table], colours: Mapping[str, str]
) -> list[dict[str, object]]:
    """Per guided arm and step: noise level and mean size of the guidance direction, from the arms' `traces`.

    `colours` are those of the arms.
    """
    rows: list[dict[str, object]] = []
    for name in (name for name, arm in study.compared.items() if arm.scale != 1 or arm.terms or arm.control):
        steps = traces[name].group_by("step").aggregate([("sigma", "mean"), ("direction", "mean")]).sort_by("step")
        for row in steps.to_pylist():
            sizes = {"sigma": round(row["sigma_mean"], 5), "direction": round(row["direction_mean"], 5)}
            rows.append({"arm": name, "colour": colours[name], "step": row["step"], **sizes})
    return rows


def plot_tables(comparison: Comparison) -> dict[str, list[dict[str, object]]]:
    """The tables behind `dvc plots`."""
    colours = arm_colours(comparison.arms, comparison.baseline)
    arms: list[dict[str, object]] = []
    shifts: list[dict[str, object]] = []
    for arm in comparison.arms:
        values = {name: round(interval.value, 5) for name, interval in arm.scores.items()}
        arms.append({"arm": arm.arm, **_look(arm, colours), **values})
    for arm, against in comparison.guided:
        parts = {name: round(interval.value, 5) for name, interval in against.intervals.items()}
        shifts.append({"arm": arm.arm, **_look(arm, colours), "within_prompt": "", **parts})
    points = [
        {"family": frontier.family, "arm": point.arm, "colour": colours[point.arm], "scale": point.scale}
        | {name: round(value.value, 5) for name, value in point if not isinstance(value, str | float)}
        for frontier in comparison.frontiers
        for point in frontier.points
    ]
    cosines = [
        {"arm": f"{one.arm}: {' and '.join(pair.references)}", "colour": push_colour(pair.references), "step": k}
        | {"sigma": round(step.sigma, 5)}
        | {"cosine": round(step.value.value, 5), "low": round(step.value.low, 5), "high": round(step.value.high, 5)}
        for one in comparison.alignment
        for pair in one.pairs
        for k, step in enumerate(pair.steps)
    ]
    return {"arms": arms, "shift": shifts, "frontier": points, "alignment": cosines}


def _look(arm: ComparedArm, colours: Mapping[str, str]) -> dict[str, object]:
    return {"family": arm.family, "colour": colours[arm.arm], "scale": arm.scale}


def csv_bytes(rows: list[dict[str, object]], columns: list[str]) -> bytes:
    """Rows as CSV, `columns` being those of a table without rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
