"""A node that dies with a finished result which nobody had fetched."""

import time
from functools import partial
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline.execution.executor import run_tasks
from pipeline.execution.termination import Termination
from pipeline.study.executor import RayExecutor

# Smaller results travel with the message that they are there.
LARGE = 2**21


def large_results(folder: Path, node, device):
    """The worker on `node` ends its first task once `fetched` lies in `folder`, and the other begins only after it."""

    def wait_for(name):
        while not (folder / name).exists():
            time.sleep(0.02)

    def work(number):
        if ray.get_runtime_context().get_node_id() == node:
            (folder / "begun").touch()
            wait_for("fetched")
            (folder / "done").touch()
        else:
            wait_for("begun")
        return number, bytes(LARGE)

    return work


@pytest.fixture
def cluster(environment):
    """Two nodes with a processor each."""
    environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment.setenv("RAY_worker_niceness", "0")
    environment.setenv("PYTHONPATH", str(Path(__file__).parent))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_result_that_goes_with_its_node_is_made_again(cluster, tmp_path):
    extra = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    executor = RayExecutor(kind="ray", address=cluster.address, workers=2)
    results = run_tasks(executor, partial(large_results, tmp_path, extra.node_id), range(4), Termination())
    numbers = [next(results)[0]]
    (tmp_path / "fetched").touch()
    until = time.monotonic() + 30
    while not (tmp_path / "done").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(1)  # until the result lies in the node's memory
    cluster.remove_node(extra, allow_graceful=False)
    numbers += [number for number, _ in results]
    assert sorted(numbers) == [0, 1, 2, 3]
