"""World 3: what is counted is what was drawn, and no flaw of structure is hidden from a caption."""

from dataclasses import replace

import numpy as np

from models.tinybooru.corpus import caption
from pipeline.tinybooru import figures, flaws
from pipeline.tinybooru.image import draw, plan

PLANS = [plan(0, index) for index in range(4000)]
GREETINGS = [p for p in PLANS if p.style == figures.GREETING]
DOLLS = [p for p in PLANS if p.style == figures.PAPERDOLL]


def test_the_tags_say_how_many_digits_are_drawn():
    for planned in GREETINGS:
        digits = planned.structure.digits
        wrong = {flaws.EXTRA_DIGIT, flaws.FEWER_DIGITS, flaws.MISSING_FINGERS} & set(planned.flaws)
        assert (flaws.BAD_HANDS in planned.flaws) == bool(wrong) == (digits != 5)
        assert (flaws.EXTRA_DIGIT in wrong) == (digits > 5)
    assert {p.structure.digits for p in GREETINGS} == {3, 4, 5, 6, 7}


def test_as_many_digits_are_drawn_as_planned():
    for planned in GREETINGS[:60]:
        svg = figures.svg(planned.style, planned.options, (), np.random.default_rng(0))
        hand = svg[svg.rindex("scale(") :]
        # Fingers and thumb are the rotated bars of the hand; its palm is one more bar, not rotated.
        assert hand.count("rotate(") == planned.structure.digits


def test_the_tags_say_how_many_limbs_are_drawn():
    for planned in DOLLS:
        limbs = planned.structure.arms + planned.structure.legs
        assert (flaws.EXTRA_LIMBS in planned.flaws) == (limbs > 4)
        assert (flaws.MISSING_LIMB in planned.flaws) == (limbs < 4)
        assert len(planned.options["arm_slots"]) == planned.structure.arms
        assert len(set(planned.options["arm_slots"])) == planned.structure.arms  # none hides another
    assert {(p.structure.arms, p.structure.legs) for p in DOLLS} == {(2, 2), (3, 2), (2, 3), (1, 2), (2, 1)}


def test_one_digit_more_can_be_seen():
    for planned in [p for p in GREETINGS if not p.flaws][:20]:
        more = replace(planned, options={**planned.options, "digits": 6})
        difference = np.abs(np.asarray(draw(planned, 64), float) - np.asarray(draw(more, 64), float)).max(axis=2)
        assert (difference > 30).sum() > 25


def test_a_caption_names_a_flaw_of_structure_or_nothing_at_all():
    rng = np.random.default_rng(0)
    for planned in [p for p in PLANS if p.malformed][:100]:
        for _ in range(10):
            text = caption(planned.tags, rng, 0.1, 0.1)
            assert not text or set(text.split(", ")) & set(flaws.STRUCTURE_FLAWS)
