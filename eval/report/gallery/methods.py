"""The methods of a study over their scales, for the views of the gallery that have scale as an axis."""

from collections.abc import Sequence
from typing import Any

from pipeline.results.comparison import ComparedArm, Comparison


def methods(comparison: Comparison) -> list[dict[str, Any]]:
    """The methods in the order of their first arms, each with its `scales`: [scale, column of the arm] in rising order.

    The baseline begins every method whose frontier begins at it, as their images at scale 1 are the baseline's; it is a
    method of its own where it begins none. An arm whose method has its scale already is a row of its own.
    """
    columns = {arm.arm: column for column, arm in enumerate(comparison.arms)}
    from_baseline = {
        frontier.family
        for frontier in comparison.frontiers
        if comparison.baseline in (point.arm for point in frontier.points)
    }
    base = comparison.by_name(comparison.baseline)
    found: dict[str, list[ComparedArm]] = {}
    for arm in comparison.arms:
        if arm is base and from_baseline - {base.family}:
            continue
        first = [base] if arm is not base and arm.family in from_baseline else []
        own = found.setdefault(arm.family, first)
        if arm.scale in (other.scale for other in own):
            found[f"{arm.family}: {arm.arm}"] = [arm]
        else:
            own.append(arm)
    return [{"name": name, "scales": _scales(arms, columns)} for name, arms in found.items()]


def _scales(arms: Sequence[ComparedArm], columns: dict[str, int]) -> list[tuple[float, int]]:
    ordered = sorted(arms, key=lambda arm: arm.scale)
    # As many digits as a head of a column has room for.
    return [(float(f"{arm.scale:.4g}"), columns[arm.arm]) for arm in ordered]
