"""Which images of different arms belong together: image k of one arm and image k of another.

Images made elsewhere are pairs where their names or their seeds say so. Where they do not, images are put beside each
other by chance, those of one prompt together. Two independent sets matched by chance are independent pairs, of which
every interval and test over pairs holds; it is only not narrower than that of two independent sets. What is said of
single pairs, how far an image moved, then says nothing.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pipeline.external.folder_images import ExternalImage
from pipeline.storage.file_names import looks_like

By = Literal["name", "seed", "prompt", "none"]
# What makes two images versions of one.
_VERSIONS: tuple[Literal["name"], Literal["seed"]] = ("name", "seed")


@dataclass(frozen=True)
class Pairing:
    """What images are paired `by`, and for every arm the index of its image of each pair.

    By `prompt`: images of a pair share their prompt and nothing else.
    """

    by: By
    order: dict[str, list[int]]


def paired(arms: Mapping[str, Sequence[ExternalImage]], count: int, seed: int, seeds: range | None = None) -> Pairing:
    """Pairs of `count` images of every arm, each of which has as many; of more, `seed` chooses.

    `seeds` are those of the pairs of arms that the study generates, None where it generates none.
    """
    chance = random.Random(seed)  # noqa: S311 (to be repeated)
    if seeds is not None:
        found = {name: _once({k: one.seed for k, one in enumerate(own)}) for name, own in arms.items()}
        if all(set(seeds) <= set(own) for own in found.values()):
            return Pairing("seed", {name: [own[one] for one in seeds] for name, own in found.items()})
        return Pairing("none", {name: chance.sample(range(len(own)), count) for name, own in arms.items()})
    if len(arms) == 1:
        return Pairing("none", {name: chance.sample(range(len(own)), count) for name, own in arms.items()})
    for by in _VERSIONS:
        pairs = _shared(arms, by)
        if len(pairs) >= count:
            chosen = chance.sample(pairs, count)
            return Pairing(by, {name: [pair[name] for pair in chosen] for name in arms})
    return _by_prompt(arms, count, chance)


def shared(arms: Sequence[Sequence[ExternalImage]]) -> int:
    """How many images the arms share by name or by seed, whichever are more."""
    own = {str(k): images for k, images in enumerate(arms)}
    return max(len(_shared(own, by)) for by in _VERSIONS)


def _shared(arms: Mapping[str, Sequence[ExternalImage]], by: Literal["name", "seed"]) -> list[dict[str, int]]:
    """The images that all arms share, each by the arms' indices of it, in the order of their keys."""
    keys = {name: shared_keys(images, by) for name, images in arms.items()}
    found = [{name: own[key] for name, own in keys.items()} for key in _in_all(keys)]
    return [pair for pair in found if _agree([arms[name][k] for name, k in pair.items()])]


def shared_keys(images: Sequence[ExternalImage], by: Literal["name", "seed"]) -> dict[Hashable, int]:
    """The index of every image by its name without suffix, or by its seed and prompt; without those that repeat."""
    if by == "name":
        return _once(
            {k: looks_like(PurePosixPath(one.file).with_suffix("").as_posix()) for k, one in enumerate(images)}
        )
    return _once({k: None if one.seed is None else (one.seed, one.prompt) for k, one in enumerate(images)})


def _once(keys: Mapping[int, Hashable]) -> dict[Hashable, int]:
    counts = Counter(keys.values())
    return {key: k for k, key in keys.items() if key is not None and counts[key] == 1}


def _in_all(keys: Mapping[str, Mapping[Hashable, int]]) -> list[Hashable]:
    first, *others = keys.values()
    return sorted((key for key in first if all(key in own for own in others)), key=repr)


def _agree(images: Sequence[ExternalImage]) -> bool:
    """Whether images of one name do not say that they were generated from other prompts or seeds.

    Tools number their files, so that two folders share names by chance.
    """
    return len({one.prompt for one in images} - {""}) < 2 and len({one.seed for one in images} - {None}) < 2


def _by_prompt(arms: Mapping[str, Sequence[ExternalImage]], count: int, chance: random.Random) -> Pairing:
    """Images of one prompt beside each other as far as there are any, and the others by chance."""
    places: dict[str, dict[str, list[int]]] = {}
    for name, own in arms.items():
        of_prompt = defaultdict(list)
        for k in chance.sample(range(len(own)), len(own)):
            of_prompt[own[k].prompt].append(k)
        places[name] = of_prompt
    first = next(iter(places.values()))
    prompts = [prompt for prompt in first if prompt and all(prompt in own for own in places.values())]
    together = [(prompt, min(len(own[prompt]) for own in places.values())) for prompt in prompts]
    order = {name: [k for prompt, n in together for k in own[prompt][:n]] for name, own in places.items()}
    matched = sum(n for _, n in together)
    if matched >= count:
        chosen = chance.sample(range(matched), count)
        return Pairing("prompt", {name: [own[k] for k in chosen] for name, own in order.items()})
    for name, own in arms.items():
        rest = sorted(set(range(len(own))) - set(order[name]))
        order[name] += chance.sample(rest, count - matched)
    return Pairing("none", order)
