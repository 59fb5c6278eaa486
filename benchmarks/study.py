"""Where the time of the default study goes, before and now: `python -m benchmarks.study [revision]`.

The machine should be idle. Clones the last commit and an earlier one (BEFORE unless given) into temporary folders,
makes the study in each from nothing, and takes the wall time of every stage and the CPU time of all of its processes.
Then the images, traces and trajectories of both are compared: a study that became faster by generating something else
has not become faster.
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
import pyarrow.parquet as pq

from benchmarks.record import Result, entry, processor, record
from pipeline.layout import SETS, TRACES, TRAJECTORIES

# The last revision with one stage per arm.
BEFORE = "fb689ba"
RUNNING = re.compile(r"Running stage '(?P<stage>[a-z_]+)(@[^']*)?'")
MACHINE = f"{processor()}, {psutil.cpu_count()} cores, otherwise idle"
WALL, CPU = 15 / 21, 32 / 42
# The feature spaces that both have, so that both do the same.
SPACES = ["features=[clip,pyramid]"]

Times = dict[str, list[tuple[float, float]]]


def stage_times(folder: Path) -> Times:
    """Wall and CPU seconds of each stage of `dvc repro` in `folder`, one pair per run of it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found: Times = defaultdict(list)
    before = children_cpu()
    # Until DVC names its first stage, it reads the repository.
    stage, walls, cpu = "dvc", time.perf_counter(), 0.0
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(folder)},
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
            print(f"{folder.name}: {stage}: {now - walls:.0f} s, {total - cpu:.0f} s of CPU", flush=True)
            stage, walls, cpu = match["stage"], now, total
    found[stage].append((time.perf_counter() - walls, children_cpu() - before - cpu))
    if run.returncode:
        raise SystemExit(f"dvc repro failed with {run.returncode}")
    return dict(found)


def children_cpu() -> float:
    """CPU seconds of all processes that this one has waited for, and theirs."""
    spent = psutil.Process().cpu_times()
    return float(spent.children_user + spent.children_system)


def made(place: Path, name: str, revision: str) -> tuple[Path, Times]:
    """The study of a revision, made in a clone, and its times."""
    folder = place / name
    subprocess.run(["git", "clone", "--quiet", str(Path.cwd()), str(folder)], check=True)  # noqa: S607  # users have git in PATH
    subprocess.run(["git", "checkout", "--quiet", revision], cwd=folder, check=True)  # noqa: S607
    composing = [sys.executable, "-m", "pipeline.compose", *SPACES]
    subprocess.run(composing, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, check=True)
    return folder, stage_times(folder)


def different(ours: Path, theirs: Path) -> list[str]:
    """The shards of one study whose rows differ from the other's, image bytes included; fingerprints aside."""
    found = []
    for kind in (SETS, TRACES, TRAJECTORIES):
        names = [{path.relative_to(root) for path in (root / kind).rglob("*.parquet")} for root in (ours, theirs)]
        for name in sorted(names[0] | names[1]):
            there = all(name in own for own in names)
            if not there or not pq.read_table(ours / name).equals(pq.read_table(theirs / name)):
                found.append(str(name))
    return found


def results(name: str, times: Times, said: str) -> list[Result]:
    """A row for the whole study, and one per stage, the longest first."""
    totals = {stage: [sum(column) for column in zip(*runs, strict=True)] for stage, runs in times.items()}
    wall, cpu = (sum(column) for column in zip(*totals.values(), strict=True))
    rows = [entry(f"{name}_seconds", wall, None, None, f"{cpu:.0f} s of CPU; {said}", MACHINE)]
    for stage, (wall, cpu) in sorted(totals.items(), key=lambda row: -row[1][0]):
        runs = f"{len(times[stage])} process(es), {cpu:.0f} s of CPU"
        rows.append(entry(f"{name}_{stage}_seconds", wall, None, None, runs, MACHINE))
    return rows


def total(times: Times, column: int) -> float:
    return sum(run[column] for runs in times.values() for run in runs)


def main() -> None:
    revision = sys.argv[1] if len(sys.argv) > 1 else BEFORE
    with tempfile.TemporaryDirectory() as place:
        theirs, before = made(Path(place), "before", revision)
        ours, now = made(Path(place), "now", "HEAD")
        others = different(ours, theirs)
    if others:
        print(f"{len(others)} shards differ, for instance {others[0]}", file=sys.stderr)
    wall, cpu = (total(now, column) / total(before, column) for column in (0, 1))
    same = "the same images" if not others else f"{len(others)} shards differ"
    record(
        [
            entry("study_wall_ratio", wall, WALL, wall <= WALL, f"revision {revision}, {same}", MACHINE),
            entry("study_cpu_ratio", cpu, CPU, cpu <= CPU, f"revision {revision}, {same}", MACHINE),
            *results("study", now, "the default study from nothing, `dvc repro`"),
            *results("study_before", before, f"revision {revision}"),
        ]
    )


if __name__ == "__main__":
    main()
