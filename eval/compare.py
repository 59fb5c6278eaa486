"""Stage `compare`: arm against arm, and every arm against the baseline."""

import csv
import io
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from eval.bootstrap import Interval, paired_difference_interval, statistic_interval
from eval.features import REFERENCE, load_features
from eval.frechet import Shift, decompose, frechet_distance
from eval.shift import paired_displacement
from pipeline.errors import InputError, run_stage
from pipeline.files import file_digest, fingerprint, write_atomically
from pipeline.layout import FEATURES, METRICS, PLOTS, SCORES, TRACES
from pipeline.shards import read_set, read_table
from pipeline.study import Metrics, Study, load_study
from pipeline.weights import study_digests

PAIRED_SCORES = {"clip_score": "clip_score", "aesthetic": "aesthetic", "malformed": "p_malformed"}


def shift_intervals(arm: torch.Tensor, baseline: torch.Tensor, settings: Metrics) -> dict[str, Interval]:
    """The shift of one arm from another, features [N, D] paired by seed, with intervals over pairs."""

    def part(name: str) -> Interval:
        def statistic(index: torch.Tensor) -> float:
            key = tuple(index.tolist())
            if key not in seen:
                seen[key] = decompose(arm[index], baseline[index])
            return float(getattr(seen[key], name))

        return statistic_interval(statistic, len(arm), settings.resamples, settings.level, settings.seed)

    # The four parts share their resamples (one seed), and a decomposition is dear.
    seen: dict[tuple[int, ...], Shift] = {}
    return {name: part(name) for name in ("fd", "drift", "contraction", "spread_ratio")}


def reference_floor(reference: torch.Tensor, n: int, settings: Metrics) -> Interval:
    """The Fréchet distance that `n` real pictures have from the other real ones: what a perfect arm would get."""
    ours, others = reference[:n], reference[n:]
    return statistic_interval(
        lambda index: frechet_distance(ours[index], others), n, settings.resamples, settings.level, settings.seed
    )


def compare(study: Study) -> dict[str, object]:
    """The content of metrics/compare.json. Raises InputError where an arm's numbers are missing or do not fit."""
    extractor = f"{study.features.primary}.safetensors"
    settings = study.metrics
    features = {arm: load_features(FEATURES / arm / extractor) for arm in study.arms}
    columns = ["image_id", "pair_id", *PAIRED_SCORES.values()]
    scores = {arm: read_table(SCORES / f"{arm}.parquet", columns) for arm in study.arms}
    details = {arm: _read_json(METRICS / "detail" / f"{arm}.json") for arm in study.arms}
    pairs = scores[study.baseline].column("pair_id").to_pylist()
    arms: list[dict[str, object]] = []
    for name, arm in study.arms.items():
        if scores[name].column("pair_id").to_pylist() != pairs:
            raise InputError(f"arms '{name}' and '{study.baseline}' do not share their pairs; run `dvc repro`")
        entry: dict[str, object] = {
            "arm": name,
            "method": arm.method,
            "scale": arm.scale,
            "prompt": arm.prompt,
            "negative_prompt": arm.negative,
            "description": arm.description,
            "n": len(pairs),
            "scores": details[name]["scores"],
            "against_baseline": None,
        }
        if name != study.baseline:
            ours, base = features[name].images, features[study.baseline].images
            shift: dict[str, object] = {k: asdict(v) for k, v in shift_intervals(ours, base, settings).items()}
            shift["mean_share"] = paired_displacement(ours, base).mean_share
            for key, column in PAIRED_SCORES.items():
                a, b = (torch.tensor(scores[x].column(column).to_pylist()) for x in (name, study.baseline))
                difference = paired_difference_interval(a, b, settings.resamples, settings.level, settings.seed)
                shift[key] = asdict(difference)
            entry["against_baseline"] = shift
        arms.append(entry)
    reference = load_features(FEATURES / REFERENCE / extractor)
    provenance = details[study.baseline]["provenance"]
    return {
        "study": study.name,
        "baseline": study.baseline,
        "level": settings.level,
        "arms": arms,
        "floor": {"fd": asdict(reference_floor(reference.images, study.generate.pictures, settings))},
        "reference_n": len(reference.ids),
        "provenance": {
            "extractor": provenance["extractor"],
            "extractor_digest": provenance["extractor_digest"],
            "resize": provenance["resize"],
            **{part: digest or "missing" for part, digest in study_digests(study).items()},
            "reference": reference.provenance["set"],
            "code": fingerprint({str(path): file_digest(path) for path in sorted(_sources())}),
            "libraries": {name: version(name) for name in ("torch", "diffusers", "open_clip_torch", "transformers")},
            "params": fingerprint(study.model_dump()),
        },
    }


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


def plot_tables(content: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    """The tables behind `dvc plots`: one row an arm."""
    arms: list[dict[str, object]] = []
    shifts: list[dict[str, object]] = []
    for entry in content["arms"]:  # type: ignore[attr-defined]
        values = {name: round(interval["value"], 5) for name, interval in entry["scores"].items()}
        arms.append({"arm": entry["arm"], "scale": entry["scale"], **values})
        if entry["against_baseline"]:
            parts = {k: entry["against_baseline"][k]["value"] for k in ("fd", "drift", "contraction", "spread_ratio")}
            shifts.append({"arm": entry["arm"], "scale": entry["scale"], **{k: round(v, 5) for k, v in parts.items()}})
    return {"arms": arms, "shift": shifts}


def main() -> None:
    study = load_study()
    content = compare(study)
    write_atomically(METRICS / "compare.json", (json.dumps(content, indent=2) + "\n").encode())
    for name, rows in {**plot_tables(content), "direction": direction_sizes(study)}.items():
        write_atomically(PLOTS / f"{name}.csv", _csv(rows))
    print(
        f"compare: {len(study.arms)} arms against '{study.baseline}' in {METRICS / 'compare.json'}; plots in {PLOTS}/"
    )


def _csv(rows: list[dict[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _read_json(path: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads(path.read_text("utf-8"))  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro` makes it") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); delete it and run `dvc repro`") from None


def _sources() -> list[Path]:
    """The code behind the numbers; a commit's name would change with every commit of the numbers themselves."""
    return [path for folder in ("pipeline", "eval") for path in Path(folder).rglob("*.py")]


if __name__ == "__main__":
    run_stage(main)
