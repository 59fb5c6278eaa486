"""Stage `compare`: arm against arm, every arm against the baseline and the reference, and what that says."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pydantic import ValidationError
from torch import Tensor
from tqdm import tqdm

from eval.comparison.alignment import Means, actions, alignments, closer_to, trajectories
from eval.comparison.arm_measurements import (
    Arms,
    asked_prompts,
    check_one_instrument,
    prompt_numbers,
    read_arms,
    read_cost,
    read_detail,
    reference_captions,
)
from eval.comparison.matched_strength import frontiers, sweeps
from eval.comparison.paired_arms import arm_replicates
from eval.comparison.plot_tables import COLUMNS, csv_bytes, direction_sizes, plot_tables
from eval.comparison.shift import against_baseline, against_reference, kind_chances, permutations, tag_composition
from eval.comparison.verdicts import alignment_answer, arm_verdicts
from eval.distances.frechet import frechet_distance
from eval.features.extraction import REFERENCE, SetFeatures, load_features
from eval.scorers.kinds import KINDS
from eval.scorers.tags import fit_tag_reader, tag_shares
from eval.statistics.bootstrap import statistic_interval
from eval.statistics.holm import holm
from eval.statistics.jackknife import deletions
from pipeline.errors import InputError, run_stage
from pipeline.layout import COSTS, FEATURES, METRICS, PLOTS, TRACES
from pipeline.preflight import study_digests
from pipeline.results.comparison import COMPARISON, Alignment, ComparedArm, Comparison, Floor
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.stage_arguments import stage_parser
from pipeline.storage.files import file_digest, fingerprint, write_atomically
from pipeline.storage.json_file import seal_json
from pipeline.storage.shards import read_set
from pipeline.study.study import BESIDE_THE_NUMBERS, Metrics, Study, load_study

Traces = Mapping[str, pa.Table]


def read_traces(study: Study) -> Traces:
    """The trace of every arm. Raises InputError where one is missing or damaged."""
    return {arm: read_set(TRACES / arm) for arm in study.arms}


def compare(study: Study, traces: Callable[[], Traces] | None = None) -> Comparison:
    """The content of metrics/compare.json; `traces` reads them, once everything else fits.

    Raises InputError where an arm's numbers are missing or do not fit.
    """
    extractor = f"{study.features.primary}.safetensors"
    features = {arm: load_features(FEATURES / arm / extractor) for arm in study.arms}
    reference = load_features(FEATURES / REFERENCE / extractor)
    details = {arm: read_detail(METRICS / "detail" / f"{arm}.json") for arm in study.arms}
    for name in study.arms:
        check_one_instrument(name, features[name], reference, details[name]["provenance"])
    arms = read_arms(study, features)
    captions = reference_captions(reference)
    try:
        prompted = any(asked_prompts(study))
        read = traces or partial(read_traces, study)
        return compare_arms(study, arms, prompt_numbers(study), prompted, reference, details, captions, read)
    except (ValueError, ValidationError) as error:
        raise InputError(f"study '{study.name}' cannot be compared: {' '.join(str(error).split())}") from None


def compare_arms(
    study: Study,
    arms: Arms,
    prompts: Tensor,
    prompted: bool,
    reference: SetFeatures,
    details: dict[str, dict[str, Any]],
    captions: list[str],
    traces: Callable[[], Traces],
) -> Comparison:
    """Every number of the comparison, of pairs with the numbers of their `prompts` [N].

    Where they are not `prompted`, nothing is asked about following the prompt. Raises ValueError where there are too
    few pictures, with their counts.
    """
    settings = study.metrics
    kept = deletions(prompts, settings.seed)
    found = arm_replicates(arms, study.baseline, reference.images, settings.precision_recall_k, kept)
    guided = [name for name in study.arms if name != study.baseline]
    sweep_of = sweeps(study.arms)
    permuted = permutations(len(guided), settings.level)
    against = {
        name: against_baseline(
            arms[name], arms[study.baseline], found[name], found[study.baseline], prompts, settings, permuted
        )
        for name in tqdm(guided, "compare with the baseline", unit="arm", disable=None)
    }
    reader = fit_tag_reader(reference.images, captions, settings.seed)
    if reader is not None:
        shares = {name: tag_shares(reader(arm.features)) for name, arm in arms.items()}
        for name in guided:
            against[name]["tags"] = tag_composition(
                reader, shares[name], shares[study.baseline], kept, prompts, settings
            )
    p_values = {name: content.pop("p_values") for name, content in against.items()}
    if not prompted:
        p_values = {
            name: {key: p for key, p in own.items() if key != metric("clip_score").asked.key}
            for name, own in p_values.items()
        }
    adjusted = _adjusted(p_values)
    compared = [
        ComparedArm.model_validate(
            {
                "arm": name,
                "family": sweep_of[name],
                "method": arm.method,
                "scale": arm.scale,
                "prompt": arm.prompt,
                "negative_prompt": arm.negative,
                "description": arm.description,
                "n": len(prompts),
                "cost": read_cost(COSTS / f"{name}.json"),
                "kinds": dict(zip(KINDS, kind_chances(arms[name]).mean(0).tolist(), strict=True)),
                "scores": details[name]["scores"],
                "against_reference": against_reference(arms[name], found[name], reference, prompts, settings),
                "against_baseline": {**against[name], "adjusted_p": adjusted[name]} if name in against else None,
            }
        )
        for name, arm in tqdm(study.arms.items(), "compare with the reference", unit="arm", disable=None)
    ]
    aligned = [alignment_of(name, trace, prompts, settings) for name, trace in traces().items()]
    n = study.generate.pictures
    floor = Floor.model_validate(
        {
            "fd": reference_floor(reference.images, n, settings),
            "between_sets": reference_floor(reference.images[: 2 * n], n, settings),
        }
    )
    return Comparison.model_validate(
        {
            "study": study.name,
            "baseline": study.baseline,
            "level": settings.level,
            "prompted": prompted,
            "arms": compared,
            "floor": floor,
            "reference_n": len(reference.ids),
            "frontiers": frontiers(study.arms, study.baseline, found, settings.level, prompted),
            "alignment": [one for one in aligned if one is not None],
            "verdicts": arm_verdicts(compared, study.baseline, floor, settings.level),
            "provenance": provenance(study, reference, details[study.baseline]["provenance"]),
        }
    )


def reference_floor(reference: Tensor, n: int, settings: Metrics) -> Interval:
    """The Fréchet distance that the first `n` real pictures have from the others: what a perfect arm would get."""
    ours, others = reference[:n], reference[n:]
    return statistic_interval(
        lambda index: frechet_distance(ours[index], others), n, settings.resamples, settings.level, settings.seed
    )


def alignment_of(arm: str, trace: pa.Table, prompts: Tensor, settings: Metrics) -> Alignment | None:
    """The alignment of the references along one arm's trajectories; None where fewer than two have a direction."""
    if "cosines" not in trace.column_names:
        return None
    found = trajectories(trace.select(["image_id", "step", "sigma", "references", "relative_norms", "cosines"]))
    if found is None:
        return None
    clusters = prompts[torch.from_numpy(found.pictures)]
    repeated = clusters if len(torch.unique(clusters)) < len(clusters) else None
    mean = Means(settings.resamples, settings.level, settings.seed, repeated)
    asked = {"negative", "guide", "empty"} <= set(found.references)
    guide_over_empty = closer_to(found, "negative", "guide", "empty", mean) if asked else None
    content = {
        "arm": arm,
        "pairs": [{**vars(one), "steps": _steps(one.steps)} for one in alignments(found, mean)],
        "actions": [{**vars(one), "steps": _steps(one.steps)} for one in actions(found, mean)],
        "coinciding": found.coinciding,
        "incomplete": found.incomplete,
        "without_direction": found.without_direction,
        "guide_over_empty": guide_over_empty,
        "answer": "",
    }
    record = Alignment.model_validate(content)
    return record.model_copy(update={"answer": alignment_answer(record)})


def provenance(study: Study, reference: SetFeatures, measured: dict[str, Any]) -> dict[str, Any]:
    """What the numbers were made with."""
    return {
        "extractor": measured["extractor"],
        "extractor_digest": measured["extractor_digest"],
        "resize": measured["resize"],
        **{part: digest or "missing" for part, digest in study_digests(study).items()},
        "reference": reference.provenance["set"],
        "code": fingerprint({str(path): file_digest(path) for path in sorted(_sources())}),
        "libraries": {
            name: version(name) for name in ("torch", "diffusers", "open_clip_torch", "transformers", "scikit-learn")
        },
        "params": fingerprint(study.model_dump(exclude=BESIDE_THE_NUMBERS)),
    }


def main() -> None:
    stage_parser("eval.comparison.compare", __doc__).parse_args()
    study = load_study()
    traces = cache(partial(read_traces, study))
    content = compare(study, traces)
    write_atomically(COMPARISON, seal_json(content.model_dump_json(indent=2)))
    for name, rows in {**plot_tables(content), "direction": direction_sizes(study, traces())}.items():
        write_atomically(PLOTS / f"{name}.csv", csv_bytes(rows, COLUMNS[name]))
    print(f"compare: {len(study.arms)} arms against '{study.baseline}' in {COMPARISON}; plots in {PLOTS}/")
    for one in content.verdicts:
        said = "; ".join(f"{answer.topic.lower()}: {answer.verdict}" for answer in one.verdicts)
        print(f"  {one.arm}: {said}")


def _adjusted(p_values: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """{arm: {question: p}} after Holm's correction of each question over the arms."""
    questions = next(iter(p_values.values()), {})
    by_question = {question: holm({arm: own[question] for arm, own in p_values.items()}) for question in questions}
    return {arm: {question: by_question[question][arm] for question in questions} for arm in p_values}


def _steps(steps: list[tuple[float, Interval]]) -> list[dict[str, Any]]:
    return [{"sigma": sigma, "value": value} for sigma, value in steps]


def _sources() -> list[Path]:
    """The code behind the numbers; a commit's name would change with every commit of the numbers themselves."""
    return [path for folder in ("pipeline", "eval") for path in Path(folder).rglob("*.py")]


if __name__ == "__main__":
    run_stage(main)
