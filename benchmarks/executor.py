"""What executors cost and bring: `python -m benchmarks.executor`, on an otherwise idle machine.

The bare loop draws the shards with nothing around it. A shared machine is a third faster in one minute than in another,
so what is compared runs in turn and the median of the ratios counts. The Ray cluster is one node on this machine with
one worker. How time and memory grow with the images is measured on the stage itself with two steps per image.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles

import torch
import yaml

from benchmarks.record import Result, entry, processor, record
from pipeline.cost.shard_cost import read_shard_costs
from pipeline.execution.allocator import keep_freed_memory
from pipeline.execution.executor import run_tasks
from pipeline.execution.termination import Termination
from pipeline.generate import shard_job
from pipeline.generation.shard_files import GeneratedShard
from pipeline.generation.shard_generator import ShardGenerator
from pipeline.generation.shard_plan import DEVICES, ShardTask, arm_texts, plan_shards
from pipeline.layout import COSTS
from pipeline.storage.places import Places
from pipeline.study.executor import Executor, LocalExecutor, RayExecutor
from pipeline.study.study import Study, load_study

ARM, SHARD = "cfg", 16
SIZES = (100, 1000, 10_000)
OVERHEAD, TWO_WORKERS, MEMORY = 0.03, 1.0, 1.1
MACHINE = f"{processor()}, {os.cpu_count()} cores, otherwise idle"


def study_of(shards: int, threads: int | None = None) -> tuple[Study, list[ShardTask]]:
    """The default study with this many shards per arm, and the tasks of ARM."""
    study = load_study()
    changes = {"images": SHARD * shards, "shard": SHARD, "watched": 0, "threads": threads or study.generate.threads}
    study = study.model_copy(update={"generate": study.generate.model_copy(update=changes)})
    texts = arm_texts(study, ARM)
    return study, [ShardTask.of(shard, texts) for shard in plan_shards(study, ARM, texts, DEVICES[0])]


def on(executor: Executor, study: Study, tasks: list[ShardTask]) -> Iterator[GeneratedShard]:
    """The shards, drawn by an executor."""
    return run_tasks(executor, partial(shard_job, study, Places(), None), tasks, Termination())


def overheads(threads: int | None) -> dict[str, tuple[float, float, float]]:
    """How much longer each executor takes for a shard than the bare loop: the median of shards in turn, and quartiles.

    An executor with one worker begins a shard when it is asked for it, so the others have the machine meanwhile. Who
    begins changes from shard to shard, and the bare loop keeps freed memory, as the executors' workers do.
    """
    import ray
    from ray.cluster_utils import Cluster

    study, tasks = study_of(13, threads)
    keep_freed_memory()
    drawer = ShardGenerator(study, ARM, Places(), torch.device("cpu"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        drawn = {
            "bare": (drawer.draw(task, lambda _: None) for task in tasks),
            "local": on(LocalExecutor(kind="local", workers=1), study, tasks),
            "ray": on(RayExecutor(kind="ray", address=cluster.address, workers=1), study, tasks),
        }
        seconds: dict[str, list[float]] = {name: [] for name in drawn}
        for turn in range(len(tasks)):
            for name in (*drawn, *drawn)[turn % len(drawn) :][: len(drawn)]:
                start = time.perf_counter()
                next(drawn[name])
                seconds[name].append(time.perf_counter() - start)
        for shards in drawn.values():
            next(shards, None)  # ends it, with its workers
    finally:
        ray.shutdown()
        cluster.shutdown()
    print(seconds, flush=True)
    # The first of each loads the networks.
    found = {}
    for name in ("local", "ray"):
        more = [taken / bare - 1 for taken, bare in zip(seconds[name][1:], seconds["bare"][1:], strict=True)]
        low, _, high = quantiles(more, n=4)
        found[name] = median(more), low, high
    return found


def bare_job(study: Study, arm: str, places: Places, device: torch.device) -> Callable[[ShardTask], GeneratedShard]:
    """As `shard_job`, but the C library hands freed memory back as it likes."""
    drawer = ShardGenerator(study, arm, places, device)
    return lambda task: drawer.draw(task, lambda _: None)


_draw: Callable[[ShardTask], GeneratedShard]


def _begin(job: Callable[[torch.device], Callable[[ShardTask], GeneratedShard]]) -> None:
    global _draw
    _draw = job(torch.device("cpu"))


def _seconds(task: ShardTask) -> float:
    start = time.perf_counter()
    _draw(task)
    return time.perf_counter() - start


def gain_of_kept_memory() -> float:
    """How many times as fast a process generates images that keeps freed memory; the median of shards drawn in turn."""
    study, tasks = study_of(9)
    jobs = {
        "kept": partial(shard_job, study, Places(), None),
        "handed back": partial(bare_job, study, ARM, Places()),
    }
    spawn = get_context("spawn")
    with ExitStack() as stack:
        pools = {n: stack.enter_context(ProcessPoolExecutor(1, spawn, _begin, (job,))) for n, job in jobs.items()}
        taken = [{name: pool.submit(_seconds, task).result() for name, pool in pools.items()} for task in tasks]
    print(taken, flush=True)
    return median(pair["handed back"] / pair["kept"] for pair in taken[1:])


def rate(executor: Executor, threads: int | None = None) -> float:
    """Images per second of an executor from the second shard to the last, so that loading does not count."""
    study, tasks = study_of(6, threads)
    shards = on(executor, study, tasks)
    next(shards), next(shards)
    start = time.perf_counter()
    return sum(made.cost.images for made in shards) / (time.perf_counter() - start)


def gains() -> dict[str, float]:
    """Two workers' images per second over one's, with the study's threads and with one; the median of three rounds."""
    found: dict[str, list[float]] = {"": [], "_one": []}
    for _ in range(3):
        alone = rate(LocalExecutor(kind="local", workers=1))
        two = LocalExecutor(kind="local", workers=2)
        found[""].append(rate(two) / alone)
        found["_one"].append(rate(two, threads=1) / alone)
        print(found, flush=True)
    return {name: median(values) for name, values in found.items()}


def time_and_memory(images: int) -> tuple[float, int]:
    """Images per second while drawing, and the highest memory in bytes, of the stage for this many images."""
    params = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    params["generate"] |= {"images": images, "watched": 0}
    params["reference"]["images"] = 2 * images
    params["sampler"]["steps"] = 2
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
        shutil.copytree("models", Path(folder) / "models", ignore=shutil.ignore_patterns("checkpoints"))
        shutil.copytree("prompts", Path(folder) / "prompts")
        command = [sys.executable, "-m", "pipeline.generate", "--arm", ARM]
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=True)
        costs = read_shard_costs(Path(folder) / COSTS / f"{ARM}.json").values()
    return images / sum(cost.seconds for cost in costs), max(cost.memory for cost in costs)


def overhead() -> list[Result]:
    """What executors cost on the same shards."""
    results = []
    for suffix, threads, said in (("", None, "all cores busy"), ("_one", 1, "one thread each")):
        for executor, (value, low, high) in overheads(threads).items():
            peer = f"the bare loop over the same shards, {said}; quartiles {low:.3f} to {high:.3f}"
            name = f"executor_overhead_{executor}{suffix}"
            # A shard more or less is not a verdict where they differ by more than the bar.
            holds = None if low <= OVERHEAD < high else value <= OVERHEAD
            results.append(entry(name, value, OVERHEAD, holds, peer, MACHINE))
    return results


def memory() -> list[Result]:
    """What it brings to keep freed memory."""
    peer = "the same with glibc's own settings"
    return [entry("generate_kept_memory", gain_of_kept_memory(), None, None, peer, MACHINE)]


def workers() -> list[Result]:
    """What a second worker brings."""
    peer = "one process with both cores"
    return [
        entry(f"executor_two_workers{suffix}", gain, TWO_WORKERS, gain >= TWO_WORKERS, peer, MACHINE)
        for suffix, gain in gains().items()
    ]


def scaling() -> list[Result]:
    """How time and memory of the stage grow with the images."""
    results = []
    smallest = 0
    for images in SIZES:
        speed, memory = time_and_memory(images)
        smallest = smallest or memory
        growth, stage = memory / smallest, f"two steps per image; {memory / 2**20:.0f} MiB"
        results.append(entry(f"scaling_{images}_images_per_second", speed, None, None, stage, MACHINE))
    few = f"the memory of {SIZES[0]} images, for {SIZES[-1]}"
    results.append(entry("scaling_memory", growth, MEMORY, growth <= MEMORY, few, MACHINE))
    return results


PARTS: dict[str, Callable[[], list[Result]]] = {
    "overhead": overhead,
    "memory": memory,
    "workers": workers,
    "scaling": scaling,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executor", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help=f"which of {', '.join(PARTS)} (default: all)")
    arguments = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    for part in arguments.parts or PARTS:
        record(PARTS[part]())


if __name__ == "__main__":
    main()
