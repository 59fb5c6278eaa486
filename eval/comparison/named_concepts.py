"""How much of an arm's shift is the very thing that its negative prompt names, and how much is anything else.

A negative prompt against `blurry` is meant to move images in the directions that tell blurry images from others. Those
are found on real images that are known to show it or not, and taken out of the feature space; what an arm still shifts
then, its user did not ask for.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from eval.distances.frechet import FrechetTo
from eval.statistics.bootstrap import bounded
from eval.statistics.jackknife import Replicates, combined
from pipeline.results.interval import Interval

# The name of all concepts together.
ALL = "all of them"
# As many directions are taken out as hold so much of what the concepts do to images.
ENERGY = 0.9
# Images with a concept, and without it, that say something about it.
FEWEST = 20
# The share of the mean variance that is added to every direction's, so that the covariance can be inverted.
_RIDGE = 1e-3


@dataclass(frozen=True)
class TaggedImages:
    """Real images with `vectors` [N, D], the concepts that each shows, and the number [N] of its `subjects`.

    Images of one subject differ in nothing but their concepts.
    """

    vectors: Tensor
    concepts: Sequence[frozenset[str]]
    subjects: Tensor


@dataclass(frozen=True)
class Removal:
    """A linear map that takes `directions` of a space of `dimensions` out: `x -> (x - mean) @ matrix`, [D, D - K].

    `energy` is the share of the concepts' mean squared displacement along the directions.
    """

    mean: Tensor
    matrix: Tensor
    directions: int
    energy: float

    def __call__(self, vectors: Tensor) -> Tensor:
        return (vectors.double() - self.mean) @ self.matrix


def shown_concepts(names: Sequence[str], tagged: TaggedImages) -> list[str]:
    """Those of the names that enough of the images show, and enough do not."""
    counts = {name: sum(name in own for own in tagged.concepts) for name in names}
    return [name for name, count in counts.items() if FEWEST <= count <= len(tagged.concepts) - FEWEST]


def displacements(names: Sequence[str], tagged: TaggedImages) -> Tensor:
    """What the concepts do to images, [K, D]: each image that shows one, less the mean of its subject's without it.

    Of subjects that are never seen without it, the mean over them, less that of all images without it: a single
    image's difference would be its subject's, not the concept's.
    """
    rows, vectors = [], tagged.vectors.double()
    for name in names:
        shows = torch.tensor([name in own for own in tagged.concepts])
        single = torch.zeros_like(shows)
        for subject in torch.unique(tagged.subjects[shows]):
            own = tagged.subjects == subject
            if bool((own & ~shows).any()):
                rows.append(vectors[own & shows] - vectors[own & ~shows & _plainest(tagged, own & ~shows)].mean(0))
            else:
                single |= own & shows
        if bool(single.any()):
            difference = vectors[single].mean(0) - vectors[~shows].mean(0)
            rows.append(difference.expand(int(single.sum()), -1))
    return torch.cat(rows)


def _plainest(tagged: TaggedImages, among: Tensor) -> Tensor:
    """Which images [N] show the fewest concepts `among` some."""
    counts = torch.tensor([len(own) for own in tagged.concepts])
    return counts == counts[among].min()


def concept_removal(moved: Tensor, real: Tensor) -> Removal:
    """What takes the directions of displacements [K, D] out of a space, found from the real images [M, D] in it.

    Oblique, as LEACE erases a concept (Belrose et al. 2306.03819): of an image's place, what the concept would explain
    is taken away, and what only happens to lie the same way stays. Sets that differ by such displacements alone become
    equal, which is all that a distance between sets asks.
    """
    values, axes = torch.linalg.eigh(moved.T @ moved)
    shares = (values.clamp(min=0).flip(0) / values.clamp(min=0).sum()).cumsum(0)
    count = min(int((shares < ENERGY).sum()) + 1, moved.shape[1] - 2)
    directions = axes[:, -count:]
    covariance = torch.cov(real.double().T)
    covariance += _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    weighted = torch.linalg.solve(covariance, directions)  # [D, K]
    kept = torch.eye(len(covariance), dtype=torch.float64) - weighted @ torch.linalg.solve(
        directions.T @ weighted, directions.T
    )
    # x @ kept has D - K dimensions, those orthogonal to `weighted`; distances are the same along an orthonormal basis.
    basis = torch.linalg.svd(weighted, full_matrices=True)[0][:, count:]
    return Removal(real.double().mean(0), kept @ basis, count, float(shares[count - 1]))


def weighed_alike(moved: Sequence[Tensor]) -> Tensor:
    """The displacements [K, D] of several concepts as one: every concept weighs the same, however far it moves."""
    return torch.cat([one / torch.linalg.matrix_norm(one) for one in moved])


class ShiftsWithout:
    """How far arms lie from the baseline with some concepts taken out of the space, each computed once.

    `arms` are vectors [N, D] in the space of `tagged`; `kept` are the images that stay without each group of pairs.
    """

    def __init__(self, tagged: TaggedImages, arms: Mapping[str, Tensor], baseline: str, kept: list[Tensor]):
        self.tagged, self.arms, self.baseline = tagged, arms, baseline
        self._kept = [torch.arange(len(arms[baseline])), *kept]
        self._moved: dict[str, Tensor] = {}
        self._removals: dict[tuple[str, ...], Removal] = {}
        self._found: dict[tuple[tuple[str, ...], str], Replicates] = {}

    def removal(self, concepts: tuple[str, ...]) -> Removal:
        """What takes one concept out, or several that weigh the same."""
        if concepts not in self._removals:
            for concept in concepts:
                if concept not in self._moved:
                    self._moved[concept] = displacements([concept], self.tagged)
            moved = [self._moved[concept] for concept in concepts]
            together = moved[0] if len(moved) == 1 else weighed_alike(moved)
            self._removals[concepts] = concept_removal(together, self.tagged.vectors)
        return self._removals[concepts]

    def vectors(self, concepts: tuple[str, ...], arm: str) -> Tensor:
        """An arm's vectors without the concepts, [N, D - K]."""
        own = self.arms[arm].double()
        return self.removal(concepts)(own) if concepts else own

    def distances(self, concepts: tuple[str, ...], arms: Iterable[str], reference: Tensor) -> dict[str, Replicates]:
        """The Fréchet distances of some arms, without the concepts, to a `reference` [M, D - K] without them."""
        to_reference = FrechetTo(reference)
        return {arm: self._replicates(concepts, arm, [to_reference] * len(self._kept)) for arm in arms}

    def __call__(self, concepts: tuple[str, ...], arms: Iterable[str]) -> dict[str, Replicates]:
        """The Fréchet distances of some arms to the baseline, all of them without the concepts."""
        wanted = list(arms)
        missing = [arm for arm in wanted if (concepts, arm) not in self._found]
        if missing:
            base = self.vectors(concepts, self.baseline)
            to_baseline = [FrechetTo(base[index]) for index in self._kept]
            for arm in missing:
                self._found[concepts, arm] = self._replicates(concepts, arm, to_baseline)
        return {arm: self._found[concepts, arm] for arm in wanted}

    def _replicates(self, concepts: tuple[str, ...], arm: str, distances: Sequence[FrechetTo]) -> Replicates:
        own = self.vectors(concepts, arm)
        values = [to.shift(own[index]).fd for to, index in zip(distances, self._kept, strict=True)]
        return Replicates(values[0], torch.tensor(values[1:], dtype=torch.float64), len(own))


def collateral(
    concepts: tuple[str, ...], arms: Sequence[str], shifts: ShiftsWithout, level: float
) -> dict[str, Interval]:
    """The share of the shift of some arms that stays without the directions of several concepts."""
    whole, rest = shifts((), arms), shifts(concepts, arms)
    shares = {arm: combined(lambda a, b: b / a if a else 1.0, whole[arm], rest[arm]) for arm in arms}
    return {arm: bounded(share.interval(level), 0) for arm, share in shares.items()}


def without_named(
    space: str, names: Sequence[str], shifts: ShiftsWithout, reference: Tensor, level: float
) -> dict[str, Any] | None:
    """The record NamedConcepts of arms in a space, in which the reference set is [M, D]; None where no image shows what
    the names say.

    Each concept is taken out alone, and all of them together: the more is taken out, the more goes of what has nothing
    to do with it.
    """
    named = shown_concepts(names, shifts.tagged)
    if not named:
        return None
    each = {name: (name,) for name in named} | ({ALL: tuple(named)} if len(named) > 1 else {})
    real, guided = reference.double(), [name for name in shifts.arms if name != shifts.baseline]
    whole = shifts((), guided), shifts.distances((), guided, real)
    removed = []
    for concept, own in tqdm(each.items(), "take out what negatives name", unit="concept", disable=None):
        removal = shifts.removal(own)
        left = removal(real)
        rest = shifts(own, guided), shifts.distances(own, guided, left)
        removed.append(
            {
                "concept": concept,
                "directions": removal.directions,
                "energy": removal.energy,
                "variance": 1 - float(left.var(0).sum() / real.var(0).sum()),
                "arms": {
                    name: _without((whole[0][name], whole[1][name]), (rest[0][name], rest[1][name]), level)
                    for name in guided
                },
            }
        )
    return {
        "space": space,
        "dimensions": reference.shape[1],
        "named": named,
        "unknown": [name for name in names if name not in named],
        "removed": removed,
    }


def _without(
    whole: tuple[Replicates, Replicates], rest: tuple[Replicates, Replicates], level: float
) -> dict[str, Interval]:
    """The record ArmWithoutNamed of the shift and the distance of an arm, with a concept and without it."""
    share = combined(lambda a, b: 1 - b / a if a else 0.0, whole[0], rest[0])
    distances = {"shift": whole[0], "shift_without": rest[0], "distance": whole[1], "distance_without": rest[1]}
    found = {name: bounded(one.interval(level), 0) for name, one in distances.items()}
    return {**found, "named_share": bounded(share.interval(level), -math.inf, 1)}
