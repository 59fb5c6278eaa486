"""Feature spaces answer to known changes of real images, and the page says what was measured."""

import numpy as np
import pytest
import torch
from PIL import Image
from repository_copy import ROOT
from torch import Tensor

from eval.features.spaces import Space
from models.tinybooru.changes import CHANGES, DROPPED_STYLES, UNCHANGED, drawn, others_for, shown_changes
from models.tinybooru.space_page import PAGE, SHEET, columns_of, contact_sheet, page
from models.tinybooru.spaces import REFERENCE, default_study, distances, real_plans, response, vectors_of
from pipeline.results.space_cards import SPACE_CARDS, Response, load_space_cards
from pipeline.tinybooru.build import CANVAS, WORLD_VERSION
from pipeline.tinybooru.image import Plan

BY_NAME = {change.known.name: change for change in CHANGES}
IMAGES, REFERENCES = 96, 192
STUDY = default_study()
# People are half of the images, and 5 of the 13 styles.
HALF, SPECKLE = "people alone", "speckle 12"


@pytest.fixture(scope="module")
def plans() -> tuple[list[Plan], list[Plan]]:
    reference, base = real_plans(STUDY, IMAGES)
    return reference[:REFERENCES], base


@pytest.fixture(scope="module")
def base(plans: tuple[list[Plan], list[Plan]]) -> list[Plan]:
    return plans[1]


@pytest.fixture(scope="module")
def vectors(plans: tuple[list[Plan], list[Plan]]) -> dict[str, dict[str, Tensor]]:
    """Vectors of every extractor of the default study: of the reference set, unchanged and changed."""
    reference, base = plans
    sets = {
        REFERENCE: [drawn(plan) for plan in reference],
        UNCHANGED: [drawn(plan) for plan in base],
        HALF: [drawn(plan) for plan in others_for(base, lambda plan: plan.kind != "person")],
        SPECKLE: BY_NAME[SPECKLE].images(base),
    }
    return {name: vectors_of(STUDY, name, sets)[1] for name in STUDY.features.extractors}


@pytest.fixture(scope="module")
def answers(vectors: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Response]]:
    """What every space of the default study answers to each set."""
    found = {}
    for settings in STUDY.features.spaces:
        sets = dict(vectors[settings.extractor])
        space = Space(settings, sets.pop(REFERENCE), IMAGES)
        at = distances(space, sets, STUDY.metrics)
        found[settings.name] = {name: response(space, name, sets, at, STUDY.metrics) for name in sets}
    return found


SPACES = [space.name for space in STUDY.features.spaces]


@pytest.mark.parametrize("space", SPACES)
def test_a_set_with_half_its_modes_dropped_is_seen_by_every_space(
    space: str, answers: dict[str, dict[str, Response]]
) -> None:
    half, unchanged = answers[space][HALF], answers[space][UNCHANGED]
    assert half.fd > 1.2
    assert half.p < 0.01
    assert half.difference.low > 0
    assert half.recall < unchanged.recall


@pytest.mark.parametrize("space", ["efficientnet_lite0", "pyramid"])
def test_speckle_is_seen_by_the_imagenet_space_and_the_pyramid(
    space: str, answers: dict[str, dict[str, Response]]
) -> None:
    assert answers[space][SPECKLE].fd > 1.5
    assert answers[space][SPECKLE].p < 0.05


@pytest.mark.parametrize("space", SPACES)
def test_unchanged_images_are_at_the_floor(space: str, answers: dict[str, dict[str, Response]]) -> None:
    unchanged = answers[space][UNCHANGED]
    assert (unchanged.fd, unchanged.difference.value, unchanged.p, unchanged.shift) == (1, 0, 1, 0)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_change_keeps_number_and_size_and_makes_the_same_images_again(name: str, base: list[Plan]) -> None:
    some, change = base[:24], BY_NAME[name]
    once, again = change.images(some), change.images(some)
    assert [image.size for image in once] == [(CANVAS, CANVAS)] * len(some)
    assert [image.tobytes() for image in once] == [image.tobytes() for image in again]
    assert [image.tobytes() for image in once] != [drawn(plan).tobytes() for plan in some]


def test_the_chance_of_an_image_does_not_depend_on_the_others(base: list[Plan]) -> None:
    for name in ("noise 4", SPECKLE):
        together = BY_NAME[name].images(base[:3])
        assert BY_NAME[name].images(base[2:3])[0].tobytes() == together[2].tobytes()


def test_what_is_dropped_is_missing_and_the_rest_stays_in_its_place(base: list[Plan]) -> None:
    for name, dropped in {
        "no objects": lambda plan: plan.kind == "object",
        "no scenery": lambda plan: plan.kind == "scenery",
        "no patterns": lambda plan: plan.kind == "pattern",
        "half the styles": lambda plan: plan.style in DROPPED_STYLES,
    }.items():
        changed = BY_NAME[name].replan(base)
        assert not any(dropped(plan) for plan in changed)
        assert all(new == old for new, old in zip(changed, base, strict=True) if not dropped(old))
        assert len({plan.index for plan in changed}) == len(base)
        assert {plan.split for plan in changed} == {"reference"}
        assert not any(plan.flaws for plan in changed)


def test_every_kind_keeps_some_of_its_styles_and_loses_some(base: list[Plan]) -> None:
    for kind in {plan.kind for plan in base}:
        dropped = {plan.style in DROPPED_STYLES for plan in base if plan.kind == kind}
        assert dropped == {True, False}


def test_malformed_people_have_the_style_and_quality_of_those_whose_place_they_take(base: list[Plan]) -> None:
    for new, old in zip(BY_NAME["malformed people"].replan(base), base, strict=True):
        assert (new.style, new.quality) == (old.style, old.quality)
        assert new.malformed == (old.kind == "person")


def test_half_the_prompts_are_shown_twice(base: list[Plan]) -> None:
    assert BY_NAME["half the prompts"].replan(base) == 2 * base[: IMAGES // 2]
    assert BY_NAME["half the prompts"].replan(base[:3]) == [*base[:2], base[0]]


def test_speckle_is_one_offset_in_every_patch(base: list[Plan]) -> None:
    # A gray that no offset leads out of the range of.
    flat = torch.full((CANVAS, CANVAS, 3), 128, dtype=torch.uint8).numpy()
    change = BY_NAME[SPECKLE]
    (image,) = change.images(base[:1], lambda _: Image.fromarray(flat))
    patches = torch.from_numpy(np.array(image)).reshape(CANVAS // 4, 4, CANVAS // 4, 4, 3)
    assert torch.equal(patches, patches[:, :1, :, :1].expand_as(patches))
    assert float(patches.double().std()) == pytest.approx(12, rel=0.15)


def test_the_sheet_shows_every_kind_and_the_strongest_of_each_edit() -> None:
    _, base = real_plans(STUDY, STUDY.generate.images)
    columns = columns_of(base)
    assert {base[k].kind for k in columns} == {plan.kind for plan in base}
    assert [k + len(base) // 2 for k in columns[:3]] == columns[3:]
    assert {"speckle 12", "blur 1 px", "all masterpiece", "all worst quality", "no objects"} <= set(shown_changes())
    assert not {"speckle 6", "blur 0.5 px"} & set(shown_changes())
    unchanged = [drawn(plan) for plan in base[:6]]
    sheet = contact_sheet({"inverted": unchanged[::-1], UNCHANGED: unchanged}, range(6))
    first = sheet.crop((sheet.width - 66 * 6, 2, sheet.width - 66 * 6 + 64, 66))
    assert first.tobytes() == unchanged[0].tobytes()


def test_the_page_is_what_the_shipped_cards_say() -> None:
    cards = load_space_cards(ROOT / SPACE_CARDS)
    assert (ROOT / PAGE).read_text("utf-8") == page(cards)
    assert (ROOT / SHEET).is_file()


def test_the_shipped_cards_are_of_the_default_study_and_todays_world_and_changes() -> None:
    cards = load_space_cards(ROOT / SPACE_CARDS)
    assert cards.world_version == WORLD_VERSION
    assert (cards.images, cards.reference) == (STUDY.generate.images, STUDY.reference.images)
    assert cards.changes == [change.known for change in CHANGES]
    assert [cards.card(name) for name in SPACES] == cards.spaces
