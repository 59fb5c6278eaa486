"""The scores of an arm: per image, and of the whole set against the reference set."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Features, Value
from PIL import Image
from tqdm import tqdm

from eval.distances.fid import torchmetrics_fid
from eval.distances.frechet import FrechetTo
from eval.distances.frechet_infinity import frechet_infinity_replicates
from eval.distances.mmd import cmmd_replicates, kid_replicates
from eval.distances.neighbour_deletions import deleted_recall_and_coverage
from eval.distances.neighbours import neighbour_metrics
from eval.distances.vendi import vendi_score
from eval.features.clip import clip_score, load_clip
from eval.features.extraction import REFERENCE, SetFeatures, load_features
from eval.features.plain_text import plain_text
from eval.scorers.aesthetic import load_aesthetic_head
from eval.scorers.finish import finish
from eval.scorers.kinds import KINDS, kind_probabilities, load_kind_prompts
from eval.scorers.lpips import Distance, check_repeats, load_lpips, within_prompt_lpips
from eval.scorers.malformed import load_classifier
from eval.scorers.preference import Preference, load_preference, preference_scores
from eval.scorers.realism import realism
from eval.statistics.bootstrap import bounded, mean_interval, statistic_interval, wilson_interval
from eval.statistics.clusters import prompt_clusters
from eval.statistics.jackknife import deletion_groups
from pipeline.code_units import unit_digests
from pipeline.errors import InputError
from pipeline.layout import FEATURES, METRICS, SCORES, SETS
from pipeline.layout import HEADLINES as HEADLINES_OF_ARMS
from pipeline.results.interval import Interval
from pipeline.storage.digest_memory import remembered_sha256
from pipeline.storage.files import file_digest, fingerprint, write_atomically
from pipeline.storage.images import open_picture
from pipeline.storage.json_file import read_json_text, seal_json
from pipeline.storage.shards import decode_images, read_set, read_table, table_fingerprint, write_shard
from pipeline.study.study import Metrics, Study

SCORE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "pair_id": Value("int64"),
        "clip_score": Value("float64"),
        "aesthetic": Value("float64"),
        "p_malformed": Value("float64"),
        **{f"kind_{kind}": Value("float64") for kind in KINDS},
        "realism": Value("float64"),
        "saturation": Value("float64"),
        "contrast": Value("float64"),
        "sharpness": Value("float64"),
        "inside_reference": Value("bool"),
    }
)
# The code behind a score (pipeline/code_units.py).
MEASURING_UNITS = ("eval/distances", "eval/features", "eval/scorers", "eval/statistics")
# The jackknife of an extrapolation costs a whole extrapolation a group.
EXTRAPOLATION_GROUPS = 32
# What metrics/<arm>.json holds beside n: the columns of `dvc metrics show`, which fit a line of 120 characters.
HEADLINES = ("fd", "precision", "recall", "coverage", "clip_score", "aesthetic", "malformed")

# Per-image columns whose means are shown as set scores.
MEANS = ("clip_score", "aesthetic", *(f"kind_{kind}" for kind in KINDS), "saturation", "contrast", "sharpness")


@dataclass(frozen=True)
class ArmScores:
    """What is measured on one arm.

    `images` holds the per-image columns [N] of data/scores/<arm>.parquet, `sets` the set metrics and means over
    images with their intervals, `points` numbers of a peer without, `provenance` what they were measured with.
    """

    images: dict[str, torch.Tensor]
    sets: dict[str, Interval]
    points: dict[str, float]
    provenance: dict[str, object]


def check_comparable(arm: SetFeatures, reference: SetFeatures) -> None:
    """Raise InputError where two feature files were not made by the same extractor."""
    for key in ("extractor", "extractor_digest", "resize", "precision"):
        if arm.provenance[key] != reference.provenance[key]:
            raise InputError(
                f"features differ in {key}: {arm.provenance[key]} and {reference.provenance[key]}; run `dvc repro`"
            )
    dimensions = [arm.images.shape[1], reference.images.shape[1]]
    if dimensions[0] != dimensions[1]:
        raise InputError(f"features differ in dimension: {dimensions[0]} and {dimensions[1]}; run `dvc repro`")


def set_metrics(
    arm: torch.Tensor, reference: torch.Tensor, settings: Metrics, clusters: torch.Tensor | None = None
) -> dict[str, Interval]:
    """The set metrics of vectors [N, D] against the reference's [M, D], with their intervals over pictures or clusters.

    Fréchet distance, precision, recall, density, coverage and Vendi score.
    """
    n = len(arm)
    ask = (settings.resamples, settings.level, settings.seed, clusters)
    distance = FrechetTo(reference)
    return {
        "fd": bounded(statistic_interval(distance.of_subsets(arm), n, *ask), 0),
        **neighbour_intervals(arm, reference, settings, clusters),
        "vendi": bounded(statistic_interval(lambda index: vendi_score(arm[index]), n, *ask), 1, n),
    }


def kernel_and_extrapolated_metrics(
    arm: torch.Tensor, reference: torch.Tensor, settings: Metrics, clusters: torch.Tensor | None = None
) -> dict[str, Interval]:
    """FD-infinity, KID and CMMD with jackknife intervals over pictures or clusters."""
    belongs = torch.arange(len(arm)) if clusters is None else clusters
    groups = deletion_groups(belongs, settings.seed)
    few = deletion_groups(belongs, settings.seed, EXTRAPOLATION_GROUPS)
    return {
        "fd_infinity": frechet_infinity_replicates(arm, reference, few, settings.seed).interval(settings.level),
        "kid": kid_replicates(arm, reference, groups).interval(settings.level),
        "cmmd": cmmd_replicates(arm, reference, groups).interval(settings.level),
    }


def neighbour_intervals(
    arm: torch.Tensor,
    reference: torch.Tensor,
    settings: Metrics,
    clusters: torch.Tensor | None = None,
) -> dict[str, Interval]:
    """Precision, recall, density and coverage with their intervals over the arm's pictures or clusters.

    Precision and density are means over these: bootstrap, and Wilson's interval where all or none lie inside. Recall
    and coverage are means over reference pictures, which stay as they are: jackknife over the arm's.
    """
    k, coverage_k = settings.precision_recall_k, settings.density_coverage_k
    found = neighbour_metrics(arm, reference, k, coverage_k)
    ask = (settings.resamples, settings.level, settings.seed, clusters)
    precision = mean_interval(found.inside.double(), *ask)
    if found.precision in (0, 1):
        independent = len(arm) if clusters is None else len(torch.unique(clusters))
        precision = wilson_interval(round(found.precision) * independent, independent, settings.level)
    groups = deletion_groups(torch.arange(len(arm)) if clusters is None else clusters, settings.seed)
    recall, coverage = (
        one.interval(settings.level) for one in deleted_recall_and_coverage(arm, reference, k, coverage_k, groups)
    )
    return {
        "precision": replace(precision, n=len(arm)),
        "recall": bounded(recall, 0, 1),
        "density": mean_interval(found.hits.double() / coverage_k, *ask),
        "coverage": bounded(coverage, 0, 1),
    }


def median_interval(values: torch.Tensor, settings: Metrics, clusters: torch.Tensor | None = None) -> Interval:
    """The median of per-image values [N] with its interval."""
    ask = (settings.resamples, settings.level, settings.seed, clusters)
    return statistic_interval(lambda index: float(values[index].median()), len(values), *ask)


class Scorers:
    """What a study scores images with, loaded once for all of its arms, on `device`.

    Raises InputError, with the command that fetches them, for weights that are missing.
    """

    def __init__(self, study: Study, device: torch.device):
        settings = study.metrics
        self.classifier = load_classifier(Path(settings.malformed_classifier), device)
        self.head = load_aesthetic_head(Path(settings.aesthetic_head))
        self.clip = load_clip(Path(study.features.extractors[study.features.primary].weights), device)
        prompts = load_kind_prompts(Path(settings.kind_prompts))
        self.kinds = {kind: self.clip.embed_texts(texts) for kind, texts in prompts.items()}
        self.learned = LearnedScorers(settings, device)


class LearnedScorers:
    """The scores that a study asks for by name: preference scores, and LPIPS where `lpips` is not None.

    They are loaded on first access, which raises InputError, with the command that fetches them, for missing weights.
    """

    def __init__(self, settings: Metrics, device: torch.device):
        self._settings, self._device = settings, device

    @cached_property
    def preference(self) -> dict[str, Preference]:
        return {name: load_preference(name, Path(path), self._device) for name, path in self._settings.scorers.items()}

    @cached_property
    def lpips(self) -> tuple[Distance, str] | None:
        return load_lpips(Path(self._settings.lpips), self._device) if self._settings.lpips else None

    def digests(self) -> dict[str, object]:
        """The digests of their weights by name."""
        digests: dict[str, object] = {name: model.digest for name, model in self.preference.items()}
        return digests if self.lpips is None else {**digests, "lpips": self.lpips[1]}


def learned_scores(
    pictures: pa.Table, asked: list[str], settings: Metrics, scorers: LearnedScorers
) -> dict[str, torch.Tensor]:
    """The columns [N] of the scores that the study asks for by name.

    Preference scores for the prompts `asked` [N] of the pairs, and LPIPS among the pictures of one of these (NaN for a
    picture that is compared with none). An arm that draws without its prompt is so compared over the same pairs of
    pictures as one that draws with it. Raises ValueError where LPIPS has nothing to compare.
    """
    if settings.lpips:
        check_repeats(asked)
    # All weights are looked at before any image is.
    preference, lpips = scorers.preference, scorers.lpips
    columns: dict[str, torch.Tensor] = {}
    for name, model in preference.items():
        shown = tqdm(decode_images(pictures), f"score: {name}", len(pictures), unit="picture", disable=None)
        columns[name] = preference_scores(model, shown, asked)
    if lpips is not None:
        distance, _ = lpips
        cells = pictures.column("image")
        columns["lpips"] = within_prompt_lpips(
            lambda k: open_picture(cells[k]["bytes"].as_py()), asked, distance, settings.seed
        )
    return columns


def known_mean(values: torch.Tensor, settings: Metrics, clusters: torch.Tensor | None) -> Interval:
    """The mean of per-image values [N] with its interval; pictures without a value (NaN) are left out."""
    known = ~values.isnan() if values.is_floating_point() else torch.ones_like(values, dtype=torch.bool)
    belongs = None if clusters is None else clusters[known]
    return mean_interval(values[known], settings.resamples, settings.level, settings.seed, belongs)


def score_arm(study: Study, arm: str, scorers: Scorers | None = None) -> ArmScores:
    """All scores of one arm from its features, its images and the reference's features.

    `scorers` are loaded unless given. Raises InputError, and ValueError for sets that a metric cannot measure.
    """
    study.arm(arm)
    settings = study.metrics
    features = load_features(FEATURES / arm / f"{study.features.primary}.safetensors")
    reference = load_features(FEATURES / REFERENCE / f"{study.features.primary}.safetensors")
    check_comparable(features, reference)
    scorers = scorers or Scorers(study, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    pictures = read_set(SETS / arm, ["image_id", "pair_id", "image", "prompt"])
    asked = load_features(FEATURES / study.baseline / f"{study.features.primary}.safetensors")
    pairs = read_set(SETS / study.baseline, ["pair_id", "prompt"])
    if pairs.column("pair_id") != pictures.column("pair_id") or len(asked.texts) != len(pairs):
        raise InputError(f"arms '{arm}' and '{study.baseline}' do not share their pairs; run `dvc repro`")
    if pictures.column("image_id").to_pylist() != features.ids:
        raise InputError(f"features of '{arm}' belong to other pictures than {SETS / arm} holds; run `dvc repro`")
    kinds = kind_probabilities(features.images, scorers.kinds, scorers.clip.logit_scale)
    k = settings.precision_recall_k
    asked_for = [plain_text(prompt, study.text) for prompt in pairs.column("prompt").to_pylist()]
    learned = learned_scores(pictures, asked_for, settings, scorers.learned)
    clusters = prompt_clusters(pictures.column("prompt").to_pylist())
    # An arm without prompts is still scored with those of the pairs.
    of_pairs = dict.fromkeys(("clip_score", *learned), prompt_clusters(asked_for))

    def shown(what: str) -> Iterable[Image.Image]:
        return tqdm(decode_images(pictures), f"score {arm}: {what}", len(pictures), unit="picture", disable=None)

    images = {
        # What the pair was asked for, the same text for every arm: an arm that drew another prompt, or none, would
        # otherwise be compared with the baseline on two texts.
        "clip_score": clip_score(features.images, asked.texts),
        "aesthetic": scorers.head(features.images),
        "p_malformed": scorers.classifier(shown("malformed")),
        **{f"kind_{kind}": kinds[:, column] for column, kind in enumerate(KINDS)},
        "realism": realism(features.images, reference.images, k),
        **vars(finish(shown("finish"))),
        "inside_reference": neighbour_metrics(features.images, reference.images, k, settings.density_coverage_k).inside,
        **learned,
    }
    means = {**{name: name for name in MEANS}, "malformed": "p_malformed", **{name: name for name in learned}}
    steps: dict[str, Callable[[], dict[str, Interval]]] = {
        "distances and neighbours": lambda: set_metrics(features.images, reference.images, settings, clusters),
        "kernels": lambda: kernel_and_extrapolated_metrics(features.images, reference.images, settings, clusters),
        "means": lambda: {
            name: known_mean(images[column], settings, of_pairs.get(name, clusters)) for name, column in means.items()
        },
        "realism": lambda: {"realism": median_interval(images["realism"], settings, clusters)},
    }
    further = {}
    for name in study.features.extractors:
        if name != study.features.primary:
            ours, theirs = (load_features(FEATURES / folder / f"{name}.safetensors") for folder in (arm, REFERENCE))
            check_comparable(ours, theirs)
            further[name] = ours.images, theirs.images
            steps[name] = partial(_of_extractor, name, ours.images, theirs.images, settings, clusters)
    sets: dict[str, Interval] = {}
    with tqdm(total=len(steps), desc=f"score {arm}", unit="step", disable=None) as bar:
        for name, step in steps.items():
            bar.set_postfix_str(name)
            sets |= step()
            bar.update()
    points = {
        f"{name}_fid_torchmetrics": torchmetrics_fid(*vectors)
        for name, vectors in further.items()
        if study.features.extractors[name].model == "inception"
    }
    provenance: dict[str, object] = {
        **features.provenance,
        "reference": reference.provenance["set"],
        "reference_n": len(reference.ids),
        "precision_recall_k": settings.precision_recall_k,
        "density_coverage_k": settings.density_coverage_k,
        "intervals": {"resamples": settings.resamples, "level": settings.level, "seed": settings.seed},
        "aesthetic_head": file_digest(Path(settings.aesthetic_head)),
        "malformed_classifier": file_digest(Path(settings.malformed_classifier)),
        "kind_prompts": file_digest(Path(settings.kind_prompts)),
        **scorers.learned.digests(),
    }
    return ArmScores(images, sets, points, provenance)


def _of_extractor(
    name: str, arm: torch.Tensor, reference: torch.Tensor, settings: Metrics, clusters: torch.Tensor | None
) -> dict[str, Interval]:
    found = set_metrics(arm, reference, settings, clusters)
    return {f"{name}_{metric}": interval for metric, interval in found.items()}


def arm_inputs(study: Study, arm: str) -> str:
    """Digest of everything that determines an arm's scores: equal inputs, equal scores. Raises InputError.

    Feature files say what determines them, so their provenance stands for the images and for the extractors.
    """
    sets = (arm, study.baseline, REFERENCE)
    spaces = {
        name: [load_features(FEATURES / folder / f"{name}.safetensors").provenance for folder in sets]
        for name in study.features.extractors
    }
    settings = study.metrics
    files = [settings.aesthetic_head, settings.malformed_classifier, settings.kind_prompts, settings.lpips]
    files += [str(path) for folder in settings.scorers.values() for path in sorted(Path(folder).glob("*"))]
    return fingerprint(
        {
            "features": spaces,
            "primary": study.features.primary,
            "metrics": settings.model_dump(),
            "text": study.text.model_dump(),
            "files": {path: remembered_sha256(Path(path)) for path in files if path and Path(path).is_file()},
            "code": {unit: dict(unit_digests(unit)) for unit in MEASURING_UNITS},
        }
    )


def write_scores(arm: str, found: ArmScores, inputs: str) -> dict[str, float]:
    """Write an arm's scores and numbers, the last that says they are all there; returns its headline numbers."""
    table = read_set(SETS / arm, ["image_id", "pair_id"])
    columns: dict[str, list[object]] = {
        **table.to_pydict(),
        **{name: values.tolist() for name, values in found.images.items()},
    }
    learned = {name: Value("float64") for name in found.images if name not in SCORE_FEATURES}
    kept = Features({**SCORE_FEATURES, **learned})
    write_shard(SCORES / f"{arm}.parquet", columns, kept, str(found.provenance["set"]))
    scores = {name: asdict(interval) for name, interval in found.sets.items()}
    short = _headline(scores)
    provenance = {**found.provenance, "inputs": inputs}
    detail = {"arm": arm, "scores": scores, "points": found.points, "provenance": provenance}
    # Without a checksum: `dvc metrics show` prints every key.
    write_atomically(HEADLINES_OF_ARMS / f"{arm}.json", _as_json(short))
    write_atomically(METRICS / "detail" / f"{arm}.json", seal_json(json.dumps(detail, indent=2)))
    return short


def holds_scores(arm: str, inputs: str) -> bool:
    """Whether an arm's scores and numbers are there, whole and made of `inputs`."""
    try:
        detail = json.loads(read_json_text(METRICS / "detail" / f"{arm}.json"))
        scored = table_fingerprint(read_table(SCORES / f"{arm}.parquet", ["image_id"]))
        short = (HEADLINES_OF_ARMS / f"{arm}.json").read_bytes()
        made_of = detail["provenance"]
        return (made_of.get("inputs"), made_of["set"], short) == (inputs, scored, _as_json(_headline(detail["scores"])))
    except (OSError, InputError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _headline(scores: Mapping[str, Any]) -> dict[str, float]:
    # Short and flat; every other number, the intervals and the provenance are in the file beside it.
    return {**{name: round(scores[name]["value"], 4) for name in HEADLINES}, "n": scores["fd"]["n"]}


def _as_json(short: Mapping[str, float]) -> bytes:
    return (json.dumps(short, indent=2) + "\n").encode()
