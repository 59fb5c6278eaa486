"""What the numbers say about each arm, in words; undecided where they leave it open.

A word about the direction of a change needs a p-value below 1 - level after Holm's correction over the arms. What is
asked about distributions is asked in every feature space, and answered with what the spaces agree on.
"""

from collections.abc import Callable, Mapping

from eval.notation import count, number, p_value, percent, quoted
from pipeline.results.answer import SAME
from pipeline.results.comparison import (
    UNDECIDED,
    AgainstBaseline,
    Alignment,
    ArmVerdicts,
    ComparedArm,
    ComparedSpace,
    Floor,
    Verdict,
)
from pipeline.results.floor import is_shift
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric

DEPENDS = "depends on the space"


def arm_verdicts(
    arms: list[ComparedArm],
    baseline: str,
    spaces: list[ComparedSpace],
    level: float,
    reason: Callable[[str], str] = lambda _space: "",
    reference: tuple[int, int] | None = None,
) -> list[ArmVerdicts]:
    """For each guided arm, in order: does it shift, contract, come closer, raise quality, and at what cost?

    `reason` says what a feature space answers to most, "" where that is not known. `reference` is how many of the real
    images differ, and how many there are.
    """
    base = next(arm for arm in arms if arm.arm == baseline)
    repeated = _repeated_reference(reference)
    return [
        ArmVerdicts(
            arm=arm.arm, verdicts=[*repeated, *_answers(arm, arm.against_baseline, base, spaces, 1 - level, reason)]
        )
        for arm in arms
        if arm.against_baseline is not None
    ]


def verdict(interval: Interval, p: float, alpha: float, neutral: float, above: str, below: str) -> str:
    """`above` or `below` by the side of `neutral` that the value is on, undecided where p is not below alpha."""
    if p >= alpha or interval.value == neutral:
        return UNDECIDED
    return above if interval.value > neutral else below


def agreed(words: Mapping[str, str], reason: Callable[[str], str]) -> tuple[str, str]:
    """What the words of the feature spaces say together, and where they contradict each other, why."""
    decided = {space: word for space, word in words.items() if word != UNDECIDED}
    distinct = list(dict.fromkeys(decided.values()))
    if not distinct:
        return UNDECIDED, ""
    if len(distinct) == 1:
        most = "" if len(decided) == len(words) else f" (in {len(decided)} of {len(words)} feature spaces)"
        return distinct[0] + most, ""
    by_word = (f"{word} in {_and([space for space in decided if decided[space] == word])}" for word in distinct)
    return f"{DEPENDS}: {', '.join(by_word)}", "; ".join(said for space in decided if (said := reason(space)))


def _answers(
    arm: ComparedArm,
    against: AgainstBaseline,
    base: ComparedArm,
    spaces: list[ComparedSpace],
    alpha: float,
    reason: Callable[[str], str],
) -> list[Verdict]:
    floor, primary = spaces[0].floor, spaces[0].name

    def in_spaces(name: str, field: str, numbers: str) -> Verdict:
        question = metric(name).asked
        words = {}
        for space, own in against.spaces.items():
            interval: Interval = getattr(own, field)
            p = own.adjusted_p[question.key]
            words[space] = verdict(interval, p, alpha, question.neutral, question.above, question.below)
            if field == "shift" and not is_shift(own, alpha):
                words[space] = UNDECIDED
        together, why = agreed(words, reason)
        least = against.spaces[primary].detectable[question.key]
        numbers = (
            f"in {primary}: {numbers}; p {p_value(against.adjusted_p[question.key])}; decided in four of five "
            f"repetitions from {number(least, 2)} on"
        )
        return Verdict(
            topic=question.topic,
            verdict=together,
            numbers=numbers,
            decided=together != UNDECIDED,
            spaces=words,
            reason=why,
        )

    def changed(name: str, interval: Interval) -> Verdict:
        question = metric(name).asked
        p = against.adjusted_p[question.key]
        word = verdict(interval, p, alpha, question.neutral, question.above, question.below)
        numbers = f"mean {metric(name).in_words} changes by {quoted(interval, signed=True)}; p {p_value(p)}"
        return Verdict(topic=question.topic, verdict=word, numbers=numbers, decided=word != UNDECIDED)

    own, other = arm.scores["fd"], base.scores["fd"]
    share = against.drift.value / against.fd.value if against.fd.value else 0
    spread = in_spaces(
        "shift_spread_ratio", "spread_ratio", f"spread {quoted(against.spread_ratio)} times that of {base.arm}"
    )
    answers = [
        *_no_effect(arm),
        *_few_images(arm),
        in_spaces(
            "shift_fd",
            "shift",
            f"FD to {base.arm} {quoted(against.fd)}, {_floor(floor)}; "
            f"the drift of the mean is {percent(share)} of it; "
            f"a classifier tells the two apart with AUC {quoted(against.two_sample.auc)}; MMD",
        ),
        spread,
        in_spaces(
            "fd",
            "distance",
            f"FD to the reference set {quoted(own)}, {base.arm} {quoted(other)}, "
            f"real images {quoted(floor.fd)}, difference {quoted(against.reference_fd, signed=True)}",
        ),
        _with_disagreements(
            in_spaces(
                "recall",
                "variety",
                f"recall {quoted(arm.scores['recall'])}, {base.arm} {quoted(base.scores['recall'])}, "
                f"difference {quoted(against.spaces[primary].variety, signed=True)}" + _other_variety(arm, base),
            ),
            spread,
            arm,
            base,
            primary,
        ),
        *(
            changed(name, change)
            for name, change in (("aesthetic", against.aesthetic), ("malformed", against.malformed))
            if change is not None
        ),
    ]
    # Pairs that were asked for nothing have nothing to follow.
    if against.clip_score is not None and metric("clip_score").asked.key in against.adjusted_p:
        answers.append(changed("clip_score", against.clip_score))
    return [*answers, _cost(arm, base)]


def _floor(floor: Floor) -> str:
    of = "two sets of real images" if floor.other_seeds is None else "other seeds"
    return f"of {of} {quoted(floor.shift)}"


def _no_effect(arm: ComparedArm) -> list[Verdict]:
    """What to know first about an arm whose guidance is rounding."""
    if not arm.does_nothing:
        return []
    numbers = f"guidance changes x0 by {arm.push or 0:.1e} at most, root mean square; read the rest with that in mind"
    return [Verdict(topic="Effect", verdict="does nothing", numbers=numbers, decided=True)]


def _repeated_reference(reference: tuple[int, int] | None) -> list[Verdict]:
    """What to know first about a reference set some of whose images are equal."""
    if reference is None or reference[0] == reference[1]:
        return []
    what = f"only {count(reference[0])} of {count(reference[1])} real images differ"
    why = "an image's neighbours are its copies, so that precision, recall and coverage fall; take the copies out"
    return [Verdict(topic="Reference", verdict=what, numbers=f"equal features; {why}", decided=True)]


def _few_images(arm: ComparedArm) -> list[Verdict]:
    """What to know first about an arm some of whose images are equal, or are real ones."""
    said = []
    if arm.distinct is not None and arm.distinct < arm.n:
        same = f"all {arm.n} images are the same"
        said.append(same if arm.distinct == 1 else f"only {arm.distinct} of {arm.n} images differ")
    if arm.copied:
        said.append(f"{arm.copied} of {arm.n} images are copies of real ones, to which no distance means quality")
    if not said:
        return []
    return [
        Verdict(
            topic="Images",
            verdict="; ".join(said),
            numbers="equal features; read the rest with that in mind",
            decided=True,
        )
    ]


def _other_variety(arm: ComparedArm, base: ComparedArm) -> str:
    """The other numbers of variety, where the study has them."""
    known = [metric(name) for name in ("coverage", "vendi") if name in arm.scores and name in base.scores]
    return "".join(
        f"; {row.label} {quoted(arm.scores[row.name])}, {base.arm} {quoted(base.scores[row.name])}" for row in known
    )


def _with_disagreements(
    variety: Verdict, spread: Verdict, arm: ComparedArm, base: ComparedArm, primary: str
) -> Verdict:
    """The verdict on variety, which says so where another number of variety says the opposite of recall."""
    rows = metric("shift_spread_ratio").asked, metric("recall").asked
    opposite = {(rows[0].above, rows[1].below), (rows[0].below, rows[1].above)}
    spaces = [space for space, word in variety.spaces.items() if (spread.spaces[space], word) in opposite]
    said, reasons = [], []
    if spaces:
        said.append(f"spread and recall disagree in {_and(spaces)}")
        reasons += [
            f"in {space} spread and recall disagree: it {spread.spaces[space]} and {variety.spaces[space]}"
            for space in spaces
        ]
    # The ball around one image far from all others reaches what no one drew; coverage takes the real images' balls.
    for name in (name for name in ("coverage", "vendi") if name in arm.scores and name in base.scores):
        own, other, word = arm.scores[name], base.scores[name], variety.spaces[primary]
        if (word == rows[1].above and own.high < other.low) or (word == rows[1].below and own.low > other.high):
            label = metric(name).label
            said.append(f"recall and {label.lower()} disagree in {primary}")
            reasons.append(
                f"in {primary} recall and {label.lower()} disagree: it {word}, and {label} is {quoted(own)} against "
                f"{quoted(other)}"
            )
    if not said:
        return variety
    return variety.model_copy(
        update={
            "verdict": "; ".join([variety.verdict, *said]),
            "reason": "; ".join([*([variety.reason] if variety.reason else []), *reasons]),
        }
    )


def _and(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _cost(arm: ComparedArm, base: ComparedArm) -> Verdict:
    if arm.cost is None or base.cost is None:
        return Verdict(topic="Cost", verdict="not measured", numbers="no file in data/cost", decided=False)
    ratio = arm.cost.nfe_per_image / base.cost.nfe_per_image
    numbers = f"{arm.cost.nfe_per_image:g} evaluations per image, {base.arm} {base.cost.nfe_per_image:g}"
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
        direction = "The direction away from the negative prompt"
        if guide_over_empty.low > 0:
            lead = f"{direction} is closer to the weaker network's than to the empty prompt's"
        elif guide_over_empty.high < 0:
            lead = f"{direction} is closer to the empty prompt's than to the weaker network's"
        else:
            lead = f"{direction} may be closer to the weaker network's or to the empty prompt's (undecided)"
        sentences.append(
            f"{lead}: its cosine is {quoted(to_guide, signed=True)} with the direction away from the weaker network "
            f"and {quoted(to_empty, signed=True)} with the direction away from the empty prompt, a difference of "
            f"{quoted(guide_over_empty, signed=True)}."
        )
        sentences.append(
            f"{_sameness(to_guide)}: a cosine of {number(to_guide.value, 2, signed=True)} leaves "
            f"{percent(1 - to_guide.value**2)} of its square outside."
        )
    if {"negative", "guide"} <= half.keys():
        a, b = half["negative"], half["guide"]
        if a.high < b.low:
            lead = "The negative prompt acts earlier than the weaker network"
        elif a.low > b.high:
            lead = "The negative prompt acts later than the weaker network"
        else:
            lead = "It is undecided whether the negative prompt acts earlier or later than the weaker network"
        sentences.append(
            f"{lead}: half of its push is spent after {quoted(a)} of the steps, half of the weaker network's after "
            f"{quoted(b)}. Their pushes are {quoted(norm['negative'])} and {quoted(norm['guide'])} of the prediction."
        )
    if not sentences:
        names = ", ".join(action.reference for action in found.actions)
        sentences.append(f"The references {names} were evaluated; the question needs negative, guide and empty.")
    if found.incomplete:
        names = " and ".join(found.incomplete)
        sentences.append(f"Evaluated at some steps only, and so left out: {names}.")
    if found.without_direction:
        sentences.append(
            f"Left out, too: {found.without_direction} images for which a reference predicts what the main network "
            "does."
        )
    if found.coinciding:
        sentences.append(
            f"What the main network predicts for {' and '.join(found.coinciding)} is its own prediction here, so there "
            "is no direction between them."
        )
    return " ".join(sentences)
