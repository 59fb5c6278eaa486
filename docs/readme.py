"""Writes the findings of the README from the committed run: `python -m docs.readme`.

They stand between two comments in README.md and follow from docs/results/default.json (docs/kept_results.py) by rules.
"""

from pathlib import Path
from typing import Any

from docs.kept_results import load_kept
from docs.markdown import markdown_templates
from docs.written_block import replaced
from eval.features.plain_text import names_by_arm
from eval.notation import count, in_percent, number, quoted
from eval.report.named_concepts import concept_sentences
from pipeline.errors import InputError, run_stage
from pipeline.layout import PARAMS
from pipeline.results.answer import answer
from pipeline.results.comparison import Comparison
from pipeline.results.floor import floor_between, floors
from pipeline.results.interval import Interval
from pipeline.study.study import Study, load_study

README = Path("README.md")
TEMPLATE = Path(__file__).parent / "readme-findings.md.j2"
COMMAND = "python -m docs.readme"
# The arms whose numbers are shown, and what they are called.
ARMS = {"cfg": "classifier-free guidance", "negative": "the negative prompt", "autoguidance": "autoguidance"}


def findings(comparison: Comparison, study: Study) -> str:
    """The block of the README, as Markdown. Raises InputError for a study without the default study's arms."""
    if missing := sorted(ARMS.keys() - {arm.arm for arm in comparison.arms}):
        raise InputError(f"study '{study.name}' has no arm {', '.join(missing)}; the README is about study=default")
    environment = markdown_templates(TEMPLATE.parent)
    environment.filters["sentence"] = lambda text: f"{text[0].upper()}{text[1:]}"
    environment.filters["count"] = count
    names = [space.name for space in comparison.spaces]
    ratios = {
        name: _shift(comparison, "negative", name).value / _shift(comparison, "autoguidance", name).value
        for name in names
    }
    least, most = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    said = answer(comparison)
    content: dict[str, Any] = {
        "lead": said.lead,
        "details": " ".join(said.details),
        "n": study.generate.images,
        "reference_n": comparison.reference_n,
        "level": f"{100 * comparison.level:g}",
        "spaces": names,
        "rows": _rows(comparison),
        "scale": {arm.arm: f"{arm.scale:g}" for arm in comparison.arms},
        **_directions(comparison),
        "shifts": _shifts(comparison),
        "floor_between": floor_between(comparison),
        "least": {"space": least, "times": _times(ratios[least])},
        "most": {"space": most, "times": _times(ratios[most])},
        "named": _named(comparison, study),
        "as_cfg": _as_cfg(comparison),
        "removed": _removed(comparison),
        "fixed": _fixed(comparison),
        "distance": _verdicts(comparison, "Distance"),
        "variety": _verdicts(comparison, "Variety"),
    }
    return environment.get_template(TEMPLATE.name).render(content)


def _times(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:,.0f}"


def _shift(comparison: Comparison, arm: str, space: str) -> Interval:
    against = comparison.by_name(arm).against_baseline
    assert against is not None
    return against.spaces[space].shift


def _rows(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Distances to real images and shifts, a cell per space."""
    rows = []
    for arm in (comparison.baseline, *ARMS):
        scores = comparison.by_name(arm).scores
        cells = [_floors(scores[f"{space.name}_fd"], space.floor.fd.value) for space in comparison.spaces]
        rows.append((f"distance to real images: `{arm}`", cells))
    for arm in ARMS:
        against = comparison.by_name(arm).against_baseline
        assert against is not None
        cells = [quoted(shift) for shift in floors(comparison, against).values()]
        rows.append((f"shift from `{comparison.baseline}`: `{arm}`", cells))
    return rows


def _floors(interval: Interval, floor: float) -> str:
    return quoted(Interval(interval.value / floor, interval.low / floor, interval.high / floor, interval.n))


def _directions(comparison: Comparison) -> dict[str, Any]:
    """Which way the negative prompt pushes, along the baseline's trajectories."""
    found = next(one for one in comparison.alignment if one.arm == comparison.baseline)
    cosine = {frozenset(pair.references): pair.cosine for pair in found.pairs}
    to_guide, to_empty = (cosine[frozenset(("negative", other))] for other in ("guide", "empty"))
    assert found.guide_over_empty is not None
    if found.guide_over_empty.high < 0:
        nearer = "Its direction is nearer to classifier-free guidance than to autoguidance, and equals neither."
    elif found.guide_over_empty.low > 0:
        nearer = "Its direction is nearer to autoguidance than to classifier-free guidance, and equals neither."
    else:
        nearer = "It is undecided whether its direction is nearer to classifier-free guidance or to autoguidance."
    return {"cosines": [quoted(to_guide), quoted(to_empty)], "nearer": nearer}


def _shifts(comparison: Comparison) -> str:
    words = [_answer(comparison, arm.arm, "Shift").spaces for arm, _ in comparison.guided]
    everywhere = sum("undecided" not in own.values() for own in words)
    who = "Every guided arm does" if everywhere == len(words) else f"{everywhere} of {len(words)} guided arms do"
    return f"{who}, in every space."


def _answer(comparison: Comparison, arm: str, topic: str) -> Any:
    own = next(one for one in comparison.verdicts if one.arm == arm)
    return next(one for one in own.verdicts if one.topic == topic)


def _verdicts(comparison: Comparison, topic: str) -> str:
    """What the spaces agree on about each of ARMS, in a sentence."""
    said = [f"{words}: {_answer(comparison, arm, topic).verdict}" for arm, words in ARMS.items()]
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."


def _as_cfg(comparison: Comparison) -> list[str]:
    """What each of ARMS is in terms of plain CFG, where the study has recorded it."""
    found = {words: comparison.by_name(arm).effective for arm, words in ARMS.items() if arm != "cfg"}
    return [f"{words} {own.answer.removeprefix('this ')}" for words, own in found.items() if own]


def _removed(comparison: Comparison) -> str:
    """What the negative prompt does to the images that show what it names; empty where no classifier reads that."""
    found = next((one for one in comparison.adherence if one.arm == "negative"), None)
    if found is None:
        return ""
    less = found.obeyed
    how = "less often than" if less.low > 0 else "more often than" if less.high < 0 else "about as often as"
    turned = Interval(abs(less.value), *sorted((abs(less.low), abs(less.high))), less.n)
    size = f"{quoted(in_percent(turned))} points {how}" if how != "about as often as" else how
    by = "" if how != "about as often as" else f", with a difference of {quoted(in_percent(less))} points"
    return (
        f"Images show what it names {size} unguided ones do{by}, averaged over {len(found.names)} concepts that a "
        f"classifier can read. {quoted(in_percent(found.collateral))} % of its shift is something else."
    )


def _fixed(comparison: Comparison) -> str:
    """What each of ARMS does to the share of malformed people; empty where it is not measured."""
    unguided = comparison.by_name(comparison.baseline).scores.get("malformed")
    if unguided is None:
        return ""
    said = []
    for arm, words in ARMS.items():
        against = comparison.by_name(arm).against_baseline
        assert against is not None
        assert against.malformed is not None
        verdict = _answer(comparison, arm, "Malformed").verdict
        said.append(f"{words}: {verdict} ({quoted(in_percent(against.malformed), signed=True)} points)")
    text = "; ".join(said)
    return (
        f"By the classifier that counts digits and limbs, {quoted(in_percent(unguided))} % of unguided images are "
        f"malformed. {text[0].upper()}{text[1:]}."
    )


def _named(comparison: Comparison, study: Study) -> list[str]:
    """How much of the shifts of the negative prompt and of autoguidance is one concept."""
    found = {one["arm"]: one for one in concept_sentences(comparison, names_by_arm(study))}
    said = []
    for arm, so in (("negative", ""), ("autoguidance", ", though it names nothing")):
        own = found[arm]
        if own["concept"] is None:
            said.append(f"No concept explains more of the shift of {ARMS[arm]} than of any other shift.")
            continue
        said.append(
            f"Removing the directions of `{own['concept']}` from CLIP's space removes {own['share']} ({own['span']}) "
            f"of the shift of {ARMS[arm]}{so}. It would remove about {own['control']} of any other shift."
        )
    return said


def written(readme: str, block: str) -> str:
    """The README with the block in its place. Raises InputError where its comments are missing."""
    return replaced(readme, README, COMMAND, block)


def main() -> None:
    study = load_study(PARAMS)
    comparison = load_kept(study)
    README.write_text(written(README.read_text("utf-8"), findings(comparison, study)), "utf-8")
    print(f"{README}: findings of study '{comparison.study}', {number(len(comparison.spaces), 0)} feature spaces")


if __name__ == "__main__":
    run_stage(main)
