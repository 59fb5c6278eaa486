"""Stage `track`: the study goes to MLflow, as one parent run for a state of params and data and one child run an arm.

MLFLOW_TRACKING_URI says where, or else `tracking.uri`.

A state that was logged to its end is left alone, so the stage can be repeated; what an interrupted run left is
deleted and logged anew, since resuming a run would double its metric history.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from pipeline.credentials import masked
from pipeline.errors import InputError, run_stage
from pipeline.layout import PARAMS, REFERENCE_SET, REPORT, SCORES, SETS, TRACKED
from pipeline.results.comparison import COMPARISON, load_comparison
from pipeline.results.rates import RATES, load_rates
from pipeline.stage_arguments import stage_parser
from pipeline.storage.files import file_digest, fingerprint, write_atomically
from pipeline.storage.shards import decode_images, read_table, set_fingerprint, shard_paths
from pipeline.study.study import Study, load_study
from pipeline.tracking.notes import arm_note, experiment_note, study_note
from pipeline.tracking.runs import image_set_inputs, log_arm, log_study
from pipeline.tracking.snapshot import FINGERPRINT_TAG, register, registered_name
from pipeline.tracking.store import (
    NOTE,
    PARENT,
    delete_with_children,
    explained,
    local_database,
    open_experiment,
    open_run,
    open_store,
    tracking_uri,
)
from pipeline.tracking.view import share_view

# Of what runs hold: a state that was logged in an older layout is logged anew.
_LAYOUT = 2
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
    for path in (root / REPORT, root / PARAMS, *(root / SCORES / f"{arm}.parquet" for arm in study.arms)):
        if not path.is_file():
            raise InputError(f"{path} does not exist; `dvc repro` makes it")
    sets = {arm: set_fingerprint(root / SETS / arm) for arm in study.arms}
    numbers = [file_digest(root / path) for path in (COMPARISON, RATES)]
    mark = fingerprint([_LAYOUT, study.model_dump(mode="json"), sets, numbers])
    inputs = image_set_inputs(study, sets, set_fingerprint(root / REFERENCE_SET), comparison.reference_n)
    name = registered_name(study.tracking.experiment, study.name)
    with explained(uri):
        client = open_store(uri, root)
        experiment = open_experiment(client, study.tracking.experiment, local_database(uri, root))
        for run in client.search_runs([experiment], f"tags.`{FINGERPRINT_TAG}` = '{mark}'"):
            if run.info.status == "FINISHED":
                share_view(client, experiment, study.name, run.info.run_id)
                register(client, name, run.info.run_id, mark, run.data.tags.get(NOTE, ""))
                return str(run.info.run_id)
            delete_with_children(client, experiment, run.info.run_id)
        # All images are read before a run begins: a damaged shard is an error without a run that failed.
        images = {arm: _first_images(root / SETS / arm, SAMPLES) for arm in study.arms}
        for arm_name, own in images.items():
            if list(own) != list(images[study.baseline]):
                raise InputError(f"arms '{arm_name}' and '{study.baseline}' do not share their pairs; run `dvc repro`")
        client.set_experiment_tag(experiment, NOTE, experiment_note(study))
        note = study_note(study, comparison, rates)
        common = {"study": study.name, "model": study.model.name}
        tags = {FINGERPRINT_TAG: mark, NOTE: note, "baseline": study.baseline, **common}
        with open_run(client, experiment, f"{study.name} {mark[:6]}", tags) as parent:
            log_study(client, parent, study, comparison, rates, root, images, inputs)
            for result in tqdm(comparison.arms, "track", unit="arm", disable=None):
                tags = {PARENT: parent, "arm": result.arm, "method": result.method, "family": result.family, **common}
                tags[NOTE] = arm_note(study.arms[result.arm], comparison, result.arm)
                with open_run(client, experiment, result.arm, tags) as child:
                    own_images = list(images[result.arm].values())
                    removed = next((one for one in comparison.adherence if one.arm == result.arm), None)
                    log_arm(client, child, study, result, rates, root, own_images, inputs, removed)
            share_view(client, experiment, study.name, parent)
            register(client, name, parent, mark, note)
    return parent


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
        f"track: study '{study.name}' with {len(study.arms)} arms is run {run_id} of experiment "
        f"'{study.tracking.experiment}' in {masked(uri)}, snapshot "
        f"models:/{registered_name(study.tracking.experiment, study.name)}@current; `make mlflow` shows it"
    )


if __name__ == "__main__":
    run_stage(main)
