"""What does each feature space see? `make feature-spaces` changes real images in known ways and measures them.

The numbers go to feature_spaces.json, the page that is made of them to docs/feature-spaces.md, and the changes
themselves to docs/feature-spaces.png. It takes two minutes of one core.
"""

import argparse
from collections.abc import Mapping
from itertools import islice

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from eval.distances.frechet import FrechetTo, decompose
from eval.distances.neighbours import neighbour_metrics
from eval.features.extraction import load_extractor
from eval.features.extractor import embed_images
from eval.features.spaces import Space
from eval.statistics.bootstrap import bounded
from eval.statistics.jackknife import Replicates, combined, deletions, replicates, with_pairs
from models.tinybooru.changes import CHANGES, UNCHANGED, drawn, shown_changes
from models.tinybooru.space_page import PAGE, SHEET, columns_of, contact_sheet, page
from pipeline.compose import compose
from pipeline.errors import run_stage
from pipeline.layout import CONF
from pipeline.results.interval import Interval
from pipeline.results.space_cards import EXCHANGED, SPACE_CARDS, Response, SpaceCard, SpaceCards
from pipeline.storage.files import write_atomically
from pipeline.study.study import Metrics, Study, parse_study
from pipeline.tinybooru.build import CANVAS, WORLD_VERSION, draw_all, plans
from pipeline.tinybooru.image import Plan

REFERENCE = "reference"
_DIGITS = 4


def default_study() -> Study:
    return parse_study(compose(CONF, []), "the default study")


def real_plans(study: Study, images: int) -> tuple[list[Plan], list[Plan]]:
    """The plans of the study's reference set, and of as many further `images` of the same distribution."""
    wanted = study.reference.images
    found = list(islice(plans("reference", study.reference.world_seed, good_only=True), wanted + images))
    return found[:wanted], found[wanted:]


def changed_images(base: list[Plan]) -> dict[str, list[Image.Image]]:
    """The unchanged images of these plans, and those of each change by its name."""
    once: dict[str, Image.Image] = {}

    def drawer(planned: Plan) -> Image.Image:
        key = repr(planned)
        return once[key] if key in once else once.setdefault(key, drawn(planned))

    found = {UNCHANGED: [drawer(planned) for planned in base]}
    for change in tqdm(CHANGES, desc="real images changed", unit="change", disable=None):
        found[change.known.name] = change.images(base, drawer)
    return found


def vectors_of(study: Study, extractor: str, sets: Mapping[str, list[Image.Image]]) -> tuple[str, dict[str, Tensor]]:
    """An extractor's digest and its vectors [N, D] of each set, on the CPU. Raises InputError without its weights."""
    loaded = load_extractor(study.features.extractors[extractor], torch.device("cpu"))
    bar = tqdm(sets.items(), desc=f"seen by {extractor}", unit="set", disable=None)
    return loaded.digest, {name: embed_images(loaded, images) for name, images in bar}


def distances(space: Space, sets: Mapping[str, Tensor], settings: Metrics) -> dict[str, Replicates]:
    """The Fréchet distance to the reference set of each set, from its extractor's vectors [N, D]."""
    n = len(sets[UNCHANGED])
    # Images k and k + N/2 leave together: one change shows the first in place of the second.
    kept = deletions(torch.arange(n) % -(-n // 2), settings.seed)
    to_reference = FrechetTo(space.reference)

    def distance(x: Tensor) -> Replicates:
        def fd(index: Tensor) -> float:
            return to_reference(x[index])

        return with_pairs(replicates(lambda index: {"fd": fd(index)}, n, kept)["fd"], fd, kept)

    return {name: distance(space(vectors)) for name, vectors in sets.items()}


def response(
    space: Space, name: str, sets: Mapping[str, Tensor], found: Mapping[str, Replicates], settings: Metrics
) -> Response:
    """What a space answers to one change, given the `distances` of the same sets."""
    floor, difference = found[UNCHANGED].value, found[name] - found[UNCHANGED]
    moved = decompose(space(sets[name]), space(sets[UNCHANGED]))
    return Response(
        change=name,
        fd=_rounded(found[name].value / floor),
        difference=_in_floors(difference.interval(settings.level), floor),
        p=_rounded(difference.p_value()),
        shift=_rounded(moved.fd / floor),
        spread_ratio=_rounded(moved.spread_ratio),
        recall=recall(space, sets[name], settings),
    )


def recall(space: Space, vectors: Tensor, settings: Metrics) -> float:
    """The share of reference images that a set reaches."""
    k = settings.precision_recall_k
    found = neighbour_metrics(space(vectors), space.reference, k, settings.density_coverage_k)
    return _rounded(found.recall)


def space_card(space: Space, sets: Mapping[str, Tensor], settings: Metrics) -> SpaceCard:
    """The card of a space, from its extractor's vectors [N, D] of the unchanged images and of each change."""
    names = [change.known.name for change in CHANGES]
    found = distances(space, {name: sets[name] for name in (UNCHANGED, *names)}, settings)
    return SpaceCard(
        name=space.name,
        extractor=space.settings.extractor,
        dimensions=space.reference.shape[1],
        explained=_rounded(space.explained),
        floor=float(f"{found[UNCHANGED].value:.{_DIGITS}g}"),
        recall=recall(space, sets[UNCHANGED], settings),
        vocabulary=vocabulary(found, settings.level),
        responses=[response(space, name, sets, found, settings) for name in names],
    )


def vocabulary(found: Mapping[str, Replicates], level: float) -> dict[str, Interval]:
    """How much of a space's answer is its own vocabulary, for each exchange of quality tags (`SpaceCard`)."""
    content = max((found[c.known.name] for c in CHANGES if c.known.group == "content"), key=lambda one: one.value)

    def share(exchanged: float, content: float, floor: float) -> float:
        rises = max(0.0, exchanged - floor), max(0.0, content - floor)
        return rises[0] / sum(rises) if sum(rises) else 0.0

    shares = {
        change.known.name: combined(share, found[change.known.name], content, found[UNCHANGED])
        for change in CHANGES
        if change.known.cause == EXCHANGED
    }
    return {name: _in_floors(bounded(one.interval(level), 0, 1), 1) for name, one in shares.items()}


def _rounded(value: float) -> float:
    return round(value, _DIGITS)


def _in_floors(interval: Interval, floor: float) -> Interval:
    value, low, high = (_rounded(end / floor) for end in (interval.value, interval.low, interval.high))
    return Interval(value, low, high, interval.n)


def measured(study: Study, sets: Mapping[str, list[Image.Image]]) -> SpaceCards:
    """The cards of a study's feature spaces, from the images of the reference set and of `changed_images`."""
    seen = {name: vectors_of(study, name, sets) for name in study.features.extractors}
    images, cards = len(sets[UNCHANGED]), []
    for settings in tqdm(study.features.spaces, desc="cards", unit="space", disable=None):
        vectors = seen[settings.extractor][1]
        cards.append(space_card(Space(settings, vectors[REFERENCE], images), vectors, study.metrics))
    return SpaceCards(
        world_version=WORLD_VERSION,
        images=images,
        reference=len(sets[REFERENCE]),
        level=study.metrics.level,
        extractors={name: digest for name, (digest, _) in seen.items()},
        changes=[change.known for change in CHANGES],
        spaces=cards,
    )


def main() -> None:
    argparse.ArgumentParser(prog="python -m models.tinybooru.spaces", description=__doc__).parse_args()
    study = default_study()
    reference, base = real_plans(study, study.generate.images)
    images = changed_images(base)
    cards = measured(study, {REFERENCE: list(draw_all(reference, CANVAS, "real images")), **images})
    write_atomically(SPACE_CARDS, (cards.model_dump_json(indent=1) + "\n").encode())
    write_atomically(PAGE, page(cards).encode())
    shown = {name: images[name] for name in (UNCHANGED, *shown_changes())}
    contact_sheet(shown, columns_of(base)).save(SHEET, optimize=True)
    seen = ", ".join(f"{sum(map(cards.sees, space.responses))} by {space.name}" for space in cards.spaces)
    print(f"{PAGE}: {len(cards.changes)} known changes, seen: {seen}")


if __name__ == "__main__":
    run_stage(main)
