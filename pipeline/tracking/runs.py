"""What a study's run and its arms' runs hold: params, numbers, the image sets they rest on, images and files.

What rests on people's labels is logged apart, because labels come while the rest stays as it is.
"""

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
from pipeline.results.comparison import COMPARISON, ComparedArm, Comparison
from pipeline.results.rates import RATES, Rates
from pipeline.storage.contact_sheet import grid, same_seed_grid
from pipeline.study.study import BESIDE_THE_NUMBERS, Study
from pipeline.tracking.numbers import (
    Numbers,
    Table,
    adherence_numbers,
    arm_numbers,
    headline_metrics,
    in_a_key,
    interval_table,
    label_headlines,
    label_numbers,
    label_table,
    system_metrics,
    values,
)
from pipeline.tracking.snapshot import SNAPSHOT

SAME_SEEDS = 12
# A run's table of numbers with their intervals.
NUMBERS = "numbers.json"
# MLflow's tag with the tables of a run.
_TABLES = "mlflow.loggedArtifacts"
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


def study_params(study: Study, comparison: Comparison) -> dict[str, str]:
    """The parent run's params: all that determined its images and numbers, and what these were made with."""
    settings = study.model_dump(mode="json", exclude=BESIDE_THE_NUMBERS, exclude_none=True)
    # The text of a preset belongs to what was compared; the study holds only its name.
    for name, arm in study.arms.items():
        settings["arms"][name] |= {"negative_prompt": arm.negative}
    provenance = {**comparison.provenance.model_dump(), "reference_n": comparison.reference_n}
    return {in_a_key(key): value for key, value in _flat({**settings, "provenance": provenance}).items()}


def log_study(
    client: MlflowClient,
    run_id: str,
    study: Study,
    comparison: Comparison,
    root: Path,
    images: Mapping[str, Mapping[int, Image.Image]],
    inputs: Mapping[str, DatasetInput],
) -> None:
    """The parent run: the configuration, the headlines of every arm, the sheet of same seeds."""
    _log(client, run_id, [headline_metrics(comparison)], study_params(study, comparison))
    client.log_inputs(run_id, list(inputs.values()))
    client.log_artifact(run_id, str(root / COMPARISON), SNAPSHOT)
    arms = sorted(images, key=lambda arm: arm != study.baseline)  # the baseline first, the others in their order
    rows = [[images[arm][pair] for arm in arms] for pair in islice(images[study.baseline], SAME_SEEDS)]
    client.log_image(run_id, same_seed_grid(rows, arms, _scale(rows[0])), "gallery/same_seed.png")


def log_arm(
    client: MlflowClient,
    run_id: str,
    study: Study,
    result: ComparedArm,
    numbers: Numbers,
    root: Path,
    images: list[Image.Image],
    inputs: Mapping[str, DatasetInput],
) -> None:
    """An arm's run. The compare page's plot begins with the first three params by name that differ: method and scale
    are to be among them, texts are not."""
    arm = study.arms[result.arm]
    settings = {
        "method": arm.method,
        "scale": result.scale,  # a control's is measured
        "sampler": study.sampler_of(arm).model_dump(mode="json"),
        "images": result.n,
        "model": study.model.name,
        "text": {"prompt": arm.prompt, "negative": arm.used_negative},
    }
    _log(client, run_id, [values(numbers)], _flat(settings))
    shards = read_shard_costs(root / COSTS / f"{result.arm}.json")
    _log(client, run_id, system_metrics(shards), {}, [cost.seconds for _, cost in sorted(shards.items())])
    client.log_inputs(run_id, [inputs[result.arm], inputs["reference"]])
    client.log_image(run_id, grid(images, columns=8, scale=_scale(images)), "gallery/samples.png")
    client.log_artifact(run_id, str(root / SCORES / f"{result.arm}.parquet"), "scores")


def arm_result(comparison: Comparison, arm: str) -> Numbers:
    """Everything measured of an arm, and what its negative prompt does."""
    numbers = arm_numbers(comparison.by_name(arm))
    removed = next((one for one in comparison.adherence if one.arm == arm), None)
    return numbers | (adherence_numbers(removed) if removed else {})


def log_labels(
    client: MlflowClient,
    parent: str,
    runs: Mapping[str, str],
    names: Mapping[str, str],
    comparison: Comparison,
    rates: Rates,
    root: Path,
    step: int,
) -> None:
    """What changes with people's labels, in the parent run and the arms' `runs`: rates, tables, the report.

    `step` counts the pulls, so that MLflow shows the latest rate and can plot how it came. `names` are those of the
    runs in the tables of numbers.
    """
    numbers = {arm: arm_result(comparison, arm) | label_numbers(rates, arm) for arm in runs}
    _log(client, parent, [label_headlines(rates)], {}, step=step)
    for arm, run_id in runs.items():
        _log(client, run_id, [values(label_numbers(rates, arm))], {}, step=step)
        _log_table(client, run_id, interval_table({names[arm]: numbers[arm]}), NUMBERS)
    _log_table(client, parent, interval_table({names[arm]: own for arm, own in numbers.items()}), NUMBERS)
    if rates.arms:
        _log_table(client, parent, label_table(rates), "labels/rates.json")
    for path in (REPORT, RATES, PARAMS):
        client.log_artifact(parent, str(root / path), SNAPSHOT)


def _log_table(client: MlflowClient, run_id: str, table: Table, path: str) -> None:
    if path not in client.get_run(run_id).data.tags.get(_TABLES, ""):
        client.log_table(run_id, table, path)
        return
    # Logging it again would append the rows to those that are there.
    rows = [list(row) for row in zip(*table.values(), strict=True)]
    client.log_dict(run_id, {"columns": list(table), "data": rows}, path)


def _log(
    client: MlflowClient,
    run_id: str,
    steps: Sequence[Mapping[str, float]],
    params: Mapping[str, str],
    seconds: Sequence[float] = (),
    step: int = 0,
) -> None:
    # One call: over HTTP each single metric costs as much as fifty together. Steps of which the `seconds` are known are
    # as far apart on MLflow's axis of time as they were long.
    now = time.time()
    ends = [now + after for after in accumulate(seconds)] or [now] * len(steps)
    client.log_batch(
        run_id,
        metrics=[
            Metric(key, value, int(1000 * end), step)
            for step, (metrics, end) in enumerate(zip(steps, ends, strict=True), start=step)
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
