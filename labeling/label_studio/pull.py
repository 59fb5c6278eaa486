"""Stage `pull`: people's labels come from Label Studio into the repository, checked and under pseudonyms."""

import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, Field

from labeling.label_studio.answers import Annotation, addresses, annotations_of, listed, read_export, task_id_of
from labeling.label_studio.connection import GO_ON, Connection, ServerUnavailable, client_of, required
from labeling.records import (
    PAIR_LABELS,
    TASK_LABELS,
    Label,
    PairLabel,
    read_labels,
    read_pair_labels,
    write_labels,
)
from pipeline.errors import InputError, run_stage
from pipeline.stage_arguments import stage_parser
from pipeline.study.study import load_study

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio

    from labeling.label_studio.interface import Answer, Kind

# Addresses below .invalid belong to no one (RFC 2606): no person signs up with one.
SIMULATED_DOMAIN = "@simulated.invalid"
# A task with its annotation takes about a kilobyte.
_LARGEST_EXPORT = 2**30
_KINDS: tuple["Kind", ...] = ("tasks", "pairs")
_Given = TypeVar("_Given", Label, PairLabel)


class Pulled(BaseModel):
    """A project's state: the annotations by our task id, and the email address of every user by number."""

    annotations: dict[str, list[Annotation]]
    emails: dict[int, str]
    # Of the same tasks in the server's other projects: of a study that shares arms with this one, of another interface.
    elsewhere: dict[str, list[Annotation]] = Field(default_factory=dict)

    @property
    def ownerless(self) -> int:
        """How many annotations are of users that the server does not know (any more): no one knows whose they are."""
        return sum(given.completed_by not in self.emails for one in self.annotations.values() for given in one)

    def said_elsewhere(self, key: str) -> set[tuple[str, str]]:
        """(task, labeller) of what stands in other projects, whatever it is."""
        return {
            (task_id, pseudonym(self.emails[given.completed_by], key))
            for task_id, annotations in self.elsewhere.items()
            for given in latest(annotations)
            if given.completed_by in self.emails
        }


def pseudonym(email: str, key: str) -> str:
    """A labeller's name in the repository: the same for the same server, and not to be undone without its key."""
    digest = hmac.new(key.encode(), email.strip().lower().encode(), hashlib.sha256).hexdigest()[:12]
    return f"simulated-{digest}" if is_simulated(email) else digest


def is_simulated(email: str) -> bool:
    """Whether a user of the server is not a person."""
    return email.strip().lower().endswith(SIMULATED_DOMAIN)


def latest(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Each labeller's last word on one task, skips and what deleted users said left out.

    A draft is not an annotation until it is submitted.
    """
    last: dict[int, Annotation] = {}
    for annotation in sorted(annotations, key=lambda a: (a.updated_at, a.id)):
        if annotation.completed_by is not None:
            last[annotation.completed_by] = annotation
    return [annotation for annotation in last.values() if not annotation.was_cancelled]


def task_label(task_id: str, labeller: str, answer: "Answer", given: Annotation, simulated: bool) -> Label:
    """The record of a verdict. Raises ValueError where the verdict is missing."""
    chosen = answer.choices
    verdict = _only(chosen, "verdict")
    # What the labeller answered before changing the verdict is hidden from them, and means nothing.
    human = verdict in ("legit_human", "malformed_human")
    return Label.model_validate(
        {
            "task_id": task_id,
            "labeller": labeller,
            "verdict": verdict,
            "body_shape": _only(chosen, "body_shape") if human and "body_shape" in chosen else None,
            "malformed_parts": chosen.get("malformed_parts", ()) if verdict == "malformed_human" else (),
            "note": answer.note,
            "created_at": given.created_at,
            "simulated": simulated,
        }
    )


def pair_label(task_id: str, labeller: str, answer: "Answer", given: Annotation, simulated: bool) -> PairLabel:
    """The record of a choice between two sides. Raises ValueError where the choice is missing."""
    return PairLabel.model_validate(
        {
            "task_id": task_id,
            "labeller": labeller,
            "choice": _only(answer.choices, "choice"),
            "created_at": given.created_at,
            "simulated": simulated,
        }
    )


def merged(
    old: Iterable[_Given],
    new: Sequence[_Given],
    tasks: Collection[str],
    labellers: Collection[str],
    elsewhere: Collection[tuple[str, str]] = (),
) -> list[_Given]:
    """The labels of the study's project, and those in the file that it cannot know.

    These are of other tasks, of another server's people, or (task, labeller) given `elsewhere` on this server. What a
    labeller of this server took back on one of its tasks goes.
    """
    here = {(label.task_id, label.labeller) for label in new}

    def unknown_here(label: _Given) -> bool:
        given = label.task_id, label.labeller
        return (
            label.task_id not in tasks or label.labeller not in labellers or (given in elsewhere and given not in here)
        )

    return [label for label in old if unknown_here(label)] + list(new)


def read_project(connection: Connection, study: str, kind: "Kind") -> tuple[Pulled, str] | None:
    """The state of the study's project and its pseudonym key; None where it was never pushed. Raises InputError."""
    from labeling.label_studio.project import find_project, other_projects, tasks_on_server

    with client_of(connection) as client:
        project = find_project(client, study, kind)
        if project is None:
            return None
        # Tasks without a task_id were put there by someone else.
        on_server = tasks_on_server(client, project, "id,data")
        known = [task_id for task in on_server if (task_id := task_id_of(task.data))]
        annotations = annotations_of(known, _exported(client, project.number))
        elsewhere: dict[str, list[Annotation]] = {task_id: [] for task_id in known}
        for other in other_projects(client, project):
            for task_id, given in annotations_of(known, _exported(client, other.number)).items():
                elsewhere[task_id] += given
        emails = addresses(client.users.list())
    return Pulled(annotations=annotations, emails=emails, elsewhere=elsewhere), project.pseudonym_key


def _exported(client: "LabelStudio", project: int) -> list[dict[str, Any]]:
    # Part by part: what a server sends must not fill the memory before it is refused.
    content = bytearray()
    for part in client.projects.exports.download_sync(project, export_type="JSON"):
        content += part
        if len(content) > _LARGEST_EXPORT:
            raise InputError(f"Label Studio's export of project {project} is larger than {_LARGEST_EXPORT} bytes")
    return read_export(content, f"Label Studio's export of project {project}")


def labels_of(pulled: Pulled, key: str, kind: "Kind") -> list[Label] | list[PairLabel]:
    """The labels of a project. Raises InputError naming the tasks with answers that the interface does not know."""
    from labeling.label_studio.interface import INTERFACES, choices, read_answer

    allowed = choices(INTERFACES[kind])
    record: Any = task_label if kind == "tasks" else pair_label
    labels: Any = []
    faults = []
    for task_id, annotations in pulled.annotations.items():
        for given in latest(annotations):
            email = pulled.emails.get(given.completed_by or 0)
            if email is None:  # counted as ownerless
                continue
            try:
                answer = read_answer(given.result, allowed)
                labels.append(record(task_id, pseudonym(email, key), answer, given, is_simulated(email)))
            except ValueError as error:
                faults.append(f"task_id '{task_id}' (annotation {given.id}): {error}")
    if faults:
        raise InputError(
            f"{len(faults)} annotations are not of this interface, nothing was written: {listed(faults)}; correct or "
            "delete them in Label Studio and pull again"
        )
    return labels  # type: ignore[no-any-return]


def pull(connection: Connection, study: str, root: Path = Path(), only_server: bool = False) -> str:
    """Bring `labels/*.jsonl` below `root` up to the server's state; returns a line on what changed.

    `only_server` drops the labels that the server does not know. Raises InputError, with nothing written.
    """
    found = {kind: read_project(connection, study, kind) for kind in _KINDS}
    if not any(found.values()):
        return f"pull: {connection.shown} has no project of study '{study}'; next: `.venv/bin/dvc repro push` makes it"
    files: dict[Path, Any] = {}
    said = []
    for kind, state in found.items():
        path = root / (TASK_LABELS if kind == "tasks" else PAIR_LABELS)
        old: Any = (read_labels if kind == "tasks" else read_pair_labels)(path)
        if state is None:
            continue
        pulled, key = state
        new: Any = labels_of(pulled, key, kind)
        labellers = {pseudonym(email, key) for email in pulled.emails.values()}
        elsewhere = pulled.said_elsewhere(key)
        if only_server:  # so none in the file may be another task's or another server's
            files[path] = merged(old, new, {x.task_id for x in old}, {x.labeller for x in old}, elsewhere)
        else:
            files[path] = merged(old, new, pulled.annotations, labellers, elsewhere)
        simulated = sum(label.simulated for label in files[path])
        added = len({(x.task_id, x.labeller) for x in files[path]} - {(x.task_id, x.labeller) for x in old})
        said.append(
            f"{len(files[path])} labels of {kind} in {path.relative_to(root)}, {added} of them new"
            + (f", {simulated} SIMULATED" if simulated else "")
            + (
                f"; {pulled.ownerless} annotations of users that the server does not list left as pulled before"
                if pulled.ownerless
                else ""
            )
        )
    for path, labels in files.items():
        write_labels(path, labels)
    if any(files.values()):
        following = f"{GO_ON} brings them into the report and MLflow"
    else:
        following = f"label at {connection.shown}/projects, then {GO_ON} fetches the labels"
    return f"pull: {'; '.join(said)}; next: {following}"


def _only(chosen: Mapping[str, tuple[str, ...]], question: str) -> str:
    if question not in chosen:
        raise ValueError(f"{question} is not answered")
    if len(chosen[question]) > 1:
        raise ValueError(f"{question} has {len(chosen[question])} answers: {', '.join(chosen[question])}")
    return chosen[question][0]


def main() -> None:
    parser = stage_parser("labeling.label_studio.pull", __doc__)
    parser.add_argument(
        "--stage", action="store_true", help="as a stage: a server that is missing or refuses is told, not an error"
    )
    parser.add_argument(
        "--only-server", action="store_true", help="drop labels that the server does not know (any more)"
    )
    arguments = parser.parse_args()
    # DVC wants its outputs, and git keeps them: labels of no one yet are empty files.
    for path in (TASK_LABELS, PAIR_LABELS):
        if not path.exists():
            write_labels(path, list[Label]())
    try:
        said = pull(required(), load_study().name, only_server=arguments.only_server)
        # As a stage it is followed by those that bring labels into the report.
        print(said.partition("; next: " + GO_ON)[0] if arguments.stage else said)
    except ServerUnavailable as error:
        if not arguments.stage:
            raise
        print(f"pull: labels stay as they are: {error}")


if __name__ == "__main__":
    run_stage(main)
