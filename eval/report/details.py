"""The rows of the tables that are not plain numbers: equal strength, shift in detail, composition."""

from typing import Any

from eval.notation import decimals, number, p_value, percent, quoted
from eval.report.tables import Column
from pipeline.results.comparison import AXES, MATCHED, Comparison
from pipeline.results.metrics import Metric, metric


def matched_columns(comparison: Comparison) -> list[Column]:
    """The columns of `matched_rows`: without prompts there is no CLIP score."""
    asked = [name for name in MATCHED if comparison.prompted or name != "clip_score"]
    return [Column(name, _among_both_distances(metric(name))) for name in asked]


def _among_both_distances(row: Metric) -> str:
    """The label of a metric where distances from the reference set and from the baseline stand side by side."""
    if row.level == "set" and row.better == "lower":
        return f"{row.label} to reference"
    return row.question.topic if row.level == "shift" and row.question else row.label


def matched_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every method at equal shift and at equal CLIP score, level by level; no cells where it is out of range."""
    levels = {(matched.axis, matched.level): None for one in comparison.frontiers for matched in one.matched}
    return [
        {
            "family": frontier.family,
            "area": quoted(frontier.area),
            "where": f"{_strength(matched.axis)} {number(matched.level, decimals([matched.level]))}",
            "cells": [
                quoted(matched.values[column.key]) if column.key in matched.values else "as matched"
                for column in matched_columns(comparison)
            ]
            if matched.values
            else [],
        }
        for level in sorted(levels, key=lambda level: (level[0] != "shift", level[1]))
        for frontier in comparison.frontiers
        for matched in frontier.matched
        if (matched.axis, matched.level) == level
    ]


def _strength(axis: str) -> str:
    row = metric(AXES[axis])
    return row.label if row.level == "image" else axis


def shift_details(comparison: Comparison) -> list[dict[str, Any]]:
    """Every arm's tests against the baseline and the reference, and the directions of its spread change."""
    rows = []
    for arm in comparison.arms:
        own, reference = arm.against_baseline, arm.against_reference
        rows.append(
            {
                "arm": arm.arm,
                "auc": quoted(own.two_sample.auc) if own else "",
                "p": p_value(own.two_sample.mmd_p) if own else "",
                "reference_auc": quoted(reference.two_sample.auc),
                "reference_p": p_value(reference.two_sample.mmd_p),
                "reference_spread": quoted(reference.spread_ratio),
                "mean_share": percent(own.mean_share) if own and own.mean_share is not None else "",
                "within_prompt": quoted(own.within_prompt) if own and own.within_prompt else "too few prompts repeat",
                "directions": "; ".join(
                    f"{number(one.ratio, 2)} {one.score.replace('_', ' ')} ({number(one.correlation, 2)})"
                    for one in (own.directions if own else [])
                ),
            }
        )
    return rows


def cost_rows(comparison: Comparison, alone: bool) -> list[dict[str, Any]]:
    """What an image of every arm costs, and how many times the baseline's operations that is.

    Seconds are given where an arm was measured `alone` and spent none on probes, which change no image.
    """
    base = comparison.by_name(comparison.baseline).cost
    return [
        {
            "arm": arm.arm,
            "nfe": f"{cost.nfe_per_image:g}",
            "flops": f"{cost.flops_per_image / 1e9:.3g}",
            "ratio": f"{cost.flops_per_image / base.flops_per_image:.2f}" if base else "",
            "probes": f"{cost.probe_nfe_per_image:g}" if cost.probe_nfe_per_image else "",
            "seconds": f"{cost.seconds_per_image:.3g}" if alone and not cost.probe_nfe_per_image else "",
            "anlas": "unknown" if cost.anlas_per_image is None else cost.anlas_per_image,
            "device": cost.device,
        }
        for arm in comparison.arms
        if (cost := arm.cost)
    ]
