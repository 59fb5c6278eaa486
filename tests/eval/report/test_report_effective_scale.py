"""The report says what each arm is in terms of plain CFG, and how it does against it."""

from typing import Any

from report_numbers import comparison

from eval.report.effective_scale import (
    adjusted_columns,
    control_columns,
    control_rows,
    effective_figure,
    effective_rows,
)
from eval.report.named_concepts import adherence_rows, shown_rows
from pipeline.results.comparison import Comparison


def interval(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": 18}


def with_scales() -> dict[str, Any]:
    """A comparison whose first guided arm has an effective scale and a control, which is the next arm."""
    content = comparison()
    guided = [arm for arm in content["arms"] if arm["against_baseline"] is not None]
    effective = {
        "scale": interval(1.3),
        "elsewhere": interval(0.42, 0.02),
        "steps": [{"sigma": sigma, "value": interval(1.3)} for sigma in (10.0, 1.0)],
        "over_steps": 0.2,
        "over_images": 0.1,
        "without_direction": 0,
        "answer": "this is CFG at 1.30 with 42 % of its push elsewhere",
    }
    guided[0]["effective"] = guided[1]["effective"] = effective
    guided[1]["control_of"] = guided[0]["arm"]
    guided[0]["against_control"] = {
        "control": "own@cfg",
        "wins": {"aesthetic": interval(0.61)},
        "adjusted": {"aesthetic": interval(0.52)},
        **{name: interval(-0.5) for name in ("fd", "precision", "recall", "vendi")},
    }
    content["adherence"] = [
        {
            "arm": guided[0]["arm"],
            "names": ["lowres"],
            **{name: interval(0.05, 0.01) for name in ("obeyed", "kept", "quality", "collateral")},
        }
    ]
    content["shown"] = [
        {
            "concept": "lowres",
            "auc": 0.97,
            "shares": {arm["arm"]: interval(0.12) for arm in content["arms"]},
            "differences": {},
        }
    ]
    return content


def test_every_arm_but_the_controls_has_its_effective_scale() -> None:
    rows = effective_rows(Comparison(**with_scales()))
    first = next(arm["arm"] for arm in comparison()["arms"] if arm["against_baseline"] is not None)
    assert [row["arm"] for row in rows] == [first]
    assert rows[0]["elsewhere"] == "42 % (40\N{EN DASH}44)"
    assert rows[0]["answer"] == "this is CFG at 1.30 with 42 % of its push elsewhere"


def test_the_figure_has_a_line_for_each_of_them_and_none_without() -> None:
    figure = effective_figure(Comparison(**with_scales()))
    assert figure is not None
    assert len(figure["data"]) == 1
    assert figure["data"][0]["y"] == [1.3, 1.3]
    assert effective_figure(Comparison(**comparison())) is None


def test_an_arm_is_shown_against_its_control_with_and_without_colour() -> None:
    compared = Comparison(**with_scales())
    (row,) = control_rows(compared)
    assert (control_columns(compared), adjusted_columns(compared)) == (["Aesthetic"], ["Aesthetic"])
    assert (row["wins"], row["adjusted"]) == (["61 % (51\N{EN DASH}71)"], ["52 % (42\N{EN DASH}62)"])
    assert row["fd"].startswith("\N{MINUS SIGN}0.5")
    assert control_rows(Comparison(**comparison())) == []


def test_adherence_is_told_in_points_and_with_what_else_changes() -> None:
    compared = Comparison(**with_scales())
    (row,) = adherence_rows(compared)
    assert row["obeyed"] == "+5.0 points (+4.0 to +6.0)"
    assert row["collateral"] == "5 % (4\N{EN DASH}6)"
    (shown,) = shown_rows(compared)
    assert (shown["concept"], shown["auc"], set(shown["cells"])) == ("lowres", "0.97", {"12 %"})
