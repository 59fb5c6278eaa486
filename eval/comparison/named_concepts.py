"""How much of an arm's shift is the very thing that its negative prompt names, and how much is anything else.

A negative prompt against `blurry` is meant to move images in the directions that tell blurry images from others. Those
are found on real images that are known to show it or not, and taken out of the feature space; what an arm still shifts
then, its user did not ask for.
"""

import math
from collections.abc import Mapping, Sequence
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


def collateral(
    moved: Sequence[Tensor], tagged: TaggedImages, arm: Tensor, baseline: Tensor, kept: list[Tensor], level: float
) -> Interval:
    """The share of an arm's shift that stays without the directions of several concepts, from their displacements.

    `arm` and `baseline` are vectors [N, D] in the space of `tagged`.
    """
    removal = concept_removal(weighed_alike(moved), tagged.vectors)
    both = {"arm": arm, "baseline": baseline}
    real = tagged.vectors.double()
    whole = _distances(both, "baseline", real, kept)["arm"]
    rest = _distances({name: removal(own) for name, own in both.items()}, "baseline", removal(real), kept)["arm"]
    share = combined(lambda a, b: b / a if a else 1.0, whole["shift"], rest["shift"])
    return bounded(share.interval(level), 0)


def without_named(
    space: str,
    names: Sequence[str],
    tagged: TaggedImages,
    arms: Mapping[str, Tensor],
    baseline: str,
    reference: Tensor,
    kept: list[Tensor],
    level: float,
) -> dict[str, Any] | None:
    """The record NamedConcepts of arms [N, D] in a space; None where no image shows what the names say.

    Each concept is taken out alone, and all of them together: the more is taken out, the more goes of what has nothing
    to do with it.
    """
    named = shown_concepts(names, tagged)
    if not named:
        return None
    moved = {name: displacements([name], tagged) for name in named}
    together = weighed_alike(list(moved.values()))
    each = {**moved, **({ALL: together} if len(named) > 1 else {})}
    whole = _distances(arms, baseline, reference.double(), kept)
    removed = []
    for concept, own in tqdm(each.items(), "take out what negatives name", unit="concept", disable=None):
        removal = concept_removal(own, tagged.vectors)
        rest = _distances({name: removal(one) for name, one in arms.items()}, baseline, removal(reference), kept)
        removed.append(
            {
                "concept": concept,
                "directions": removal.directions,
                "energy": removal.energy,
                "variance": 1 - float(removal(reference).var(0).sum() / reference.double().var(0).sum()),
                "arms": {name: _without(whole[name], rest[name], level) for name in arms if name != baseline},
            }
        )
    return {
        "space": space,
        "dimensions": reference.shape[1],
        "named": named,
        "unknown": [name for name in names if name not in named],
        "removed": removed,
    }


def _distances(
    arms: Mapping[str, Tensor], baseline: str, reference: Tensor, kept: list[Tensor]
) -> dict[str, dict[str, Replicates]]:
    """The Fréchet distances of every arm to the baseline and to the reference set, with their replicates."""
    to_reference, base = FrechetTo(reference), arms[baseline].double()
    everything = torch.arange(len(base))
    from_baseline = [FrechetTo(base[index]) for index in (everything, *kept)]
    found = {}
    for name, vectors in arms.items():
        own = [vectors.double()[index] for index in (everything, *kept)]
        shifts = [to_base.shift(one).fd for to_base, one in zip(from_baseline, own, strict=True)]
        distances = [to_reference.shift(one).fd for one in own]
        found[name] = {
            what: Replicates(values[0], torch.tensor(values[1:], dtype=torch.float64), len(base))
            for what, values in (("shift", shifts), ("distance", distances))
        }
    return found


def _without(whole: Mapping[str, Replicates], rest: Mapping[str, Replicates], level: float) -> dict[str, Interval]:
    """The record ArmWithoutNamed."""
    share = combined(lambda a, b: 1 - b / a if a else 0.0, whole["shift"], rest["shift"])
    distances = {"shift": whole["shift"], "shift_without": rest["shift"]}
    distances |= {"distance": whole["distance"], "distance_without": rest["distance"]}
    found = {name: bounded(one.interval(level), 0) for name, one in distances.items()}
    return {**found, "named_share": bounded(share.interval(level), -math.inf, 1)}
