"""What a study's run and its arms' runs hold: params, numbers, the image sets they rest on, images and files."""

import json
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from PIL import Image

from pipeline.cost.shard_cost import read_shard_costs
from pipeline.layout import COSTS, PARAMS, REFERENCE_SET, REPORT, SCORES, SETS
from pipeline.results.comparison import COMPARISON, Adherence, ComparedArm, Comparison
from pipeline.results.rates import RATES, Rates
from pipeline.storage.contact_sheet import grid, same_seed_grid
from pipeline.study.study import Study
from pipeline.tracking.numbers import (
    adherence_metrics,
    arm_metrics,
    headline_metrics,
    in_a_key,
    label_headlines,
    label_metrics,
    label_table,
    strength_metrics,
    system_metrics,
)
from pipeline.tracking.snapshot import SNAPSHOT

SAME_SEEDS = 12
# MLflow's limit on the values of params.
_PARAM_LENGTH = 6000
# A sheet's images are shown at about this many pixels.
_SHOWN_SIDE = 128


def image_set_inputs(
    study: Study, digests: Mapping[str, str], reference: str, reference_n: int
) -> dict[str, DatasetInput]:
    """MLflow's dataset inputs by arm and for `reference`: where a set lies, its fingerprint and its size."""
    sets = {arm: (SETS / arm, digest, study.generate.images, "drawn") for arm, digest in digests.items()}
    sets["reference"] = (REFERENCE_SET, reference, reference_n, "real")
    return {
        name: DatasetInput(
            Dataset(
                name=f"{study.name}/{name}",
                digest=digest,
                source_type="local",
                source=json.dumps({"uri": folder.as_posix()}),
                profile=json.dumps({"num_rows": count}),
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for name, (folder, digest, count, context) in sets.items()
    }


def log_study(
    client: MlflowClient,
    run_id: str,
    study: Study,
    comparison: Comparison,
    rates: Rates,
    root: Path,
    images: Mapping[str, Mapping[int, Image.Image]],
    inputs: Mapping[str, DatasetInput],
) -> None:
    """The parent run: the whole configuration, the headlines of every arm, the sheet of same seeds, the report."""
    settings = study.model_dump(mode="json", exclude={"tracking"}, exclude_none=True)
    # The text of a preset belongs to what was compared; the study holds only its name.
    for name, arm in study.arms.items():
        settings["arms"][name] |= {"negative_prompt": arm.negative}
    provenance = {**comparison.provenance.model_dump(), "reference_n": comparison.reference_n}
    _log(
        client,
        run_id,
        [{**headline_metrics(comparison), **label_headlines(rates)}],
        _flat({**settings, "provenance": provenance}),
    )
    client.log_inputs(run_id, list(inputs.values()))
    for path in (REPORT, COMPARISON, RATES, PARAMS):
        client.log_artifact(run_id, str(root / path), SNAPSHOT)
    if rates.arms:
        client.log_table(run_id, label_table(rates), "labels/rates.json")
    arms = sorted(images, key=lambda arm: arm != study.baseline)  # the baseline first, the others in their order
    rows = [[images[arm][pair] for arm in arms] for pair in islice(images[study.baseline], SAME_SEEDS)]
    client.log_image(run_id, same_seed_grid(rows, arms, _scale(rows[0])), "gallery/same_seed.png")


def log_arm(
    client: MlflowClient,
    run_id: str,
    study: Study,
    result: ComparedArm,
    rates: Rates,
    root: Path,
    images: list[Image.Image],
    inputs: Mapping[str, DatasetInput],
    removed: Adherence | None = None,
) -> None:
    """An arm's run. The compare page's plot begins with the first three params by name that differ: method and scale
    are to be among them, texts are not. `removed` is what its negative prompt does."""
    arm = study.arms[result.arm]
    settings = {
        "method": arm.method,
        "scale": result.scale,  # a control's is measured
        "sampler": study.sampler_of(arm).model_dump(mode="json"),
        "images": result.n,
        "model": study.model.name,
        "text": {"prompt": arm.prompt, "negative": arm.used_negative},
    }
    metrics = arm_metrics(result)
    if removed is not None:
        metrics |= adherence_metrics(removed)
    if labelled := rates.of_arm(result.arm):
        metrics |= label_metrics(labelled)
    if strength := rates.strength_of(result.arm):
        metrics |= strength_metrics(strength)
    _log(client, run_id, [metrics], _flat(settings))
    shards = read_shard_costs(root / COSTS / f"{result.arm}.json")
    _log(client, run_id, system_metrics(shards), {}, [cost.seconds for _, cost in sorted(shards.items())])
    client.log_inputs(run_id, [inputs[result.arm], inputs["reference"]])
    client.log_image(run_id, grid(images, columns=8, scale=_scale(images)), "gallery/samples.png")
    client.log_artifact(run_id, str(root / SCORES / f"{result.arm}.parquet"), "scores")


def _log(
    client: MlflowClient,
    run_id: str,
    steps: Sequence[Mapping[str, float]],
    params: Mapping[str, str],
    seconds: Sequence[float] = (),
) -> None:
    # One call: over HTTP each single metric costs as much as fifty together. Steps of which the `seconds` are known are
    # as far apart on MLflow's axis of time as they were long.
    now = time.time()
    ends = [now + after for after in accumulate(seconds)] or [now] * len(steps)
    client.log_batch(
        run_id,
        metrics=[
            Metric(key, value, int(1000 * end), step)
            for step, (metrics, end) in enumerate(zip(steps, ends, strict=True))
            for key, value in metrics.items()
        ],
        params=[Param(in_a_key(key), value) for key, value in params.items()],
        synchronous=True,
    )


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = (value if isinstance(value, str) else json.dumps(value))[:_PARAM_LENGTH]
    return flat


def _scale(images: list[Image.Image]) -> int:
    return max(1, _SHOWN_SIDE // max(image.width for image in images))
