"""The report's section on how much of a shift is what negative prompts name."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from eval.notation import in_percent, number, percent, quoted, quoted_percent, quoted_points, span
from pipeline.results.comparison import Comparison, RemovedConcept


@dataclass(frozen=True)
class ShareCell:
    """The named share of one arm's shift, ready to print; `more` where it is surely more than of any other shift."""

    value: float
    text: str
    span: str
    more: bool
    n: int


def concept_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every concept, the share that its removal takes from any other shift, and a cell per guided arm."""
    if comparison.named is None:
        return []
    return [
        {
            "concept": row.concept,
            "directions": row.directions,
            "control": percent(row.variance),
            "variance": row.variance,
            "cells": [_cell(row, arm.arm) for arm, _ in comparison.guided],
        }
        for row in comparison.named.removed
    ]


def concept_sentences(comparison: Comparison, names: Mapping[str, Collection[str]]) -> list[dict[str, Any]]:
    """For every arm of `names`, the concept whose share of its shift exceeds that of any other shift most.

    It is one that the arm names where it names any. `concept` is None where no share is surely more.
    """
    if comparison.named is None:
        return []
    single = [row for row in comparison.named.removed if row.concept in comparison.named.named]
    sentences = []
    for arm in (arm.arm for arm, _ in comparison.guided if arm.arm in names):
        own = [row for row in single if row.concept in names[arm]]
        most = max(own or single, key=lambda row: row.arms[arm].named_share.value - row.variance)
        cell = _cell(most, arm)
        sentences.append(
            {
                "arm": arm,
                "concept": most.concept if cell.more else None,
                "share": cell.text,
                "span": cell.span,
                "control": percent(most.variance),
                "though": "" if own else "does not name it" if names[arm] else "names nothing",
            }
        )
    return sentences


def _cell(row: RemovedConcept, arm: str) -> ShareCell:
    share = row.arms[arm].named_share
    more = share.low > row.variance
    return ShareCell(share.value, percent(share.value), span(in_percent(share), 0), more, share.n)


def adherence_rows(comparison: Comparison) -> list[dict[str, str]]:
    """A row for every arm whose negative prompt names what can be read: obeyed, kept, quality, collateral."""
    return [
        {
            "arm": row.arm,
            "names": ", ".join(row.names),
            "obeyed": quoted_points(row.obeyed),
            "kept": quoted(row.kept, signed=True),
            "quality": quoted(row.quality, signed=True),
            "collateral": quoted_percent(row.collateral),
        }
        for row in comparison.adherence
    ]


def shown_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for every concept: its classifier's AUC, and the share of images that show it, a cell per arm."""
    return [
        {
            "concept": row.concept,
            "auc": number(row.auc, 2),
            "cells": [percent(row.shares[arm.arm].value) for arm in comparison.arms],
        }
        for row in comparison.shown
    ]
