"""Which images of a study the page holds, where it cannot hold all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Selection:
    """The images in the page: `whole` pairs with every arm's, and `parts`, pairs with the arms that are shown.

    `whole` are the first pairs of the study, not chosen by what they show; `parts` are in the order of their pairs.
    `depth` is how many of each ranking's first images are in the page; None where all images are.
    """

    whole: list[int]
    parts: dict[int, list[str]]
    depth: int | None

    def images(self, arms: int) -> int:
        """How many images that is, of a study of so many arms."""
        return len(self.whole) * arms + sum(map(len, self.parts.values()))


def select(
    pairs: Sequence[int],
    arms: Sequence[str],
    baseline: str,
    rankings: Mapping[str, Sequence[Sequence[int]]],
    capacity: int,
) -> Selection:
    """All images where `capacity` allows it, else the first pairs and the first of each arm's `rankings` of pairs.

    Half of the capacity goes to the first pairs, at least one; the rest to the rankings, place by place, so that each
    of them is complete down to the same place. A ranked image brings the baseline's of its pair.
    """
    if len(pairs) * len(arms) <= capacity:
        return Selection(list(pairs), {}, None)
    whole = list(pairs[: max(1, capacity // 2 // len(arms))])
    left = capacity - len(whole) * len(arms)
    lists = [(arm, ranking) for arm in arms for ranking in rankings.get(arm, [])]
    held = set(whole)
    chosen: dict[int, set[str]] = {}
    depth = 0
    for place in range(max((len(ranking) for _, ranking in lists), default=0)):
        for arm, ranking in lists:
            if place >= len(ranking) or ranking[place] in held:
                continue
            shown = chosen.get(ranking[place], set())
            wanted = {arm, baseline} - shown
            if len(wanted) > left:
                return _selection(whole, chosen, arms, depth)
            chosen[ranking[place]] = shown | wanted
            left -= len(wanted)
        depth = place + 1
    return _selection(whole, chosen, arms, depth)


def _selection(whole: list[int], chosen: dict[int, set[str]], arms: Sequence[str], depth: int) -> Selection:
    parts = {pair: [arm for arm in arms if arm in chosen[pair]] for pair in sorted(chosen)}
    return Selection(whole, parts, depth)
