"""The files of a shard: the columns of each, and their bytes once they are drawn."""

from dataclasses import dataclass

from datasets import Features, Image, List, Value

from pipeline.cost.shard_cost import ShardCost
from pipeline.generation.shard_plan import Shard

SET_FEATURES = Features(
    {
        "image_id": Value("string"),
        "image": Image(),
        "arm": Value("string"),
        "pair_id": Value("int64"),
        "prompt": Value("string"),
        "negative_prompt": Value("string"),
        "seed": Value("int64"),
    }
)
TRACE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "step": Value("int32"),
        "timestep": Value("float32"),
        "sigma": Value("float32"),
        "direction": Value("float32"),
        "references": List(Value("string")),
        "relative_norms": List(Value("float32")),
        "cosines": List(Value("float32")),
        "effective_scale": Value("float32"),
        "elsewhere": Value("float32"),
    }
)


@dataclass(frozen=True)
class GeneratedShard:
    """A shard's files: its image set, its trace, and the trajectories of its watched images where it has some."""

    shard: Shard
    image_set: bytes
    trace: bytes
    trajectory: bytes | None
    cost: ShardCost
