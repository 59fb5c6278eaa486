"""Stage `track`: the study goes to MLflow, a parent run for each state of params, images and numbers, a child per arm.

MLFLOW_TRACKING_URI says where, or else `tracking.uri`.

A state that was logged to its end is not logged again, so the stage can be repeated; what an interrupted run left is
deleted and logged again, since resuming a run would double its metric history. People's labels come while images and
numbers stay: they, and the report with them, update the runs of their state.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import DatasetInput
from PIL import Image
from tqdm import tqdm

from pipeline.credentials import masked
from pipeline.errors import InputError, run_stage
from pipeline.layout import PARAMS, REFERENCE_SET, REPORT, SCORES, SETS, TRACKED
from pipeline.results.colours import arm_colours
from pipeline.results.comparison import COMPARISON, Comparison, load_comparison
from pipeline.results.rates import RATES, Rates, load_rates
from pipeline.stage_arguments import stage_parser
from pipeline.storage.files import file_digest, fingerprint, write_atomically
from pipeline.storage.shards import decode_images, read_table, set_fingerprint, shard_paths
from pipeline.study.study import BESIDE_THE_NUMBERS, Study, load_study
from pipeline.tracking.names import arm_names, state_name
from pipeline.tracking.notes import arm_note, experiment_note, study_note
from pipeline.tracking.numbers import label_headlines, label_keys
from pipeline.tracking.runs import arm_result, image_set_inputs, log_arm, log_labels, log_study, study_params
from pipeline.tracking.snapshot import FINGERPRINT_TAG, current_run, register, registered_name
from pipeline.tracking.store import (
    NOTE,
    PARENT,
    TAG_LENGTH,
    delete_with_children,
    explained,
    local_database,
    open_experiment,
    open_run,
    open_store,
    tracking_uri,
)
from pipeline.tracking.view import share_view

# Of what runs hold: a state that was logged in an older layout is logged again, and its older runs stay.
_LAYOUT = 3
# What MLflow's pages colour a run with, in lists and charts.
_COLOUR_TAG = "mlflow.runColor"
# The state of the labels that a parent run and its arms show, and how often they were updated.
_LABELS_TAG, _PULLS_TAG = "guidedrift.labels", "guidedrift.label_updates"
SAMPLES = 64
# Larger images are reduced, or a sheet of 64 makes 100 MB.
_LARGEST_SIDE = 256


def track(study: Study, root: Path, uri: str) -> str:
    """Log the study's state under `root` to the MLflow at `uri`; returns the id of the parent run.

    A relative sqlite path is one below `root`. Raises InputError where an input is missing or MLflow is unreachable
    or refuses; a run that could not be logged to its end is FAILED.
    """
    comparison = load_comparison(root / COMPARISON, study)
    rates = load_rates(root / RATES)
    for path in (root / REPORT, root / PARAMS, *(root / SCORES / f"{arm}.parquet" for arm in study.compared)):
        if not path.is_file():
            raise InputError(f"{path} does not exist; `dvc repro` makes it")
    sets = {arm: set_fingerprint(root / SETS / arm) for arm in study.arms}
    determining = study.model_dump(mode="json", exclude=BESIDE_THE_NUMBERS)
    mark = fingerprint([_LAYOUT, determining, sets, file_digest(root / COMPARISON)])
    labels = fingerprint([file_digest(root / path) for path in (RATES, REPORT, PARAMS)])
    inputs = image_set_inputs(study, sets, set_fingerprint(root / REFERENCE_SET), comparison.reference_n)
    name = registered_name(study.tracking.experiment, study.name)
    note = study_note(study, comparison, rates)
    with explained(uri):
        client = open_store(uri, root)
        experiment = open_experiment(client, study.tracking.experiment, local_database(uri, root))
        parent = ""
        for run in client.search_runs([experiment], f"tags.`{FINGERPRINT_TAG}` = '{mark}'"):
            # A rate that is no more cannot be taken out of a run.
            if run.info.status == "FINISHED" and label_keys(run.data.metrics) <= label_headlines(rates).keys():
                parent = str(run.info.run_id)
            else:
                delete_with_children(client, experiment, run.info.run_id)
        if not parent:
            digests = {key: own.dataset.digest for key, own in inputs.items()}
            called = _state_name(client, name, study.name, study_params(study, comparison), digests)
            tags = {FINGERPRINT_TAG: mark, "baseline": study.baseline, **_common(study)}
            # All images are read before a run begins: a damaged shard is an error without a run that failed.
            images = _images(study, root)
            with open_run(client, experiment, called, tags) as parent:
                log_study(client, parent, study, comparison, root, images, inputs)
                _log_arms(client, experiment, parent, study, comparison, root, images, inputs)
                _update(client, experiment, parent, labels, comparison, rates, root, note)
        elif client.get_run(parent).data.tags.get(_LABELS_TAG) != labels:
            _update(client, experiment, parent, labels, comparison, rates, root, note)
        client.set_experiment_tag(experiment, NOTE, experiment_note(study))
        share_view(client, experiment, study.name, parent)
        register(client, name, parent, mark, note)
    return parent


def _common(study: Study) -> dict[str, str]:
    return {"study": study.name, "model": study.model.name}


def _images(study: Study, root: Path) -> dict[str, dict[int, Image.Image]]:
    images = {arm: _first_images(root / SETS / arm, SAMPLES) for arm in study.compared}
    for arm, own in images.items():
        if list(own) != list(images[study.baseline]):
            raise InputError(f"arms '{arm}' and '{study.baseline}' do not share their pairs; run `dvc repro`")
    return images


def _log_arms(
    client: MlflowClient,
    experiment: str,
    parent: str,
    study: Study,
    comparison: Comparison,
    root: Path,
    images: Mapping[str, Mapping[int, Image.Image]],
    inputs: Mapping[str, DatasetInput],
) -> None:
    names, colours = arm_names(comparison), arm_colours(comparison.arms, comparison.baseline)
    for result in tqdm(comparison.arms, "track", unit="arm", disable=None):
        tags = {PARENT: parent, "arm": result.arm, "method": result.method, "family": result.family, **_common(study)}
        tags[_COLOUR_TAG] = colours[result.arm]
        tags[NOTE] = arm_note(study.arms[result.arm], comparison, result.arm)
        numbers = arm_result(comparison, result.arm)
        with open_run(client, experiment, names[result.arm], tags) as child:
            own_images = list(images[result.arm].values())
            log_arm(client, child, study, result, numbers, root, own_images, inputs)


def _update(
    client: MlflowClient,
    experiment: str,
    parent: str,
    labels: str,
    comparison: Comparison,
    rates: Rates,
    root: Path,
    note: str,
) -> None:
    """Bring the state's runs up to its labels; the tag that says so comes last, so what breaks off is repeated."""
    pulls = int(client.get_run(parent).data.tags.get(_PULLS_TAG, "-1")) + 1
    client.set_tag(parent, _PULLS_TAG, str(pulls))
    children = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent}'")
    found = {child.data.tags["arm"]: str(child.info.run_id) for child in children}
    runs = {result.arm: found[result.arm] for result in comparison.arms}
    log_labels(client, parent, runs, arm_names(comparison), comparison, rates, root, pulls)
    client.set_tag(parent, NOTE, note[:TAG_LENGTH])
    client.set_tag(parent, _LABELS_TAG, labels)


def _state_name(client: MlflowClient, name: str, study: str, params: Mapping[str, str], sets: Mapping[str, str]) -> str:
    """What a new state is called, by how it differs from the one that was tracked last."""
    run_id = current_run(client, name)
    if run_id is None:
        return state_name(study, params, sets, None)
    run = client.get_run(run_id)
    before = {one.dataset.name.removeprefix(f"{study}/"): one.dataset.digest for one in run.inputs.dataset_inputs}
    if _LABELS_TAG in run.data.tags:
        return state_name(study, params, sets, (run.data.params, before))
    # Of an earlier layout, which had what makes no difference among the params.
    beside = tuple(f"{section}." for section in BESIDE_THE_NUMBERS)
    determining = {key: value for key, value in run.data.params.items() if not key.startswith(beside)}
    return state_name(study, params, sets, (determining, before), otherwise="as before, in a newer layout")


def _first_images(folder: Path, count: int) -> dict[int, Image.Image]:
    # pair_id -> image, of the first `count`; shard by shard, because a whole set may not fit the memory.
    def rows() -> Iterator[tuple[int, Image.Image]]:
        for path in shard_paths(folder):
            table = read_table(path, ["pair_id", "image"])
            try:
                yield from zip(table.column("pair_id").to_pylist(), decode_images(table), strict=True)
            except OSError as error:
                raise InputError(f"{path}: an image cannot be read ({error}); delete it and run `dvc repro`") from None

    images = dict(islice(rows(), count))
    for image in images.values():
        image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return images


def main() -> None:
    stage_parser("pipeline.tracking.track", __doc__).parse_args()
    study = load_study()
    uri = tracking_uri(study.tracking.uri)
    run_id = track(study, Path(), uri)
    # Without an output of its own the stage would count as done on a fresh clone, where dvc.lock is all there is.
    write_atomically(TRACKED, f"{file_digest(COMPARISON)}\n".encode())
    print(
        f"track: study '{study.name}' with {len(study.compared)} arms is run {run_id} of experiment "
        f"'{study.tracking.experiment}' in {masked(uri)}, snapshot "
        f"models:/{registered_name(study.tracking.experiment, study.name)}@current; `make mlflow` shows it"
    )


if __name__ == "__main__":
    run_stage(main)
