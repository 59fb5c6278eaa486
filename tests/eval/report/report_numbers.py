"""What `compare` and `rates` hand to the report of the study of three arms."""

from dataclasses import replace
from itertools import combinations
from typing import Any

from pipeline.results.interval import Interval
from pipeline.results.rates import (
    Agreement,
    Calibration,
    CalibrationBin,
    Difference,
    LabelledImages,
    Rate,
    Rates,
    SelfAgreement,
    Strength,
)

ARMS = ("unguided", "cfg_3", "negative_long")


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
        spans = {key: interval(v, v - 0.01, v + 0.02) for key, v in zip(names, values, strict=True)}
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


SPACES = ("efficientnet_lite0_pc48", "clip_unit")
QUESTIONS = ("shift", "spread", "distance", "variety")


def compared_space(name: str, extractor: str, components: int | None, floor: float) -> dict[str, Any]:
    return {
        "name": name,
        "extractor": extractor,
        "unit": name.endswith("_unit"),
        "components": components,
        "explained": 0.81 if components else 1.0,
        "digest": "0123456789abcdef",
        "resize": "none",
        "floor": {
            "fd": interval(floor, 0.9 * floor, 1.1 * floor),
            "between_sets": interval(1.5 * floor, 1.4 * floor, 1.6 * floor),
        },
    }


def in_space(values: tuple[float, float, float, float], width: float, p_values: tuple[float, ...]) -> dict[str, Any]:
    """Shift, spread ratio, distance and variety of one space; differences of twice the `width` are seen."""
    shift, spread, distance, variety = (interval(one, one - width, one + width) for one in values)
    return {
        "shift": shift,
        "drift": shift,
        "spread_ratio": spread,
        "distance": distance,
        "variety": variety,
        "adjusted_p": dict(zip(QUESTIONS, p_values, strict=True)),
        "detectable": {name: 2 * width + (name == "spread") for name in QUESTIONS},
    }


def named() -> dict[str, Any]:
    """negative_long names both concepts, cfg_3 none; only the first one is sure to make up more than its share."""

    def without(share: float) -> dict[str, Any]:
        some = interval(1, 0.9, 1.1)
        distances = ("shift", "shift_without", "distance", "distance_without")
        return {**dict.fromkeys(distances, some), "named_share": interval(share, share - 0.03, share + 0.03)}

    return {
        "space": "clip_unit",
        "dimensions": 128,
        "named": ["lowres", "<b>bold</b>"],
        "unknown": ["<i>moiré</i>"],
        "removed": [
            {
                "concept": concept,
                "directions": 15,
                "energy": 0.9,
                "variance": variance,
                "arms": {"cfg_3": without(cfg), "negative_long": without(negative)},
            }
            for concept, variance, cfg, negative in (
                ("lowres", 0.16, 0.17, 0.73),
                ("<b>bold</b>", 0.2, 0.22, 0.4),
                ("all of them", 0.1, 0.9, 0.9),
            )
        ],
    }


def alignment() -> dict[str, Any]:
    names = ("empty", "negative", "guide")

    def steps(value: float) -> list[dict[str, Any]]:
        values = [interval(value + step / 100, value - 0.1, value + 0.2) for step in range(3)]
        return [{"sigma": sigma, "value": one} for sigma, one in zip((150.0, 4.0, 0.0), values, strict=True)]

    return {
        "arm": "unguided",
        "pairs": [
            {"references": pair, "steps": steps(0.2 * k), "cosine": interval(0.2 * k, 0.2 * k - 0.1, 0.2 * k + 0.1)}
            for k, pair in enumerate(combinations(names, 2))
        ],
        "actions": [
            {
                "reference": name,
                "steps": steps(0.3 * k),
                "norm": interval(0.3 * k, 0.3 * k - 0.1, 0.3 * k + 0.1),
                "half": interval(0.4, 0.3, 0.5),
            }
            for k, name in enumerate(names, 1)
        ],
        "coinciding": [],
        "guide_over_empty": interval(0.4, 0.3, 0.5),
        "answer": "The answer <i>in words</i>.",
    }


def comparison() -> dict[str, Any]:
    """What eval.comparison.compare writes: cfg_3 contracts and raises quality, negative_long leaves most undecided."""
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
            "adjusted_p": dict.fromkeys((*QUESTIONS, "quality", "malformed", "prompt"), p),
        }
    # In the second space nothing but the first arm's shift and distance is decided.
    decided["spaces"] = {
        SPACES[0]: in_space((6.2, 0.81, -2.3, -0.19), 0.1, (0.001, 0.001, 0.001, 0.001)),
        SPACES[1]: in_space((0.05, 0.99, -0.02, -0.01), 0.01, (0.001, 0.4, 0.03, 0.4)),
    }
    undecided["spaces"] = {
        SPACES[0]: in_space((1.3, 1.01, -0.3, 0.02), 0.1, (0.4, 0.4, 0.4, 0.4)),
        SPACES[1]: in_space((0.0, 1.01, 0.02, 0.01), 0.01, (0.4, 0.4, 0.4, 0.4)),
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
        "floor": {"fd": interval(1.4, 1.3, 1.6), "between_sets": interval(2.4, 2.3, 2.6)},
        "spaces": [
            compared_space(SPACES[0], "efficientnet_lite0", 48, 1.4),
            compared_space(SPACES[1], "clip", None, 0.04),
        ],
        "named": named(),
        "reference_n": 4000,
        "frontiers": [frontier("cfg", "cfg_3", 0.81, 0.52), frontier("negative", "negative_long", 0.7, 0.66)],
        "alignment": [alignment()],
        "verdicts": [
            {
                "arm": arm,
                "verdicts": [
                    {
                        "topic": topic,
                        "verdict": words[0],
                        "numbers": "p 0.1 <b>",
                        "decided": words[0] != "undecided",
                        "spaces": dict(zip(SPACES, words, strict=True)),
                    }
                    for topic, words in (
                        ("Shift", shift),
                        ("Spread", spread),
                        ("Distance", distance),
                        ("Variety", variety),
                    )
                ],
            }
            for arm, shift, spread, distance, variety in (
                (
                    "cfg_3",
                    ("shifts", "shifts"),
                    ("contracts", "undecided"),
                    ("closer", "closer"),
                    ("covers less", "undecided"),
                ),
                ("negative_long", *[("undecided", "undecided")] * 4),
            )
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


def labelled() -> Rates:
    """What 20 simulated labels an arm said, the last arm's images without any."""

    def rate(value: float) -> Rate:
        classical = Interval(value=value, low=max(0, value - 0.1), high=min(1, value + 0.2), n=20)
        return Rate(classical=classical, powered=replace(classical, high=min(1, value + 0.1)))

    shares = {"pattern": rate(0.05), "object_or_scenery": rate(0.1), "malformed_human": rate(0.35)}
    shares["legit_human"] = rate(0.5)
    arms = [
        LabelledImages(
            name=arm,
            canvas="64x64",
            images=20,
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
            images=40,
            brier=some,
            auc=some,
            bins=[CalibrationBin(low=0.4, high=0.5, score=0.45, rate=some)],
            simulated=True,
        ),
        strengths=[Strength(arm=arm, strength=some, simulated=arm != "unguided") for arm in ARMS[:2]],
    )
