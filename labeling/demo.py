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

from labeling.connection import Connection, client_of, required
from labeling.interface import choice
from labeling.judge import judge
from labeling.pictures import load_task_pictures
from labeling.project import find_project
from labeling.pull import SIMULATED_DOMAIN
from labeling.push import tasks_on_server
from labeling.records import SampledTask, read_tasks
from pipeline.errors import InputError, run_stage
from pipeline.layout import SETS
from pipeline.rates import Verdict
from pipeline.study import load_study

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio


def mistaken(verdict: Verdict, error_rate: float, task_id: str, labeller: str) -> Verdict:
    """The verdict, or with probability `error_rate` one of the others; the same for the same task and labeller."""
    draw = random.Random(f"{labeller} {task_id}")
    if draw.random() >= error_rate:
        return verdict
    return draw.choice([other for other in get_args(Verdict) if other != verdict])


def simulate(
    connection: Connection, study: str, tasks: Sequence[SampledTask], sets: Path, error_rate: float, labeller: str
) -> int:
    """Label what the simulated `labeller` has not labelled yet; returns how many tasks that were. Raises InputError."""
    with client_of(connection) as client:
        project = find_project(client, study, "tasks")
        if project is None:
            raise InputError(f"{connection.shown} has no project of study '{study}'; `dvc repro push` makes it")
        user = _user(client, labeller)
        sampled = {task.task_id: task for task in tasks}
        open_tasks = {
            int(task.id): sampled[task.data["task_id"]]
            for task in tasks_on_server(client, project, "id,data,annotators")
            if task.data.get("task_id") in sampled and user not in (task.annotators or [])
        }
        verdicts = judge(load_task_pictures(list(open_tasks.values()), sets)) if open_tasks else []
        rows = zip(open_tasks.items(), verdicts, strict=True)
        for (number, task), given in tqdm(rows, "SIMULATED labels", len(verdicts), unit="task", disable=None):
            verdict = mistaken(given.verdict, error_rate, task.task_id, labeller)
            client.annotations.create(number, completed_by=user, result=[choice("verdict", verdict)])
    return len(open_tasks)


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
    done = simulate(required(), load_study().name, read_tasks(), SETS, arguments.error_rate, arguments.labeller)
    print(f"label-demo: {done} SIMULATED labels by '{arguments.labeller}' are on the server; `dvc repro` pulls them")


if __name__ == "__main__":
    run_stage(main)
