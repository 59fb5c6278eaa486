"""The Ray executor on a real cluster of two nodes on this machine."""

import os
import threading
import time
from functools import partial

import pytest
import ray
from executor_jobs import dying_at_three, refusing
from one_arm import generate
from ray.cluster_utils import Cluster
from repository_copy import ROOT

from eval.features.extraction import Wanted, refresh
from pipeline.errors import InputError
from pipeline.execution.executor import run_tasks
from pipeline.execution.termination import Termination
from pipeline.layout import SETS
from pipeline.storage.places import Places
from pipeline.storage.remote_path import path_of
from pipeline.storage.shards import read_set, set_fingerprint
from pipeline.study.executor import LocalExecutor, RayExecutor
from pipeline.study.study import Extractor


@pytest.fixture(scope="module")
def cluster(environment, module_bucket):
    """Two nodes with a processor each, that find the bucket as this process does; more may come and go."""
    environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Of workers; Ray's own is 15, which on a busy machine is next to nothing.
    environment.setenv("RAY_worker_niceness", "0")
    # Where workers find the jobs of the tests; the project's folder first, since tests/pipeline would pass for it.
    environment.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "tests"))))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def on_ray(cluster, **settings):
    return RayExecutor(kind="ray", address=cluster.address, **settings)


def with_executor(study, executor, **generation):
    update = {"executor": executor, "generate": study.generate.model_copy(update=generation)}
    return study.model_copy(update=update)


def fingerprints(root, arm="cfg"):
    own = Places.under(root).of(arm)
    return [set_fingerprint(folder) for folder in (own.sets, own.traces, own.trajectories)]


@pytest.fixture
def drawn_here(study, tmp_path):
    """What one process of this machine draws."""
    generate(with_executor(study, LocalExecutor(kind="local"), watched=12), "cfg", Places.under(tmp_path / "here"))
    return fingerprints(tmp_path / "here")


def test_two_nodes_draw_the_same_bytes_as_this_process(cluster, study, drawn_here, tmp_path):
    there = with_executor(study, on_ray(cluster), watched=12)
    assert generate(there, "cfg", Places.under(tmp_path / "there")) == (2, 2)
    assert fingerprints(tmp_path / "there") == drawn_here
    assert generate(there, "cfg", Places.under(tmp_path / "there")) == (0, 2)


def test_a_node_that_goes_costs_no_byte(cluster, study, tmp_path):
    """More shards than are done before the node is gone."""
    generate(with_executor(study, LocalExecutor(kind="local"), shard=4), "cfg", Places.under(tmp_path / "here"))
    extra = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    there = with_executor(study, on_ray(cluster, workers=3), shard=4)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            generate(there, "cfg", Places.under(tmp_path / "there"))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not errors and not list((tmp_path / "there" / SETS / "cfg").glob("part-*")):
        time.sleep(0.02)
    cluster.remove_node(extra, allow_graceful=False)
    thread.join()
    assert not errors
    assert set_fingerprint(tmp_path / "there" / SETS / "cfg") == set_fingerprint(tmp_path / "here" / SETS / "cfg")


def test_the_task_of_a_killed_worker_is_done_by_another(cluster, tmp_path):
    job = partial(dying_at_three, tmp_path, 1)
    assert sorted(run_tasks(on_ray(cluster), job, range(6), Termination())) == [0, 1, 2, 3, 4, 5]
    assert (tmp_path / "deaths").stat().st_size == 1


def test_a_task_that_kills_every_worker_stops_the_run(cluster, tmp_path):
    with pytest.raises(InputError, match=r"workers died 2 times over the same task \(executor.retries is 1\)"):
        list(run_tasks(on_ray(cluster, retries=1), partial(dying_at_three, tmp_path, 9), range(6), Termination()))


def test_a_task_that_fails_stops_the_run_with_its_own_error(cluster):
    with pytest.raises(InputError, match=r"^1 is odd; take another$"):
        list(run_tasks(on_ray(cluster), refusing, [1], Termination()))
    with pytest.raises(ValueError, match=r"^even$"):
        list(run_tasks(on_ray(cluster), refusing, [2], Termination()))


def test_vectors_are_those_of_this_process(cluster, drawn_here, tmp_path):
    settings, files = Extractor(model="pyramid"), [tmp_path / "here.safetensors", tmp_path / "there.safetensors"]
    for path, executor in zip(files, (LocalExecutor(kind="local"), on_ray(cluster)), strict=True):
        assert refresh([Wanted(tmp_path / "here" / SETS / "cfg", "pyramid", settings, path)], executor) == [True]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_shards_wait_in_a_shared_storage(cluster, study, drawn_here, tmp_path, module_bucket, monkeypatch):
    """What workers left there is copied and not drawn again, also by a driver that begins anew."""
    there = with_executor(study, on_ray(cluster, storage=f"{module_bucket}/run"), watched=12)
    assert generate(there, "cfg", Places.under(tmp_path / "there")) == (2, 2)
    assert fingerprints(tmp_path / "there") == drawn_here
    stored = path_of(f"{module_bucket}/run") / study.name / SETS / "cfg"
    assert read_set(stored).equals(read_set(tmp_path / "here" / SETS / "cfg"))

    def draw_nothing(executor, job, tasks, termination):
        assert list(tasks) == [], "drawn again"
        return iter(())

    monkeypatch.setattr("pipeline.generate.run_tasks", draw_nothing)
    assert generate(there, "cfg", Places.under(tmp_path / "anew")) == (2, 2)
    assert fingerprints(tmp_path / "anew") == drawn_here


def test_no_cluster_is_an_error_with_the_way_out(monkeypatch):
    ray.shutdown()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match=r"RAY_ADDRESS is not set; start a cluster with `ray start --head`"):
        list(run_tasks(RayExecutor(kind="ray"), refusing, [1], Termination()))
    with pytest.raises(InputError, match=r"executor.address 127.0.0.1:1: no Ray cluster answers"):
        list(run_tasks(RayExecutor(kind="ray", address="127.0.0.1:1"), refusing, [1], Termination()))
