"""What drawing takes of the machine is this process's own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.cost.shard_cost import Cost, ShardCost, read_shard_costs, total_cost
from pipeline.cost.usage import UsageClock

CPU = torch.device("cpu")


def test_a_busy_process_uses_processor_time_and_a_large_array_raises_the_peak() -> None:
    clock = UsageClock(CPU)
    before = clock.read()
    values = np.ones(100 * 2**20, np.uint8)  # 100 MiB, touched
    while clock.read().cpu_seconds <= before.cpu_seconds:
        values += 1
    after = clock.read()
    assert after.seconds > before.seconds
    assert after.memory >= values.nbytes
    # The peak stays when the memory is given back; the kernel's counters lag by some pages a thread.
    del values
    assert clock.read().memory > after.memory - 10 * 2**20
    assert after.gpu_memory is None


BATCH = ShardCost("mark", 8, 64, 640, 0, 0, 2.0, "cpu", 3.0, 5 * 2**30)


def test_a_shard_adds_the_time_of_its_batches_and_keeps_their_highest_memory() -> None:
    total = total_cost([BATCH, replace(BATCH, memory=4 * 2**30)], "mark")
    assert (total.seconds, total.cpu_seconds, total.memory, total.gpu_memory) == (4.0, 6.0, 5 * 2**30, None)
    on_gpu = replace(BATCH, gpu_memory=7)
    assert total_cost([on_gpu, replace(on_gpu, gpu_memory=9)], "mark").gpu_memory == 9


def test_usage_is_kept_in_the_cost_file_and_an_older_file_is_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "cfg.json"
    Cost(path, {"part-00000.parquet": "mark"}, 0, {}).add("part-00000.parquet", BATCH)
    assert read_shard_costs(path) == {"part-00000.parquet": BATCH}
    content = json.loads(path.read_text())
    del content["shards"]["part-00000.parquet"]["cpu_seconds"]
    path.write_text(json.dumps(content))
    assert read_shard_costs(path) == {}
    path.write_text("no cost file")
    assert read_shard_costs(path) == {}
