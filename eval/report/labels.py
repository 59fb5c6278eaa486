"""The report's section on people's labels: the table of rates, differences, agreement, calibration, strengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from eval.notation import in_percent, number, quoted, quoted_percent, span
from pipeline.results.comparison import ComparedArm, Comparison
from pipeline.results.rates import SIMULATED, VERDICTS, LabelledImages, Rate, Rates, Verdict

VERDICT_LABELS: dict[Verdict, str] = {
    "pattern": "Pattern",
    "object_or_scenery": "Object or scenery",
    "malformed_human": "Malformed human",
    "legit_human": "Legit human",
}


@dataclass(frozen=True)
class RateCell:
    """A rate in per cent with its one interval: with the automatic scores where that is known, else from labels alone.

    `value` is what sorting uses; `automatic` is the rate that CLIP's zero-shot classification gives to all images.
    """

    value: float | str
    text: str
    span: str
    automatic: str = ""


@dataclass(frozen=True)
class RateRow:
    """A row of the table of rates; `few` says how many images are labelled where that is too few for a rate."""

    name: str
    canvas: str
    n: int
    simulated: bool
    cells: list[RateCell]
    body: str
    p_malformed: str = ""
    few: str = ""


# With fewer labels a rate would say no more than that there are few.
FEW = 10
_UNSEEN = RateCell("", "", "")


def arm_rows(comparison: Comparison, rates: Rates, sampled: Mapping[str, int]) -> list[RateRow]:
    """One row per arm: people's rates beside the automatic ones. `sampled` is how many images people are to see."""
    rows = []
    for arm in comparison.arms:
        own = rates.of_arm(arm.arm)
        n = own.images if own else 0
        few = f"{n} of {sampled.get(arm.arm, 0)} labelled" if n < FEW else ""
        seen = rate_rows([own])[0] if own and not few else RateRow(arm.arm, "", n, False, [_UNSEEN] * len(VERDICTS), "")
        cells = [
            replace(cell, automatic=_automatic(arm, verdict))
            for cell, verdict in zip(seen.cells, VERDICTS, strict=True)
        ]
        p_malformed = arm.scores.get("malformed")
        text = quoted_percent(p_malformed, 1) if p_malformed else ""
        rows.append(replace(seen, cells=cells, p_malformed=text, few=few, simulated=own.simulated if own else False))
    return rows


def rate_rows(images: Sequence[LabelledImages]) -> list[RateRow]:
    """One row per arm or canvas size, in their order."""
    return [
        RateRow(
            name=own.name,
            canvas=own.canvas,
            n=own.images,
            simulated=own.simulated,
            cells=[_cell(own.verdicts[verdict]) for verdict in VERDICTS],
            body=quoted_percent(own.body_normal, 1) if own.body_normal else "",
        )
        for own in images
    ]


def difference_rows(rates: Rates) -> list[RateRow]:
    """One row per arm: its rates minus the baseline's, over shared pairs."""
    return [
        RateRow(
            name=own.arm,
            canvas="",
            n=own.pairs,
            simulated=own.simulated,
            cells=[_cell(own.verdicts[verdict], signed=True) for verdict in VERDICTS],
            body="",
        )
        for own in rates.differences
    ]


def agreement_lines(rates: Rates) -> list[tuple[str, str]]:
    """Who agrees with whom, as (what, numbers)."""
    lines = []
    if rates.agreement:
        alpha = rates.agreement.alpha
        mark = f" ({SIMULATED})" if rates.agreement.simulated else ""
        lines.append(
            (f"Krippendorff\N{RIGHT SINGLE QUOTATION MARK}s alpha{mark}", f"{quoted(alpha)} over {alpha.n} images")
        )
    for own in rates.self_agreement:
        mark = f" ({SIMULATED})" if own.simulated else ""
        lines.append(
            (f"{own.labeller} with themselves{mark}", f"{quoted_percent(own.same, 1)} of {own.same.n} repeats")
        )
    if rates.calibration:
        found = rates.calibration
        mark = f" ({SIMULATED})" if found.simulated else ""
        lines.append((f"Brier score of P(malformed){mark}", f"{quoted(found.brier)} over {found.images} images"))
        if found.auc:
            lines.append((f"AUC of P(malformed){mark}", quoted(found.auc)))
    return lines


def strength_lines(rates: Rates) -> list[tuple[str, str]]:
    """The arms by strength, strongest first, as (arm, numbers)."""
    ordered = sorted(rates.strengths, key=lambda own: -own.strength.value)
    return [
        (
            f"{own.arm} ({SIMULATED})" if own.simulated else own.arm,
            f"{quoted(own.strength, signed=True)} over {own.strength.n} choices",
        )
        for own in ordered
    ]


def _cell(rate: Rate, signed: bool = False) -> RateCell:
    shown = in_percent(rate.best)
    return RateCell(rate.best.value, number(shown.value, 1, signed), span(shown, 1, signed))


def _automatic(arm: ComparedArm, verdict: Verdict) -> str:
    return number(100 * arm.kinds[verdict], 1) if verdict in arm.kinds else ""
