"""Stage `push`: the sampled images go to Label Studio, and only those that are not there yet.

The server keeps the books: each of its tasks carries our task id, each uploaded file its name. So a push that was cut
off at any point is completed by the next one, and a push of what is there sends nothing.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from labeling.label_studio.answers import task_id_of
from labeling.label_studio.connection import GO_ON, SERVER_FOLDER, Connection, ServerUnavailable, client_of, required
from labeling.label_studio.images import Sampled, wanted_images, write_images
from labeling.records import SampledPair, SampledTask, read_pairs, read_tasks
from pipeline.errors import InputError, run_stage
from pipeline.layout import SETS
from pipeline.stage_arguments import stage_parser
from pipeline.study.study import Study, load_study

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio

    from labeling.label_studio.interface import Kind
    from labeling.label_studio.project import Project

# Label Studio takes at most 100 files a request; a pair has two.
_TASKS_A_REQUEST = 50
ROOT_VARIABLE = "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"


def push(
    connection: Connection, study: Study, tasks: Sequence[SampledTask], pairs: Sequence[SampledPair], sets: Path
) -> str:
    """Send what the server lacks; returns a line on what was sent. Raises InputError; what was sent is kept."""
    from labeling.label_studio.preannotation import preannotate
    from labeling.label_studio.project import ensure_project

    queues: dict[Kind, Sequence[Sampled]] = {"tasks": tasks, "pairs": pairs}
    said, places = [], []
    with client_of(connection) as client:
        for kind, queue in queues.items():
            if not queue:
                continue
            project = ensure_project(client, study.name, kind)
            store = project if kind == "tasks" else ensure_project(client, study.name, "tasks")
            sent = _push_queue(client, project, store, queue, sets, study.labeling.transport == "local_files")
            rest = ", the others were there" if sent < len(queue) else ""
            said.append(f"{sent} of {len(queue)} {kind} sent{rest}")
            places.append(f"{connection.shown}/projects/{project.number}")
            if kind == "tasks" and study.labeling.preannotate:
                said.append(f"{preannotate(client, project, tasks, sets)} pre-annotations sent")
    if not said:
        return "push: the sample is empty"
    return f"push: {'; '.join(said)}; next: label at {' and '.join(places)}, then {GO_ON} fetches the labels"


def _push_queue(
    client: "LabelStudio", project: "Project", store: "Project", queue: Sequence[Sampled], sets: Path, local: bool
) -> int:
    from labeling.label_studio.project import tasks_on_server, upload_images, uploaded_images

    there = {task_id_of(task.data) for task in tasks_on_server(client, project, "id,data")}
    # In the order of the queue, which is shuffled: Label Studio shows tasks by their number.
    missing = [task for task in sorted(queue, key=lambda task: task.position) if task.task_id not in there]
    # A push that was cut off may have left images without their tasks.
    addresses = {} if local or not missing else uploaded_images(client, store)
    remaining = iter(tqdm(missing, "push", unit="task", disable=None if missing else True))
    with tempfile.TemporaryDirectory() as temporary:
        folder = _shared_folder(client, project) if local else Path(temporary)
        write_images(wanted_images(missing), sets, folder)
        while chunk := list(islice(remaining, _TASKS_A_REQUEST)):
            names = wanted_images(chunk)
            if local:
                addresses = {name: f"/data/local-files/?d={project.mark}/{name}" for name in names}
            elif lacking := {name: (folder / name).read_bytes() for name in names if name not in addresses}:
                addresses |= upload_images(client, store, lacking)
            request: Any = [{"data": _data(task, addresses)} for task in chunk]
            client.projects.import_tasks(project.number, request=request)
    _set_overlaps(client, project, queue)
    return len(missing)


def _data(task: Sampled, addresses: Mapping[str, str]) -> dict[str, str]:
    # All that a labeller's browser learns: no arm, no prompt of a single image, no score, no batch.
    if isinstance(task, SampledTask):
        return {"task_id": task.task_id, "image": addresses[f"{task.task_id}.png"]}
    sides = {side: addresses[f"{task.task_id}-{side}.png"] for side in ("left", "right")}
    return {"task_id": task.task_id, "prompt": task.prompt, **sides}


def _shared_folder(client: "LabelStudio", project: "Project") -> Path:
    # The server serves only files below its document root that a storage of the project names.
    root = Path(os.environ.get(ROOT_VARIABLE) or SERVER_FOLDER / "images").resolve()
    if not root.is_dir():
        raise InputError(
            f"labeling.transport is local_files, but {root} is no folder; set {ROOT_VARIABLE} to the folder that the "
            "server reads too, or labeling.transport to upload"
        )
    folder = root / project.mark
    folder.mkdir(exist_ok=True)
    known = client.import_storage.local.list(project=project.number)
    if not any(storage.path == str(folder) for storage in known):
        client.import_storage.local.create(project=project.number, path=str(folder), use_blob_urls=True)
    return folder


def _set_overlaps(client: "LabelStudio", project: "Project", queue: Sequence[Sampled]) -> None:
    from labeling.label_studio.project import tasks_on_server

    # The project's own setting is one for all tasks.
    wanted = {task.task_id: task.overlap for task in queue if isinstance(task, SampledTask)}
    if not wanted:
        return
    listed = tasks_on_server(client, project, "id,data,overlap")
    change = [task for task in listed if wanted.get(task_id_of(task.data), task.overlap) != task.overlap]
    for task in tqdm(change, "push: overlap", unit="task", disable=None if change else True):
        client.tasks.update(str(task.id), overlap=wanted[task_id_of(task.data)])


def main() -> None:
    parser = stage_parser("labeling.label_studio.push", __doc__)
    parser.add_argument(
        "--stage", action="store_true", help="as a stage: a server that is missing or refuses is told, not an error"
    )
    arguments = parser.parse_args()
    try:
        print(push(required(), load_study(), read_tasks(), read_pairs(), SETS))
    except ServerUnavailable as error:
        if not arguments.stage:
            raise
        # People may label days later; the numbers of the images shall not wait for them.
        print(f"push: not everything is sent: {error}")


if __name__ == "__main__":
    run_stage(main)
