"""The table of docs/results.md on `study=learned_negative`: negatives that are learned to replace the guide."""

from eval.notation import quoted, quoted_percent
from pipeline.results.comparison import Comparison

GUIDE = "guide"


def cosines_with_guide(comparison: Comparison) -> list[tuple[str, str]]:
    """Every reference's cosine with the guide's direction along the baseline's trajectories, the nearest first."""
    alignment = next(one for one in comparison.alignment if one.arm == comparison.baseline)
    found = [
        (next(name for name in pair.references if name != GUIDE), pair.cosine)
        for pair in alignment.pairs
        if GUIDE in pair.references
    ]
    return [(name, quoted(cosine)) for name, cosine in sorted(found, key=lambda one: -one[1].value)]


def learned_rows(comparison: Comparison) -> list[list[str]]:
    """A row for every arm: what it moves away from and how far, FD to real images, recall, Vendi, malformed, shift."""
    spaces = [space.name for space in comparison.spaces]
    return [
        [
            f"`{arm.arm}`",
            f"{arm.scale:g}",
            *(quoted(arm.scores[f"{space}_fd"]) for space in spaces),
            quoted(arm.scores["recall"]),
            quoted(arm.scores["vendi"]),
            quoted_percent(arm.scores["malformed"]),
            quoted(arm.against_baseline.fd) if arm.against_baseline else "",
        ]
        for arm in comparison.arms
    ]


def nearest_to_real(comparison: Comparison) -> list[str]:
    """For each feature space, the arm whose images lie nearest to real ones, and the guide's arm that lies nearest."""
    found = []
    for space in comparison.spaces:
        key = f"{space.name}_fd"
        best = min(comparison.arms, key=lambda arm: arm.scores[key].value)
        guided = min(
            (arm for arm in comparison.arms if arm.method == "autoguidance"), key=lambda arm: arm.scores[key].value
        )
        found.append(
            f"`{space.name}`: `{best.arm}` lies nearest to real images, at {quoted(best.scores[key])}; the guide's "
            f"nearest, `{guided.arm}`, at {quoted(guided.scores[key])}."
        )
    return found
