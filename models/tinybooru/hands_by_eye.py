"""200 generated hands as one reader counted them, against the classifier and the count without training.

The reader, the vision model that worked on this project, saw the hands enlarged and in random order, without the arm
and without any verdict. `make worldcheck` generates the same hands (the first of its sets of waving people) and writes
the tables for the card.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.scorers.malformed import UNCOUNTABLE
from models.tinybooru.fan import digits_by_fan

# A set's name in the world check to what was counted in its first images.
EYE = Path(__file__).parent / "hands_by_eye.json"


def counted_by_eye() -> dict[str, list[str]]:
    """What the reader counted: by set, an answer ("3" to "7" or "uncountable") for each of its first images."""
    counted: dict[str, list[str]] = json.loads(EYE.read_text("utf-8"))
    return counted


def by_fan(images: Sequence[Image.Image]) -> list[str]:
    """Digits counted without training; an image without a hand is uncountable."""
    found = [digits_by_fan(np.asarray(image)) for image in images]
    return [UNCOUNTABLE if digits is None else str(digits) for digits in found]


def confusion(eye: Mapping[str, Sequence[str]], said: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """How many hands the reader counted as the first key have the second from another count; sets are put together."""
    pairs = [pair for name, counted in eye.items() for pair in zip(counted, said[name], strict=False)]
    answers = sorted({answer for pair in pairs for answer in pair})
    return {one: {other: pairs.count((one, other)) for other in answers} for one in answers}


def five_or_not(eye: Mapping[str, Sequence[str]], said: Mapping[str, Sequence[str]]) -> tuple[int, int]:
    """Of how many hands both counts say alike whether they have five digits, and how many there are."""
    pairs = [pair for name, counted in eye.items() for pair in zip(counted, said[name], strict=False)]
    return sum((one == "5") == (other == "5") for one, other in pairs), len(pairs)


def tables(classified: Mapping[str, Sequence[str]], images: Mapping[str, Sequence[Image.Image]]) -> dict[str, Any]:
    """Both tables, and by set the share of five-digit hands by each count; `classified` and `images` are by set."""
    eye = counted_by_eye()
    fan = {name: by_fan(images[name][: len(counted)]) for name, counted in eye.items()}
    counts = {"eye": eye, "classifier": classified, "fan": fan}
    return {
        "classifier": confusion(eye, classified),
        "fan": confusion(eye, fan),
        "alike": {name: five_or_not(eye, said) for name, said in counts.items() if name != "eye"},
        "five": {
            name: {who: round(float(np.mean([digits == "5" for digits in said[name][: len(counted)]])), 4)
                   for who, said in counts.items()}
            for name, counted in eye.items()
        },
    }  # fmt: skip
