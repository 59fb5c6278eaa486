"""Stage `score@<arm>`: per-image scores of an arm, and its distance from the reference set."""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from datasets import Features, Value

from eval.aesthetic import load_aesthetic_head
from eval.bootstrap import Interval, mean_interval, statistic_interval
from eval.clip import clip_score
from eval.features import REFERENCE, SetFeatures, load_features
from eval.frechet import frechet_distance
from eval.malformed import load_classifier
from eval.neighbours import NeighbourMetrics, neighbour_metrics
from pipeline.errors import InputError, run_stage
from pipeline.files import file_digest, write_atomically
from pipeline.layout import FEATURES, METRICS, SCORES, SETS
from pipeline.shards import decode_images, read_set, write_shard
from pipeline.study import Metrics, Study, load_study

SCORE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "pair_id": Value("int64"),
        "clip_score": Value("float64"),
        "aesthetic": Value("float64"),
        "p_malformed": Value("float64"),
        "inside_reference": Value("bool"),
    }
)


@dataclass(frozen=True)
class ImageScores:
    """Per-image scores [N] of one arm."""

    clip_score: torch.Tensor
    aesthetic: torch.Tensor
    p_malformed: torch.Tensor


def check_comparable(arm: SetFeatures, reference: SetFeatures) -> None:
    """Raise InputError where two feature files were not made by the same extractor."""
    for key in ("extractor", "extractor_digest", "resize"):
        if arm.provenance[key] != reference.provenance[key]:
            raise InputError(
                f"features differ in {key}: {arm.provenance[key]} and {reference.provenance[key]}; run `dvc repro`"
            )


def set_metrics(arm: torch.Tensor, reference: torch.Tensor, settings: Metrics) -> dict[str, Interval]:
    """Fréchet distance, precision, recall, density and coverage of image embeddings, with their intervals."""
    n = len(arm)
    ask = (settings.resamples, settings.level, settings.seed)
    found = neighbour_metrics(arm, reference, settings.precision_recall_k, settings.density_coverage_k)
    return {
        "fd": statistic_interval(lambda index: frechet_distance(arm[index], reference), n, *ask),
        **neighbour_intervals(found, settings),
    }


def neighbour_intervals(found: NeighbourMetrics, settings: Metrics) -> dict[str, Interval]:
    """Intervals of the neighbour metrics from their per-image terms.

    Precision and density are means over generated pictures, recall and coverage over reference pictures; each
    is resampled over the pictures that it averages.
    """
    terms = {
        "precision": found.inside.double(),
        "recall": found.reference_found.double(),
        "density": found.hits.double() / settings.density_coverage_k,
        "coverage": found.covered.double(),
    }
    return {
        name: mean_interval(values, settings.resamples, settings.level, settings.seed) for name, values in terms.items()
    }


def score_arm(study: Study, arm: str) -> tuple[ImageScores, dict[str, Interval], NeighbourMetrics, dict[str, object]]:
    """All scores of one arm from its features, its pictures and the reference's features. Raises InputError."""
    study.arm(arm)
    settings = study.metrics
    features = load_features(FEATURES / arm / f"{study.features.extractor}.safetensors")
    reference = load_features(FEATURES / REFERENCE / f"{study.features.extractor}.safetensors")
    check_comparable(features, reference)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier = load_classifier(Path(settings.malformed_classifier), device)
    head = load_aesthetic_head(Path(settings.aesthetic_head))
    pictures = read_set(SETS / arm, ["image_id", "image", "prompt"])
    if pictures.column("image_id").to_pylist() != features.ids:
        raise InputError(f"features of '{arm}' belong to other pictures than {SETS / arm} holds; run `dvc repro`")
    scores = ImageScores(
        clip_score(features.images, features.texts),
        head(features.images),
        classifier(decode_images(pictures)),
    )
    neighbours = neighbour_metrics(
        features.images, reference.images, settings.precision_recall_k, settings.density_coverage_k
    )
    ask = (settings.resamples, settings.level, settings.seed)
    intervals = {
        **set_metrics(features.images, reference.images, settings),
        "clip_score": mean_interval(scores.clip_score, *ask),
        "aesthetic": mean_interval(scores.aesthetic, *ask),
        "malformed": mean_interval(scores.p_malformed, *ask),
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
    }
    return scores, intervals, neighbours, provenance


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.score", description=__doc__)
    parser.add_argument("--arm", required=True, help="an arm of params.yaml")
    arm = parser.parse_args().arm
    study = load_study()
    scores, intervals, neighbours, provenance = score_arm(study, arm)
    table = read_set(SETS / arm, ["image_id", "pair_id"])
    columns: dict[str, list[object]] = {
        **table.to_pydict(),
        **{name: values.tolist() for name, values in asdict(scores).items()},
        "inside_reference": neighbours.inside.tolist(),
    }
    write_shard(SCORES / f"{arm}.parquet", columns, SCORE_FEATURES, str(provenance["set"]))
    # Short and flat for `dvc metrics show`; the intervals and the provenance are in the file beside it.
    short = {name: round(interval.value, 4) for name, interval in intervals.items()}
    n = {"n": intervals["fd"].n, "reference_n": provenance["reference_n"]}
    detail = {"arm": arm, "scores": {k: asdict(v) for k, v in intervals.items()}, "provenance": provenance}
    _write_json(METRICS / f"{arm}.json", {**short, **n})
    _write_json(METRICS / "detail" / f"{arm}.json", detail)
    print(
        f"score {arm}: FD {short['fd']}, precision {short['precision']}, recall {short['recall']}, "
        f"CLIP score {short['clip_score']}, malformed {short['malformed']} (N = {n['n']}) in {METRICS / arm}.json"
    )


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_stage(main)
