"""Where the time of the default study goes: `python -m benchmarks.study`, on an otherwise idle machine.

Clones the last commit into a temporary folder and makes the study there from nothing. Of every stage it takes the wall
time, the CPU time of all of its processes, and how long its libraries take to import, which each process does anew.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil
import yaml

from benchmarks.record import entry, processor, record
from pipeline.cost.shard_cost import read_shard_costs
from pipeline.layout import COSTS

# What stages import when they need it.
LATER = {
    "pipeline.generate": "pipeline.generation.shard_generator",
    "eval.features.extraction": "open_clip",
    "eval.scorers.arm_scores": "open_clip",
}
RUNNING = re.compile(r"Running stage '(?P<stage>[a-z_]+)(@[^']*)?'")
MACHINE = f"{processor()}, {psutil.cpu_count()} cores, otherwise idle"


def stage_times(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each stage of `dvc repro` in `folder`, one pair an arm or run."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    before = children_cpu()
    # Until DVC names its first stage, it reads the repository.
    stage, walls, cpu = "dvc", time.perf_counter(), 0.0
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as run:
        process = psutil.Process(run.pid)
        assert run.stdout is not None
        for line in run.stdout:
            match = RUNNING.search(line)
            if match is None:
                continue
            spent, now = process.cpu_times(), time.perf_counter()
            total = spent.user + spent.system + spent.children_user + spent.children_system
            found[stage].append((now - walls, total - cpu))
            print(f"{stage}: {now - walls:.0f} s, {total - cpu:.0f} s of CPU", flush=True)
            stage, walls, cpu = match["stage"], now, total
    found[stage].append((time.perf_counter() - walls, children_cpu() - before - cpu))
    if run.returncode:
        raise SystemExit(f"dvc repro failed with {run.returncode}")
    return dict(found)


def children_cpu() -> float:
    """CPU seconds of all processes that this one has waited for, and theirs."""
    spent = psutil.Process().cpu_times()
    return float(spent.children_user + spent.children_system)


def import_seconds(module: str) -> float:
    """Wall seconds to start Python and import what a stage's module needs, the less of two."""
    code = f"import {module}, {LATER.get(module, 'sys')}"
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def stage_modules() -> dict[str, str]:
    """The module that each stage of dvc.yaml runs."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text("utf-8"))["stages"]
    return {name: stage.get("do", stage)["cmd"].split()[2] for name, stage in stages.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "study"
        subprocess.run(["git", "clone", "--quiet", str(Path.cwd()), str(folder)], check=True)  # noqa: S607  # users have git in PATH
        subprocess.run([sys.executable, "-m", "pipeline.compose"], cwd=folder, check=True)
        stages = stage_times(folder)
        shards = [cost for path in (folder / COSTS).glob("*.json") for cost in read_shard_costs(path).values()]
    drawing = sum(cost.seconds for cost in shards)
    modules = stage_modules()
    importing = {name: len(runs) * import_seconds(modules[name]) for name, runs in stages.items() if name in modules}
    total = sum(wall for runs in stages.values() for wall, _ in runs)
    rows = sorted(stages.items(), key=lambda row: -sum(wall for wall, _ in row[1]))
    results = [entry("study_seconds", total, None, None, "the default study from nothing, `dvc repro`", MACHINE)]
    for name, runs in rows:
        wall, cpu = (sum(column) for column in zip(*runs, strict=True))
        imports = importing.get(name, 0.0)
        said = f"{len(runs)} run(s), {cpu:.0f} s of CPU; imports {imports:.0f} s"
        results.append(entry(f"study_{name}_seconds", wall, None, None, said, MACHINE))
    said = f"inside generate, {sum(cost.pictures for cost in shards)} pictures"
    results.append(entry("study_drawing_seconds", drawing, None, None, said, MACHINE))
    results.append(entry("study_imports_seconds", sum(importing.values()), None, None, "in all stages", MACHINE))
    record(results)


if __name__ == "__main__":
    main()
