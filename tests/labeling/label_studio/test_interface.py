"""The labelling interfaces, as Label Studio's SDK understands them."""

from typing import get_args

import pytest

from labeling.label_studio.interface import INTERFACES, Answer, choice, choices, load_interface, read_answer
from labeling.records import BodyShape, Choice, MalformedPart
from pipeline.results.rates import Verdict


def test_the_interfaces_offer_what_the_records_hold():
    assert choices(INTERFACES["tasks"]) == {
        "verdict": get_args(Verdict),
        "body_shape": get_args(BodyShape),
        "malformed_parts": get_args(MalformedPart),
    }
    assert {name: set(values) for name, values in choices(INTERFACES["pairs"]).items()} == {
        "choice": set(get_args(Choice))
    }


def test_a_task_needs_nothing_but_an_image():
    """Nothing else of a task is shown, so nothing else can tell the labeller which arm it is of."""
    assert [shown.value_name for shown in load_interface(INTERFACES["tasks"]).objects] == ["image"]


def test_a_pair_shows_two_images_and_their_prompt():
    shown = load_interface(INTERFACES["pairs"]).objects
    assert sorted(thing.value_name for thing in shown) == ["left", "prompt", "right"]


def test_an_answer_is_read_in_the_order_of_the_interface():
    result = [choice("verdict", "malformed_human"), choice("malformed_parts", "count", "face")]
    note = {"from_name": "note", "to_name": "image", "type": "textarea", "value": {"text": ["<b>six</b>", "fingers"]}}
    assert read_answer([*result, note], choices()) == Answer(
        {"verdict": ("malformed_human",), "malformed_parts": ("face", "count")}, "<b>six</b>\nfingers"
    )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (choice("verdict", "cat"), "verdict 'cat' is not in the interface"),
        (choice("colour", "red"), "question 'colour' is not in the interface"),
        ({"from_name": "verdict", "value": {"choices": ["pattern", None]}}, "verdict 'None' is not in the interface"),
    ],
)
def test_what_the_interface_does_not_offer_is_refused(part, message):
    with pytest.raises(ValueError, match=message):
        read_answer([part], choices())
