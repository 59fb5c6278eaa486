"""Who does a stage's tasks: one process or several give the same bytes, and what happens when they die."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
import yaml
from executor_jobs import dying_at_three, refusing, squaring
from one_arm import generate
from repository_copy import ROOT

from pipeline.errors import InputError
from pipeline.execution.executor import run_tasks
from pipeline.execution.termination import Termination
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.layout import COSTS, SETS
from pipeline.storage.places import Places
from pipeline.storage.shards import set_fingerprint, shard_fingerprint
from pipeline.study.executor import LocalExecutor


def local(workers, retries=3):
    return LocalExecutor(kind="local", workers=workers, retries=retries)


def test_two_processes_draw_the_same_bytes_as_one(study, tmp_path):
    for workers in (1, 2):
        settings = study.model_copy(update={"executor": local(workers)})
        assert generate(settings, "autoguidance", Places.under(tmp_path / str(workers))) == (2, 2)
    one, two = (Places.under(tmp_path / workers).of("autoguidance") for workers in "12")
    for kind in ("sets", "traces"):
        assert set_fingerprint(getattr(one, kind)) == set_fingerprint(getattr(two, kind))


def test_tasks_are_taken_when_there_is_room_for_them():
    taken = []

    def tasks():
        for number in range(100):
            taken.append(number)
            yield number

    for workers, ahead in ((1, 1), (2, 3)):
        taken.clear()
        results = run_tasks(local(workers), squaring, tasks(), Termination())
        assert next(results) in (0, 1, 4)
        assert len(taken) <= ahead
        results.close()


def test_the_task_of_a_killed_worker_is_done_by_another(tmp_path):
    job = partial(dying_at_three, tmp_path, 2)
    assert sorted(run_tasks(local(2), job, range(6), Termination())) == [0, 1, 2, 3, 4, 5]
    assert (tmp_path / "deaths").stat().st_size == 2


def test_a_task_that_kills_every_worker_stops_the_run(tmp_path):
    with pytest.raises(InputError, match=r"workers died 2 times over the same task \(executor.retries is 1\)"):
        list(run_tasks(local(2, retries=1), partial(dying_at_three, tmp_path, 9), range(6), Termination()))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_fails_stops_the_run_with_its_own_error(workers):
    with pytest.raises(InputError, match=r"^1 is odd; take another$"):
        list(run_tasks(local(workers), refusing, [1], Termination()))
    with pytest.raises(ValueError, match=r"^even$"):
        list(run_tasks(local(workers), refusing, [2], Termination()))


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_termination_no_task_is_begun(workers):
    termination = Termination()
    results = run_tasks(local(workers), squaring, iter(range(100)), termination)
    assert next(results) in (0, 1, 4)
    termination.requested = True
    assert len(list(results)) <= workers


@pytest.fixture
def slow_project(networks_project, params):
    """A project folder that draws for some seconds."""
    params["sampler"]["steps"] = 12
    params["generate"]["images"] = 64
    params["reference"]["images"] = 128
    (networks_project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return networks_project


def start_generate(project):
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.generate", "--arm", "cfg"],
        cwd=project,
        # Threads that wait spinning for each other take minutes where others compute as well.
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_a_terminated_stage_finishes_the_shard_in_hand(slow_project):
    shards = slow_project / SETS / "cfg"
    process = start_generate(slow_project)
    wait_for(lambda: (shards / "part-00000.parquet").exists(), process)
    # Between a shard's file and the next shard the stage looks whether it is asked to end.
    time.sleep(0.1)
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 143
    done = sorted(shards.iterdir())
    assert f"terminated after a whole shard ({len(done)} generated in this run); the same command continues" in said
    assert 2 <= len(done) < 8, "the one that was there and the one that was under way"
    assert all(shard_fingerprint(path) for path in done)
    assert (slow_project / COSTS / "cfg.json").exists()


def test_the_second_termination_ends_at_once(study, tmp_path, monkeypatch):
    """Two come while the third batch is drawn, which is the first of the second shard."""
    draw, batches = ArmGenerator.draw, count(1)

    def draw_and_terminate(*given, **named):
        drawn = draw(*given, **named)
        if next(batches) == 3:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return drawn

    monkeypatch.setattr(ArmGenerator, "draw", draw_and_terminate)
    with Termination() as termination, pytest.raises(SystemExit) as end:
        generate(study, "cfg", Places.under(tmp_path), termination)
    assert end.value.code == 143
    assert [path.name for path in (tmp_path / SETS / "cfg").iterdir()] == ["part-00000.parquet"]


def test_processes_end_with_a_killed_parent(slow_project, params):
    params["executor"]["workers"] = 2
    (slow_project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    process = start_generate(slow_project)
    wait_for(lambda: (slow_project / SETS / "cfg/part-00000.parquet").exists(), process)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) >= 2
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while alive := [pid for pid in children if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, f"{alive} outlived their parent"
        time.sleep(0.05)


@pytest.mark.parametrize(("batch", "way_out"), [(4, "compose with generate.batch=2,"), (1, "use model.loading")])
def test_a_batch_that_does_not_fit_into_memory_is_refused(study, tmp_path, monkeypatch, batch, way_out):
    """The error is torch's own, of more memory than there is anywhere."""
    monkeypatch.setattr(ArmGenerator, "draw", lambda *_: torch.empty(2**50))
    small = study.model_copy(update={"generate": study.generate.model_copy(update={"batch": batch})})
    with pytest.raises(InputError, match=rf"^{batch} images of arm 'cfg' at once do not fit into memory.*{way_out}"):
        generate(small, "cfg", Places.under(tmp_path))
    assert not list(tmp_path.rglob("*.parquet"))
