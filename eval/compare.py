"""Stage `compare`: arm against arm, every arm against the baseline and the reference, and what that says."""

import csv
import io
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from tqdm import tqdm

from eval.alignment import actions, alignments, closer_to, trajectories
from eval.bootstrap import Interval, statistic_interval
from eval.classifier_test import classifier_auc
from eval.composition import jensen_shannon, paired_composition_p_value, total_variation
from eval.contraction import leading_directions
from eval.displacement import paired_displacement
from eval.features import REFERENCE, SetFeatures, load_features
from eval.frechet import frechet_distance
from eval.holm import holm
from eval.jackknife import Replicates, combined, deletions, replicates
from eval.kinds import KINDS
from eval.matched_strength import frontiers
from eval.mmd_test import mmd_test, paired_mmd_test
from eval.paired_arms import ArmValues, arm_replicates
from eval.prompt_diversity import within_prompt_spread
from eval.tags import TagReader, fit_tag_reader, tag_shares
from eval.verdicts import alignment_answer, arm_verdicts
from pipeline.comparison import COMPARISON, Alignment, ComparedArm, Comparison, Cost, Floor
from pipeline.errors import InputError, run_stage
from pipeline.files import file_digest, fingerprint, write_atomically
from pipeline.layout import COSTS, FEATURES, METRICS, PLOTS, REFERENCE_SET, SCORES, SETS, TRACES
from pipeline.shards import read_set, read_table
from pipeline.stage_arguments import stage_parser
from pipeline.study import Metrics, Study, load_study
from pipeline.weights import study_digests

# Per-image columns of data/scores whose differences are asked for, by the name of the set score.
PAIRED_SCORES = {"clip_score": "clip_score", "aesthetic": "aesthetic", "malformed": "p_malformed"}
# The scores that may name a direction of feature space.
NAMING = ("clip_score", "aesthetic", "p_malformed", "saturation", "contrast", "sharpness")
KIND_COLUMNS = tuple(f"kind_{kind}" for kind in KINDS)
DIRECTIONS = 4
# Fewer prompts with several pictures than this say nothing about the diversity within a prompt.
REPEATED_PROMPTS = 10
PERMUTATIONS = 999
# How many of the tags that changed most are named.
NAMED_TAGS = 5
# The columns of plots that may have no rows: a study without guided arms or without probes.
COLUMNS = {
    "arms": ["arm"],
    "shift": ["arm", "drift", "contraction"],
    "frontier": ["family", "arm", "recall", "precision"],
    "alignment": ["arm", "step", "cosine"],
    "direction": ["arm", "step", "direction"],
}

Arms = dict[str, ArmValues]


def reference_floor(reference: Tensor, n: int, settings: Metrics) -> Interval:
    """The Fréchet distance that `n` real pictures have from the other real ones: what a perfect arm would get."""
    ours, others = reference[:n], reference[n:]
    return statistic_interval(
        lambda index: frechet_distance(ours[index], others), n, settings.resamples, settings.level, settings.seed
    )


def compare(study: Study) -> Comparison:
    """The content of metrics/compare.json. Raises InputError where an arm's numbers are missing or do not fit."""
    extractor = f"{study.features.primary}.safetensors"
    features = {arm: load_features(FEATURES / arm / extractor) for arm in study.arms}
    reference = load_features(FEATURES / REFERENCE / extractor)
    details = {arm: _read_json(METRICS / "detail" / f"{arm}.json") for arm in study.arms}
    for name in study.arms:
        check_one_instrument(name, features[name], reference, details[name]["provenance"])
    arms = read_arms(study, features)
    captions = reference_captions(reference)
    try:
        return compare_arms(study, arms, prompt_numbers(study), reference, details, captions)
    except (ValueError, ValidationError) as error:
        raise InputError(f"study '{study.name}' cannot be compared: {' '.join(str(error).split())}") from None


def check_one_instrument(arm: str, features: SetFeatures, reference: SetFeatures, measured: dict[str, Any]) -> None:
    """Raise InputError where an arm's features or scores come from another extractor or reference set."""
    for key in ("extractor", "extractor_digest", "resize", "precision"):
        if features.provenance[key] != reference.provenance[key]:
            raise InputError(
                f"features of '{arm}' and of the reference differ in {key}: {features.provenance[key]} and "
                f"{reference.provenance[key]}; run `dvc repro`"
            )
    if features.images.shape[1] != reference.images.shape[1]:
        raise InputError(
            f"features of '{arm}' have {features.images.shape[1]} dimensions, of the reference "
            f"{reference.images.shape[1]}; run `dvc repro`"
        )
    for key, seen, wanted in (
        ("reference set", measured["reference"], reference.provenance["set"]),
        ("pictures", measured["set"], features.provenance["set"]),
    ):
        if seen != wanted:
            raise InputError(f"the scores of '{arm}' have {key} {seen}, the features {wanted}; run `dvc repro`")


def read_arms(study: Study, features: dict[str, SetFeatures]) -> Arms:
    """Features and per-image scores of every arm, row k being pair k. Raises InputError where arms are no pairs."""
    learned = [*study.metrics.scorers, *(["lpips"] if study.metrics.lpips else [])]
    columns = list(dict.fromkeys(["image_id", "pair_id", *PAIRED_SCORES.values(), *NAMING, *KIND_COLUMNS, *learned]))
    arms: Arms = {}
    pairs: dict[str, list[int]] = {}
    for name in study.arms:
        scores = read_table(SCORES / f"{name}.parquet", columns)
        if scores["image_id"].to_pylist() != features[name].ids:
            raise InputError(f"scores of '{name}' belong to other pictures than its features; run `dvc repro`")
        pairs[name] = scores["pair_id"].to_pylist()
        own = {column: torch.tensor(scores[column].to_pylist(), dtype=torch.float64) for column in columns[2:]}
        arms[name] = ArmValues(features[name].images.double(), own)
    for name, own_pairs in pairs.items():
        if own_pairs != pairs[study.baseline]:
            shared = len(set(own_pairs) & set(pairs[study.baseline]))
            raise InputError(
                f"arms '{name}' ({len(own_pairs)} pictures) and '{study.baseline}' ({len(pairs[study.baseline])}) "
                f"do not share their pairs, only {shared}; run `dvc repro`"
            )
    return arms


def reference_captions(reference: SetFeatures) -> list[str]:
    """The captions of the reference pictures, in the order of their features. Raises InputError where they differ."""
    table = read_set(REFERENCE_SET, ["image_id", "prompt"])
    if table["image_id"].to_pylist() != reference.ids:
        raise InputError(f"features of the reference belong to other pictures than {REFERENCE_SET}; run `dvc repro`")
    captions: list[str] = table["prompt"].to_pylist()
    return captions


def prompt_numbers(study: Study) -> Tensor:
    """The number [N] of each pair's prompt; pairs of one prompt are resampled together."""
    prompts = read_set(SETS / study.baseline, ["prompt"])["prompt"].to_pylist()
    numbers = {prompt: k for k, prompt in enumerate(dict.fromkeys(prompts))}
    # Without any prompt nothing is shared but the lack of one.
    return torch.arange(len(prompts)) if len(numbers) == 1 else torch.tensor([numbers[prompt] for prompt in prompts])


def compare_arms(
    study: Study,
    arms: Arms,
    prompts: Tensor,
    reference: SetFeatures,
    details: dict[str, dict[str, Any]],
    captions: list[str],
) -> Comparison:
    """Every number of the comparison. Raises ValueError where there are too few pictures, with their counts."""
    settings = study.metrics
    kept = deletions(prompts, settings.seed)
    found = arm_replicates(arms, study.baseline, reference.images, settings.precision_recall_k, kept)
    guided = [name for name in study.arms if name != study.baseline]
    against = {
        name: against_baseline(arms[name], arms[study.baseline], found[name], found[study.baseline], prompts, settings)
        for name in tqdm(guided, "compare with the baseline", unit="arm", disable=None)
    }
    reader = fit_tag_reader(reference.images, captions, settings.seed)
    if reader is not None:
        shares = {name: tag_shares(reader(arm.features)) for name, arm in arms.items()}
        for name in guided:
            against[name]["tags"] = tag_composition(reader, shares[name], shares[study.baseline], kept, settings)
    adjusted = _adjusted({name: content.pop("p_values") for name, content in against.items()})
    compared = [
        ComparedArm.model_validate(
            {
                "arm": name,
                "family": arm.family,
                "method": arm.method,
                "scale": arm.scale,
                "prompt": arm.prompt,
                "negative_prompt": arm.negative,
                "description": arm.description,
                "n": len(prompts),
                "cost": read_cost(COSTS / f"{name}.json"),
                "kinds": dict(zip(KINDS, _kinds(arms[name]).mean(0).tolist(), strict=True)),
                "scores": details[name]["scores"],
                "against_reference": against_reference(arms[name], found[name], reference, prompts, settings),
                "against_baseline": {**against[name], "adjusted_p": adjusted[name]} if name in against else None,
            }
        )
        for name, arm in tqdm(study.arms.items(), "compare with the reference", unit="arm", disable=None)
    ]
    floor = Floor.model_validate({"fd": reference_floor(reference.images, study.generate.pictures, settings)})
    return Comparison.model_validate(
        {
            "study": study.name,
            "baseline": study.baseline,
            "level": settings.level,
            "arms": compared,
            "floor": floor,
            "reference_n": len(reference.ids),
            "frontiers": frontiers(study.arms, study.baseline, found, settings.level),
            "alignment": [one for name in study.arms if (one := alignment_of(name, settings)) is not None],
            "verdicts": arm_verdicts(compared, study.baseline, floor, settings.level),
            "provenance": provenance(study, reference, details[study.baseline]["provenance"]),
        }
    )


def against_baseline(
    arm: ArmValues,
    baseline: ArmValues,
    found: dict[str, Replicates],
    base: dict[str, Replicates],
    prompts: Tensor,
    settings: Metrics,
) -> dict[str, Any]:
    """The record AgainstBaseline of one arm, with unadjusted `p_values` in the place of the adjusted ones."""
    level, seed = settings.level, settings.seed
    differences = {name: found[column] - base[column] for name, column in PAIRED_SCORES.items()}
    differences["reference_fd"] = found["fd_for_differences"] - base["fd_for_differences"]
    preferences = {name: (found[name] - base[name]).interval(level) for name in settings.scorers}
    mmd = paired_mmd_test(arm.features, baseline.features, PERMUTATIONS, seed)
    moved = paired_displacement(arm.features, baseline.features)
    # Pictures of one seed differ less than those of two; held out together, a pair cannot tell on itself.
    auc = classifier_auc(arm.features, baseline.features, prompts, prompts, level)
    return {
        **{name: found[f"shift_{name}"].interval(level) for name in ("fd", "drift", "contraction", "spread_ratio")},
        **{name: difference.interval(level) for name, difference in differences.items()},
        "mean_share": moved.mean_share,
        "dispersion": moved.dispersion,
        "two_sample": {"mmd2": mmd.mmd2, "mmd_p": mmd.p, "auc": auc},
        "composition": composition(arm, baseline, found, base, settings),
        "directions": named_directions(arm, baseline),
        "within_prompt": within_prompt(arm, baseline, prompts, settings),
        "lpips": lpips_difference(found, base, prompts, settings),
        "preferences": preferences,
        "p_values": {
            "shift": mmd.p,
            # Of the logarithm, so that it does not matter which arm is the baseline.
            "spread": combined(_log, found["shift_spread_ratio"]).p_value(),
            "distance": differences["reference_fd"].p_value(),
            "quality": differences["aesthetic"].p_value(),
            "malformed": differences["malformed"].p_value(),
            "prompt": differences["clip_score"].p_value(),
        },
    }


def against_reference(
    arm: ArmValues, found: dict[str, Replicates], reference: SetFeatures, prompts: Tensor, settings: Metrics
) -> dict[str, Any]:
    """The record AgainstReference of one arm; real pictures are independent of the arm's, each on its own."""
    mmd = mmd_test(arm.features, reference.images, PERMUTATIONS, settings.seed)
    own = torch.arange(len(reference.ids)) + int(prompts.max()) + 1
    auc = classifier_auc(arm.features, reference.images, prompts, own, settings.level)
    return {
        **{name: found[name].interval(settings.level) for name in ("drift", "contraction", "spread_ratio")},
        "two_sample": {"mmd2": mmd.mmd2, "mmd_p": mmd.p, "auc": auc},
    }


def composition(
    arm: ArmValues,
    baseline: ArmValues,
    found: dict[str, Replicates],
    base: dict[str, Replicates],
    settings: Metrics,
) -> dict[str, Any]:
    """How the shares of the kinds changed, with intervals over pairs."""
    shares = [*(found[column] for column in KIND_COLUMNS), *(base[column] for column in KIND_COLUMNS)]

    def distance(measure: Any) -> Interval:
        def of_shares(*values: float) -> float:
            halves = torch.tensor(values, dtype=torch.float64).reshape(2, len(KINDS))
            return float(measure(halves[0], halves[1]))

        return combined(of_shares, *shares).interval(settings.level)

    return {
        "total_variation": distance(total_variation),
        "jensen_shannon": distance(jensen_shannon),
        "p": paired_composition_p_value(_kinds(arm), _kinds(baseline), PERMUTATIONS, settings.seed),
    }


def tag_composition(
    reader: TagReader, ours: Tensor, theirs: Tensor, kept: list[Tensor], settings: Metrics
) -> dict[str, Any]:
    """The record TagComposition of two arms' tag shares [N, T], with intervals over pairs."""

    def statistic(index: Tensor) -> dict[str, float]:
        p, q = ours[index].mean(0), theirs[index].mean(0)
        differences = {f"tag {tag}": float(value) for tag, value in zip(reader.tags, p - q, strict=True)}
        return {"total_variation": total_variation(p, q), "jensen_shannon": jensen_shannon(p, q), **differences}

    found = replicates(statistic, len(ours), kept)
    shares, base_shares = (dict(zip(reader.tags, x.mean(0).tolist(), strict=True)) for x in (ours, theirs))
    most = sorted(reader.tags, key=lambda tag: -abs(found[f"tag {tag}"].value))[:NAMED_TAGS]
    return {
        "total_variation": found["total_variation"].interval(settings.level),
        "jensen_shannon": found["jensen_shannon"].interval(settings.level),
        "p": paired_composition_p_value(ours, theirs, PERMUTATIONS, settings.seed),
        "readable": len(reader.tags),
        "changed": [
            {
                "tag": tag,
                "share": shares[tag],
                "baseline_share": base_shares[tag],
                "difference": found[f"tag {tag}"].interval(settings.level),
            }
            for tag in most
        ],
    }


def named_directions(arm: ArmValues, baseline: ArmValues) -> list[dict[str, Any]]:
    """The leading directions of the covariance change, each with the per-image score that goes with it most."""
    pooled = torch.cat([arm.features, baseline.features])
    scores = {name: torch.cat([arm.scores[name], baseline.scores[name]]) for name in NAMING}
    result = []
    for direction in leading_directions(arm.features, baseline.features, min(DIRECTIONS, pooled.shape[1])):
        along = pooled @ direction.axis
        correlations = {name: _correlation(along, values) for name, values in scores.items()}
        name = max(correlations, key=lambda one: abs(correlations[one]))
        # An axis has no sign of its own.
        result.append({"ratio": direction.ratio, "score": name, "correlation": abs(correlations[name])})
    return result


def within_prompt(arm: ArmValues, baseline: ArmValues, prompts: Tensor, settings: Metrics) -> Interval | None:
    """The spread within a prompt over the baseline's, with its interval over prompts; None where too few repeat."""
    repeated = torch.unique(prompts, return_counts=True)[1] > 1
    if int(repeated.sum()) < REPEATED_PROMPTS:
        return None
    kept = torch.isin(prompts, torch.unique(prompts)[repeated])
    ours, theirs, numbers = arm.features[kept], baseline.features[kept], prompts[kept]

    def statistic(index: Tensor) -> dict[str, float]:
        spreads = [within_prompt_spread(features[index], numbers[index]) for features in (ours, theirs)]
        return {"ratio": spreads[0] / spreads[1]}

    found = replicates(statistic, len(numbers), deletions(numbers, settings.seed))
    return found["ratio"].interval(settings.level)


def lpips_difference(
    found: dict[str, Replicates], base: dict[str, Replicates], prompts: Tensor, settings: Metrics
) -> Interval | None:
    """The difference of LPIPS within a prompt; None where the study does not ask for it, or too few prompts repeat."""
    repeated = int((torch.unique(prompts, return_counts=True)[1] > 1).sum())
    if not settings.lpips or repeated < REPEATED_PROMPTS:
        return None
    return (found["lpips"] - base["lpips"]).interval(settings.level)


def alignment_of(arm: str, settings: Metrics) -> Alignment | None:
    """The alignment of the references along one arm's trajectories; None where fewer than two were evaluated."""
    if "cosines" not in read_set(TRACES / arm, None).column_names:
        return None
    columns = ["image_id", "step", "sigma", "references", "relative_norms", "cosines"]
    found = trajectories(read_set(TRACES / arm, columns))
    if found is None:
        return None
    ask = (settings.resamples, settings.level, settings.seed)
    asked = {"negative", "guide", "empty"} <= set(found.references)
    guide_over_empty = closer_to(found, "negative", "guide", "empty", *ask) if asked else None
    content = {
        "arm": arm,
        "pairs": [{**vars(one), "steps": _steps(one.steps)} for one in alignments(found, *ask)],
        "actions": [{**vars(one), "steps": _steps(one.steps)} for one in actions(found, *ask)],
        "guide_over_empty": guide_over_empty,
        "answer": "",
    }
    record = Alignment.model_validate(content)
    return record.model_copy(update={"answer": alignment_answer(record.pairs, record.actions, record.guide_over_empty)})


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
        "params": fingerprint(study.model_dump()),
    }


def read_cost(path: Path) -> Cost | None:
    """What an arm's pictures cost; None where `generate` left no file. Raises InputError where it is unreadable."""
    if not path.exists():
        return None
    try:
        return Cost.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}; delete it and run `dvc repro`") from None


def direction_sizes(study: Study) -> list[dict[str, object]]:
    """Per guided arm and step: noise level and mean size of the guidance direction."""
    rows: list[dict[str, object]] = []
    for name in study.arms:
        trace = read_set(TRACES / name, ["step", "sigma", "direction"])
        table = trace.group_by("step").aggregate([("sigma", "mean"), ("direction", "mean")]).sort_by("step")
        for row in table.to_pylist():
            if study.arms[name].scale != 1:
                sizes = {"sigma": round(row["sigma_mean"], 5), "direction": round(row["direction_mean"], 5)}
                rows.append({"arm": name, "step": row["step"], **sizes})
    return rows


def plot_tables(comparison: Comparison) -> dict[str, list[dict[str, object]]]:
    """The tables behind `dvc plots`."""
    arms: list[dict[str, object]] = []
    shifts: list[dict[str, object]] = []
    for arm in comparison.arms:
        values = {name: round(interval.value, 5) for name, interval in arm.scores.items()}
        arms.append({"arm": arm.arm, "scale": arm.scale, **values})
    for arm, against in comparison.guided:
        parts = {name: round(interval.value, 5) for name, interval in against.intervals.items()}
        shifts.append({"arm": arm.arm, "scale": arm.scale, "within_prompt": "", **parts})
    points = [
        {"family": frontier.family, "arm": point.arm, "scale": point.scale}
        | {name: round(value.value, 5) for name, value in point if not isinstance(value, str | float)}
        for frontier in comparison.frontiers
        for point in frontier.points
    ]
    cosines = [
        {"arm": f"{one.arm}: {' and '.join(pair.references)}", "step": k, "sigma": round(step.sigma, 5)}
        | {"cosine": round(step.value.value, 5), "low": round(step.value.low, 5), "high": round(step.value.high, 5)}
        for one in comparison.alignment
        for pair in one.pairs
        for k, step in enumerate(pair.steps)
    ]
    return {"arms": arms, "shift": shifts, "frontier": points, "alignment": cosines}


def main() -> None:
    stage_parser("eval.compare", __doc__).parse_args()
    study = load_study()
    content = compare(study)
    write_atomically(COMPARISON, (content.model_dump_json(indent=2) + "\n").encode())
    for name, rows in {**plot_tables(content), "direction": direction_sizes(study)}.items():
        write_atomically(PLOTS / f"{name}.csv", _csv(rows, COLUMNS[name]))
    print(f"compare: {len(study.arms)} arms against '{study.baseline}' in {COMPARISON}; plots in {PLOTS}/")
    for one in content.verdicts:
        said = "; ".join(f"{answer.topic.lower()}: {answer.verdict}" for answer in one.verdicts)
        print(f"  {one.arm}: {said}")


def _adjusted(p_values: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """{arm: {question: p}} after Holm's correction of each question over the arms."""
    questions = next(iter(p_values.values()), {})
    by_question = {question: holm({arm: own[question] for arm, own in p_values.items()}) for question in questions}
    return {arm: {question: by_question[question][arm] for question in questions} for arm in p_values}


def _kinds(arm: ArmValues) -> Tensor:
    """The chances [N, K] of each picture's kinds."""
    return torch.stack([arm.scores[column] for column in KIND_COLUMNS], 1)


def _log(ratio: float) -> float:
    # An arm of one picture over and over has no spread at all.
    return math.log(max(ratio, sys.float_info.min))


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size else 0.0


def _steps(steps: list[tuple[float, Interval]]) -> list[dict[str, Any]]:
    return [{"sigma": sigma, "value": value} for sigma, value in steps]


def _csv(rows: list[dict[str, object]], columns: list[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return content
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro` makes it") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); delete it and run `dvc repro`") from None


def _sources() -> list[Path]:
    """The code behind the numbers; a commit's name would change with every commit of the numbers themselves."""
    return [path for folder in ("pipeline", "eval") for path in Path(folder).rglob("*.py")]


if __name__ == "__main__":
    run_stage(main)
