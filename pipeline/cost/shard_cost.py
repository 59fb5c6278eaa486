"""What an arm cost: network evaluations, FLOPs and seconds per image, and NovelAI's price of it.

Kept beside the image set, never in it: seconds differ from run to run, shards must not. Each finished shard leaves its
entry at once, so an interrupted run loses none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from pipeline.errors import InputError
from pipeline.storage.files import write_atomically
from pipeline.storage.json_file import read_json_text, seal_json
from pipeline.storage.remote_path import AnyPath


@dataclass(frozen=True)
class ShardCost:
    """What the images of one shard cost; `fingerprint` is the shard's, the numbers are sums over its images.

    `nfe` and `flops` are what guidance used, `probe_nfe` and `probe_flops` what was evaluated for the trace alone;
    `seconds` and `cpu_seconds` took both. `memory` and `gpu_memory` are the process's highest, in bytes
    (pipeline/cost/usage.py); `gpu_memory` is None without a GPU.
    """

    fingerprint: str
    images: int
    nfe: int
    flops: int
    probe_nfe: int
    probe_flops: int
    seconds: float
    device: str
    cpu_seconds: float
    memory: int
    gpu_memory: int | None = None


def total_cost(parts: Sequence[ShardCost], fingerprint: str) -> ShardCost:
    """The cost of a shard from those of its batches."""
    return ShardCost(
        fingerprint,
        sum(part.images for part in parts),
        sum(part.nfe for part in parts),
        sum(part.flops for part in parts),
        sum(part.probe_nfe for part in parts),
        sum(part.probe_flops for part in parts),
        sum(part.seconds for part in parts),
        parts[0].device,
        sum(part.cpu_seconds for part in parts),
        max(part.memory for part in parts),
        max((part.gpu_memory for part in parts if part.gpu_memory is not None), default=None),
    )


class Cost:
    """The costs of an arm's shards, in a JSON file."""

    def __init__(
        self, path: AnyPath, fingerprints: Mapping[str, str], anlas_per_image: int | None, inputs: Mapping[str, str]
    ):
        """`fingerprints` of the arm's shards by file name; entries of other shards are forgotten.

        `anlas_per_image` is None where the price is unknown. `inputs` are digests of what determines the shards, by
        name; `changed` are the names that differ from the file's.
        """
        self.path, self.anlas_per_image, self.inputs = path, anlas_per_image, inputs
        kept, before = read_shard_costs(path), _read_inputs(path)
        self.changed = sorted(
            key for key in before.keys() | inputs.keys() if before and before.get(key) != inputs.get(key)
        )
        self.shards = {name: e for name, e in kept.items() if fingerprints.get(name) == e.fingerprint}

    def add(self, name: str, cost: ShardCost) -> None:
        """Record a shard, and write the file."""
        self.shards[name] = cost
        self.write()

    def write(self) -> None:
        """Write totals over the recorded shards, and the shards themselves."""
        entries = [self.shards[name] for name in sorted(self.shards)]
        images = sum(entry.images for entry in entries)
        content = {
            "nfe_per_image": sum(entry.nfe for entry in entries) / images,
            "flops_per_image": sum(entry.flops for entry in entries) / images,
            "probe_nfe_per_image": sum(entry.probe_nfe for entry in entries) / images,
            "probe_flops_per_image": sum(entry.probe_flops for entry in entries) / images,
            "seconds_per_image": sum(entry.seconds for entry in entries) / images,
            "anlas_per_image": self.anlas_per_image,
            "images": images,
            "device": ", ".join(sorted({entry.device for entry in entries})),
            "inputs": dict(self.inputs),
            "shards": {name: asdict(self.shards[name]) for name in sorted(self.shards)},
        }
        write_atomically(self.path, seal_json(json.dumps(content, indent=2)))


def _read_inputs(path: AnyPath) -> dict[str, str]:
    try:
        return dict(json.loads(read_json_text(path))["inputs"])
    except (FileNotFoundError, InputError, ValueError, KeyError, TypeError):
        return {}


def read_shard_costs(path: AnyPath) -> dict[str, ShardCost]:
    """The entries of an arm's file by shard.

    A file that is lost, damaged or of another version costs the record of the past and no images, so it has none.
    """
    try:
        return {name: ShardCost(**e) for name, e in json.loads(read_json_text(path))["shards"].items()}
    except (FileNotFoundError, InputError, ValueError, KeyError, AttributeError, TypeError):
        return {}
