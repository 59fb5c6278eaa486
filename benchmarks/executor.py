"""What executors cost and bring: `python -m benchmarks.executor`, on an otherwise idle machine.

Rates are from the second result on, so that loading counts nowhere. A bare loop draws the same shards with nothing
around it. The Ray cluster is one node on this machine, and has one worker with all threads. How time and memory grow
with the pictures is measured on the stage itself with two steps a picture, which are the same for every size.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
import yaml

from benchmarks.record import entry, record
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

ARM, SHARD, SHARDS = "cfg", 32, 10
SIZES = (100, 1000, 10_000)
OVERHEAD, TWO_WORKERS, MEMORY = 0.03, 1.0, 1.1


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
    """Pictures a second of the bare loop and of each executor."""

    def on(executor: Executor, study: Study = study) -> float:
        return rate(run_tasks(executor, partial(shard_job, study, ARM, Places(), None), tasks, Termination()))

    drawer = ShardDrawer(study, ARM, Places(), torch.device("cpu"))
    found = {
        "bare": rate(drawer.draw(task, lambda _: None) for task in tasks),
        "one": on(LocalExecutor(kind="local", workers=1)),
        "two": on(LocalExecutor(kind="local", workers=2)),
    }
    single = study.model_copy(update={"generate": study.generate.model_copy(update={"threads": 1})})
    found["two_single"] = on(LocalExecutor(kind="local", workers=2), single)
    print(found, flush=True)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found["ray"] = on(RayExecutor(kind="ray", address=cluster.address, workers=1))
    ray.shutdown()
    cluster.shutdown()
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


def main() -> None:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    study = load_study()
    cut = study.generate.model_copy(update={"pictures": SHARD * SHARDS, "shard": SHARD, "watched": 0})
    study = study.model_copy(update={"generate": cut})
    texts = arm_texts(study, ARM)
    found = rates(study, [ShardTask.of(shard, texts) for shard in plan_shards(study, ARM, texts)])
    print(found)
    results = [
        entry(f"executor_overhead_{name}", value, OVERHEAD, value <= OVERHEAD, "the bare loop over the same shards")
        for name in ("one", "ray")
        for value in [found["bare"] / found[name] - 1]
    ]
    gain = found["two"] / found["one"]
    results.append(entry("executor_two_workers", gain, TWO_WORKERS, gain >= TWO_WORKERS, "one process with both cores"))
    gain = found["two_single"] / found["one"]
    results.append(entry("executor_two_workers_one_thread", gain, None, None, "one process with both cores"))
    sizes = {pictures: time_and_memory(pictures) for pictures in SIZES}
    for pictures, (speed, memory) in sizes.items():
        print(f"{pictures} pictures: {speed:.2f} a second, {memory / 2**20:.0f} MiB")
    speeds, memories = zip(*sizes.values(), strict=True)
    growth = memories[-1] / memories[0]
    names = f"{SIZES[0]} pictures, {SIZES[-1]} here"
    results.append(entry("scaling_memory", growth, MEMORY, growth <= MEMORY, names))
    results.append(entry("scaling_speed", speeds[-1] / speeds[0], None, None, names))
    record(results)
    print(f"{len(results)} results in benchmarks/results.json and docs/benchmarks.md")


if __name__ == "__main__":
    main()
