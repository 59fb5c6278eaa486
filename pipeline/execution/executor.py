"""Runs a stage's independent tasks: in this process, in several of this machine, or on a Ray cluster.

A job is loaded once a worker and then does task after task. Tasks are taken from their source only when a worker has
room, so they may be as many and as large as they like. Results come back as they are done, in any order; what a
result is must not depend on who made it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from typing import Any

import psutil
import torch

from pipeline.execution.jobs import Job, LazyJob, Numbered, Result, Task
from pipeline.execution.termination import Termination
from pipeline.study.executor import Executor, LocalExecutor

# Libraries and what a batch takes.
_WORKER_BYTES = 2 * 2**30


def run_tasks(
    executor: Executor, job: Job[Task, Result], tasks: Iterable[Task], termination: Termination
) -> Iterator[Result]:
    """The results of `tasks`.

    Once `termination` is asked for, no task is begun any more and those under way are finished. An error of a task
    stops the others. Raises InputError where workers are lost again and again.
    """
    if not isinstance(executor, LocalExecutor):
        # Ray is an extra, and slow to import.
        from pipeline.execution.ray_executor import run_on_ray

        return run_on_ray(executor, job, tasks, termination)
    devices = local_devices()
    if runs_here(executor):
        return _run_here(job, tasks, devices[0], termination)
    workers = executor.workers or len(devices)
    return _run_in_processes(job, tasks, [devices[k % len(devices)] for k in range(workers)], executor, termination)


def runs_here(executor: Executor) -> bool:
    """Whether tasks run in this process."""
    return isinstance(executor, LocalExecutor) and (executor.workers or len(local_devices())) == 1


def with_workers(executor: Executor, useful: int, threads: int, weights: int) -> Executor:
    """The executor with a number of workers for this machine's cores, where its settings leave that open.

    At most the `useful` ones, one for each `threads` cores, and as many as memory has room for when each loads
    `weights` bytes. Where there are GPUs, each has its worker anyway.
    """
    if not isinstance(executor, LocalExecutor) or executor.workers or local_devices()[0].type != "cpu":
        return executor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Half precision on disk is single precision in memory.
    room = psutil.virtual_memory().available // (2 * weights + _WORKER_BYTES)
    return executor.model_copy(update={"workers": max(1, min(useful, cores // threads, room))})


def local_devices() -> list[torch.device]:
    """The GPUs of this machine, or its CPU."""
    gpus = [torch.device("cuda", k) for k in range(torch.cuda.device_count())]
    return gpus or [torch.device("cpu")]


def device_kind(executor: Executor) -> str:
    """The kind of device that an executor's workers compute on: cpu or cuda. Raises InputError without a cluster."""
    if isinstance(executor, LocalExecutor):
        return local_devices()[0].type
    from pipeline.execution.ray_executor import cluster_device_kind

    return cluster_device_kind(executor)


def _run_here(
    job: Job[Task, Result], tasks: Iterable[Task], device: torch.device, termination: Termination
) -> Iterator[Result]:
    work = LazyJob(job, device)
    for task in tasks:
        if termination.requested:
            return
        yield work(task)


def _run_in_processes(
    job: Job[Task, Result],
    tasks: Iterable[Task],
    devices: list[torch.device],
    executor: LocalExecutor,
    termination: Termination,
) -> Iterator[Result]:
    remaining = Numbered(tasks, executor.retries)
    under_way: dict[Future[Any], tuple[int, Task]] = {}
    while True:
        pool = _start_pool(job, devices)
        try:
            while True:
                # One more than there are workers, so that the next task waits where it is needed.
                while len(under_way) <= len(devices) and not termination.requested:
                    task = remaining.take()
                    if task is None:
                        break
                    under_way[_submitted(pool, task[1])] = task
                if not under_way:
                    return
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    del under_way[future]
                    yield result
        except BrokenProcessPool:
            # No one knows whose process it was, so all that were under way begin again.
            for number, task_again in sorted(under_way.values(), key=lambda entry: entry[0]):
                remaining.put_back(number, task_again)
            under_way = {}
        finally:
            _stop(pool)


def _submitted(pool: ProcessPoolExecutor, task: Any) -> "Future[Any]":
    try:
        return pool.submit(_work, task)
    except BrokenProcessPool as error:
        # As if it had been under way, so that it is not lost.
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken


def _start_pool(job: Job[Any, Any], devices: list[torch.device]) -> ProcessPoolExecutor:
    # spawn: a forked child inherits CUDA's and OpenMP's state without their threads.
    context = multiprocessing.get_context("spawn")
    free = context.Queue()
    for device in devices:
        free.put(device)
    # For the processes: their threads must not wait spinning on a core that another one computes on.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return ProcessPoolExecutor(len(devices), context, _start_worker, (job, free))


_job_of_this_process: LazyJob


def _start_worker(job: Job[Any, Any], free: "Queue[torch.device]") -> None:
    global _job_of_this_process
    # Ctrl-C and a termination reach the whole group of processes; the parent alone decides what comes of them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _job_of_this_process = LazyJob(job, free.get())


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: Any) -> Any:
    return _job_of_this_process(task)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End a pool at once, whatever its processes are doing."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
