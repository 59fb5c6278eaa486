"""The record of hands that were counted by eye, and its tables."""

import numpy as np
from PIL import Image

from eval.scorers.malformed import ANSWERS, UNCOUNTABLE
from models.tinybooru.hands_by_eye import by_fan, confusion, counted_by_eye, five_or_not, tables
from models.tinybooru.worldcheck import SETS_DRAWN

EYE = {"a": ["5", "4", UNCOUNTABLE], "b": ["5", "5"]}
SAID = {"a": ["5", "5", "4", "7"], "b": ["4", "5", "5"]}  # more images than were looked at


def test_two_hundred_hands_of_the_world_checks_sets_were_counted():
    eye = counted_by_eye()
    assert sum(map(len, eye.values())) == 200
    assert set(eye) <= set(SETS_DRAWN)
    assert {answer for counted in eye.values() for answer in counted} <= set(ANSWERS["digits"])


def test_a_confusion_counts_what_was_looked_at_alone():
    found = confusion(EYE, SAID)
    assert found["5"] == {"4": 1, "5": 2, UNCOUNTABLE: 0}
    assert found["4"]["5"] == 1
    assert found[UNCOUNTABLE]["4"] == 1
    assert sum(sum(row.values()) for row in found.values()) == 5
    # "Five or not" is the same for the first hand of a, the last of a, and the last of b.
    assert five_or_not(EYE, SAID) == (3, 5)


def test_an_image_without_a_hand_is_uncountable_to_the_fan():
    assert by_fan([Image.fromarray(np.full((64, 64, 3), 200, np.uint8))]) == [UNCOUNTABLE]


def test_the_tables_hold_every_count_of_every_set():
    eye = counted_by_eye()
    blank = Image.new("RGB", (64, 64), "white")
    found = tables({name: ["5"] * 60 for name in eye}, {name: [blank] * 60 for name in eye})
    fives = sum(counted.count("5") for counted in eye.values())
    assert found["alike"]["classifier"] == (fives, 200)
    assert found["alike"]["fan"] == (200 - fives, 200)
    assert all(shares["classifier"] == 1 and shares["fan"] == 0 for shares in found["five"].values())
