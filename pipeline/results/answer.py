"""A study's question and its answer in a few sentences, by rule from the numbers.

Every sentence gives a size. Where the numbers leave something open, it says that things cannot be told apart; nothing
is called large because it is certain. Shifts are counted in floors (pipeline/results/floor.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.results.comparison import Alignment, ComparedArm, Comparison
from pipeline.results.floor import floors, has_other_seeds, is_shift
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.study.from_folder import EXTERNAL

# The cosine of directions that are called the same: less than a fifth of the one's square is outside the other.
SAME = 0.9
# With fewer images per arm the report shows how it works, and concludes nothing.
FEW = 64
# Feature spaces disagree about a size where the largest is this many times the smallest.
DISAGREE = 3
# Less than half a per cent of a push's square is not spoken of; rounding of half precision is less still.
_ALL_OF_IT = 5e-3
# A longer negative prompt does not fit a heading.
_SHORT = 40
# Scores that guidance is paid in, with what raising and lowering them is called.
_BROUGHT = ("aesthetic", "malformed", "clip_score")


@dataclass(frozen=True)
class Answer:
    """What a study asks and what its numbers say: `lead` answers the question, `details` are further sentences."""

    question: str
    lead: str
    details: tuple[str, ...]

    @property
    def text(self) -> str:
        """The answer as one paragraph."""
        return " ".join([self.lead, *self.details])


def answer(comparison: Comparison) -> Answer:
    """The question that a study can answer, and the answer."""
    compared = told_arms(comparison)
    negatives = [arm for arm in compared if arm.method == "negative"]
    if not compared:
        return _without_comparison(comparison)
    if comparison.baseline in comparison.external:
        question = f"How do the images of {_listed([in_method(arm) for arm in compared], 'and')} differ from those of "
        question += f"{in_method(comparison.by_name(comparison.baseline))}?"
        return _with_caution(comparison, question, _each(comparison, family_arms(comparison)[:3]))
    if not negatives:
        question = f"What does guidance do to the images of {comparison.baseline}?"
        sentences = _each(comparison, family_arms(comparison)[:3])
        return _with_caution(comparison, question, sentences)
    arm = family_arm(negatives)
    named = _named(negatives)
    found = direction(comparison)
    if found is None:
        question = f"What does {named} do to the images?"
        sentences = [*_each(comparison, [arm]), *_as_cfg(arm)]
    else:
        question = f"Is {named} a bad version of the model?"
        sentences = [_direction(found), *_as_cfg(arm), *_effects(comparison, arm, "It")]
    return _with_caution(comparison, question, sentences)


def told_arms(comparison: Comparison) -> list[ComparedArm]:
    """The guided arms that got the same prompts as the baseline, without controls.

    An arm without the prompt generates something else, and is compared by itself.
    """
    prompt = comparison.by_name(comparison.baseline).prompt
    return [arm for arm, _ in comparison.guided if arm.control_of is None and arm.prompt == prompt]


def untold_arms(comparison: Comparison) -> list[ComparedArm]:
    """The guided arms that got other prompts than the baseline: the empty one instead of the image's."""
    prompt = comparison.by_name(comparison.baseline).prompt
    return [arm for arm, _ in comparison.guided if arm.control_of is None and arm.prompt != prompt]


def family_arms(comparison: Comparison) -> list[ComparedArm]:
    """One arm per family of `told_arms`, in the order of the study."""
    arms = told_arms(comparison)
    families = dict.fromkeys(arm.family for arm in arms)
    return [family_arm([arm for arm in arms if arm.family == family]) for family in families]


def family_arm(arms: Sequence[ComparedArm]) -> ComparedArm:
    """The arm that stands for its family: the one that is called as it, else the one with the middle scale."""
    named = [arm for arm in arms if arm.arm == arm.family]
    return named[0] if named else sorted(arms, key=lambda arm: arm.scale)[len(arms) // 2]


def direction(comparison: Comparison) -> Alignment | None:
    """Where negative, weaker network and empty prompt were evaluated together, along the baseline if it is there."""
    found = [one for one in comparison.alignment if one.guide_over_empty is not None]
    return min(found, key=lambda one: one.arm != comparison.baseline, default=None)


def cosine(found: Alignment, one: str, other: str) -> Interval | None:
    """The cosine between the directions away from two references; None where it was not measured."""
    return next((pair.cosine for pair in found.pairs if set(pair.references) == {one, other}), None)


def size(value: float) -> str:
    """The size of a number in two digits, without its sign: 0.36, 4.0, 12, 1,200."""
    rounded = float(f"{abs(value):.2g}")
    if rounded >= 10 or rounded == 0:
        return f"{rounded:,.0f}"
    return f"{rounded:.{1 - math.floor(math.log10(rounded))}f}"


def in_method(arm: ComparedArm) -> str:
    """An arm in a sentence: its method, as people call it, and its scale; of an external one its folder."""
    if arm.method == EXTERNAL:
        return f"folder {arm.arm}"
    names = {"cfg": "CFG", "negative": "the negative prompt", "autoguidance": "autoguidance"}
    known = arm.family == arm.method
    return f"{names.get(arm.method, arm.arm) if known else arm.arm} at {arm.scale:g}"


def _named(negatives: Sequence[ComparedArm]) -> str:
    """The negative prompt by its words, where all arms share them and they are few."""
    texts = {arm.negative_prompt for arm in negatives}
    text = next(iter(texts))
    return f"the negative prompt “{text}”" if len(texts) == 1 and 0 < len(text) <= _SHORT else "a negative prompt"


def _with_caution(comparison: Comparison, question: str, sentences: Sequence[str]) -> Answer:
    n = min(arm.n for arm in comparison.arms)
    if n < FEW:
        lead = f"Too few images to tell: {n} per arm, where a conclusion needs {FEW} or more."
        return Answer(question, lead, ("What follows is not to be relied on.", *sentences))
    return Answer(question, sentences[0], tuple(sentences[1:]))


def _without_comparison(comparison: Comparison) -> Answer:
    """What a study says whose guided arms, if it has any, were not told the prompt."""
    if untold := untold_arms(comparison):
        question = "What does guidance generate without the prompt?"
        return _with_caution(comparison, question, _each(comparison, untold[:3]))
    base = comparison.by_name(comparison.baseline)
    own, floor = base.scores["fd"], comparison.floor.fd
    if own.low <= floor.high and floor.low <= own.high:
        said = "They cannot be told apart from real images by their Fréchet distance"
    else:
        said = f"They lie {size(own.value / floor.value)} times as far from real images as other real images do"
    sentence = f"{said} ({size(own.value)} against {size(floor.value)})."
    more = "No other arm was generated, so nothing is compared."
    return _with_caution(
        comparison, f"How far are the images of {comparison.baseline} from real ones?", [sentence, more]
    )


def _direction(found: Alignment) -> str:
    """Whether the push away from the negative prompt is that away from a weaker network, and whether CFG's is."""
    own, cfg = cosine(found, "negative", "guide"), cosine(found, "empty", "guide")
    assert own is not None
    if own.low >= SAME:
        return f"Yes: it pushes where a weaker network does (cosine {own.value:.2f}; 1 is the same direction)."
    if own.high >= SAME:
        return (
            f"Undecided: the cosine of its push with a weaker network’s is {own.value:.2f} ({own.low:.2f} to "
            f"{own.high:.2f}), and {SAME:g} or more counts as the same direction."
        )
    if cfg is None:
        return f"No: the cosine of its push with a weaker network’s is {own.value:.2f}, and 1 is the same direction."
    against = f"(cosine {own.value:.2f} against {cfg.value:.2f}, where 1 is the same direction)"
    if own.low > cfg.high:
        return f"Not the same, but more like a weaker network than CFG is {against}."
    how = "less" if own.high < cfg.low else "no more"
    return f"No: it is {how} like a weaker network than CFG is {against}."


def _as_cfg(arm: ComparedArm) -> list[str]:
    if arm.effective is None:
        return []
    scale, elsewhere = arm.effective.scale.value, arm.effective.elsewhere.value
    apart = "" if elsewhere < _ALL_OF_IT else f" with {elsewhere:.0%} of its push elsewhere".replace("%", " %")
    return [f"At scale {arm.scale:g} it is CFG at {scale:.2f}{apart}."]


def _each(comparison: Comparison, arms: Sequence[ComparedArm]) -> list[str]:
    """What every arm does, arm by arm."""
    named = [(arm, in_method(arm)) for arm in arms]
    return [said for arm, name in named for said in _effects(comparison, arm, f"{name[0].upper()}{name[1:]}")]


def _effects(comparison: Comparison, arm: ComparedArm, subject: str) -> list[str]:
    """How far an arm moves the distribution, what it changes in the scores of single images, and what it costs."""
    against, base = arm.against_baseline, comparison.by_name(comparison.baseline)
    assert against is not None
    if arm.does_nothing:
        return [f"{subject} changes nothing: its images differ from the baseline’s by rounding alone."]
    asked = [name for name in _BROUGHT if metric(name).asked.key in against.adjusted_p and name in arm.scores]
    scores = [metric(name).in_words for name in asked]
    shift, changes, cost = _shift(comparison, arm), _changes(comparison, arm, asked), ""
    if arm.cost and base.cost and arm.cost.nfe_per_image != base.cost.nfe_per_image:
        cost = f"{arm.cost.nfe_per_image / base.cost.nfe_per_image:.2g} times the evaluations"
    unguided = "unguided generation" if base.method == "unguided" else f"the baseline {base.arm}"
    if base.method == EXTERNAL:
        unguided = in_method(base)
    if not shift and not changes:
        by = f", neither by its distribution nor by {_listed(scores, 'or')}" if scores else ""
        same = f"{subject} cannot be told apart from {unguided}{by}{cost and f', and costs {cost}'}."
        return [same, *_nearness(comparison, arm)]
    reroll = f"{unguided} with other seeds" if has_other_seeds(comparison) else unguided
    moved = f"{subject} {shift or f'has a distribution that cannot be told apart from that of {reroll}'}."
    if changes:
        return [moved, *_nearness(comparison, arm), f"It {_listed(changes, 'and')}{cost and f', for {cost}'}."]
    if not scores:
        return [moved, *_nearness(comparison, arm)]
    same = f"In {_listed(scores, 'and')} it cannot be told apart from {unguided}{cost and f', for {cost}'}."
    return [moved, *_nearness(comparison, arm), same]


def _nearness(comparison: Comparison, arm: ComparedArm) -> list[str]:
    """Which of two external arms lies closer to the real images, and which shows more of what they show."""
    against, base = arm.against_baseline, comparison.by_name(comparison.baseline)
    if against is None or EXTERNAL not in (arm.method, base.method):
        return []
    said = []
    for name, change, above, below in (
        ("fd", against.reference_fd, "farther from the real images", "closer to the real images"),
        ("recall", against.spaces[comparison.spaces[0].name].variety, "wider among them", "narrower among them"),
    ):
        row = metric(name)
        before, after = (_ends(one.scores[name].value) for one in (base, arm))
        if against.adjusted_p.get(row.asked.key, 1.0) < 1 - comparison.level:
            said.append(f"is {above if change.value > 0 else below} ({row.in_words} {after} against {before})")
    if not said:
        return ["Neither of the two can be said to lie closer to the real images, or to cover more of them."]
    return [f"It {_listed(said, 'and')}."]


def _shift(comparison: Comparison, arm: ComparedArm) -> str:
    """How far an arm moves the distribution, a predicate whose subject is the arm; empty where that is undecided."""
    against = arm.against_baseline
    assert against is not None
    if arm.distinct is not None and arm.distinct < arm.n / 2:
        return f"collapses: {arm.distinct} of its {arm.n} images differ"
    alpha = 1 - comparison.level
    shifts = floors(comparison, against)
    decided = [one.value for name, one in shifts.items() if is_shift(against.spaces[name], alpha)]
    if not decided:
        return ""
    least, most = min(decided), max(decided)
    spaces = f" in {len(decided)} of {len(shifts)} feature spaces" if len(decided) < len(shifts) else ""
    apart = most >= DISAGREE * least
    # The primary space is the first.
    far = f"{size(least)} to {size(most)}" if apart else size(decided[0])
    where = spaces or (", depending on the feature space" if apart else "")
    floor = "other seeds do" if has_other_seeds(comparison) else "two sets of real images lie apart"
    if arm.method == EXTERNAL:
        base = in_method(comparison.by_name(comparison.baseline))
        return f"lies {far} times as far from {base} as {floor}{where}"
    return f"shifts the images {far} times as far as {floor}{where}"


def _changes(comparison: Comparison, arm: ComparedArm, asked: Sequence[str]) -> list[str]:
    """The scores of single images that an arm is sure to raise or lower, as predicates."""
    against, base = arm.against_baseline, comparison.by_name(comparison.baseline)
    assert against is not None
    found = []
    for name in asked:
        row = metric(name)
        change: Interval = getattr(against, name)
        if against.adjusted_p[row.asked.key] >= 1 - comparison.level:
            continue
        way = "raises" if change.value > 0 else "lowers"
        before, after = (_ends(one.scores[name].value) for one in (base, arm))
        found.append(f"{way} the {row.in_words} from {before} to {after}")
    return found


def _ends(value: float) -> str:
    """A score in three digits at most."""
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.0f}"


def _listed(words: Sequence[str], last: str) -> str:
    *most, end = words
    return f"{', '.join(most)} {last} {end}" if most else end
