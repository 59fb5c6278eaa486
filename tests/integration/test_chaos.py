"""`dvc repro` killed at random moments and started again: the same artefacts, and no finished shard is drawn twice.

`make chaos` runs it; each of the KILLS runs begins with loading DVC and torch, so it takes minutes.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from repository_copy import copy_repository

from pipeline.storage.shards import shard_fingerprint

STUDY = """# @package _global_
defaults:
  - /model: tinybooru
  - /prompts: tinybooru
  - /text: a1111
  - /sampler: ddim
  - /features: clip
  - /metrics: default
  - /tracking: local
  - /arm:
      - unguided
      - cfg
  - _self_

name: chaos
baseline: unguided
reference:
  images: 64
  world_seed: 0
generate:
  images: 32
  first_seed: 0
  shard: 4
  batch: 4
  watched: 2
sampler:
  steps: 12
metrics:
  resamples: 100
"""
KILLS, SEED = 20, 0
# A kill comes within this share of an undisturbed run: long enough for a stage to end, however busy the machine is.
LONGEST = 0.2
# A run that nobody disturbs ends by then, even beside other work.
PATIENCE = 1200


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_OFFLINE": "1",
        "LABEL_STUDIO_URL": "",
        "LABEL_STUDIO_API_KEY": "",
    }


def begin(project: Path) -> "subprocess.Popen[str]":
    """What `make repro` does, in a process group of its own."""
    return subprocess.Popen(
        ["sh", "-c", "python -m pipeline.integrity.recover && exec dvc repro"],
        cwd=project,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def artefacts(project: Path) -> dict[str, str]:
    """Hashes of everything that a study's numbers and pages are made of.

    Left out is what holds times: data/cost, compare.json (which quotes the cost), and what is made of them: the report,
    the dataset's card, data/tracked and MLflow's database.
    """
    folders = ("data/reference", "data/sets", "data/trace", "data/trajectory", "data/features", "data/scores")
    paths = [path for name in folders for path in (project / name).rglob("*") if path.is_file()]
    paths += [*(project / "data/dataset").rglob("*.parquet"), *(project / "metrics/detail").glob("*.json")]
    paths += [*(project / "plots").glob("*.csv"), project / "metrics/cfg.json", project / "data/sample/tasks.parquet"]
    return {str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def finished(project: Path) -> dict[Path, tuple[str, int]]:
    """The finished shards of the sets, with the state of their files."""
    paths = (project / "data/sets").rglob("part-*.parquet")
    marks = {path: shard_fingerprint(path) for path in paths}
    return {path: (mark, path.stat().st_mtime_ns) for path, mark in marks.items() if mark}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study in a repository of its own, of which nothing has been made."""
    folder = tmp_path_factory.mktemp("chaos") / "project"
    folder.mkdir()
    copy_repository(folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(folder / "metrics", ignore_errors=True)
    (folder / "conf/study/chaos.yaml").write_text(STUDY)
    config = folder / "conf/config.yaml"
    config.write_text(config.read_text().replace("study: default", "study: chaos"))
    subprocess.run([sys.executable, "-m", "pipeline.compose"], cwd=folder, check=True)
    assert yaml.safe_load((folder / "params.yaml").read_text())["name"] == "chaos"
    for command in (("init", "-q"), ("add", "-A"), ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def undisturbed(project: Path) -> tuple[dict[str, str], float]:
    """The artefacts of a run that nobody kills, and its seconds."""
    folder = project.with_name("undisturbed")
    shutil.copytree(project, folder)
    started = time.monotonic()
    process = begin(folder)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said[-3000:]
    return artefacts(folder), time.monotonic() - started


def disturb(project: Path, kills: int, seconds: float, moments: random.Random) -> int:
    """Run the study to its end, killing it as often as `kills` allows; returns how often."""
    drawn: dict[Path, tuple[str, int]] = {}
    killed = 0
    while True:
        process = begin(project)
        try:
            moment = moments.uniform(0.5, LONGEST * seconds)
            said, _ = process.communicate(timeout=moment if killed < kills else PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
        now = finished(project)
        again = [path.name for path, state in drawn.items() if now.get(path) != state]
        assert not again, f"after kill {killed}, finished shards were made again: {again}"
        drawn = now
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, said[-3000:]
            return killed


def same(project: Path, expected: dict[str, str]) -> None:
    found = artefacts(project)
    assert set(found) == set(expected)
    assert not {name for name in found if found[name] != expected[name]}


@pytest.mark.slow
def test_killed_at_twenty_moments_the_study_is_the_same(project, undisturbed):
    expected, seconds = undisturbed
    moments = random.Random(SEED)
    killed = rounds = 0
    while killed < KILLS:
        folder = project.with_name(f"disturbed-{rounds}")
        shutil.copytree(project, folder)
        killed += disturb(folder, KILLS - killed, seconds, moments)
        rounds += 1
        same(folder, expected)
        print(f"chaos: {killed} of {KILLS} kills in {rounds} studies, {len(expected)} artefacts equal")
