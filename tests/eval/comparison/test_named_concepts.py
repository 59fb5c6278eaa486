"""What a negative prompt names is taken out of a space, and nothing else."""

import dataclasses
from itertools import islice

import pytest
import torch
from repository_copy import ROOT
from torch import Tensor

from eval.comparison.named_concepts import (
    ALL,
    FEWEST,
    ShiftsWithout,
    TaggedImages,
    collateral,
    concept_removal,
    displacements,
    shown_concepts,
    without_named,
)
from eval.distances.frechet import FrechetTo, frechet_distance
from eval.features.clip import load_clip
from eval.features.extractor import embed_images
from eval.features.spaces import Space
from eval.statistics.jackknife import deletions
from pipeline.study.extractors import FeatureSpace
from pipeline.tinybooru.build import plans
from pipeline.tinybooru.concepts import SUBJECTS, concept_plans
from pipeline.tinybooru.flaws import IMAGE_FLAWS, QUALITIES
from pipeline.tinybooru.image import draw

D = 10


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs(subjects: int = 60) -> TaggedImages:
    """Subjects with and without `dark`, which moves them along the first axis, and `loud`, along the second."""
    plain = gaussian(subjects, D, seed=1)
    axes = torch.eye(D, dtype=torch.float64)
    size = 3 + gaussian(subjects, 1, seed=2)
    vectors = torch.cat([plain, plain + size * axes[0], plain + 2 * axes[1]])
    concepts = [frozenset()] * subjects + [frozenset({"dark"})] * subjects + [frozenset({"loud"})] * subjects
    return TaggedImages(vectors, concepts, torch.arange(subjects).repeat(3))


def test_a_concept_is_known_where_enough_images_show_it_and_enough_do_not() -> None:
    tagged = pairs(FEWEST)
    assert shown_concepts(["dark", "loud", "shiny"], tagged) == ["dark", "loud"]
    fewer = TaggedImages(tagged.vectors, [one - {"dark"} if k % 2 else one for k, one in enumerate(tagged.concepts)],
                         tagged.subjects)  # fmt: skip
    assert shown_concepts(["dark", "loud"], fewer) == ["loud"]
    everywhere = TaggedImages(tagged.vectors, [one | {"drawn"} for one in tagged.concepts], tagged.subjects)
    assert shown_concepts(["drawn"], everywhere) == []


def test_an_image_is_held_against_its_own_subject_without_any_concept() -> None:
    moved = displacements(["dark"], pairs())
    assert torch.allclose(moved[:, 1:], torch.zeros(60, D - 1, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(moved[:, :1], 3 + gaussian(60, 1, seed=2))


def test_without_pairs_the_mean_over_images_says_what_a_concept_does() -> None:
    n = 4000
    shows = torch.arange(n) % 2 == 0
    vectors = gaussian(n, D, seed=3) + 2.0 * shows[:, None] * torch.eye(D, dtype=torch.float64)[4]
    tagged = TaggedImages(vectors, [frozenset({"dark"}) if one else frozenset() for one in shows], torch.arange(n))
    moved = displacements(["dark"], tagged)
    assert torch.allclose(moved[0], 2 * torch.eye(D, dtype=torch.float64)[4], atol=0.15)
    assert torch.equal(moved[0], moved[-1])


def test_a_displacement_is_taken_out_and_an_unrelated_one_stays() -> None:
    tagged, axes = pairs(400), torch.eye(D, dtype=torch.float64)
    removal = concept_removal(displacements(["dark"], tagged), tagged.vectors)
    assert removal.directions == 1
    assert removal.energy == pytest.approx(1)
    x = gaussian(300, D, seed=4)
    rest = removal(x)
    assert rest.shape == (300, D - 1)
    assert frechet_distance(removal(x + 3 * axes[0]), rest) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(removal(x + 3 * axes[6]), rest) == pytest.approx(9, rel=0.05)


def test_what_only_lies_the_same_way_stays() -> None:
    """Content that shares a direction with the concept, and another one that tells it from the concept."""
    subjects, axes = 500, torch.eye(D, dtype=torch.float64)
    content = gaussian(subjects, 1, seed=5) * (axes[0] + axes[7])
    plain = content + 0.1 * gaussian(subjects, D, seed=6)
    vectors = torch.cat([plain, plain + axes[0]])
    concepts = [frozenset[str]()] * subjects + [frozenset({"dark"})] * subjects
    tagged = TaggedImages(vectors, concepts, torch.arange(subjects).repeat(2))
    removal = concept_removal(displacements(["dark"], tagged), vectors)
    x = 0.1 * gaussian(300, D, seed=7)
    moved = x + 2 * (axes[0] + axes[7])
    assert frechet_distance(removal(moved), removal(x)) > 0.9 * frechet_distance(moved, x) / 2
    assert frechet_distance(removal(x + 2 * axes[0]), removal(x)) < 1e-8


def test_shares_of_an_arm_that_moves_as_a_concept_does_and_of_one_that_does_not() -> None:
    tagged, axes = pairs(200), torch.eye(D, dtype=torch.float64)
    base = gaussian(80, D, seed=8)
    small = 0.05 * gaussian(80, D, seed=9)
    arms = {"base": base, "named": base + 2 * axes[0] + small, "other": base + 2 * axes[5] + small}
    kept = deletions(torch.arange(80), 0)
    shifts = ShiftsWithout(tagged, arms, "base", kept)
    found = without_named("s", ["dark", "loud", "unseen"], shifts, gaussian(200, D, seed=10), 0.95)
    assert found is not None
    assert (found["named"], found["unknown"]) == (["dark", "loud"], ["unseen"])
    dark, loud, everything = found["removed"]
    assert [one["concept"] for one in found["removed"]] == ["dark", "loud", ALL]
    assert dark["arms"]["named"]["named_share"].low > 0.95
    assert abs(dark["arms"]["other"]["named_share"].value) < 0.1
    assert abs(loud["arms"]["named"]["named_share"].value) < 0.1
    assert everything["arms"]["named"]["named_share"].value > 0.95
    assert everything["directions"] == 2
    assert dark["arms"]["named"]["distance"].value > dark["arms"]["named"]["distance_without"].value
    assert without_named("s", ["unseen"], shifts, base, 0.95) is None


def test_what_stays_of_a_shift_does_not_depend_on_who_asked_first() -> None:
    tagged = pairs(60)
    arms = {name: gaussian(40, D, seed=k) for k, name in enumerate(("base", "one", "other"))}
    kept = deletions(torch.arange(40), 0)
    shared = ShiftsWithout(tagged, arms, "base", kept)
    without_named("s", ["dark", "loud"], shared, gaussian(200, D, seed=10), 0.95)
    after = collateral(("dark", "loud"), ["one", "other"], shared, 0.95)
    assert (
        after["other"]
        == collateral(("dark", "loud"), ["other"], ShiftsWithout(tagged, arms, "base", kept), 0.95)["other"]
    )


def test_the_world_draws_every_subject_with_and_without_each_concept() -> None:
    rows = list(concept_plans(0))
    subjects = {k for k, concept, _ in rows if not concept}
    # Those of qualities and flaws of the image, malformed people, and bad hands.
    assert len(subjects) == 3 * SUBJECTS
    plain = {k: planned for k, concept, planned in rows if not concept}
    assert all(not planned.flaws and not planned.deformations for planned in plain.values())
    for concept in (*QUALITIES, *IMAGE_FLAWS):
        own = [(k, planned) for k, shown, planned in rows if shown == concept]
        assert len(own) >= SUBJECTS / 3, concept
        for k, planned in own:
            assert planned.options == plain[k].options
            assert concept in (planned.quality, *planned.flaws)
            assert concept != plain[k].quality


@pytest.fixture(scope="module")
def real() -> tuple[Space, TaggedImages, dict[str, Tensor], list[str]]:
    """The embedded CLIP's unit vectors: of tagged images, and of sets that are changed in one thing."""
    clip = load_clip(ROOT / "models/tinybooru/clip", torch.device("cpu"))
    rows = [row for row in concept_plans(0) if row[1] in ("", "worst quality", "low quality")]

    def embedded(wanted: list) -> Tensor:
        return embed_images(clip, (draw(planned, 64) for planned in wanted))

    good = list(islice(plans("reference", 0, good_only=True), 440))
    reference, base, others = good[:300], good[300:400], good[300:]
    vectors = {
        "base": embedded(base),
        "worst quality": embedded([dataclasses.replace(planned, quality="worst quality") for planned in base]),
        "no styles of heads": embedded([planned for planned in others if planned.kind != "person"]),
    }
    space = Space(FeatureSpace("clip", unit=True), embedded(reference), images=200)
    tagged = TaggedImages(
        space(embedded([planned for *_, planned in rows])),
        [frozenset({concept} - {""}) for _, concept, _ in rows],
        torch.tensor([k for k, *_ in rows]),
    )
    return space, tagged, {name: space(own).double() for name, own in vectors.items()}, ["worst quality", "low quality"]


def test_a_set_whose_quality_tag_alone_was_exchanged_moves_clip_until_the_tag_is_taken_out(real) -> None:
    space, tagged, sets, names = real
    removal = concept_removal(displacements(names, tagged), tagged.vectors)
    floor = FrechetTo(space.reference)(sets["base"])
    shift, rest = (
        {name: frechet_distance(change(own), change(sets["base"])) for name, own in sets.items() if name != "base"}
        for change in (lambda x: x, removal)
    )
    # Five times as far as real images lie from others, and then no farther than twice.
    assert shift["worst quality"] > 5 * floor
    assert rest["worst quality"] < min(2 * floor, 0.2 * shift["worst quality"])
    # People left out are still seen.
    assert rest["no styles of heads"] > 0.6 * shift["no styles of heads"]
