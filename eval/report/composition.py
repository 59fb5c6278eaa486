"""The report's section on what the images show: kinds, and the tags that the features tell."""

from typing import Any

from eval.notation import in_percent, p_value, percent, quoted, quoted_points, span
from eval.report.figures import layout
from pipeline.results.comparison import Comparison, Composition
from pipeline.results.interval import Interval

# Greys, since colours are methods, each with its own hatching.
_FILLS = (("#4A5260", ""), ("#7B8494", "/"), ("#9DA6B4", "x"), ("#C3CAD4", "."))


def composition_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every arm's shares of the kinds, and how far they are from the baseline's."""
    return [
        {
            "arm": arm.arm,
            "shares": [_share(share, arm.scores.get(f"kind_{kind}")) for kind, share in arm.kinds.items()],
            **_distance(arm.against_baseline.composition if arm.against_baseline else None),
        }
        for arm in comparison.arms
    ]


def composition_figure(comparison: Comparison) -> dict[str, Any]:
    """Plotly figure: a stacked bar of the kinds' shares per arm, told by colour and hatching."""
    arms = comparison.arms
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": kind.replace("_", " "),
            "x": [arm.kinds[kind] for arm in arms],
            "y": [arm.arm for arm in arms],
            "marker": {
                "color": colour,
                "pattern": {"shape": shape, "bgcolor": colour, "fgcolor": "#FFFFFF", "size": 7, "solidity": 0.25},
                "line": {"color": "#6B6B6B", "width": 1},
            },
            "hovertemplate": "%{y}: %{x:.1%}",
        }
        for kind, (colour, shape) in zip(comparison.by_name(comparison.baseline).kinds, _FILLS, strict=False)
    ]
    style = layout("share of images", "")
    style["xaxis"] |= {"tickformat": ".0%", "range": [0, 1]}
    # The first arm on top, as in the tables.
    style["yaxis"] |= {"autorange": "reversed", "showgrid": False, "type": "category"}
    style |= {"barmode": "stack", "height": 80 + 34 * len(arms)}
    style["legend"]["traceorder"] = "normal"
    return {"data": data, "layout": style}


def tag_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every guided arm's distance from the baseline's tags, and the tags that changed most; none where none is read."""
    return [
        {
            "arm": arm.arm,
            "readable": against.tags.readable,
            "changed": [
                {
                    "tag": change.tag,
                    "share": percent(change.share, 1),
                    "baseline_share": percent(change.baseline_share, 1),
                    "difference": quoted_points(change.difference),
                }
                for change in against.tags.changed
            ],
            **_distance(against.tags),
        }
        for arm, against in comparison.guided
        if against.tags is not None
    ]


def _share(share: float, interval: Interval | None) -> dict[str, str]:
    return {"value": percent(share, 1), "span": span(in_percent(interval), 1) if interval else ""}


def _distance(shift: Composition | None) -> dict[str, str]:
    return {
        "total_variation": quoted(shift.total_variation) if shift else "",
        "jensen_shannon": quoted(shift.jensen_shannon) if shift else "",
        "p": p_value(shift.p) if shift else "",
    }
