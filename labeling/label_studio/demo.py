"""`make label-demo`: the judge labels the pushed tasks through the real API, to try the loop without people.

Its labels are simulated and say so everywhere: the user's name and address on the server, the labeller's name and
`simulated` in every record, and whoever shows rates of them. Where people have labelled this study it asks first, since
an image that the judge has labelled is not shown to a person any more; `--remove` takes its labels off the server.
"""

import argparse
import random
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tqdm import tqdm

from labeling.judge import better, judge
from labeling.label_studio.answers import task_id_of
from labeling.label_studio.connection import GO_ON, Connection, client_of, required
from labeling.label_studio.images import Sampled, load_images, wanted_images
from labeling.label_studio.interface import choice
from labeling.label_studio.project import find_project, tasks_on_server
from labeling.label_studio.pull import SIMULATED_DOMAIN, Pulled, is_simulated, latest, read_project
from labeling.records import Choice, SampledPair, SampledTask, read_pairs, read_tasks
from pipeline.errors import InputError, run_stage
from pipeline.layout import SETS
from pipeline.results.rates import Verdict
from pipeline.study.study import load_study

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio

    from labeling.label_studio.interface import Kind
    from labeling.label_studio.project import Project


def mistaken(answer: str, others: Sequence[str], error_rate: float, task_id: str, labeller: str) -> str:
    """The answer, or with probability `error_rate` one of the others; the same for the same task and labeller."""
    draw = random.Random(f"{labeller} {task_id}")  # noqa: S311 (to be repeated, not to be secret)
    if draw.random() >= error_rate:
        return answer
    return draw.choice([other for other in others if other != answer])


def simulate(
    connection: Connection,
    study: str,
    tasks: Sequence[SampledTask],
    pairs: Sequence[SampledPair],
    sets: Path,
    error_rate: float,
    labeller: str,
) -> dict["Kind", int]:
    """Label what waits for the simulated `labeller`; returns how many tasks and pairs that were. Raises InputError.

    As for a person, a task waits until as many people as it asks for have labelled it.
    """
    queues: dict[Kind, Sequence[Sampled]] = {"tasks": tasks, "pairs": pairs}
    done: dict[Kind, int] = {}
    with client_of(connection) as client:
        user = None
        for kind, queue in queues.items():
            if not queue:
                continue
            project = find_project(client, study, kind)
            if project is None:
                raise InputError(
                    f"{connection.shown} has no project of study '{study}' for {kind}; `dvc repro push` makes it"
                )
            user = user or _user(client, labeller)
            waiting = _waiting(client, project, queue, user)
            answers = _answers(list(waiting.values()), sets)
            shown = tqdm(waiting.items(), f"SIMULATED labels of {kind}", unit="task", disable=None if waiting else True)
            for number, task in shown:
                question, others, answer = answers[task.task_id]
                given = mistaken(answer, others, error_rate, task.task_id, labeller)
                # Label Studio hangs a choice on the image that its interface names; that of pairs names the left.
                result = choice(question, given, shown="image" if kind == "tasks" else "left")
                client.annotations.create(number, completed_by=user, result=[result])
            done[kind] = len(waiting)
    return done


def labels_of_people(connection: Connection, study: str) -> int:
    """How many labels people have given to the study's projects on the server. Raises InputError."""
    return sum(
        not is_simulated(pulled.emails.get(given.completed_by or 0, ""))
        for pulled in _pulled(connection, study)
        for annotations in pulled.annotations.values()
        for given in latest(annotations)
    )


def remove(connection: Connection, study: str) -> int:
    """Delete every simulated label of the study's tasks on the server; returns how many. Raises InputError.

    Those in other projects go too: `pull` keeps a label that stands in any.
    """
    simulated = [
        given.id
        for pulled in _pulled(connection, study)
        for place in (pulled.annotations, pulled.elsewhere)
        for annotations in place.values()
        for given in annotations
        if is_simulated(pulled.emails.get(given.completed_by or 0, ""))
    ]
    with client_of(connection) as client:
        for number in tqdm(simulated, "remove SIMULATED labels", unit="label", disable=None if simulated else True):
            client.annotations.delete(number)
    return len(simulated)


def _pulled(connection: Connection, study: str) -> list[Pulled]:
    kinds: tuple[Kind, ...] = ("tasks", "pairs")
    return [found[0] for kind in kinds if (found := read_project(connection, study, kind))]


def _agreed(people: int) -> bool:
    """Whether whoever is at the terminal wants simulated labels beside people's. Raises InputError without one."""
    said = f"people have given {people} labels of this study; simulated ones would take images from them"
    if not sys.stdin.isatty():
        raise InputError(
            f"{said}; --beside-people does it nevertheless, `labeling.seed` or another study's name begins anew"
        )
    return input(f"{said}, and stay out of every rate. Simulate nevertheless? [y/N] ").strip().lower() in ("y", "yes")


def _waiting(client: "LabelStudio", project: "Project", queue: Sequence[Sampled], user: int) -> dict[int, Sampled]:
    sampled = {task.task_id: task for task in queue}
    waiting = {}
    for task in tasks_on_server(client, project, "id,data,annotators,overlap"):
        people = task.annotators or []
        if task_id_of(task.data) in sampled and user not in people and len(people) < task.overlap:
            waiting[int(task.id)] = sampled[task_id_of(task.data)]
    return waiting


def _answers(tasks: Sequence[Sampled], sets: Path) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """The judge's answer by task id: the question, its possible answers, the answer."""
    images = dict(load_images(wanted_images(tasks), sets))
    judged = dict(zip(images, judge(images.values()), strict=True))
    found: dict[str, tuple[str, tuple[str, ...], str]] = {}
    for task in tasks:
        if isinstance(task, SampledTask):
            verdict = judged[f"{task.task_id}.png"].verdict
            found[task.task_id] = "verdict", get_args(Verdict), verdict
        else:
            left, right = (judged[f"{task.task_id}-{side}.png"] for side in ("left", "right"))
            found[task.task_id] = "choice", get_args(Choice), better(left, right)
    return found


def _user(client: "LabelStudio", labeller: str) -> int:
    email = f"{labeller}{SIMULATED_DOMAIN}"
    known = [user for user in client.users.list() if user.email == email]
    if known:
        return int(known[0].id)
    # Nobody logs in as this user, so nobody needs its password.
    created = client.users.create(
        username=email, email=email, first_name="SIMULATED", last_name=labeller, password=secrets.token_urlsafe(16)
    )
    return int(created.id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--error-rate", type=float, default=0.1, help="share of wrong verdicts, in [0, 1]; default 0.1")
    parser.add_argument("--labeller", default="judge", help="name of the simulated labeller; default judge")
    parser.add_argument("--beside-people", action="store_true", help="do not ask where people have labelled the study")
    parser.add_argument("--remove", action="store_true", help="delete the study's simulated labels from the server")
    arguments = parser.parse_args()
    if not 0 <= arguments.error_rate <= 1:
        raise InputError(f"--error-rate is {arguments.error_rate}; a share lies between 0 and 1")
    if not arguments.labeller.isalnum():
        raise InputError(f"--labeller is {arguments.labeller!r}; letters and digits only")
    name, connection = load_study().name, required()
    if arguments.remove:
        print(f"label-demo: {remove(connection, name)} SIMULATED labels left the server; next: {GO_ON}")
        return
    people = labels_of_people(connection, name)
    if people and not arguments.beside_people and not _agreed(people):
        print("label-demo: nothing was simulated")
        return
    done = simulate(connection, name, read_tasks(), read_pairs(), SETS, arguments.error_rate, arguments.labeller)
    counts = " and ".join(f"{count} SIMULATED labels of {kind}" for kind, count in done.items())
    print(f"label-demo: {counts} by '{arguments.labeller}' went to the server; next: {GO_ON} pulls them")


if __name__ == "__main__":
    run_stage(main)
