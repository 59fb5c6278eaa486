"""A study as the stages before `report` leave it: three arms of six pictures, drawn by nobody."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Features, Image, Value
from PIL import Image as PillowImage

from eval.features import SetFeatures, save_features
from eval.report.gallery import Gallery, gallery
from eval.report.page import report
from labeling.records import Label, SampledTask, write_labels, write_tasks
from pipeline.comparison import Comparison, Interval
from pipeline.compose import compose
from pipeline.rates import (
    VERDICTS,
    Agreement,
    Calibration,
    CalibrationBin,
    Difference,
    LabelledPictures,
    Rate,
    Rates,
    SelfAgreement,
    Strength,
)
from pipeline.shards import encode_png, write_shard
from pipeline.study import Study, parse_study

ARMS = ("unguided", "cfg_3", "negative_long")
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
TRAJECTORY_FEATURES = Features(
    {"image_id": Value("string"), "step": Value("int32"), "sigma": Value("float32"), "image": Image()}
)
SIGMAS = (150.0, 20.0, 4.0, 0.8, 0.0)
TRAJECTORY_STEPS = (0, 2, 3)
TRACE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "step": Value("int32"),
        "timestep": Value("float32"),
        "sigma": Value("float32"),
        "direction": Value("float32"),
    }
)


def interval(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 2000}


def scores(fd: float, precision: float, recall: float, aesthetic: float) -> dict[str, Any]:
    return {
        "fd": interval(fd, fd - 0.4, fd + 0.4),
        "precision": interval(precision, precision - 0.02, precision + 0.02),
        "recall": interval(recall, recall - 0.03, recall + 0.02),
        "density": interval(precision * 1.1, precision, precision * 1.2),
        "coverage": interval(recall * 0.9, recall * 0.8, recall),
        "clip_score": interval(0.27 + precision / 100, 0.26, 0.29),
        "aesthetic": interval(aesthetic, aesthetic - 0.1, aesthetic + 0.1),
        "malformed": interval(0.12 - precision / 20, 0.06, 0.12),
        "kid": interval(fd / 1000, 0.0, fd / 500),
        "kind_pattern": interval(0.2, 0.15, 0.25),
        "pickscore": interval(20 + precision, 19, 22),
        "pyramid_fd": interval(fd * 2, fd, fd * 3),
    }


def two_sample(p: float) -> dict[str, Any]:
    return {"mmd2": 0.01, "mmd_p": p, "auc": interval(0.8, 0.75, 0.85)}


def frontier(family: str, arm: str, precision: float, recall: float) -> dict[str, Any]:
    def point(name: str, scale: float, values: tuple[float, ...]) -> dict[str, Any]:
        names = ("precision", "recall", "fd", "clip_score", "aesthetic", "shift")
        spans = {key: interval(v, v - 0.01, v + 0.01) for key, v in zip(names, values, strict=True)}
        return {"arm": name, "scale": scale, **spans}

    return {
        "family": family,
        "points": [
            point("unguided", 1, (0.62, 0.71, 12.4, 0.27, 2.9, 0.0)),
            point(arm, 3, (precision, recall, 11, 0.28, 3.2, 2.0)),
        ],
        "area": interval(0.5, 0.4, 0.6),
        "matched": [
            {"axis": "shift", "level": 1.0, "values": {"fd": interval(11.5, 11, 12)}},
            {"axis": "clip_score", "level": 0.3, "values": {}},
        ],
    }


def alignment() -> dict[str, Any]:
    names = ("empty", "negative", "guide")

    def steps(value: float) -> list[dict[str, Any]]:
        return [{"sigma": sigma, "value": interval(value, value - 0.1, value + 0.1)} for sigma in (150.0, 4.0, 0.0)]

    return {
        "arm": "unguided",
        "pairs": [
            {"references": pair, "steps": steps(0.2 * k), "cosine": interval(0.2 * k, 0.2 * k - 0.1, 0.2 * k + 0.1)}
            for k, pair in enumerate(combinations(names, 2))
        ],
        "actions": [
            {"reference": name, "steps": steps(0.3), "norm": interval(0.3, 0.2, 0.4), "half": interval(0.4, 0.3, 0.5)}
            for name in names
        ],
        "guide_over_empty": interval(0.4, 0.3, 0.5),
        "answer": "The answer <i>in words</i>.",
    }


def comparison() -> dict[str, Any]:
    """What eval.compare writes: cfg_3 contracts and raises quality, negative_long leaves most undecided."""
    decided = {
        "fd": interval(6.2, 5.9, 6.6),
        "drift": interval(4.0, 3.7, 4.3),
        "contraction": interval(2.2, 2.0, 2.4),
        "spread_ratio": interval(0.81, 0.79, 0.83),
        "mean_share": 0.645,
        "clip_score": interval(0.021, 0.017, 0.025),
        "aesthetic": interval(0.62, 0.55, 0.69),
        "malformed": interval(-0.031, -0.04, -0.022),
    }
    undecided = {
        "fd": interval(1.3, 1.1, 1.5),
        "drift": interval(0.9, 0.7, 1.1),
        "contraction": interval(0.4, 0.3, 0.5),
        "spread_ratio": interval(1.01, 0.98, 1.04),
        "mean_share": 0.69,
        "clip_score": interval(-0.001, -0.004, 0.002),
        "aesthetic": interval(0.02, -0.05, 0.09),
        "malformed": interval(0.004, -0.003, 0.011),
    }
    for against, p in ((decided, 0.001), (undecided, 0.4)):
        against |= {
            "dispersion": 1.0,
            "reference_fd": interval(-2.3, -2.6, -2.0) if p < 0.05 else interval(-0.3, -0.9, 0.3),
            "two_sample": two_sample(p),
            "composition": {
                "total_variation": interval(0.1, 0.05, 0.15),
                "jensen_shannon": interval(0.01, 0, 0.02),
                "p": p,
            },
            "directions": [{"ratio": 0.5, "score": "aesthetic", "correlation": 0.7}],
            "within_prompt": None,
            "lpips": interval(-0.02, -0.03, -0.01),
            "preferences": {"pickscore": interval(0.19, 0.1, 0.3)},
            "tags": {
                "total_variation": interval(0.08, 0.07, 0.09),
                "jensen_shannon": interval(0.01, 0.005, 0.015),
                "p": p,
                "readable": 55,
                "changed": [
                    {
                        "tag": "<b>blue</b> hair",
                        "share": 0.05,
                        "baseline_share": 0.02,
                        "difference": interval(0.03, 0.01, 0.05),
                    }
                ],
            },
            "adjusted_p": dict.fromkeys(("shift", "spread", "distance", "quality", "malformed", "prompt"), p),
        }
    long_negative = "worst quality, bad anatomy, lowres, jpeg artifacts, </script><b>bold</b>"
    arms = [
        ("unguided", "unguided", 1.0, "", "No guidance.", scores(12.4, 0.62, 0.71, 2.9), None),
        ("cfg_3", "cfg", 3.0, "", "Classifier-free guidance.", scores(10.1, 0.81, 0.52, 3.5), decided),
        ("negative_long", "negative", 3.0, long_negative, "A <long> one.", scores(12.1, 0.7, 0.66, 2.92), undecided),
    ]
    return {
        "study": "smoke",
        "baseline": "unguided",
        "level": 0.95,
        "arms": [
            {
                "arm": arm,
                "method": method,
                "scale": scale,
                "prompt": "positive",
                "negative_prompt": negative,
                "description": description,
                "n": 2000,
                "family": method,
                "cost": {
                    "nfe_per_image": 20 if method == "unguided" else 40,
                    "flops_per_image": 10e9 if method == "unguided" else 20e9,
                    "probe_nfe_per_image": 60 if method == "unguided" else 0,
                    "probe_flops_per_image": 24e9 if method == "unguided" else 0,
                    "seconds_per_image": 0.5,
                    "anlas_per_image": 2,
                    "device": "cpu, 2 threads",
                },
                "kinds": {"legit_human": 0.6, "malformed_human": 0.1, "object_or_scenery": 0.1, "pattern": 0.2},
                "scores": own,
                "against_reference": {
                    "drift": interval(1.0, 0.9, 1.1),
                    "contraction": interval(2.0, 1.9, 2.1),
                    "spread_ratio": interval(0.9, 0.8, 1.0),
                    "two_sample": two_sample(0.01),
                },
                "against_baseline": against,
            }
            for arm, method, scale, negative, description, own, against in arms
        ],
        "floor": {"fd": interval(1.4, 1.3, 1.6)},
        "reference_n": 4000,
        "frontiers": [frontier("cfg", "cfg_3", 0.81, 0.52), frontier("negative", "negative_long", 0.7, 0.66)],
        "alignment": [alignment()],
        "verdicts": [
            {"arm": arm, "verdicts": [{"topic": "Shift", "verdict": word, "numbers": "p 0.1 <b>", "decided": decided}]}
            for arm, word, decided in (("cfg_3", "shifts", True), ("negative_long", "undecided", False))
        ],
        "provenance": {
            "extractor": "clip",
            "extractor_digest": "0123456789abcdef",
            "resize": "none",
            "main": "aaaaaaaaaaaaaaaa",
            "guide": "bbbbbbbbbbbbbbbb",
            "reference": "cccccccccccccccc",
            "code": "dddddddddddddddd",
            "libraries": {"torch": "2.14.1", "open_clip_torch": "3.2.0"},
            "params": "ffffffffffffffff",
        },
    }


def study() -> Study:
    return parse_study(
        {
            **compose(Path(__file__).parents[2] / "conf", []),
            "name": "smoke",
            "sampler": {"scheduler": "ddim", "steps": STEPS},
            "reference": {"pictures": 16, "world_seed": 0},
            "generate": {"pictures": 8, "first_seed": 100, "shard": 8, "batch": 4},
            "arms": {
                "unguided": {"method": "unguided", "scale": 1},
                "cfg_3": {"method": "cfg", "scale": 3},
                "negative_long": {"method": "negative", "scale": 3, "negative_prompt": "lowres"},
            },
        },
        "the test's study",
    )


def labelled() -> Rates:
    """What 20 simulated labels an arm said, the last arm's pictures without any."""

    def rate(value: float) -> Rate:
        classical = Interval(value=value, low=max(0, value - 0.1), high=min(1, value + 0.2), n=20)
        return Rate(classical=classical, powered=classical.model_copy(update={"high": min(1, value + 0.1)}))

    shares = {"pattern": rate(0.05), "object_or_scenery": rate(0.1), "malformed_human": rate(0.35)}
    shares["legit_human"] = rate(0.5)
    arms = [
        LabelledPictures(
            name=arm,
            canvas="64x64",
            pictures=20,
            simulated=arm != "unguided",
            verdicts=shares,
            body_normal=Interval(value=0.75, low=0.5, high=0.9, n=8),
        )
        for arm in ARMS[:2]
    ]
    some = Interval(value=0.5, low=0.25, high=0.75, n=12)
    return Rates(
        baseline="unguided",
        level=0.95,
        labels=40,
        pair_labels=12,
        labellers=2,
        simulated_labels=20,
        left_out=3,
        arms=arms,
        canvases=arms[:1],
        differences=[
            Difference(
                arm=ARMS[1],
                pairs=20,
                simulated=True,
                verdicts={
                    verdict: Rate(classical=Interval(value=-0.1, low=-0.3, high=0.1, n=20), powered=None)
                    for verdict in shares
                },
            )
        ],
        agreement=Agreement(alpha=some, simulated=True),
        self_agreement=[SelfAgreement(labeller="<b>p1</b>", same=some, simulated=False)],
        calibration=Calibration(
            pictures=40,
            brier=some,
            auc=some,
            bins=[CalibrationBin(low=0.4, high=0.5, score=0.45, rate=some)],
            simulated=True,
        ),
        strengths=[Strength(arm=arm, strength=some, simulated=arm != "unguided") for arm in ARMS[:2]],
    )


def image_id(arm: str, pair: int) -> str:
    return f"{arm}-{pair:06d}"


class Inputs:
    """A project folder with everything that the report reads; two shards a set, in scrambled pair order.

    Of arm a (0, 1, 2) and pair k: CLIP score 20 + k + a / 10, aesthetic 5 - k / 2 + a / 100, P(malformed) k / 10, the
    kind (k + a) modulo 4; cfg_3's pictures moved by k from the baseline's, negative_long's by 10 - k.
    """

    def __init__(self, root: Path):
        self.root = root
        self.comparison, self.rates = root / "metrics/compare.json", root / "metrics/labels.json"
        self.sets, self.scores, self.traces = root / "data/sets", root / "data/scores", root / "data/trace"
        self.features, self.trajectories = root / "data/features", root / "data/trajectory"
        (root / "metrics/detail").mkdir(parents=True)
        self.rates.write_text(labelled().model_dump_json())
        self.comparison.write_text(json.dumps(comparison()))
        detail = {"provenance": {"code": "abc", "aesthetic_head": "head<1>", "pickscore": "pick1"}}
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
                self.features / arm / "clip.safetensors", SetFeatures(ids, vectors, torch.zeros(PAIRS, 0), {})
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
            # The realism of a copy of a real picture.
            "realism": [float("inf") if k == 3 else 1 + k / 10 for k in pairs],
            "inside_reference": [True] * PAIRS,
        }
        write_shard(self.scores / f"{arm}.parquet", columns, SCORE_FEATURES, "mark")

    def _write_part(self, arm: str, part: int, pairs: list[int], random: np.random.Generator) -> None:
        ids = [image_id(arm, k) for k in pairs]
        columns: dict[str, list[Any]] = {
            "image_id": ids,
            "image": [picture(random) for _ in pairs],
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
        """Two pictures; the second arm lacks the last noise level."""
        steps = TRAJECTORY_STEPS if arm == ARMS[0] else TRAJECTORY_STEPS[:-1]
        rows = [(image_id(arm, k), step) for k in range(2) for step in steps]
        columns: dict[str, list[Any]] = {
            "image_id": [one for one, _ in rows],
            "step": [step for _, step in rows],
            "sigma": [SIGMAS[step] for _, step in rows],
            "image": [picture(random) for _ in rows],
        }
        write_shard(self.trajectories / arm / "part-00000.parquet", columns, TRAJECTORY_FEATURES, "mark")

    def _write_labels(self) -> None:
        """One person says that picture 1 of cfg_3 is a legit human, two simulated ones disagree over picture 2."""
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
        return gallery(compared, self.sets, self.scores, self.features, study().features.primary, {}, limit)

    def report(self) -> str:
        return report(study(), self.root)


def picture(random: np.random.Generator) -> dict[str, Any]:
    """Noise, as large as a picture of the embedded world."""
    pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return {"bytes": encode_png(PillowImage.fromarray(pixels)), "path": None}
