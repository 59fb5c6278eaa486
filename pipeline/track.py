"""Stage `track`: the study goes to MLflow, as one parent run for a state of params and data and one child run an arm.

A state that was logged to its end is left alone, so the stage can be repeated; what an interrupted run left is
deleted and logged anew, since resuming a run would double its metric history.
"""

import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import requests
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from pipeline.arm import Arm
from pipeline.comparison import COMPARISON, ComparedArm, Comparison, Interval, load_comparison
from pipeline.errors import InputError, run_stage
from pipeline.files import file_digest, fingerprint, write_atomically
from pipeline.gallery import grid, same_seed_grid
from pipeline.layout import PARAMS, REPORT, SCORES, SETS, TRACKED
from pipeline.rates import RATES, SIMULATED, VERDICTS, LabelledPictures, Rates, Strength, load_rates
from pipeline.shards import decode_images, read_table, set_fingerprint, shard_paths
from pipeline.study import Study, load_study

# MLflow reads its settings when it is imported. Its own patience with a server that is down is four minutes, and
# the address it prints at the end of a run shows the password in it.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking.context.registry import resolve_tags  # noqa: E402

FINGERPRINT_TAG = "guidedrift.fingerprint"
# Child runs are collapsed in MLflow's list, so the parent carries these of every arm, as `fd/<arm>`.
HEADLINES = ("fd", "precision", "recall", "clip_score", "aesthetic", "malformed")
SAMPLES = 64
SAME_SEEDS = 12

# MLflow's limits on the values of params and tags.
_PARAM_LENGTH = 6000
_TAG_LENGTH = 8000
# A sheet's pictures are shown at about this many pixels; larger ones are reduced, or 64 of them make 100 MB.
_SHOWN_SIDE = 128
_LARGEST_SIDE = 256

_NOTE = "mlflow.note.content"
_PARENT = "mlflow.parentRunId"


def track(study: Study, root: Path, uri: str) -> str:
    """Log the study's state under `root` to the MLflow at `uri`; returns the id of the parent run.

    A relative sqlite path is one below `root`. Raises InputError where an input is missing or MLflow is unreachable
    or refuses; a run that could not be logged to its end is FAILED.
    """
    comparison = load_comparison(root / COMPARISON, study)
    rates = load_rates(root / RATES)
    for path in (root / REPORT, root / PARAMS, *(root / SCORES / f"{arm}.parquet" for arm in study.arms)):
        if not path.is_file():
            raise InputError(f"{path} does not exist; `dvc repro` makes it")
    sets = {arm: set_fingerprint(root / SETS / arm) for arm in study.arms}
    mark = fingerprint([study.model_dump(mode="json"), sets, file_digest(root / COMPARISON), file_digest(root / RATES)])
    with _explained(uri):
        database = _local_database(uri, root)
        client = MlflowClient(f"sqlite:///{database}" if database else uri)
        experiment = _experiment(client, study, database)
        for run in client.search_runs([experiment], f"tags.`{FINGERPRINT_TAG}` = '{mark}'"):
            if run.info.status == "FINISHED":
                return str(run.info.run_id)
            _delete_with_children(client, experiment, run.info.run_id)
        # All pictures are read before a run begins: a damaged shard is an error without a run that failed.
        pictures = {arm: _first_pictures(root / SETS / arm, SAMPLES) for arm in study.arms}
        for arm_name, own in pictures.items():
            if list(own) != list(pictures[study.baseline]):
                raise InputError(f"arms '{arm_name}' and '{study.baseline}' do not share their pairs; run `dvc repro`")
        client.set_experiment_tag(experiment, _NOTE, _experiment_note(study))
        tags = {FINGERPRINT_TAG: mark, "study": study.name, _NOTE: _study_note(study, comparison, rates)}
        with _run(client, experiment, f"{study.name} {mark[:6]}", tags) as parent:
            _log_study(client, parent, study, comparison, rates, root, pictures)
            for result in comparison.arms:
                arm = study.arms[result.arm]
                tags = {_PARENT: parent, "arm": result.arm, "method": arm.method, _NOTE: _arm_note(arm)}
                with _run(client, experiment, result.arm, tags) as child:
                    _log_arm(client, child, study, result, rates, root, list(pictures[result.arm].values()))
    return parent


def arm_metrics(result: ComparedArm) -> dict[str, float]:
    """An arm's numbers under MLflow's keys: `fd`, `fd_low`, `fd_high`; `shift_...` are those against the baseline."""
    against = result.against_baseline
    shifts = {f"shift_{name}": interval for name, interval in against.intervals.items()} if against else {}
    metrics = {"shift_mean_share": against.mean_share} if against else {}
    if result.cost:
        metrics |= {f"cost_{name}": value for name, value in result.cost.model_dump(exclude={"device"}).items()}
    for name, interval in {**result.scores, **shifts}.items():
        metrics |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return metrics


def label_metrics(labelled: LabelledPictures) -> dict[str, float]:
    """An arm's rates by labels: `human_malformed_human` with `_low` and `_high`, prediction-powered where scores exist.

    Rates that rest on simulated labels are `simulated_...`: nothing in MLflow shall pass for people's word.
    """
    source = _source(labelled.simulated)
    metrics = {f"{source}_pictures": float(labelled.pictures)}
    for verdict, rate in labelled.verdicts.items():
        metrics |= _bounded(f"{source}_{verdict}", rate.best)
    if labelled.body_normal:
        metrics |= _bounded(f"{source}_body_normal", labelled.body_normal)
    return metrics


def strength_metrics(found: Strength) -> dict[str, float]:
    """An arm's Bradley-Terry strength: `human_strength` with `_low` and `_high`, or `simulated_strength`."""
    return _bounded(f"{_source(found.simulated)}_strength", found.strength)


def label_table(rates: Rates) -> dict[str, list[str | int]]:
    """The table of rates, a column of cells a key: a row an arm, then a row a canvas size where there are several."""
    rows = [*rates.arms, *(rates.canvases if len(rates.canvases) > 1 else [])]
    table: dict[str, list[str | int]] = {
        "pictures of": [row.name for row in rows],
        "labels": [_source(row.simulated) for row in rows],
        "dimension": [row.canvas for row in rows],
        "sample size": [row.pictures for row in rows],
    }
    for verdict in VERDICTS:
        table[verdict] = [_share(row.verdicts[verdict].best) for row in rows]
    table["body shape normal"] = [_share(row.body_normal) if row.body_normal else "" for row in rows]
    return table


def label_headlines(rates: Rates) -> dict[str, float]:
    """The parent's part of it: `<rate>/<arm>`, `<strength>/<arm>`, and Krippendorff's alpha."""
    metrics = {
        f"{name}/{labelled.name}": value
        for labelled in rates.arms
        for name, value in label_metrics(labelled).items()
        if not name.endswith(("_low", "_high", "_pictures"))
    }
    for found in rates.strengths:
        metrics[f"{_source(found.simulated)}_strength/{found.arm}"] = found.strength.value
    if rates.agreement:
        metrics[f"{_source(rates.agreement.simulated)}_krippendorff_alpha"] = rates.agreement.alpha.value
    return metrics


def headline_metrics(comparison: Comparison) -> dict[str, float]:
    """The parent's numbers: `<metric>/<arm>` for every arm, and the Fréchet distance that real pictures have."""
    metrics = {
        f"{name}/{result.arm}": result.scores[name].value
        for name in HEADLINES
        for result in comparison.arms
        if name in result.scores
    }
    return {**metrics, "fd_floor": comparison.floor.fd.value}


def masked(text: str) -> str:
    """`text` without the credentials of the addresses in it."""
    return re.sub(r"\?\S*", "?***", re.sub(r"//\S*@", "//***@", text))


def _log_study(
    client: MlflowClient,
    run_id: str,
    study: Study,
    comparison: Comparison,
    rates: Rates,
    root: Path,
    pictures: dict[str, dict[int, Image.Image]],
) -> None:
    settings = study.model_dump(mode="json", exclude={"tracking"}, exclude_none=True)
    # The text of a preset belongs to what was compared; the study holds only its name.
    for name, arm in study.arms.items():
        settings["arms"][name] |= {"negative_prompt": arm.negative}
    provenance = {**comparison.provenance.model_dump(), "reference_n": comparison.reference_n}
    _log(
        client,
        run_id,
        {**headline_metrics(comparison), **label_headlines(rates)},
        _flat({**settings, "provenance": provenance}),
    )
    for path in (REPORT, COMPARISON, RATES, PARAMS):
        folder = path.parent.as_posix()
        client.log_artifact(run_id, str(root / path), None if folder == "." else folder)
    if rates.arms:
        client.log_table(run_id, label_table(rates), "labels/rates.json")
    arms = sorted(pictures, key=lambda arm: arm != study.baseline)  # the baseline first, the others in their order
    rows = [[pictures[arm][pair] for arm in arms] for pair in islice(pictures[study.baseline], SAME_SEEDS)]
    client.log_image(run_id, same_seed_grid(rows, arms, _scale(rows[0])), "gallery/same_seed.png")


def _log_arm(
    client: MlflowClient,
    run_id: str,
    study: Study,
    result: ComparedArm,
    rates: Rates,
    root: Path,
    pictures: list[Image.Image],
) -> None:
    arm = study.arms[result.arm]
    settings = {
        **arm.model_dump(mode="json", include={"method", "scale", "prompt"}),
        "negative_prompt": arm.negative,
        "sampler": study.sampler.model_dump(mode="json"),
        "pictures": result.n,
        "model": study.model.name,
    }
    metrics = arm_metrics(result)
    if labelled := rates.of_arm(result.arm):
        metrics |= label_metrics(labelled)
    if strength := rates.strength_of(result.arm):
        metrics |= strength_metrics(strength)
    _log(client, run_id, metrics, _flat(settings))
    client.log_image(run_id, grid(pictures, columns=8, scale=_scale(pictures)), "gallery/samples.png")
    client.log_artifact(run_id, str(root / SCORES / f"{result.arm}.parquet"), "scores")


def _source(simulated: bool) -> str:
    return SIMULATED if simulated else "human"


def _bounded(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _share(interval: Interval) -> str:
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _log(client: MlflowClient, run_id: str, metrics: Mapping[str, float], params: Mapping[str, str]) -> None:
    # One call: over HTTP each single metric costs as much as fifty together.
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
        params=[Param(key, value) for key, value in params.items()],
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


def _first_pictures(folder: Path, count: int) -> dict[int, Image.Image]:
    # pair_id -> picture, of the first `count`; shard by shard, because a whole set may not fit the memory.
    def rows() -> Iterator[tuple[int, Image.Image]]:
        for path in shard_paths(folder):
            table = read_table(path, ["pair_id", "image"])
            try:
                yield from zip(table.column("pair_id").to_pylist(), decode_images(table), strict=True)
            except OSError as error:
                raise InputError(f"{path}: a picture cannot be read ({error}); delete it and run `dvc repro`") from None

    pictures = dict(islice(rows(), count))
    for picture in pictures.values():
        picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return pictures


def _scale(pictures: list[Image.Image]) -> int:
    return max(1, _SHOWN_SIDE // max(picture.width for picture in pictures))


def _experiment(client: MlflowClient, study: Study, database: Path | None) -> str:
    name = study.tracking.experiment
    folder = database.parent / "mlartifacts" if database else None
    location = folder.as_uri() if folder else None
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return str(client.create_experiment(name, artifact_location=location))
    if experiment.lifecycle_stage != "active":
        raise InputError(
            f"tracking.experiment '{name}' was deleted in MLflow; restore it with `mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}` or choose another name"
        )
    known = experiment.artifact_location
    if (
        location
        and known != location
        and known.startswith("file:")
        and not Path(known.removeprefix("file://")).is_dir()
    ):
        raise InputError(
            f"{database} keeps the artifacts of experiment '{name}' in {known}, which is no folder any more; "
            "move it back, or move the database away to begin anew"
        )
    return str(experiment.experiment_id)


def _delete_with_children(client: MlflowClient, experiment: str, parent: str) -> None:
    for child in client.search_runs([experiment], f"tags.`{_PARENT}` = '{parent}'"):
        client.delete_run(child.info.run_id)
    client.delete_run(parent)


@contextmanager
def _run(client: MlflowClient, experiment: str, name: str, tags: dict[str, str]) -> Iterator[str]:
    cut = {key: value[:_TAG_LENGTH] for key, value in tags.items()}
    # The context tags are MLflow's own: who ran what, at which commit.
    run_id = str(client.create_run(experiment, tags=resolve_tags(cut), run_name=name).info.run_id)
    try:
        yield run_id
    except BaseException:
        # Where MLflow itself is the reason, it may not take the status either; the first error is the one to tell.
        with suppress(MlflowException, SQLAlchemyError, OSError):
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    # MLflow's errors as one line. requests' errors are OSErrors; a database without its driver is an ImportError.
    retries = logging.getLogger("urllib3.connectionpool")
    level = retries.level
    retries.setLevel(logging.ERROR)
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        reason = " ".join(masked(str(error).replace(uri, masked(uri))).split())[:300]
        silent = any(isinstance(cause, requests.ConnectionError | requests.Timeout) for cause in _causes(error))
        problem = "does not answer" if silent else f"refuses: {reason}"
        raise InputError(
            f"MLflow at {masked(uri)} {problem}; mend that or set MLFLOW_TRACKING_URI to another one "
            "(sqlite:///mlflow.db needs no server), then run `dvc repro track`"
        ) from None
    finally:
        retries.setLevel(level)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _local_database(uri: str, root: Path) -> Path | None:
    # The file of a sqlite store; None for a server.
    match = re.fullmatch(r"sqlite:///([^?]+)", uri)
    if match is None:
        return None
    path = (root / match[1]).resolve()
    if path.exists():
        # MLflow retries on a damaged file for more than a minute.
        try:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} is no sqlite database ({error}); move it away to begin anew") from None
    return path


def _code(text: str) -> str:
    # Prompts are untrusted and MLflow renders Markdown; a code span shows them as they are.
    shown = " ".join(text.split()).replace("`", "'").replace("|", "¦")
    return f"`{shown[:160]}{'…' if len(shown) > 160 else ''}`" if shown else "none"


def _arm_note(arm: Arm) -> str:
    texts = {"Description": arm.description, "Negative prompt": arm.negative}
    return "\n\n".join(f"{title}: {_code(text)}" for title, text in texts.items() if text)


def _study_note(study: Study, comparison: Comparison, rates: Rates) -> str:
    # MLflow folds all but the first lines away, so where to look comes first.
    lines = [
        f"Study **{study.name}**: the same prompts and seeds drawn in {len(study.arms)} ways (arms). "
        "Look at the artifacts `reports/index.html` (the whole report) and `gallery/same_seed.png` (a column an arm, a "
        "row a seed), and at the child runs, one an arm, with every score and samples.",
        "",
        "| arm | method | scale | negative prompt |",
        "|---|---|---|---|",
        *(f"| {name} | {arm.method} | {arm.scale:g} | {_code(arm.negative)} |" for name, arm in study.arms.items()),
        "",
        f"Each arm has {study.generate.pictures} pictures; they are compared with {comparison.reference_n} real ones "
        f"and with the arm **{study.baseline}**. `_low` and `_high` bound {comparison.level:.0%} intervals. "
        "Select child runs and press Compare to plot one metric against another.",
    ]
    labels = rates.labels + rates.pair_labels
    if labels:
        lines += ["", f"`human_...` are rates by {labels} labels, with the automatic scores where that narrows them."]
    if rates.simulated_labels:
        lines += [
            "",
            f"{rates.simulated_labels} of the {labels} labels are **simulated**, not people's: `simulated_...`.",
        ]
    return "\n".join(lines)


def _experiment_note(study: Study) -> str:
    # Its first line stands over every page of the experiment, also over the empty one that MLflow opens it with.
    return (
        "Choose **Model training** (top left), then Runs. Compared: what guidance does to a diffusion model's "
        "distribution (CFG, negative prompts, autoguidance), on the same prompts and seeds.\n\n"
        "A parent run is one state of params and data; its child runs (the plus sign before the name) are the arms. "
        "`fd/<arm>` on a parent is that arm's Fréchet distance to real pictures (lower is better; `fd_floor` is what "
        "real pictures get), `precision` is quality, `recall` variety. `shift_...` on a child is its distance from "
        f"the baseline arm, here {study.baseline}."
    )


def main() -> None:
    study = load_study()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or study.tracking.uri
    run_id = track(study, Path(), uri)
    # Without an output of its own the stage would count as done on a fresh clone, where dvc.lock is all there is.
    write_atomically(TRACKED, f"{file_digest(COMPARISON)}\n".encode())
    where = "`make mlflow` shows it, under Model training" if uri.startswith("sqlite:") else "look there"
    print(
        f"track: study '{study.name}' with {len(study.arms)} arms is run {run_id} of experiment "
        f"'{study.tracking.experiment}' in {masked(uri)}; {where}"
    )


if __name__ == "__main__":
    run_stage(main)
