"""Tasks on a running Ray cluster: one actor per worker, each with its networks loaded once.

The project has to lie in the same folder on every node (a shared file system, or a clone each), with the same
environment; what is large, images and vectors, travels through Ray or a storage that all nodes reach.
"""

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import InputError
from pipeline.execution.jobs import Job, LazyJob, Numbered, Result, Task
from pipeline.execution.termination import Termination
from pipeline.study.executor import RayExecutor

try:
    import ray
except ImportError:
    raise InputError(
        "executor.kind is ray, which is not installed; get it with `uv pip install 'guidedrift[ray]'`"
    ) from None

# Seconds after which a run without any worker says what it waits for.
_PATIENCE = 20.0
# What is seen of a worker that is gone: it was at work, or had finished, and its node held the result.
_LOST = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)


class _Worker:
    """One actor: loads a job on its device and does task after task."""

    def enter(self, root: str, job: Job[Any, Any], kind: str) -> None:
        """Go to the project, which the paths of a study are relative to, and take the job onto a `kind` of device.

        Not the constructor's work: what goes wrong in one reaches no one but as an actor that is gone.
        """
        if not Path(root).is_dir():
            raise InputError(f"node {ray.util.get_node_ip_address()} has no folder {root}; the project must be there")
        os.chdir(root)
        # Ray leaves a GPU visible that it was not asked for, and counts one whose driver is broken.
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError(
                f"node {ray.util.get_node_ip_address()} has a GPU for Ray and none for torch; fix its driver, or "
                "start the cluster with --num-gpus 0"
            )
        self._work = LazyJob(job, torch.device(kind))

    def work(self, task: Any) -> Any:
        return self._work(task)


def cluster_device_kind(executor: RayExecutor) -> str:
    """The kind of device that workers get: cuda where the cluster has a GPU. Raises InputError without a cluster."""
    _connect(executor)
    return "cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu"


def run_on_ray(
    executor: RayExecutor, job: Job[Task, Result], tasks: Iterable[Task], termination: Termination
) -> Iterator[Result]:
    """The results of `tasks`, as `pipeline.execution.executor.run_tasks` gives them.

    Raises InputError where there is no cluster, no room in it, or where workers die again and again.
    """
    kind = cluster_device_kind(executor)
    gpus = 1 if kind == "cuda" else 0
    count = executor.workers or _room(executor.cpus, gpus)
    # Actors do not start again by themselves: a lost one is replaced here, where its task is known.
    options = {"num_cpus": executor.cpus, "num_gpus": gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
    actor_class: Any = ray.remote(**options)(_Worker)
    remaining = Numbered(tasks, executor.retries)
    starting: dict[Any, Any] = {}  # of an actor's readiness
    under_way: dict[Any, tuple[Any, tuple[int, Task] | None]] = {}  # of a result
    idle: deque[Any] = deque()
    lost = 0

    def start() -> None:
        actor = actor_class.remote()
        starting[actor.enter.remote(str(Path.cwd()), job, kind)] = actor

    try:
        for _ in range(count):
            start()
        more = True
        while True:
            # No task is given to an actor that does not run: it may wait for a node that never comes.
            while idle and more and not termination.requested:
                task = remaining.take()
                if task is None:
                    more = False
                else:
                    actor = idle.popleft()
                    under_way[actor.work.remote(task[1])] = (actor, task)
            if not under_way and (not more or termination.requested):
                return
            done, _ = ray.wait([*under_way, *starting], num_returns=1, timeout=_PATIENCE)
            if not done and not under_way:
                print(f"waiting for room in the Ray cluster: {count} workers of {executor.cpus} CPUs each", flush=True)
            for reference in done:
                actor, task = under_way.pop(reference) if reference in under_way else (starting.pop(reference), None)
                try:
                    result = _answer(reference)
                except _LOST:
                    lost += 1
                    # Where only its result is gone, it may live on and hold the place of the one that follows.
                    ray.kill(actor)
                    if task is not None:
                        remaining.put_back(*task)
                        more = True
                    elif lost > count + executor.retries:
                        raise InputError(f"{lost} workers died on the Ray cluster, one before it could begin") from None
                    start()
                    continue
                idle.append(actor)
                if task is not None:
                    yield result
    finally:
        for actor in [*idle, *starting.values(), *(actor for actor, _ in under_way.values())]:
            ray.kill(actor)


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # The task's own error, not Ray's wrapping of it.
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from None
        raise error.cause from error


def _connect(executor: RayExecutor) -> None:
    if ray.is_initialized():
        return
    address = executor.address or os.environ.get("RAY_ADDRESS", "")
    if not address:
        raise InputError(
            "executor.address is empty and RAY_ADDRESS is not set; start a cluster with `ray start --head`, and on the "
            "same machine name it with executor.address=auto"
        )
    _check_reachable(address)
    paths = [str(Path.cwd()), os.environ.get("PYTHONPATH")]
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"executor.address {address}: no Ray cluster answers ({reason})") from None
    finally:
        # Ray puts its own handler in its place, which ends the process at once.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes, and then ends the process. Raises InputError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto": Ray looks for a cluster on this machine, and says at once where there is none
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"executor.address {address}: no Ray cluster answers ({error})") from None


def _room(cpus: int, gpus: int) -> int:
    """How many workers fit on the cluster's nodes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else float("inf"))) for node in nodes
    )
    if room < 1:
        raise InputError(f"no node of the Ray cluster has {cpus} CPUs{' and a GPU' if gpus else ''} (executor.cpus)")
    return room
