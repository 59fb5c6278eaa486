"""The rows of the tables that are no plain numbers: equal strength, shift in detail, composition."""

from typing import Any

from eval.notation import decimals, number, p_value, quoted
from eval.report.tables import Column
from pipeline.results.comparison import Comparison

MATCHED_COLUMNS = (
    Column("fd", "FD to reference"),
    Column("precision", "Precision"),
    Column("recall", "Recall"),
    Column("aesthetic", "Aesthetic"),
    Column("clip_score", "CLIP score"),
    Column("shift_fd", "Shift"),
)
_AXES = {"clip_score": "CLIP score", "shift": "shift"}


def matched_columns(comparison: Comparison) -> list[Column]:
    """The columns of `matched_rows`: without prompts there is no CLIP score."""
    return [column for column in MATCHED_COLUMNS if comparison.prompted or column.key != "clip_score"]


def matched_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every method at equal shift and at equal CLIP score, level by level; no cells where it is out of range."""
    levels = {(matched.axis, matched.level): None for one in comparison.frontiers for matched in one.matched}
    return [
        {
            "family": frontier.family,
            "area": quoted(frontier.area),
            "where": f"{_AXES[matched.axis]} {number(matched.level, decimals([matched.level]))}",
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


def shift_details(comparison: Comparison) -> list[dict[str, Any]]:
    """Every arm's tests against the baseline and the reference, and the directions of its contraction."""
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
                "mean_share": f"{own.mean_share:.0%}" if own else "",
                "within_prompt": quoted(own.within_prompt) if own and own.within_prompt else "too few prompts repeat",
                "directions": "; ".join(
                    f"{number(one.ratio, 2)} {one.score.replace('_', ' ')} ({number(one.correlation, 2)})"
                    for one in (own.directions if own else [])
                ),
            }
        )
    return rows


def cost_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """What a picture of every arm costs, and how many times the baseline's operations that is."""
    base = comparison.by_name(comparison.baseline).cost
    return [
        {
            "arm": arm.arm,
            "nfe": f"{cost.nfe_per_image:g}",
            "flops": f"{cost.flops_per_image / 1e9:.3g}",
            "ratio": f"{cost.flops_per_image / base.flops_per_image:.2f}" if base else "",
            "probes": f"{cost.probe_nfe_per_image:g}" if cost.probe_nfe_per_image else "",
            "seconds": f"{cost.seconds_per_image:.3g}",
            "anlas": cost.anlas_per_image,
            "device": cost.device,
        }
        for arm in comparison.arms
        if (cost := arm.cost)
    ]
