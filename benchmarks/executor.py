"""What executors cost and bring: `python -m benchmarks.executor`, on an otherwise idle machine.

Rates are from the second result on, so that loading counts nowhere. A bare loop draws the same shards with nothing
around it. The Ray cluster is one node on this machine with one worker. How time and memory grow with the pictures is
measured on the stage itself with two steps a picture, which are the same for every size.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
import yaml

from benchmarks.record import Result, entry, processor, record
from pipeline.cost import read_shard_costs
from pipeline.executor import run_tasks
from pipeline.executor_settings import Executor, LocalExecutor, RayExecutor
from pipeline.generate import shard_job
from pipeline.layout import COSTS
from pipeline.places import Places
from pipeline.shard_drawer import ShardDrawer
from pipeline.shard_files import DrawnShard
from pipeline.shard_plan import ShardTask, arm_texts, plan_shards
from pipeline.study import Study, load_study
from pipeline.termination import Termination

ARM, SHARD, SHARDS, ROUNDS = "cfg", 16, 8, 3
SIZES = (100, 1000, 10_000)
OVERHEAD, TWO_WORKERS, MEMORY = 0.03, 1.0, 1.1
MACHINE = f"{processor()}, {os.cpu_count()} cores, otherwise idle"


def rate(results: Iterable[DrawnShard]) -> float:
    """Pictures a second from the second result to the last."""
    drawn, started = 0, 0.0
    for number, made in enumerate(results):
        if number == 1:
            started = time.perf_counter()
        elif number > 1:
            drawn += made.cost.pictures
    return drawn / (time.perf_counter() - started)


def rates(study: Study, tasks: list[ShardTask]) -> dict[str, float]:
    """The most pictures a second of the bare loop and of each executor, over ROUNDS interleaved rounds.

    With the study's threads on all cores, and (`_one`) with one thread, which leaves the others to Ray's own processes.
    """
    import ray
    from ray.cluster_utils import Cluster

    alone = study.model_copy(update={"generate": study.generate.model_copy(update={"threads": 1})})
    one, two = LocalExecutor(kind="local", workers=1), LocalExecutor(kind="local", workers=2)

    def bare(given: Study) -> float:
        drawer = ShardDrawer(given, ARM, Places(), torch.device("cpu"))
        return rate(drawer.draw(task, lambda _: None) for task in tasks)

    def on(executor: Executor, given: Study) -> float:
        return rate(run_tasks(executor, partial(shard_job, given, ARM, Places(), None), tasks, Termination()))

    def on_ray(given: Study) -> float:
        # A cluster of its own: even idle, a node's processes take some of the cores that the other runs have.
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            return on(RayExecutor(kind="ray", address=cluster.address, workers=1), given)
        finally:
            ray.shutdown()
            cluster.shutdown()

    runs = {
        "bare": partial(bare, study),
        "local": partial(on, one, study),
        "ray": partial(on_ray, study),
        "two": partial(on, two, study),
        "two_one": partial(on, two, alone),
        "bare_one": partial(bare, alone),
        "ray_one": partial(on_ray, alone),
    }
    found: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            found[name] = max(found.get(name, 0.0), run())
        print({name: round(value, 3) for name, value in found.items()}, flush=True)
    return found


def time_and_memory(pictures: int) -> tuple[float, int]:
    """Pictures a second while drawing, and the highest memory in bytes, of the stage for so many pictures."""
    params = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    params["generate"] |= {"pictures": pictures, "watched": 0}
    params["reference"]["pictures"] = 2 * pictures
    params["sampler"]["steps"] = 2
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
        shutil.copytree("models", Path(folder) / "models", ignore=shutil.ignore_patterns("checkpoints"))
        shutil.copytree("prompts", Path(folder) / "prompts")
        command = [sys.executable, "-m", "pipeline.generate", "--arm", ARM]
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=True)
        costs = read_shard_costs(Path(folder) / COSTS / f"{ARM}.json").values()
    return pictures / sum(cost.seconds for cost in costs), max(cost.memory for cost in costs)


def executors() -> list[Result]:
    """What each executor costs and brings on the same shards."""
    study = load_study()
    cut = study.generate.model_copy(update={"pictures": SHARD * SHARDS, "shard": SHARD, "watched": 0})
    study = study.model_copy(update={"generate": cut})
    texts = arm_texts(study, ARM)
    found = rates(study, [ShardTask.of(shard, texts) for shard in plan_shards(study, ARM, texts)])
    results = []
    for name, peer, said in (
        ("local", "bare", "the bare loop over the same shards"),
        ("ray", "bare", "the bare loop over the same shards, all cores busy"),
        ("ray_one", "bare_one", "the bare loop over the same shards, one thread each"),
    ):
        overhead = found[peer] / found[name] - 1
        results.append(entry(f"executor_overhead_{name}", overhead, OVERHEAD, overhead <= OVERHEAD, said, MACHINE))
    gain, peer = found["two"] / found["local"], "one process with both cores"
    results.append(entry("executor_two_workers", gain, TWO_WORKERS, gain >= TWO_WORKERS, peer, MACHINE))
    results.append(entry("executor_two_workers_one", found["two_one"] / found["local"], None, None, peer, MACHINE))
    return results


def scaling() -> list[Result]:
    """How time and memory of the stage grow with the pictures."""
    results = []
    smallest = 0
    for pictures in SIZES:
        speed, memory = time_and_memory(pictures)
        smallest = smallest or memory
        growth, stage = memory / smallest, f"two steps a picture; {memory / 2**20:.0f} MiB"
        results.append(entry(f"scaling_{pictures}_pictures_per_second", speed, None, None, stage, MACHINE))
    few = f"the memory of {SIZES[0]} pictures, for {SIZES[-1]}"
    results.append(entry("scaling_memory", growth, MEMORY, growth <= MEMORY, few, MACHINE))
    return results


PARTS: dict[str, Callable[[], list[Result]]] = {"executors": executors, "scaling": scaling}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executor", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help=f"which of {', '.join(PARTS)} (default: all)")
    arguments = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    for part in arguments.parts or PARTS:
        record(PARTS[part]())


if __name__ == "__main__":
    main()
