"""A small study as the stages before publishing leave it: three arms of 16 images, scores, numbers, no labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from compositions import composed
from datasets import Features, Image, Value
from PIL import Image as PillowImage

from pipeline.cost.shard_cost import Cost, ShardCost
from pipeline.generation.shard_files import SET_FEATURES
from pipeline.results.interval import Interval
from pipeline.results.rates import VERDICTS, LabelledImages, Rate, Rates, Strength
from pipeline.storage.shards import encode_png, write_shard

URI = "sqlite:///mlflow.db"
ARMS = ("unguided", "cfg", "negative")
IMAGES = 16
SHARD = 8
HOSTILE = "worst quality | ![x](http://127.0.0.1/x.png) `code` <script>alert(1)</script>"

PARAMS: dict[str, Any] = {
    **composed(),
    "name": "small",
    "model": {"name": "random", "main": "models/main", "guide": "models/guide"},
    # The hostile prompt is no valid emphasis, and plain text may be anything.
    "text": {"syntax": "plain"},
    "reference": {"images": 32, "world_seed": 0},
    "sampler": {"scheduler": "ddim", "steps": 4},
    "generate": {"images": IMAGES, "first_seed": 0, "shard": SHARD, "batch": 4},
    "arms": {
        "unguided": {"method": "unguided", "scale": 1.0, "description": "What the network draws by itself."},
        "cfg": {"method": "cfg", "scale": 3.0, "description": "Away from the empty prompt."},
        "negative": {"method": "negative", "scale": 3.0, "negative_prompt": HOSTILE},
    },
    "tracking": {"uri": URI, "experiment": "guidedrift"},
}
SPACES = ("efficientnet_lite0_pc4", "pyramid")
SCORES = ("fd", "precision", "recall", "density", "coverage", "clip_score", "aesthetic", "malformed")
SHIFTS = ("fd", "drift", "contraction", "spread_ratio", "reference_fd", "clip_score", "aesthetic", "malformed")


def comparison(seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)

    def interval() -> dict[str, float]:
        low, value, high = sorted(random.uniform(0, 1, 3))
        return {"value": value, "low": low, "high": high, "n": IMAGES}

    def two_sample() -> dict[str, Any]:
        return {"mmd2": random.uniform(), "mmd_p": random.uniform(), "auc": interval()}

    def against() -> dict[str, Any]:
        return {
            **{name: interval() for name in SHIFTS},
            "mean_share": random.uniform(),
            "dispersion": random.uniform(),
            "two_sample": two_sample(),
            "composition": {"total_variation": interval(), "jensen_shannon": interval(), "p": random.uniform()},
            "directions": [],
            "within_prompt": None,
            "adjusted_p": {},
            "spaces": {
                space: {
                    **{name: interval() for name in ("shift", "drift", "spread_ratio", "distance", "variety")},
                    "adjusted_p": dict.fromkeys(("shift", "spread", "distance", "variety"), 0.5),
                    "detectable": dict.fromkeys(("shift", "spread", "distance", "variety"), 0.25),
                }
                for space in SPACES
            },
        }

    def floor() -> dict[str, Any]:
        return {"fd": interval(), "between_sets": interval()}

    arms = [
        {
            "arm": arm,
            "family": PARAMS["arms"][arm]["method"],
            "cost": None,
            "kinds": {"pattern": 1.0},
            "against_reference": {
                **{name: interval() for name in ("drift", "contraction", "spread_ratio")},
                "two_sample": two_sample(),
            },
            **{key: PARAMS["arms"][arm].get(key, "") for key in ("method", "scale", "negative_prompt", "description")},
            "prompt": "positive",
            "n": IMAGES,
            "scores": {name: interval() for name in SCORES},
            "against_baseline": None if arm == "unguided" else against(),
        }
        for arm in ARMS
    ]
    return {
        "study": "small",
        "baseline": "unguided",
        "level": 0.95,
        "arms": arms,
        "floor": floor(),
        "spaces": [
            {
                "name": space,
                "extractor": space.partition("_pc")[0],
                "unit": False,
                "components": 4 if "_pc" in space else None,
                "explained": 0.8,
                "digest": "abc",
                "resize": "none",
                "floor": floor(),
            }
            for space in SPACES
        ],
        "reference_n": 32,
        "frontiers": [],
        "alignment": [],
        "verdicts": [],
        "provenance": {
            **dict.fromkeys(("extractor_digest", "resize", "main", "guide", "reference", "code", "params"), "abc"),
            "extractor": "clip",
            "libraries": {"torch": "2.14.1"},
        },
    }


def write_comparison(root: Path, content: dict[str, Any]) -> None:
    (root / "metrics").mkdir(exist_ok=True)
    (root / "metrics/compare.json").write_text(json.dumps(content))


def write_rates(root: Path, rates: Rates) -> None:
    (root / "metrics/labels.json").write_text(rates.model_dump_json())


def rates_of(simulated: bool) -> Rates:
    """What 20 labels of the arm cfg said: 35 % malformed people."""
    shares = {"pattern": 0.05, "object_or_scenery": 0.1, "malformed_human": 0.35, "legit_human": 0.5}
    verdicts = {
        verdict: Rate(
            classical=Interval(value=value, low=0, high=1, n=20),
            powered=Interval(value=value + 0.01, low=value - 0.02, high=value + 0.03, n=20),
        )
        for verdict, value in shares.items()
    }
    cfg = LabelledImages(
        name="cfg",
        canvas="64x64",
        images=20,
        simulated=simulated,
        verdicts=verdicts,
        body_normal=Interval(value=0.75, low=0.5, high=0.9, n=8),
    )
    strength = Strength(arm="cfg", strength=Interval(value=0.5, low=-0.25, high=1, n=6), simulated=simulated)
    return NO_LABELS.model_copy(
        update={
            "labels": 20,
            "labellers": 1,
            "simulated_labels": 20 * simulated,
            "arms": [cfg],
            "canvases": [cfg],
            "strengths": [strength],
        }
    )


NO_LABELS = Rates(
    baseline="unguided",
    level=0.95,
    labels=0,
    pair_labels=0,
    labellers=0,
    simulated_labels=0,
    left_out=0,
    arms=[],
    canvases=[],
    differences=[],
    agreement=None,
    self_agreement=[],
    calibration=None,
    strengths=[],
)


def write_study(root: Path) -> None:
    """Everything that `track` reads, as the stages before it leave it, under `root`."""
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (root / "reports").mkdir(parents=True)
    (root / "reports/index.html").write_text("<!doctype html><title>report</title><h1>The report</h1>")
    write_comparison(root, comparison())
    write_rates(root, NO_LABELS)
    score_features = Features(
        {
            "image_id": Value("string"),
            "pair_id": Value("int64"),
            "clip_score": Value("float64"),
            **{f"kind_{verdict}": Value("float64") for verdict in VERDICTS},
            "inside_reference": Value("bool"),
        }
    )
    for number, arm in enumerate(ARMS):
        ids = [f"{arm}-{k:06d}" for k in range(IMAGES)]
        for part in range(IMAGES // SHARD):
            rows = range(part * SHARD, (part + 1) * SHARD)
            columns: dict[str, list[Any]] = {
                "image_id": [ids[k] for k in rows],
                "image": [{"bytes": encode_png(image(number, k)), "path": None} for k in rows],
                "arm": [arm] * SHARD,
                "pair_id": list(rows),
                "prompt": ["1person, solo"] * SHARD,
                "negative_prompt": [PARAMS["arms"][arm].get("negative_prompt", "")] * SHARD,
                "seed": list(rows),
            }
            write_shard(root / f"data/sets/{arm}/part-{part:05d}.parquet", columns, SET_FEATURES, "mark")
        # Image k is of kind k modulo 4, as the scores say.
        kinds = {
            f"kind_{verdict}": [0.7 if k % len(VERDICTS) == number else 0.1 for k in range(IMAGES)]
            for number, verdict in enumerate(VERDICTS)
        }
        scores: dict[str, list[Any]] = {
            "image_id": ids,
            "pair_id": list(range(IMAGES)),
            "clip_score": [0.5] * IMAGES,
            **kinds,
            "inside_reference": [k % 2 == 0 for k in range(IMAGES)],
        }
        write_shard(root / f"data/scores/{arm}.parquet", scores, score_features, "mark")
        write_cost(root, arm)
    real: dict[str, list[Any]] = {"image": [{"bytes": encode_png(image(3, k)), "path": None} for k in range(32)]}
    write_shard(root / "data/reference/part-00000.parquet", real, Features({"image": Image()}), "mark")


def write_cost(root: Path, arm: str) -> None:
    """What drawing an arm's two shards cost: 8 and 12 seconds, the processor busy for half of them."""
    names = [f"part-{part:05d}.parquet" for part in range(IMAGES // SHARD)]
    cost = Cost(root / f"data/cost/{arm}.json", dict.fromkeys(names, "mark"), anlas_per_image=0, inputs={})
    for name, seconds in zip(names, (8.0, 12.0), strict=True):
        cost.add(name, ShardCost("mark", SHARD, 64, 640, 0, 0, seconds, "cpu", seconds / 2, 2**30))


def image(arm: int, seed: int) -> PillowImage.Image:
    """Red says which arm, green which seed."""
    return PillowImage.new("RGB", (64, 64), (arm * 100, seed * 10, 128))
