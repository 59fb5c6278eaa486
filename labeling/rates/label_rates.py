"""Stage `rates`: the rates of each label with their intervals, agreement, and the strengths of arms.

An image counts once: its share of a verdict is the mean over the people who labelled it, first showings only. Repeats
tell how far people agree with themselves. The triage batch was chosen by the score, so no rate uses it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.statistics.wilson import wilson_bounds
from labeling.rates import bradley_terry, ppi
from labeling.rates.agreement import alpha_interval, repeat_agreement
from labeling.rates.calibration import calibrate
from labeling.rates.ppi import Vector
from labeling.records import (
    PAIR_LABELS,
    TASK_LABELS,
    Label,
    PairLabel,
    SampledPair,
    SampledTask,
    read_labels,
    read_pair_labels,
    read_pairs,
    read_tasks,
)
from pipeline.errors import InputError, run_stage
from pipeline.layout import SCORES
from pipeline.results.interval import Interval
from pipeline.results.rates import (
    RATES,
    VERDICTS,
    Agreement,
    Calibration,
    CalibrationBin,
    Difference,
    LabelledImages,
    Rate,
    Rates,
    SelfAgreement,
    Strength,
    Verdict,
)
from pipeline.stage_arguments import stage_parser
from pipeline.storage.files import write_atomically
from pipeline.storage.json_file import seal_json
from pipeline.storage.shards import read_table
from pipeline.study.study import Metrics, Study, load_study

# The automatic score of each verdict; malformed people have a trained classifier, the others CLIP's zero-shot kinds.
SCORE_OF: dict[Verdict, str] = {
    "malformed_human": "p_malformed",
    "legit_human": "kind_legit_human",
    "object_or_scenery": "kind_object_or_scenery",
    "pattern": "kind_pattern",
}


@dataclass(frozen=True)
class ArmScores:
    """The automatic scores [N] of all images of an arm, by column, and where each pair stands in them."""

    columns: Mapping[str, Vector]
    row_of_pair: Mapping[int, int]


@dataclass(frozen=True)
class Judged:
    """A labelled image of the random batch: the share of its labels that gave each verdict.

    `body_normal` is the share of normal among the body shapes that people gave it, None where no one gave one.
    """

    pair_id: int
    canvas: str
    inclusion_probability: float
    shares: Mapping[Verdict, float]
    body_normal: float | None
    simulated: bool


def judged_images(tasks: Sequence[SampledTask], labels: Sequence[Label]) -> dict[str, list[Judged]]:
    """The labelled images of every arm: of the random batch, first showings only, in the order of the tasks."""
    given: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        given[label.task_id].append(label)
    arms: dict[str, list[Judged]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: task.position):
        own = given.get(task.task_id, [])
        if not own or task.batch != "random" or task.repeat_of is not None:
            continue
        shapes = [label.body_shape == "normal" for label in own if label.body_shape is not None]
        arms[task.arm].append(
            Judged(
                pair_id=task.pair_id,
                canvas=task.canvas,
                inclusion_probability=task.inclusion_probability,
                shares={verdict: sum(label.verdict == verdict for label in own) / len(own) for verdict in VERDICTS},
                body_normal=sum(shapes) / len(shapes) if shapes else None,
                simulated=any(label.simulated for label in own),
            )
        )
    return dict(arms)


def arm_rates(name: str, judged: Sequence[Judged], scores: ArmScores, level: float) -> LabelledImages:
    """The rates of one arm from its labelled images (at least one) and the scores of all."""
    rows = [scores.row_of_pair[image.pair_id] for image in judged]
    inclusion = [image.inclusion_probability for image in judged]
    verdicts: dict[Verdict, Rate] = {}
    for verdict in VERDICTS:
        shares = [image.shares[verdict] for image in judged]
        classical = ppi.rate(shares, inclusion, level, len(scores.row_of_pair))
        powered = None
        if (column := scores.columns.get(SCORE_OF[verdict])) is not None:
            powered = ppi.rate(shares, inclusion, level, len(column), column[rows], column)
        verdicts[verdict] = _rate(classical, powered)
    shaped = [image for image in judged if image.body_normal is not None]
    body = None
    if shaped:
        normal = [image.body_normal or 0.0 for image in shaped]
        # How many of the arm's images show a person is not known, so theirs are not a finite population.
        body = _interval(ppi.rate(normal, [p.inclusion_probability for p in shaped], level, len(shaped)))
    return LabelledImages(
        name=name,
        canvas=judged[0].canvas,
        images=len(judged),
        simulated=any(image.simulated for image in judged),
        verdicts=verdicts,
        body_normal=body,
    )


def arm_difference(
    arm: str, ours: Sequence[Judged], base: Sequence[Judged], scores: tuple[ArmScores, ArmScores], level: float
) -> Difference | None:
    """Rates of an arm minus the baseline's over the pairs that are labelled in both; None where there is none.

    The sample draws whole pairs, so a pair's inclusion probability is that of either image.
    """
    partner = {image.pair_id: image for image in base}
    both = [(image, partner[image.pair_id]) for image in ours if image.pair_id in partner]
    if not both:
        return None
    inclusion = [image.inclusion_probability for image, _ in both]
    own, other = scores
    pairs = list(own.row_of_pair)
    place = {pair: k for k, pair in enumerate(pairs)}
    verdicts: dict[Verdict, Rate] = {}
    for verdict in VERDICTS:
        differences = [image.shares[verdict] - of_base.shares[verdict] for image, of_base in both]
        classical = ppi.difference(differences, inclusion, level, len(pairs))
        powered = None
        column = SCORE_OF[verdict]
        if column in own.columns and column in other.columns:
            of_own, of_other = ([arm.row_of_pair[pair] for pair in pairs] for arm in (own, other))
            lead = own.columns[column][of_own] - other.columns[column][of_other]
            rows = [place[image.pair_id] for image, _ in both]
            powered = ppi.difference(differences, inclusion, level, len(pairs), lead[rows], lead)
        verdicts[verdict] = _rate(classical, powered)
    simulated = any(image.simulated or of_base.simulated for image, of_base in both)
    return Difference(arm=arm, pairs=len(both), simulated=simulated, verdicts=verdicts)


def pooled(arms: Sequence[Sequence[Judged]], scores: Sequence[ArmScores]) -> tuple[list[Judged], ArmScores]:
    """Several arms as one, over the pairs that are labelled in all of them: means over the arms, pair by pair.

    Images of one seed resemble each other, so pairs are what is independent, not images.
    """
    by_pair = [{image.pair_id: image for image in arm} for arm in arms]
    judged = []
    for pair in by_pair[0]:
        if not all(pair in arm for arm in by_pair):
            continue
        images = [arm[pair] for arm in by_pair]
        shapes = [image.body_normal for image in images if image.body_normal is not None]
        judged.append(
            Judged(
                pair_id=pair,
                canvas=images[0].canvas,
                inclusion_probability=images[0].inclusion_probability,
                shares={v: sum(image.shares[v] for image in images) / len(images) for v in VERDICTS},
                body_normal=sum(shapes) / len(shapes) if shapes else None,
                simulated=any(image.simulated for image in images),
            )
        )
    pairs = list(scores[0].row_of_pair)
    shared = set.intersection(*(set(arm.columns) for arm in scores))
    columns = {
        name: np.mean([arm.columns[name][[arm.row_of_pair[pair] for pair in pairs]] for arm in scores], axis=0)
        for name in shared
    }
    return judged, ArmScores(columns, {pair: k for k, pair in enumerate(pairs)})


def agreement(tasks: Sequence[SampledTask], labels: Sequence[Label], settings: Metrics) -> Agreement | None:
    """Krippendorff's alpha over the random batch; None where it is not defined."""
    shown = {task.task_id for task in tasks if task.batch == "random" and task.repeat_of is None}
    units: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.task_id in shown:
            units[label.task_id].append(label)
    several = {task: unit for task, unit in sorted(units.items()) if len(unit) > 1}
    verdicts = [[label.verdict for label in unit] for unit in several.values()]
    found = alpha_interval(verdicts, settings.resamples, settings.level, settings.seed)
    if found is None:
        return None
    alpha, low, high = found
    simulated = any(label.simulated for unit in several.values() for label in unit)
    return Agreement(alpha=Interval(value=alpha, low=low, high=high, n=len(several)), simulated=simulated)


def self_agreement(tasks: Sequence[SampledTask], labels: Sequence[Label], level: float) -> list[SelfAgreement]:
    """How often each labeller who saw images twice said the same twice, with Wilson's interval."""
    verdicts = {(label.task_id, label.labeller): str(label.verdict) for label in labels}
    repeats = {task.task_id: task.repeat_of for task in tasks if task.repeat_of is not None}
    simulated = {label.labeller for label in labels if label.simulated}
    found = []
    for labeller, (same, shown) in repeat_agreement(verdicts, repeats).items():
        low, high = wilson_bounds(same / shown, shown, level)
        interval = Interval(value=same / shown, low=low, high=high, n=shown)
        found.append(SelfAgreement(labeller=labeller, same=interval, simulated=labeller in simulated))
    return found


def calibration(
    judged: Mapping[str, Sequence[Judged]], scores: Mapping[str, ArmScores], settings: Metrics
) -> Calibration | None:
    """P(malformed) against the labels of all arms; None where there are none, or no such score."""
    images = [(arm, image) for arm in sorted(judged) for image in judged[arm]]
    if not images or any("p_malformed" not in scores[arm].columns for arm, _ in images):
        return None
    found = calibrate(
        labels=[image.shares["malformed_human"] for _, image in images],
        scores=[scores[arm].columns["p_malformed"][scores[arm].row_of_pair[p.pair_id]] for arm, p in images],
        inclusion=[image.inclusion_probability for _, image in images],
        clusters=[image.pair_id for _, image in images],
        resamples=settings.resamples,
        level=settings.level,
        seed=settings.seed,
    )
    n = len(images)
    return Calibration(
        images=n,
        brier=_bounds(found.brier, n),
        auc=_bounds(found.auc, n) if found.auc else None,
        bins=[CalibrationBin(low=b.low, high=b.high, score=b.score, rate=_interval(b.rate)) for b in found.bins],
        simulated=any(image.simulated for _, image in images),
    )


def strengths(
    arms: Sequence[str], pairs: Sequence[SampledPair], labels: Sequence[PairLabel], settings: Metrics
) -> list[Strength]:
    """Bradley-Terry strengths of the arms; empty where the choices do not connect the arms that they name."""
    shown = {pair.task_id: pair for pair in pairs}
    share = {"left": 1.0, "right": 0.0, "tie": 0.5}
    choices = [(shown[lb.task_id].left_arm, shown[lb.task_id].right_arm, share[lb.choice]) for lb in labels]
    named = [arm for arm in arms if any(arm in choice[:2] for choice in choices)]
    if not bradley_terry.connected(choices, named):
        return []
    found = bradley_terry.strengths(
        choices,
        [shown[label.task_id].pair_id for label in labels],
        named,
        settings.resamples,
        settings.level,
        settings.seed,
    )
    # Strengths are relative to each other, so one simulated choice touches all of them.
    simulated = any(label.simulated for label in labels)
    return [
        Strength(arm=arm, strength=Interval(value=s.value, low=s.low, high=s.high, n=s.n), simulated=simulated)
        for arm, s in found.items()
    ]


def estimate(
    study: Study,
    tasks: Sequence[SampledTask],
    labels: Sequence[Label],
    pairs: Sequence[SampledPair],
    pair_labels: Sequence[PairLabel],
    scores: Mapping[str, ArmScores],
) -> Rates:
    """The content of metrics/labels.json; labels of tasks and pairs that are not given are counted and left out.

    They are of images that were regenerated since, or of another study. Simulated labels are left out as well as soon
    as a person has labelled, so that no number rests on both. Raises InputError where the sample names images that have
    no scores.
    """
    settings = study.metrics
    shown = {task.task_id for task in tasks} | {pair.task_id for pair in pairs}
    given = len(labels) + len(pair_labels)
    labels = [label for label in labels if label.task_id in shown]
    pair_labels = [label for label in pair_labels if label.task_id in shown]
    of_people = [label for label in labels if not label.simulated]
    pairs_of_people = [label for label in pair_labels if not label.simulated]
    if of_people or pairs_of_people:
        labels, pair_labels = of_people, pairs_of_people
    for task in tasks:
        if task.arm not in scores or task.pair_id not in scores[task.arm].row_of_pair:
            raise InputError(f"the sample holds '{task.image_id}', which has no scores; run `dvc repro`")
    judged = judged_images(tasks, labels)
    arms = [arm_rates(arm, judged[arm], scores[arm], settings.level) for arm in study.compared if arm in judged]
    differences = [
        arm_difference(arm, judged[arm], judged[study.baseline], (scores[arm], scores[study.baseline]), settings.level)
        for arm in study.compared
        if arm != study.baseline and arm in judged and study.baseline in judged
    ]
    canvases = []
    for canvas in dict.fromkeys(arm.canvas for arm in arms):
        members = [arm.name for arm in arms if arm.canvas == canvas]
        together, all_scores = pooled([judged[arm] for arm in members], [scores[arm] for arm in members])
        if together:
            canvases.append(arm_rates(canvas, together, all_scores, settings.level))
    return Rates(
        baseline=study.baseline,
        level=settings.level,
        labels=len(labels),
        pair_labels=len(pair_labels),
        labellers=len({label.labeller for label in labels} | {label.labeller for label in pair_labels}),
        simulated_labels=sum(label.simulated for label in labels) + sum(label.simulated for label in pair_labels),
        left_out=given - len(labels) - len(pair_labels),
        arms=arms,
        canvases=canvases,
        differences=[difference for difference in differences if difference is not None],
        agreement=agreement(tasks, labels, settings),
        self_agreement=self_agreement(tasks, labels, settings.level),
        calibration=calibration(judged, scores, settings),
        strengths=strengths(list(study.compared), pairs, pair_labels, settings),
    )


def load_scores(folder: Path, arm: str) -> ArmScores:
    """The automatic scores of an arm's images. Raises InputError."""
    table = read_table(folder / f"{arm}.parquet")
    wanted = [name for name in SCORE_OF.values() if name in table.column_names]
    columns = {name: np.asarray(table.column(name).to_pylist(), dtype=np.float64) for name in wanted}
    return ArmScores(columns, {pair: row for row, pair in enumerate(table.column("pair_id").to_pylist())})


def _rate(classical: ppi.Powered, powered: ppi.Powered | None) -> Rate:
    return Rate(classical=_interval(classical), powered=_interval(powered) if powered else None)


def _interval(found: ppi.Powered) -> Interval:
    return Interval(value=found.value, low=found.low, high=found.high, n=found.n)


def _bounds(found: tuple[float, float, float], n: int) -> Interval:
    value, low, high = found
    return Interval(value=value, low=low, high=high, n=n)


def main() -> None:
    stage_parser("labeling.rates.label_rates", __doc__).parse_args()
    study = load_study()
    tasks, pairs = read_tasks(), read_pairs()
    labels, pair_labels = read_labels(TASK_LABELS), read_pair_labels(PAIR_LABELS)
    scores = {arm: load_scores(SCORES, arm) for arm in study.compared}
    rates = estimate(study, tasks, labels, pairs, pair_labels, scores)
    write_atomically(RATES, seal_json(rates.model_dump_json(indent=2)))
    total = rates.labels + rates.pair_labels
    simulated = f", {rates.simulated_labels} of them SIMULATED" if rates.simulated_labels else ""
    said = (
        f"{total} labels by {rates.labellers} labellers{simulated} in {RATES}"
        if total
        else f"no one has labelled this sample yet; {RATES} is empty (`make label-studio` starts the server)"
    )
    if rates.left_out:
        said += (
            f"; {rates.left_out} labels in {TASK_LABELS.parent}/ are left out: of images that were regenerated since, "
            "of another study, or simulated where people have labelled"
        )
    print(f"rates: {said}")


if __name__ == "__main__":
    run_stage(main)
