"""What the numbers say about each arm, in words; undecided where they leave it open.

A word about the direction of a change needs a p-value below 1 - level after Holm's correction over the arms.
"""

from eval.notation import number, p_value, quoted
from pipeline.results.comparison import (
    AgainstBaseline,
    Alignment,
    ArmVerdicts,
    ComparedArm,
    Floor,
    Verdict,
)
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric

UNDECIDED = "undecided"
# The cosine of directions that are called the same: less than a fifth of the one's square is outside the other.
SAME = 0.9


def arm_verdicts(arms: list[ComparedArm], baseline: str, floor: Floor, level: float) -> list[ArmVerdicts]:
    """For each guided arm, in order: does it shift, contract, come closer, raise quality, and at what cost?"""
    base = next(arm for arm in arms if arm.arm == baseline)
    return [
        ArmVerdicts(arm=arm.arm, verdicts=_answers(arm, arm.against_baseline, base, floor, 1 - level))
        for arm in arms
        if arm.against_baseline is not None
    ]


def verdict(interval: Interval, p: float, alpha: float, neutral: float, above: str, below: str) -> str:
    """`above` or `below` by the side of `neutral` that the value is on, undecided where p is not below alpha."""
    if p >= alpha or interval.value == neutral:
        return UNDECIDED
    return above if interval.value > neutral else below


def _answers(
    arm: ComparedArm, against: AgainstBaseline, base: ComparedArm, floor: Floor, alpha: float
) -> list[Verdict]:
    def answer(topic: str, word: str, numbers: str, question: str | None = None) -> Verdict:
        p = "" if question is None else f"; p {p_value(against.adjusted_p[question])}"
        return Verdict(topic=topic, verdict=word, numbers=numbers + p, decided=word != UNDECIDED)

    def changed(name: str, interval: Interval, numbers: str) -> Verdict:
        question = metric(name).asked
        p = against.adjusted_p[question.key]
        word = verdict(interval, p, alpha, question.neutral, question.above, question.below)
        return answer(question.topic, word, numbers, question.key)

    shift = metric("shift_fd").asked
    shifts = shift.above if against.adjusted_p[shift.key] < alpha else UNDECIDED
    own, other = arm.scores["fd"], base.scores["fd"]
    answers = [
        answer(
            shift.topic,
            shifts,
            f"FD to {base.arm} {quoted(against.fd)}, of two sets of real pictures {quoted(floor.between_sets)}; "
            "the drift of the mean is "
            f"{against.drift.value / against.fd.value if against.fd.value else 0:.0%} of it; "
            f"a classifier tells the two apart with AUC {quoted(against.two_sample.auc)}; MMD",
            shift.key,
        ),
        changed(
            "shift_spread_ratio",
            against.spread_ratio,
            f"spread {quoted(against.spread_ratio)} times that of {base.arm}",
        ),
        changed(
            "fd",
            against.reference_fd,
            f"FD to the reference set {quoted(own)}, {base.arm} {quoted(other)}, "
            f"real pictures {quoted(floor.fd)}, difference {quoted(against.reference_fd, signed=True)}",
        ),
        *(
            changed(name, change, f"mean {metric(name).in_words} changes by {quoted(change, signed=True)}")
            for name, change in (("aesthetic", against.aesthetic), ("malformed", against.malformed))
        ),
    ]
    # Pairs that were asked for nothing have nothing to follow.
    if metric("clip_score").asked.key in against.adjusted_p:
        answers.append(
            changed(
                "clip_score",
                against.clip_score,
                f"{metric('clip_score').in_words} changes by {quoted(against.clip_score, signed=True)}",
            )
        )
    return [*answers, _cost(arm, base)]


def _cost(arm: ComparedArm, base: ComparedArm) -> Verdict:
    if arm.cost is None or base.cost is None:
        return Verdict(topic="Cost", verdict="not measured", numbers="no file in data/cost", decided=False)
    ratio = arm.cost.nfe_per_image / base.cost.nfe_per_image
    numbers = f"{arm.cost.nfe_per_image:g} evaluations a picture, {base.arm} {base.cost.nfe_per_image:g}"
    numbers += f"; {arm.cost.flops_per_image / base.cost.flops_per_image:.2f} times the floating-point operations"
    return Verdict(topic="Cost", verdict=f"{ratio:.2g} times the evaluations", numbers=numbers, decided=True)


def _sameness(cosine: Interval) -> str:
    if cosine.low >= SAME:
        return "It is nearly the same direction"
    return "It is not the same direction" if cosine.high < SAME else "Whether it is the same direction is undecided"


def alignment_answer(found: Alignment) -> str:
    """A paragraph on the project's question: is a negative prompt a bad version of the model?"""
    cosine = {frozenset(pair.references): pair.cosine for pair in found.pairs}
    half = {action.reference: action.half for action in found.actions}
    norm = {action.reference: action.norm for action in found.actions}
    guide_over_empty = found.guide_over_empty
    sentences = []
    if guide_over_empty is not None:
        to_guide, to_empty = cosine[frozenset(("negative", "guide"))], cosine[frozenset(("negative", "empty"))]
        if guide_over_empty.low > 0:
            word = "points rather the way of the weaker network than that of the empty prompt"
        elif guide_over_empty.high < 0:
            word = "points rather the way of the empty prompt than that of the weaker network"
        else:
            word = "is undecided between the way of the weaker network and that of the empty prompt"
        sentences.append(
            f"The direction away from the negative prompt {word}: its cosine is {quoted(to_guide, signed=True)} with "
            f"the direction away from the weaker network and {quoted(to_empty, signed=True)} with that away from the "
            f"empty prompt, a difference of {quoted(guide_over_empty, signed=True)}."
        )
        sentences.append(
            f"{_sameness(to_guide)}: a cosine of {number(to_guide.value, 2, signed=True)} leaves "
            f"{1 - to_guide.value**2:.0%} of its square outside."
        )
    if {"negative", "guide"} <= half.keys():
        a, b = half["negative"], half["guide"]
        if a.high < b.low:
            when = "earlier than"
        elif a.low > b.high:
            when = "later than"
        else:
            when = "at a time that is undecided against"
        sentences.append(
            f"The negative prompt acts {when} the weaker network: half of its push is spent after {quoted(a)} of the "
            f"steps, of the weaker network's after {quoted(b)}; their pushes are {quoted(norm['negative'])} and "
            f"{quoted(norm['guide'])} of the prediction."
        )
    if not sentences:
        names = ", ".join(action.reference for action in found.actions)
        sentences.append(f"The references {names} were evaluated; the question needs negative, guide and empty.")
    if found.incomplete:
        names = " and ".join(found.incomplete)
        sentences.append(f"Evaluated at some steps only, and so left out: {names}.")
    if found.without_direction:
        sentences.append(
            f"Left out, too: {found.without_direction} pictures for which a reference predicts what the main network "
            "does."
        )
    if found.coinciding:
        sentences.append(
            f"What the main network predicts for {' and '.join(found.coinciding)} is its own prediction here, so there "
            "is no direction between them."
        )
    return " ".join(sentences)
