"""Which images of two folders belong together, and what happens where nothing says so."""

from collections.abc import Sequence

import pytest

from pipeline.external.folder_images import ExternalImage
from pipeline.external.metadata.reader import Found
from pipeline.external.metadata.record import Metadata
from pipeline.external.pairing import paired, shared


def image(file: str, prompt: str = "", seed: int | None = None) -> ExternalImage:
    return ExternalImage(file, file, "", Found(Metadata("A1111", prompt=prompt, seed=seed)))


def files(names: Sequence[str]) -> list[ExternalImage]:
    return [image(name) for name in names]


def rows(arms: dict[str, list[ExternalImage]], order: dict[str, list[int]]) -> list[tuple[str, ...]]:
    return list(zip(*([arms[name][k].file for k in own] for name, own in order.items()), strict=True))


def test_the_same_name_is_the_same_image_whatever_its_format_and_capitals() -> None:
    arms = {"a": files(["x/1.png", "2.png", "3.png"]), "b": files(["3.JPG", "X/1.webp", "2.png", "9.png"])}
    found = paired(arms, 3, 0)
    assert found.by == "name"
    assert sorted(rows(arms, found.order)) == [("2.png", "2.png"), ("3.png", "3.JPG"), ("x/1.png", "X/1.webp")]


def test_names_count_for_nothing_where_files_were_generated_from_other_prompts() -> None:
    arms = {name: [image(f"{k:05d}.png", f"{name} {k}", k) for k in range(4)] for name in ("a", "b")}
    assert shared(list(arms.values())) == 0
    assert paired(arms, 4, 0).by == "none"


def test_seeds_pair_images_of_other_names_and_the_same_prompt() -> None:
    arms = {
        "a": [image(f"a{k}.png", "cat", k) for k in range(5)],
        "b": [image(f"b{k}.png", "cat", 4 - k) for k in range(5)],
    }
    found = paired(arms, 5, 0)
    assert found.by == "seed"
    assert sorted(rows(arms, found.order)) == [(f"a{k}.png", f"b{4 - k}.png") for k in range(5)]


def test_a_seed_that_two_images_have_pairs_neither() -> None:
    arms = {
        "a": [image(f"a{k}.png", "cat", 7) for k in range(4)],
        "b": [image(f"b{k}.png", "cat", 7) for k in range(4)],
    }
    assert paired(arms, 4, 0).by == "prompt"


def test_without_pairs_images_of_one_prompt_stand_beside_each_other_and_the_rest_by_chance() -> None:
    arms = {
        "a": [image(f"a{k}.png", f"prompt {k % 4}", k) for k in range(8)],
        "b": [image(f"b{k}.png", f"prompt {k % 5}", 100 + k) for k in range(10)],
    }
    found = paired(arms, 8, 0)
    assert found.by == "prompt"
    prompts = [[arms[name][k].prompt for k in own] for name, own in found.order.items()]
    assert prompts[0] == prompts[1]
    less = {"a": arms["a"], "b": [image(f"c{k}.png", "prompt 0" if k < 2 else "", k) for k in range(9)]}
    rest = paired(less, 8, 0)
    assert rest.by == "none"
    assert all(len(set(own)) == 8 for own in rest.order.values())
    assert {less["b"][k].file for k in rest.order["b"]} >= {"c0.png", "c1.png"}


@pytest.mark.parametrize("seed", [0, 1])
def test_chance_is_repeated_by_its_seed(seed: int) -> None:
    arms = {"a": files([f"a{k}.png" for k in range(9)]), "b": files([f"b{k}.png" for k in range(9)])}
    assert paired(arms, 5, seed) == paired(arms, 5, seed)
    assert paired(arms, 5, seed) != paired(arms, 5, seed + 1)


def test_beside_generated_arms_the_seeds_of_the_study_decide() -> None:
    arms = {"mine": [image(f"{k}.png", "cat", 30 - k) for k in range(20)]}
    found = paired(arms, 8, 0, range(12, 20))
    assert found.by == "seed"
    assert [arms["mine"][k].seed for k in found.order["mine"]] == list(range(12, 20))
    assert paired(arms, 8, 0, range(8)).by == "none"
