"""The page docs/answers.md: a line per claim, whose answer follows from its numbers by its rules."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from docs.answers.claims import SOURCES, Case, Claim, Claims, load_claims
from docs.answers.computed import ComputedNumber
from docs.answers.measured import Measured, load_measured
from docs.answers.numbers import Number
from docs.answers.rule import Outcome
from docs.answers.studies import composed
from docs.markdown import markdown_templates
from pipeline.errors import InputError
from pipeline.preflight import study_digests
from pipeline.results.interval import Interval
from pipeline.storage.files import write_atomically

PAGE = Path("docs/answers.md")
_TEMPLATE = "answers.md.j2"
# The answers, as they are counted at the head of the page.
HOLDS, FAILS, ONLY, OPEN = "holds", "does not hold", "holds only when", "undecided"
CANNOT, PENDING = "cannot be asked here", "not measured yet"
ANSWERS = (HOLDS, ONLY, FAILS, OPEN, CANNOT, PENDING)


@dataclass(frozen=True)
class Answer:
    """The answer to a claim: its kind, one of ANSWERS, the sentence about it, the numbers in words, and what they hold
    for."""

    claim: Claim
    kind: str
    said: str
    numbers: tuple[str, ...] = ()
    networks: str = ""


def answer(claim: Claim, kept: Mapping[str, Measured | None]) -> Answer:
    """The answer to a claim, by what is kept of its studies.

    Raises InputError where something is kept and lacks a number of the claim.
    """
    if claim.cannot:
        return Answer(claim, CANNOT, f"**{CANNOT}**, because {claim.cannot}")
    if missing := [study for study, _ in claim.measured if kept.get(study) is None]:
        return Answer(claim, PENDING, f"**{PENDING}**: `guidedrift run --study {missing[0]}`")
    unread = [_unread(claim, case, kept) for case in claim.cases]
    if all(unread):
        return Answer(claim, CANNOT, f"**{CANNOT}**, because {' and '.join(dict.fromkeys(unread))}.")
    outcomes, shown = [], []
    for case, reason in zip(claim.cases, unread, strict=True):
        values = [] if reason else [_found(claim, case, number, kept) for number in case.numbers]
        outcomes.append(Outcome.OPEN if reason else case.holds(*values))
        shown.append(f"{case.shows}: not read, {reason}" if reason else _shown(case, values))
    kind, said = verdict(claim.cases, outcomes)
    return Answer(claim, kind, said, tuple(shown), _networks(claim, kept))


def verdict(cases: tuple[Case, ...], outcomes: list[Outcome]) -> tuple[str, str]:
    """The kind of an answer and its words: all cases hold, none does, some do, or the numbers leave it open."""
    held, failed, left = (
        [case.when for case, outcome in zip(cases, outcomes, strict=True) if outcome is one]
        for one in (Outcome.HELD, Outcome.FAILED, Outcome.OPEN)
    )
    undecided = f"; undecided when {listed(left)}" if left else ""
    if held and failed:
        return ONLY, f"**{ONLY}** {listed(held)}{undecided}"
    for decided, kind in ((held, HOLDS), (failed, FAILS)):
        if decided:
            return kind, f"**{kind} when** {listed(decided)}{undecided}" if left else f"**{kind}**"
    return OPEN, f"**{OPEN}**: the numbers allow both"


def written() -> str:
    """The page as it follows from the repository. Raises InputError."""
    claims = load_claims()
    kept = {study: load_measured(study, numbers) for study, numbers in claims.wanted.items()}
    return page(claims, {study: current(found) for study, found in kept.items()})


def write_page() -> None:
    """Write docs/answers.md. Raises InputError."""
    write_atomically(PAGE, written().encode())
    print(f"{PAGE}: {len(load_claims())} claims")


def current(kept: Measured | None) -> Measured | None:
    """What is kept, unless others have replaced its networks since: those are not measured yet.

    Of networks whose weights are not there nothing can have been replaced.
    """
    if kept is None:
        return None
    try:
        networks = study_digests(composed(kept.study))
    except InputError:
        return kept
    return of_networks(kept, networks)


def of_networks(kept: Measured, networks: Mapping[str, str | None]) -> Measured | None:
    """What is kept where it is of `networks`, else None."""
    return kept if kept.networks == networks else None


def page(claims: Claims, kept: Mapping[str, Measured | None]) -> str:
    """The page, by what is kept of every study that a claim names. Raises InputError."""
    topics = [(topic.title, [answer(one, kept) for one in topic.claims]) for topic in claims.topics]
    kinds = Counter(one.kind for _, answers in topics for one in answers)
    environment = markdown_templates(Path(__file__).parent)
    environment.filters["cell"] = _cell
    environment.filters["heading"] = _anchor
    return environment.get_template(_TEMPLATE).render(
        topics=topics,
        counts=[(kind, kinds[kind]) for kind in ANSWERS if kinds[kind]],
        total=sum(kinds.values()),
        sources=SOURCES,
        kept=[one for one in kept.values() if one is not None],
    )


def _found(claim: Claim, case: Case, number: Number, kept: Mapping[str, Measured | None]) -> Interval:
    if isinstance(number, ComputedNumber):
        return number.compute()
    study = claim.study_of(case, number)
    measured = kept.get(study or "")
    if measured is None or number.key not in measured.numbers:
        raise InputError(f"claim {claim.id} reads '{number.key}', which the kept results of study '{study}' lack")
    return measured.numbers[number.key]


def _unread(claim: Claim, case: Case, kept: Mapping[str, Measured | None]) -> str:
    """Why one of a case's numbers could not be read; empty where all were."""
    for number in case.numbers:
        measured = kept.get(claim.study_of(case, number) or "")
        if measured is not None and number.key in measured.unread:
            return measured.unread[number.key]
    return ""


def _shown(case: Case, values: list[Interval]) -> str:
    own = case.number.shown(values[0])
    if case.than is not None:
        own = f"{own} against {case.than.shown(values[1])}"
    return f"{case.shows}: {own}"


def _networks(claim: Claim, kept: Mapping[str, Measured | None]) -> str:
    studies = dict.fromkeys(study for study, _ in claim.measured)
    names = {one.about for study in studies if (one := kept.get(study))}
    return ", ".join(sorted(names)) or "none needed"


def listed(names: list[str]) -> str:
    """Cases in words, any of which is meant; what all say of one subject is said once: the scale is 2 or 3."""
    subjects = {name.partition(" is ")[0] for name in names if " is " in name}
    if len(names) > 1 and len(subjects) == 1 and all(" is " in name for name in names):
        names = [names[0], *(name.partition(" is ")[2] for name in names[1:])]
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _cell(text: str) -> str:
    """Text within a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _anchor(title: str) -> str:
    """GitHub's anchor of a heading."""
    kept = "".join(character for character in title.lower() if character.isalnum() or character in " -_")
    return kept.replace(" ", "-")
