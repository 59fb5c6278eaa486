"""The report's section on what each arm's push is in terms of plain CFG, and how arms do against their controls."""

from typing import Any

from eval.notation import number, quoted, quoted_percent
from eval.report.figures import looks, over_noise
from pipeline.results.comparison import AgainstControl, Comparison, EffectiveScale
from pipeline.results.metrics import metric


def with_scale(comparison: Comparison) -> dict[str, EffectiveScale]:
    """The effective scales of the guided arms that are not controls, whose scale is another arm's."""
    return {arm.arm: arm.effective for arm, _ in comparison.guided if arm.effective and arm.control_of is None}


def effective_rows(comparison: Comparison) -> list[dict[str, str]]:
    """A row for every arm: its effective scale, how far that varies, and the share of its push that is elsewhere."""
    return [
        {
            "arm": name,
            "scale": quoted(found.scale),
            "over_steps": number(found.over_steps, 2),
            "over_images": number(found.over_images, 2),
            "elsewhere": quoted_percent(found.elsewhere),
            "answer": found.answer,
        }
        for name, found in with_scale(comparison).items()
    ]


def effective_figure(comparison: Comparison) -> dict[str, Any] | None:
    """Plotly figure: the effective scale of every arm over noise level; None where none is known."""
    found = with_scale(comparison)
    if not found:
        return None
    known = looks(comparison)
    return over_noise(
        list(found), [one.steps for one in found.values()], "effective scale", [known[name] for name in found]
    )


def control_columns(comparison: Comparison) -> list[str]:
    """The scores whose pairs are won or lost, by their labels."""
    found = _controlled(comparison)
    return [_label(score) for score in found[0][1].wins] if found else []


def adjusted_columns(comparison: Comparison) -> list[str]:
    """The scores that are known without what they pay for colour, by their labels."""
    found = _controlled(comparison)
    return [_label(score) for score in found[0][1].adjusted] if found else []


def control_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for every arm that has a control: win rates, and differences of the sets' numbers."""
    return [
        {
            "arm": name,
            "control": found.control,
            "wins": [quoted_percent(won) for won in found.wins.values()],
            "adjusted": [quoted_percent(won) for won in found.adjusted.values()],
            "fd": quoted(found.fd, signed=True),
            "precision": quoted(found.precision, signed=True),
            "recall": quoted(found.recall, signed=True),
            "vendi": quoted(found.vendi, signed=True),
        }
        for name, found in _controlled(comparison)
    ]


def _controlled(comparison: Comparison) -> list[tuple[str, AgainstControl]]:
    return [(arm.arm, arm.against_control) for arm in comparison.arms if arm.against_control]


def _label(score: str) -> str:
    try:
        return metric(score).label
    except ValueError:  # a learned score of the study's own
        return score
