"""A study as the stages before `report` leave it: three arms of six images, drawn by nobody."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compositions import composed
from datasets import Features, Value
from PIL import Image as PillowImage
from report_numbers import ARMS, comparison, labelled

from eval.features.extraction import SetFeatures, save_features
from eval.report.gallery.gallery import GALLERY_BYTES, Gallery, gallery
from eval.report.gallery.parameters import arm_parameters
from eval.report.page import report
from labeling.records import Label, SampledTask, write_labels, write_pairs, write_tasks
from pipeline.generation.shard_files import SET_FEATURES
from pipeline.generation.shard_files import TRACE_FEATURES as SHARD_TRACE
from pipeline.generation.trajectory import TRAJECTORY_FEATURES
from pipeline.results.comparison import Comparison
from pipeline.results.rates import VERDICTS
from pipeline.storage.shards import encode_png, write_shard
from pipeline.study.study import Study, parse_study

PAIRS = 6
STEPS = 5
HOSTILE = "1person, \"quoted\" & 'single', <script>alert(1)</script><img src=x onerror=alert(2)>"
PROMPTS = [
    HOSTILE,
    "1person, solo, style:adventurer, blue hair, long hair, glasses, purple background, " * 4,
    "object",
    "scenery",
    "pattern",
    "x" * 200,
]

SCORE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "pair_id": Value("int64"),
        "clip_score": Value("float32"),
        "aesthetic": Value("float32"),
        "p_malformed": Value("float32"),
        **{f"kind_{verdict}": Value("float64") for verdict in VERDICTS},
        "realism": Value("float64"),
        "inside_reference": Value("bool"),
    }
)
SIGMAS = (150.0, 20.0, 4.0, 0.8, 0.0)
TRAJECTORY_STEPS = (0, 2, 3)
# What the report reads of a trace.
TRACE_FEATURES = Features({name: SHARD_TRACE[name] for name in ("image_id", "step", "timestep", "sigma", "direction")})


def study() -> Study:
    return parse_study(
        {
            **composed(),
            "name": "smoke",
            "sampler": {"scheduler": "ddim", "steps": STEPS},
            "reference": {"images": 20, "world_seed": 0},
            "generate": {"images": 10, "first_seed": 100, "shard": 8, "batch": 4},
            "arms": {
                "unguided": {"method": "unguided", "scale": 1},
                "cfg_3": {"method": "cfg", "scale": 3},
                "negative_long": {"method": "negative", "scale": 3, "negative_prompt": "lowres"},
            },
        },
        "the test's study",
    )


# The extractor whose vectors the gallery compares.
PRIMARY = study().features.spaces[0].extractor


def image_id(arm: str, pair: int) -> str:
    return f"{arm}-{pair:06d}"


class Inputs:
    """A project folder with everything that the report reads; two shards a set, in scrambled pair order.

    Of arm a (0, 1, 2) and pair k: CLIP score 20 + k + a / 10, aesthetic 5 - k / 2 + a / 100, P(malformed) k / 10, the
    kind (k + a) modulo 4; cfg_3's images moved by k from the baseline's, negative_long's by 10 - k.
    """

    def __init__(self, root: Path):
        self.root = root
        self.comparison, self.rates = root / "metrics/compare.json", root / "metrics/labels.json"
        self.sets, self.scores, self.traces = root / "data/sets", root / "data/scores", root / "data/trace"
        self.features, self.trajectories = root / "data/features", root / "data/trajectory"
        (root / "metrics/detail").mkdir(parents=True)
        self.rates.write_text(labelled().model_dump_json())
        self.comparison.write_text(json.dumps(comparison()))
        spaces = {"space": PRIMARY, "spaces": {PRIMARY: {"explained": 0.81}}}
        detail = {"provenance": {"code": "abc", **spaces, "aesthetic_head": "head<1>", "pickscore": "pick1"}}
        (root / "metrics/detail/unguided.json").write_text(json.dumps(detail))
        random = np.random.default_rng(0)
        for number, arm in enumerate(ARMS):
            for part, pairs in enumerate([[3, 0, 1], [5, 2, 4]]):
                self._write_part(arm, part, pairs, random)
            self._write_scores(number, arm)
            moved = {"unguided": lambda k: 0, "cfg_3": lambda k: k, "negative_long": lambda k: 10 - k}[arm]
            vectors = torch.tensor([[1.0, moved(k)] for k in range(PAIRS)])
            ids = [image_id(arm, k) for k in range(PAIRS)]
            save_features(
                self.features / arm / f"{PRIMARY}.safetensors", SetFeatures(ids, vectors, torch.zeros(PAIRS, 0), {})
            )
        for arm in ARMS[:2]:
            self._write_trajectory(arm, random)
        self._write_labels()

    def _write_scores(self, number: int, arm: str) -> None:
        pairs = range(PAIRS)
        columns: dict[str, list[Any]] = {
            "image_id": [image_id(arm, k) for k in pairs],
            "pair_id": list(pairs),
            "clip_score": [20 + k + number / 10 for k in pairs],
            "aesthetic": [5 - k / 2 + number / 100 for k in pairs],
            "p_malformed": [k / 10 for k in pairs],
            **{
                f"kind_{verdict}": [0.7 if (k + number) % len(VERDICTS) == which else 0.1 for k in pairs]
                for which, verdict in enumerate(VERDICTS)
            },
            # The realism of a copy of a real image.
            "realism": [float("inf") if k == 3 else 1 + k / 10 for k in pairs],
            "inside_reference": [True] * PAIRS,
        }
        write_shard(self.scores / f"{arm}.parquet", columns, SCORE_FEATURES, "mark")

    def _write_part(self, arm: str, part: int, pairs: list[int], random: np.random.Generator) -> None:
        ids = [image_id(arm, k) for k in pairs]
        columns: dict[str, list[Any]] = {
            "image_id": ids,
            "image": [image(random) for _ in pairs],
            "arm": [arm] * len(pairs),
            "pair_id": pairs,
            "prompt": [PROMPTS[k] for k in pairs],
            "negative_prompt": ["lowres" if arm == "negative_long" else ""] * len(pairs),
            "seed": [100 + k for k in pairs],
        }
        write_shard(self.sets / arm / f"part-{part:05d}.parquet", columns, SET_FEATURES, "mark")
        trace = {
            "image_id": [image_id for image_id in ids for _ in range(STEPS)],
            "step": [step for _ in ids for step in range(STEPS)],
            "timestep": [1000.0 - 200 * step for _ in ids for step in range(STEPS)],
            "sigma": list(SIGMAS) * len(ids),
            "direction": [0.1 * (step + k) for k in pairs for step in range(STEPS)],
            "references": [["empty"]] * STEPS * len(ids),
            "relative_norms": [[0.5]] * STEPS * len(ids),
            "cosines": [[]] * STEPS * len(ids),
        }
        write_shard(self.traces / arm / f"part-{part:05d}.parquet", trace, TRACE_FEATURES, "mark")

    def _write_trajectory(self, arm: str, random: np.random.Generator) -> None:
        """Two images; the second arm lacks the last noise level."""
        steps = TRAJECTORY_STEPS if arm == ARMS[0] else TRAJECTORY_STEPS[:-1]
        rows = [(image_id(arm, k), step) for k in range(2) for step in steps]
        columns: dict[str, list[Any]] = {
            "image_id": [one for one, _ in rows],
            "step": [step for _, step in rows],
            "sigma": [SIGMAS[step] for _, step in rows],
            "image": [image(random) for _ in rows],
        }
        write_shard(self.trajectories / arm / "part-00000.parquet", columns, TRAJECTORY_FEATURES, "mark")

    def _write_labels(self) -> None:
        """One person says that image 1 of cfg_3 is a legit human, two simulated ones disagree over image 2."""
        tasks = [
            SampledTask(
                task_id=f"t{k}",
                image_id=image_id("cfg_3", k),
                arm="cfg_3",
                pair_id=k,
                canvas="64x64",
                stratum="all",
                inclusion_probability=1,
                batch="random",
                position=k,
            )
            for k in (1, 2)
        ]
        write_tasks(self.root / "data/sample/tasks.parquet", tasks)
        write_pairs(self.root / "data/sample/pairs.parquet", [])
        when = "2026-11-21T12:00:00Z"
        given = [("t1", "p1", "legit_human"), ("t2", "p1", "malformed_human"), ("t2", "p2", "pattern")]
        labels = [
            Label.model_validate(
                {"task_id": task, "labeller": who, "verdict": said, "created_at": when, "simulated": task == "t2"}
            )
            for task, who, said in given
        ]
        write_labels(self.root / "labels/tasks.jsonl", labels)

    def gallery(self, limit: int = 10**7) -> Gallery:
        """The gallery without labels."""
        compared = Comparison(**comparison())
        shared = arm_parameters(study(), compared)
        return gallery(compared, self.sets, self.scores, self.features, PRIMARY, {}, shared, limit)

    def report(self, gallery_bytes: int = GALLERY_BYTES) -> str:
        return report(study(), self.root, gallery_bytes)


def image(random: np.random.Generator) -> dict[str, Any]:
    """Noise, as large as an image of the embedded world."""
    pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return {"bytes": encode_png(PillowImage.fromarray(pixels)), "path": None}
