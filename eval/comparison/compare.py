"""Stage `compare`: arm against arm, every arm against the baseline and the reference, and what that says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pydantic import ValidationError
from torch import Tensor
from tqdm import tqdm

from eval.comparison.adherence import adherence, concept_readers, shown_concepts_by_arm
from eval.comparison.alignment import Means, actions, alignments, closer_to, trajectories
from eval.comparison.arm_measurements import (
    Arms,
    asked_prompts,
    check_one_instrument,
    named_by_negatives,
    prompt_numbers,
    read_arms,
    read_cost,
    read_detail,
    reference_captions,
    tagged_images,
)
from eval.comparison.chosen_scale import chosen_scales
from eval.comparison.control_arms import against_control, payments
from eval.comparison.effective_scale import effective_scale
from eval.comparison.external_arms import external_records
from eval.comparison.feature_spaces import floors, in_space
from eval.comparison.matched_strength import family_paths, frontiers, sweeps
from eval.comparison.named_concepts import ShiftsWithout, TaggedImages, shown_concepts, without_named
from eval.comparison.paired_arms import ArmValues, arm_replicates
from eval.comparison.plot_tables import COLUMNS, csv_bytes, direction_sizes, plot_tables
from eval.comparison.shift import (
    against_baseline,
    against_reference,
    has_kinds,
    kind_chances,
    permutations,
    tag_composition,
)
from eval.comparison.verdicts import alignment_answer, arm_verdicts
from eval.distances.euclidean import near_pairs, settled
from eval.features.extraction import REFERENCE, SetFeatures, load_features
from eval.features.plain_text import names_by_arm
from eval.features.spaces import Space, study_spaces
from eval.scorers.kinds import KINDS
from eval.scorers.tags import fit_tag_reader, tag_shares
from eval.statistics.bootstrap import bounded
from eval.statistics.holm import holm_by_question
from eval.statistics.jackknife import Replicates, deletions
from pipeline.errors import InputError, run_stage
from pipeline.guidance.effect import does_nothing, largest_push
from pipeline.layout import COSTS, FEATURES, METRICS, PLOTS, SETS, TRACES
from pipeline.preflight import study_digests
from pipeline.results.colours import arm_colours
from pipeline.results.comparison import (
    COMPARISON,
    Alignment,
    ComparedArm,
    ComparedSpace,
    Comparison,
    EffectiveScale,
    Floor,
)
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.results.space_cards import SPACE_CARDS, load_space_cards
from pipeline.stage_arguments import stage_parser
from pipeline.storage.files import file_digest, fingerprint, write_atomically
from pipeline.storage.json_file import seal_json
from pipeline.storage.shards import read_set
from pipeline.study.arm import Arm
from pipeline.study.extractors import FeatureSpace
from pipeline.study.study import BESIDE_THE_NUMBERS, Metrics, Study, load_study

Traces = Mapping[str, pa.Table]
# The distance, in lengths of a vector, within which two images are the same: features of other batches round otherwise.
_EQUAL = 1e-4


def read_traces(study: Study) -> Traces:
    """The trace of every arm. Raises InputError where one is missing or damaged."""
    return {arm: read_set(TRACES / arm) for arm in study.arms}


def compare(study: Study, traces: Callable[[], Traces] | None = None) -> Comparison:
    """The content of metrics/compare.json; `traces` gives those of the arms where someone has read them already.

    Raises InputError where an arm's numbers are missing or do not fit.
    """
    extractors = study.features.extractors
    features = {
        name: {arm: load_features(FEATURES / arm / f"{name}.safetensors") for arm in study.arms} for name in extractors
    }
    reference = {name: load_features(FEATURES / REFERENCE / f"{name}.safetensors") for name in extractors}
    details = {arm: read_detail(METRICS / "detail" / f"{arm}.json") for arm in study.arms}
    for arm in study.arms:
        for name in extractors:
            check_one_instrument(arm, features[name][arm], reference[name], details[arm]["provenance"])
    spaces = study_spaces(study)
    first = spaces[0].settings.extractor
    for arm, name in product(study.arms, extractors):
        if features[name][arm].ids != features[first][arm].ids:
            raise InputError(f"features of '{arm}' by {name} and {first} differ in their images; run `dvc repro`")
    arms = read_arms(study, features[first], spaces[0])
    captions = reference_captions(reference[first])
    in_units = clip_space(study, spaces)
    measured = Measured(
        features,
        reference,
        spaces,
        details,
        captions,
        named_by_negatives(study),
        None if in_units is None else tagged_images(study, reference[in_units.settings.extractor], captions, in_units),
    )
    try:
        prompted = study.features.clip is not None and any(asked_prompts(study))
        steps = traces or partial(read_traces, study)
        return compare_arms(study, arms, prompt_numbers(study), prompted, measured, steps)
    except (ValueError, ValidationError) as error:
        raise InputError(f"study '{study.name}' cannot be compared: {' '.join(str(error).split())}") from None


@dataclass(frozen=True)
class Measured:
    """What is compared beside the arms' values: features by extractor, of arms and of the reference set, the spaces
    (the primary one first), metrics/detail, the reference's captions, what negative prompts name, and the images that
    show it, None where no CLIP reads what images show."""

    features: Mapping[str, Mapping[str, SetFeatures]]
    reference: Mapping[str, SetFeatures]
    spaces: Sequence[Space]
    details: Mapping[str, dict[str, Any]]
    captions: Sequence[str]
    named: Sequence[str]
    tagged: TaggedImages | None


def clip_space(study: Study, spaces: Sequence[Space]) -> Space | None:
    """The space of the unit vectors of the study's CLIP; None where it has none."""
    clip = study.features.clip
    return next((one for one in spaces if clip and one.settings == FeatureSpace(clip, unit=True)), None)


def compare_arms(
    study: Study, arms: Arms, prompts: Tensor, prompted: bool, measured: Measured, traces: Callable[[], Traces]
) -> Comparison:
    """Every number of the comparison, of pairs with the numbers of their `prompts` [N].

    The baseline from other seeds, which forms no pairs, is in `arms` and gives the floor of shifts alone.

    Where they are not `prompted`, nothing is asked about following the prompt. Raises ValueError where there are too
    few images, with their counts.
    """
    settings = study.metrics
    primary = measured.spaces[0]
    # Of the study's CLIP where it has one: what images show, and which of them are equal, is read from its vectors.
    looking = study.features.clip or primary.settings.extractor
    seen, real = measured.features[looking], measured.reference[looking]
    details = measured.details
    external = external_records(study, prompts)
    unpaired = {name for name, own in external.items() if not own.is_paired}
    check_baseline(study.baseline, seen[study.baseline].images)
    reference_distinct = distinct_images(real.images)
    kept = deletions(prompts, settings.seed)
    k = settings.precision_recall_k
    found = {primary.name: arm_replicates(arms, study.baseline, primary.reference, k, kept, primary.name)}
    paired = study.compared
    guided = [name for name in paired if name != study.baseline]
    permuted = permutations(len(guided), settings.level)
    in_spaces: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in guided}
    vectors: dict[str, dict[str, Tensor]] = {}
    for space in measured.spaces:
        own = {name: space(one.images).double() for name, one in measured.features[space.settings.extractor].items()}
        if space.name not in found:
            values = {name: ArmValues(one, {}) for name, one in own.items()}
            found[space.name] = arm_replicates(values, study.baseline, space.reference, k, kept, space.name)
        vectors[space.name] = {name: own[name] for name in paired}
        answers = in_space(
            vectors[space.name], study.baseline, found[space.name], prompts, settings, permuted, study.reseeded
        )
        for name, answer in answers.items():
            in_spaces[name][space.name] = answer
    of_primary = found[primary.name]
    against = {
        name: against_baseline(
            arms[name],
            arms[study.baseline],
            of_primary[name],
            of_primary[study.baseline],
            prompts,
            settings,
            permuted,
            paired=not unpaired & {name, study.baseline},
        )
        for name in tqdm(guided, "compare with the baseline", unit="arm", disable=None)
    }
    paid = payments(paired, arms, prompts, settings)
    controls = {
        own.control.of: against_control(name, own, arms, of_primary, prompts, kept, settings, paid)
        for name, own in paired.items()
        if own.control
    }
    steps = traces()
    pushed = {name: largest_push(steps[name]) for name in paired}
    effective = {name: None if name in external else effective_scale(steps[name], prompts, settings) for name in paired}
    reader = None if study.features.clip is None else fit_tag_reader(real.images, measured.captions, settings.seed)
    if reader is not None:
        shares = {name: tag_shares(reader(one.images)) for name, one in seen.items()}
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
    adjusted = holm_by_question(p_values)
    for name in guided:
        against[name]["spaces"] = in_spaces[name]
        against[name]["adjusted_p"] = {**in_spaces[name][primary.name]["adjusted_p"], **adjusted[name]}
    sweep_of = sweeps(paired)
    compared = [
        ComparedArm.model_validate(
            {
                "arm": name,
                "family": sweep_of[name],
                "method": arm.shown_method,
                "scale": _scale(arm, effective[name]),
                "prompt": arm.prompt,
                "negative_prompt": arm.negative,
                "description": arm.description,
                "n": len(prompts),
                "distinct": distinct_images(seen[name].images),
                "copied": copied_images(seen[name].images, real.images),
                "cost": read_cost(COSTS / f"{name}.json"),
                "kinds": dict(zip(KINDS, kind_chances(arms[name]).mean(0).tolist(), strict=True))
                if has_kinds(arms[name])
                else {},
                "scores": details[name]["scores"],
                "inpainted": details[name].get("inpainted", {}),
                "against_reference": against_reference(
                    arms[name], of_primary[name], primary.reference, prompts, settings
                ),
                "against_baseline": against.get(name),
                "push": pushed[name],
                "does_nothing": does_nothing(arm.is_meant_to_guide, pushed[name], study.model.loading.dtype),
                "effective": effective[name],
                "control_of": arm.control and arm.control.of,
                "against_control": controls.get(name),
            }
        )
        for name, arm in tqdm(paired.items(), "compare with the reference", unit="arm", disable=None)
    ]
    aligned = [alignment_of(name, steps[name], prompts, settings) for name in paired if name not in external]
    n = study.generate.images
    spaces = [
        ComparedSpace(
            name=one.name,
            extractor=one.settings.extractor,
            unit=one.settings.unit,
            components=one.components,
            explained=one.explained,
            digest=measured.reference[one.settings.extractor].provenance["extractor_digest"],
            resize=measured.reference[one.settings.extractor].provenance["resize"],
            floor=_floor(floors(one.reference, n, settings), found[one.name], study),
        )
        for one in measured.spaces
    ]
    return Comparison.model_validate(
        {
            "study": study.name,
            "baseline": study.baseline,
            "level": settings.level,
            "prompted": prompted,
            "arms": compared,
            "external": external,
            "spaces": spaces,
            "floor": spaces[0].floor,
            **_of_concepts(study, measured, vectors, of_primary, prompts, kept),
            "chosen": chosen_scales(
                family_paths(paired, study.baseline),
                paired,
                arms,
                study.baseline,
                primary.reference,
                prompts,
                settings,
                max(10, k + 1),
            ),
            "reference_n": len(real.ids),
            "reference_distinct": reference_distinct,
            "frontiers": frontiers(paired, study.baseline, of_primary, settings.level, prompted),
            "alignment": [one for one in aligned if one is not None],
            "verdicts": arm_verdicts(
                compared,
                study.baseline,
                spaces,
                settings.level,
                card_reasons(spaces),
                (reference_distinct, len(real.ids)),
            ),
            "provenance": provenance(study, real, details[study.baseline]["provenance"]),
        }
    )


def _of_concepts(
    study: Study,
    measured: Measured,
    vectors: Mapping[str, Mapping[str, Tensor]],
    found: Mapping[str, Mapping[str, Replicates]],
    prompts: Tensor,
    kept: list[Tensor],
) -> dict[str, Any]:
    """What negative prompts name, and what images show of it; nothing where no CLIP reads images.

    `vectors` [N, D] are those of the arms by space, `found` their scores without each group of pairs.
    """
    settings, in_units = study.metrics, clip_space(study, measured.spaces)
    if in_units is None or measured.tagged is None:
        return {}
    own, tagged = vectors[in_units.name], measured.tagged
    clusters = prompts if len(torch.unique(prompts)) < len(prompts) else None
    readers = concept_readers(shown_concepts(measured.named, tagged), tagged, settings.seed)
    shown, shows = shown_concepts_by_arm(readers, own, study.baseline, clusters, settings)
    without = ShiftsWithout(tagged, own, study.baseline, kept)
    return {
        "named": without_named(in_units.name, measured.named, without, in_units.reference, settings.level),
        "shown": shown,
        "adherence": adherence(names_by_arm(study), shows, found, without, clusters, settings),
    }


def _floor(real: dict[str, Interval], found: Mapping[str, Mapping[str, Replicates]], study: Study) -> Floor:
    other_seeds = None
    if study.reseeded is not None:
        other_seeds = bounded(found[study.reseeded]["shift_fd"].interval(study.metrics.level), 0)
    return Floor(**real, other_seeds=other_seeds)


def _scale(arm: Arm, effective: EffectiveScale | None) -> float:
    # A control's is known from its trace alone.
    return arm.scale if arm.control is None or effective is None else effective.scale.value


def distinct_images(vectors: Tensor) -> int:
    """How many of N images differ, by their vectors [N, D]; equal ones may differ by rounding."""
    scale = vectors.abs().max().clamp(min=torch.finfo(vectors.dtype).tiny)
    return len(torch.unique((vectors / scale * 1e4).round(), dim=0))


def copied_images(vectors: Tensor, reference: Tensor) -> int:
    """How many of the images are images of the reference set, by their vectors [N, D] and [M, D]."""
    reach = (_EQUAL**2) * vectors.double().square().sum(1)
    found = torch.zeros(len(vectors), dtype=torch.bool)
    for pairs in near_pairs(vectors, reference, reach, torch.zeros(len(reference), dtype=torch.float64)):
        squared = settled(pairs, vectors, reference, [reach[pairs.i]])
        found[pairs.i[squared <= reach[pairs.i]]] = True
    return int(found.sum())


def check_baseline(name: str, vectors: Tensor) -> None:
    """Raise InputError where the baseline's images, by their vectors [N, D], are one: it has no spread to divide by."""
    if len(vectors) > 1 and distinct_images(vectors) == 1:
        raise InputError(
            f"baseline '{name}': all {len(vectors)} images are the same, so that nothing can be compared with it; look "
            f"at {SETS / name}. Where they are black, the autoencoder may overflow: set model.vae, or "
            "model.loading.dtype=float32"
        )


def card_reasons(spaces: Sequence[ComparedSpace]) -> Callable[[str], str]:
    """What a feature space answers to, by its card; nothing for an extractor with other weights than the cards'."""
    if not SPACE_CARDS.exists():
        return lambda _name: ""
    cards = load_space_cards()
    known = {space.name for space in spaces if cards.extractors.get(space.extractor) == space.digest}
    return lambda name: cards.reason(name) if name in known else ""


def alignment_of(arm: str, trace: pa.Table, prompts: Tensor, settings: Metrics) -> Alignment | None:
    """The alignment of the references along one arm's trajectories; None where fewer than two have a direction."""
    if "cosines" not in trace.column_names:
        return None
    found = trajectories(trace.select(["image_id", "step", "sigma", "references", "relative_norms", "cosines"]))
    if found is None:
        return None
    clusters = prompts[torch.from_numpy(found.images)]
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
    # Sums are split among threads, and rounded so: as many on every machine.
    torch.set_num_threads(study.generate.threads)
    traces = cache(partial(read_traces, study))
    content = compare(study, traces)
    write_atomically(COMPARISON, seal_json(content.model_dump_json(indent=2)))
    sizes = direction_sizes(study, traces(), arm_colours(content.arms, content.baseline))
    for name, rows in {**plot_tables(content), "direction": sizes}.items():
        write_atomically(PLOTS / f"{name}.csv", csv_bytes(rows, COLUMNS[name]))
    print(f"compare: {len(study.compared)} arms against '{study.baseline}' in {COMPARISON}; plots in {PLOTS}/")
    for one in content.verdicts:
        said = "; ".join(f"{answer.topic.lower()}: {answer.verdict}" for answer in one.verdicts)
        print(f"  {one.arm}: {said}")


def _steps(steps: list[tuple[float, Interval]]) -> list[dict[str, Any]]:
    return [{"sigma": sigma, "value": value} for sigma, value in steps]


def _sources() -> list[Path]:
    """The code behind the numbers; a commit's name would change with every commit of the numbers themselves."""
    return [path for folder in ("pipeline", "eval") for path in Path(folder).rglob("*.py")]


if __name__ == "__main__":
    run_stage(main)
