"""`make label-demo`: the judge labels the pushed tasks through the real API, to try the loop without people.

Its labels are simulated and say so everywhere: the user's name and address on the server, the labeller's name and
`simulated` in every record, and whoever shows rates of them.
"""

import argparse
import random
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tqdm import tqdm

from labeling.judge import better, judge
from labeling.label_studio.answers import task_id_of
from labeling.label_studio.connection import Connection, client_of, required
from labeling.label_studio.images import Sampled, load_images, wanted_images
from labeling.label_studio.interface import choice
from labeling.label_studio.project import find_project, tasks_on_server
from labeling.label_studio.pull import SIMULATED_DOMAIN
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
    arguments = parser.parse_args()
    if not 0 <= arguments.error_rate <= 1:
        raise InputError(f"--error-rate is {arguments.error_rate}; a share lies between 0 and 1")
    if not arguments.labeller.isalnum():
        raise InputError(f"--labeller is {arguments.labeller!r}; letters and digits only")
    name = load_study().name
    done = simulate(required(), name, read_tasks(), read_pairs(), SETS, arguments.error_rate, arguments.labeller)
    counts = " and ".join(f"{count} SIMULATED labels of {kind}" for kind, count in done.items())
    print(f"label-demo: {counts} by '{arguments.labeller}' went to the server; `dvc repro` pulls them")


if __name__ == "__main__":
    run_stage(main)
