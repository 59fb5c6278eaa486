"""The cards of the feature spaces are whole, and say in words what their numbers say."""

import json
from pathlib import Path
from typing import Any

import pytest
from repository_copy import ROOT

from pipeline.errors import InputError
from pipeline.results.space_cards import EXCHANGED, GROUPS, SPACE_CARDS, SpaceCards, load_space_cards, times

CAUSES = {"finish": EXCHANGED, "texture": "blur", "content": "dropped styles", "structure": "malformed people"}


def cards(**responses: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Cards of one change per group; `responses` are spaces, with the distance and the p-value in each group."""
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 8}
    card = {"extractor": "clip", "dimensions": 4, "explained": 1.0, "floor": 2.0, "recall": 0.9}
    of_each = {"difference": share, "shift": 1.0, "spread_ratio": 1.0, "recall": 0.9}
    return {
        "world_version": 2,
        "images": 8,
        "reference": 16,
        "level": 0.95,
        "extractors": {"clip": "0123"},
        "changes": [{"name": group, "group": group, "cause": CAUSES[group], "words": "words"} for group in GROUPS],
        "spaces": [
            {
                **card,
                "name": name,
                "vocabulary": {"finish": share},
                "responses": [{"change": group, "fd": fd, "p": p, **of_each} for group, (fd, p) in of_groups.items()],
            }
            for name, of_groups in responses.items()
        ],
    }


SEEN = {"finish": (13.2, 0.0), "texture": (3.7, 0.01), "content": (2.5, 0.001), "structure": (1.2, 0.2)}


def test_the_reason_names_the_largest_response_of_each_group_and_what_is_hardly_answered_to() -> None:
    assert SpaceCards.model_validate(cards(clip=SEEN)).reason("clip") == (
        "clip answers to exchanged quality tags with 13 times its floor, to blur with 3.7 and to dropped styles with "
        "2.5, and hardly to malformed people"
    )


def test_a_large_response_that_may_be_chance_is_hardly_one() -> None:
    found = SpaceCards.model_validate(cards(clip={**SEEN, "texture": (3.7, 0.3)}))
    assert found.reason("clip") == (
        "clip answers to exchanged quality tags with 13 times its floor and to dropped styles with 2.5, and hardly to "
        "blur and malformed people"
    )


def test_a_space_that_answers_to_nothing_says_so() -> None:
    blind = dict.fromkeys(GROUPS, (1.0, 0.9))
    assert SpaceCards.model_validate(cards(clip=blind)).reason("clip") == (
        "clip hardly answers to exchanged quality tags, blur, dropped styles and malformed people"
    )


def test_the_number_of_principal_components_does_not_count() -> None:
    found = SpaceCards.model_validate(cards(clip_pc48=SEEN))
    assert found.card("clip_pc24") == found.card("clip") == found.spaces[0]
    assert found.reason("clip_pc24").startswith("clip_pc24 answers to")


def test_a_space_without_a_card_has_no_reason() -> None:
    found = SpaceCards.model_validate(cards(clip=SEEN))
    assert found.card("dinov2") is None
    assert found.reason("dinov2") == ""


def test_two_digits_are_quoted() -> None:
    assert [times(floors) for floors in (1.04, 9.94, 9.96, 132.2)] == ["1.0", "9.9", "10", "132"]


def damaged(found: dict[str, Any], *keys: Any, value: Any) -> dict[str, Any]:
    *path, last = keys
    inner = found
    for key in path:
        inner = inner[key]
    inner[last] = value
    return found


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("spaces", 0, "floor"), 0.0, "spaces.0.floor: Input should be greater than 0"),
        (("spaces", 0, "floor"), float("nan"), "spaces.0.floor"),
        (("spaces", 0, "responses"), [], "space 'clip' does not answer to each of the changes"),
        (("spaces", 0, "vocabulary"), {"blur": {"value": 0, "low": 0, "high": 0, "n": 8}}, "share of its vocabulary"),
        (("spaces", 0, "extractor"), "dinov2", "extractor 'dinov2', which has no digest"),
        (("spaces", 0, "remark"), "good", "spaces.0.remark: Extra inputs"),
        (("changes", 3, "group"), "taste", "changes.3.group: Input should be 'finish'"),
        (("changes", 3, "group"), "content", "no change of group structure"),
        (("level",), 1.0, "level: Input should be less than 1"),
    ],
)
def test_damaged_cards_are_refused_with_the_file_and_the_fix(
    tmp_path: Path, keys: tuple[Any, ...], value: Any, said: str
) -> None:
    path = tmp_path / "cards.json"
    path.write_text(json.dumps(damaged(cards(clip=SEEN), *keys, value=value)))
    with pytest.raises(InputError) as error:
        load_space_cards(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert str(error.value).endswith("; `make feature-spaces` regenerates it")


def test_half_a_file_and_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cards.json"
    with pytest.raises(InputError, match="does not exist; `make feature-spaces` makes it"):
        load_space_cards(path)
    path.write_text(json.dumps(cards(clip=SEEN))[:-100])
    with pytest.raises(InputError, match="its content: Invalid JSON"):
        load_space_cards(path)


def test_two_cards_of_one_space_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cards.json"
    path.write_text(json.dumps(cards(clip=SEEN, clip_pc48=SEEN)))
    with pytest.raises(InputError, match="space 'clip' appears twice"):
        load_space_cards(path)


def test_the_shipped_cards_are_whole() -> None:
    found = load_space_cards(ROOT / SPACE_CARDS)
    assert all(found.reason(space.name) for space in found.spaces)
