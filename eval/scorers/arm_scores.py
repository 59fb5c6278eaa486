"""The scores of an arm: per image, and of the whole set against the reference set."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Features, Value
from PIL import Image
from tqdm import tqdm

from eval.distances.neighbours import neighbour_metrics
from eval.features.clip import clip_score, load_clip
from eval.features.extraction import REFERENCE, SetFeatures, load_features
from eval.features.spaces import check_comparable, study_spaces
from eval.scorers.aesthetic import load_aesthetic_head
from eval.scorers.finish import finish
from eval.scorers.inpainting import InpaintingScorer, inpainting_inputs
from eval.scorers.kinds import KINDS, kind_probabilities, load_kind_prompts
from eval.scorers.lpips import Distance, check_repeats, load_lpips, within_prompt_lpips
from eval.scorers.malformed import load_classifier
from eval.scorers.preference import Preference, load_preference, preference_scores
from eval.scorers.realism import realism
from eval.scorers.set_metrics import EVERYWHERE, OF_CLIP, PRIMARY_ALONE, loaded, set_metrics, subsets_interval
from eval.statistics.bootstrap import mean_interval
from eval.statistics.clusters import prompt_clusters
from pipeline.code_units import unit_digests
from pipeline.errors import InputError
from pipeline.layout import FEATURES, METRICS, SCORES, SETS
from pipeline.layout import HEADLINES as HEADLINES_OF_ARMS
from pipeline.prompting.plain_text import plain_text
from pipeline.results.interval import Interval
from pipeline.results.metrics import TABLE, Metric, metric, of_level, shown_in
from pipeline.storage.digest_memory import remembered_sha256
from pipeline.storage.files import file_digest, fingerprint, write_atomically
from pipeline.storage.images import open_image
from pipeline.storage.json_file import read_json_text, seal_json
from pipeline.storage.shards import decode_images, read_set, read_table, table_fingerprint, write_shard
from pipeline.study.study import Metrics, Study

# The scores of a study that generates, in their order; external arms alone may have fewer.
SCORE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "pair_id": Value("int64"),
        **{row.column: Value("float64") for row in of_level("image") if not row.optional},
        "inside_reference": Value("bool"),
    }
)
# The code behind a score (pipeline/code_units.py).
MEASURING_UNITS = ("eval/distances", "eval/features", "eval/scorers", "eval/statistics")


@dataclass(frozen=True)
class ArmScores:
    """What is measured on one arm.

    `images` holds the per-image columns [N] of data/scores/<arm>.parquet, `sets` the set metrics and means over
    images with their intervals, `points` numbers of a peer without, `provenance` what they were measured with, and
    `inpainted` the numbers of an arm that inpaints (eval/scorers/inpainting.py).
    """

    images: dict[str, torch.Tensor]
    sets: dict[str, Interval]
    points: dict[str, float]
    provenance: dict[str, object]
    inpainted: dict[str, Interval] = field(default_factory=dict)


class Scorers:
    """What a study scores images with, loaded once for all of its arms, on `device`.

    Raises InputError, with the command that fetches them, for weights that are missing.
    """

    def __init__(self, study: Study, device: torch.device):
        settings, name = study.metrics, study.features.clip
        asked = settings.malformed_classifier
        self.classifier = load_classifier(Path(asked), device) if asked else None
        self.head = load_aesthetic_head(Path(settings.aesthetic_head)) if settings.aesthetic_head else None
        self.clip = None if name is None else load_clip(Path(study.features.extractors[name].weights), device)
        self.spaces = study_spaces(study)
        self.kinds: dict[str, torch.Tensor] = {}
        if self.clip is not None and settings.kind_prompts:
            prompts = load_kind_prompts(Path(settings.kind_prompts))
            self.kinds = {kind: self.clip.embed_texts(texts) for kind, texts in prompts.items()}
        self.learned = LearnedScorers(settings, device)
        self.inpainting = InpaintingScorer(study, self.spaces[0], device)


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
    images: pa.Table, asked: list[str], settings: Metrics, scorers: LearnedScorers
) -> dict[str, torch.Tensor]:
    """The columns [N] of the scores that the study asks for by name.

    Preference scores for the prompts `asked` [N] of the pairs, and LPIPS among the images of one of these (NaN for an
    image that is compared with none). An arm that generates without its prompt is so compared over the same pairs of
    images as one that draws with it. Raises ValueError where LPIPS has nothing to compare.
    """
    if settings.lpips:
        check_repeats(asked)
    # All weights are looked at before any image is.
    preference, lpips = scorers.preference, scorers.lpips
    columns: dict[str, torch.Tensor] = {}
    for name, model in preference.items():
        shown = tqdm(decode_images(images), f"score: {name}", len(images), unit="image", disable=None)
        columns[name] = preference_scores(model, shown, asked)
    if lpips is not None:
        distance, _ = lpips
        cells = images.column("image")
        columns["lpips"] = within_prompt_lpips(
            lambda k: open_image(cells[k]["bytes"].as_py()), asked, distance, settings.seed
        )
    return columns


def known_mean(values: torch.Tensor, settings: Metrics, clusters: torch.Tensor | None) -> Interval:
    """The mean of per-image values [N] with its interval; images without a value (NaN) are left out."""
    known = ~values.isnan() if values.is_floating_point() else torch.ones_like(values, dtype=torch.bool)
    belongs = None if clusters is None else clusters[known]
    return mean_interval(values[known], settings.resamples, settings.level, settings.seed, belongs)


def of_images(row: Metric, values: torch.Tensor, settings: Metrics, clusters: torch.Tensor | None) -> Interval:
    """A set's number from per-image values [N]: their mean, or their median where the interval comes from subsets."""
    if row.interval == "subsets":
        return subsets_interval(lambda some: float(some.median()), values, settings, clusters)
    return known_mean(values, settings, clusters)


def score_arm(study: Study, arm: str, scorers: Scorers | None = None) -> ArmScores:
    """All scores of one arm from its features, its images and the reference's features.

    `scorers` are loaded unless given. Raises InputError, and ValueError for sets that a metric cannot measure.
    """
    study.arm(arm)
    settings = study.metrics
    features, reference = (
        {name: load_features(FEATURES / one / f"{name}.safetensors") for name in study.features.extractors}
        for one in (arm, REFERENCE)
    )
    for name in features:
        check_comparable(arm, features[name], reference[name])
    scorers = scorers or Scorers(study, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    table = read_set(SETS / arm, ["image_id", "pair_id", "image", "prompt"])
    pairs = read_set(SETS / study.baseline, ["pair_id", "prompt"])
    # Image k of the baseline from other seeds was asked for what pair k was, and is not one of that pair.
    apart = study.pairs_of(arm).start - study.pairs_of(study.baseline).start
    numbers = [pair + apart for pair in pairs.column("pair_id").to_pylist()]
    if table.column("pair_id").to_pylist() != numbers:
        raise InputError(f"arms '{arm}' and '{study.baseline}' do not share their pairs; run `dvc repro`")
    if any(one.ids != table.column("image_id").to_pylist() for one in features.values()):
        raise InputError(f"features of '{arm}' belong to other images than {SETS / arm} holds; run `dvc repro`")
    k = settings.precision_recall_k
    vectors = {
        space.name: (space(features[space.settings.extractor].images), space.reference) for space in scorers.spaces
    }
    primary = vectors[scorers.spaces[0].name]
    asked_for = [plain_text(prompt, study.text) for prompt in pairs.column("prompt").to_pylist()]
    learned = learned_scores(table, asked_for, settings, scorers.learned)
    clusters = prompt_clusters(table.column("prompt").to_pylist())
    # An arm without prompts is still scored with those of the pairs.
    of_pairs = dict.fromkeys(("clip_score", *learned), prompt_clusters(asked_for))

    def shown(what: str) -> Iterable[Image.Image]:
        return tqdm(decode_images(table), f"score {arm}: {what}", len(table), unit="image", disable=None)

    clip = None if study.features.clip is None else features[study.features.clip]
    images = {
        **({} if clip is None else _of_clip(study, arm, clip, scorers)),
        **({} if scorers.classifier is None else {"p_malformed": scorers.classifier(shown("malformed"))}),
        "realism": realism(*primary, k),
        **vars(finish(shown("finish"))),
        "inside_reference": neighbour_metrics(*primary, k, settings.density_coverage_k).inside,
        **learned,
    }
    inpainted: dict[str, Interval] = {}
    if study.arm(arm).inpaint is not None:
        own = scorers.inpainting(study.arm(arm), lambda: shown("inpainting"), len(table), clusters)
        images, inpainted = images | own.images, own.numbers
    scored = [row for row in of_level("image") if row.column in images]
    steps: dict[str, Callable[[], dict[str, Interval]]] = {
        "kernels": lambda: (
            set_metrics(PRIMARY_ALONE, *primary, settings, clusters)
            | (
                {}
                if clip is None or study.features.clip is None
                else set_metrics(OF_CLIP, clip.images, reference[study.features.clip].images, settings, clusters)
            )
        ),
        "scores of images": lambda: {
            row.name: of_images(row, images[row.column], settings, of_pairs.get(row.column, clusters)) for row in scored
        },
    }
    for name, both in vectors.items():
        steps[name] = partial(_of_space, name, *both, settings, clusters)
    sets: dict[str, Interval] = {}
    with tqdm(total=len(steps), desc=f"score {arm}", unit="step", disable=None) as bar:
        for name, step in steps.items():
            bar.set_postfix_str(name)
            sets |= step()
            bar.update()
    # Those of the primary space go by their own names, too, and come first (pipeline/tracking/numbers.py).
    sets = {row.name: sets[f"{scorers.spaces[0].name}_{row.name}"] for row in EVERYWHERE} | sets
    published = metric("fid_torchmetrics")
    points = {
        f"{name}_{published.name}": loaded(published)(features[name].images, reference[name].images)
        for name in features
        if study.features.extractors[name].model == "inception"
    }
    files = {key: getattr(settings, key) for key in ("aesthetic_head", "malformed_classifier", "kind_prompts")}
    real = reference[scorers.spaces[0].settings.extractor]
    provenance: dict[str, object] = {
        **features[scorers.spaces[0].settings.extractor].provenance,
        "space": scorers.spaces[0].name,
        "spaces": {
            space.name: {"extractor": space.settings.extractor, "explained": space.explained}
            for space in scorers.spaces
        },
        "reference": real.provenance["set"],
        "reference_n": len(real.ids),
        "precision_recall_k": settings.precision_recall_k,
        "density_coverage_k": settings.density_coverage_k,
        "intervals": {"resamples": settings.resamples, "level": settings.level, "seed": settings.seed},
        **{key: file_digest(Path(path)) for key, path in files.items() if path},
        **scorers.learned.digests(),
    }
    return ArmScores(images, sets, points, provenance, inpainted)


def _of_clip(study: Study, arm: str, clip: SetFeatures, scorers: Scorers) -> dict[str, torch.Tensor]:
    """The scores [N] that are read from the vectors of the study's CLIP, by column. Raises InputError."""
    asked = load_features(FEATURES / study.baseline / f"{study.features.clip}.safetensors")
    if len(asked.texts) != len(clip.images):
        raise InputError(f"arms '{arm}' and '{study.baseline}' do not share their pairs; run `dvc repro`")
    # What the pair was asked for, the same text for every arm: an arm that drew another prompt, or none, would
    # otherwise be compared with the baseline on two texts.
    found = {"clip_score": clip_score(clip.images, asked.texts)}
    if scorers.head is not None:
        found["aesthetic"] = scorers.head(clip.images)
    if scorers.kinds and scorers.clip is not None:
        kinds = kind_probabilities(clip.images, scorers.kinds, scorers.clip.logit_scale)
        found |= {f"kind_{kind}": kinds[:, column] for column, kind in enumerate(KINDS)}
    return found


def _of_space(
    name: str, arm: torch.Tensor, reference: torch.Tensor, settings: Metrics, clusters: torch.Tensor | None
) -> dict[str, Interval]:
    found = set_metrics(EVERYWHERE, arm, reference, settings, clusters)
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
            "clip": study.features.clip,
            "metrics": settings.model_dump(),
            "text": study.text.model_dump(),
            "files": {path: remembered_sha256(Path(path)) for path in files if path and Path(path).is_file()},
            "code": {unit: dict(unit_digests(unit)) for unit in MEASURING_UNITS},
            **inpainting_inputs(study.arm(arm)),
            "measured": [row.measured for row in TABLE if row.compute],
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
    kept = Features({name: kind for name, kind in {**SCORE_FEATURES, **learned}.items() if name in columns})
    write_shard(SCORES / f"{arm}.parquet", columns, kept, str(found.provenance["set"]))
    scores = {name: asdict(interval) for name, interval in found.sets.items()}
    short = _headline(scores)
    provenance = {**found.provenance, "inputs": inputs}
    inpainted = {name: asdict(interval) for name, interval in found.inpainted.items()}
    detail = {
        "arm": arm,
        "scores": scores,
        **({"inpainted": inpainted} if inpainted else {}),
        "points": found.points,
        "provenance": provenance,
    }
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
    short = {
        row.name: round(scores[row.name]["value"], row.digits) for row in shown_in("headlines") if row.name in scores
    }
    return {**short, "n": scores["fd"]["n"]}


def _as_json(short: Mapping[str, float]) -> bytes:
    return (json.dumps(short, indent=2) + "\n").encode()
