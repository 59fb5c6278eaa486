"""The tags of the embedded world, and a check that a tag is one of them.

Imports of drawing libraries cost a second, so the words are read from the styles only when a study names some.
"""

from collections.abc import Sequence
from functools import cache

from pipeline.settings import nearest


@cache
def all_tags() -> frozenset[str]:
    """Every tag that an image of the world can have."""
    from pipeline.tinybooru.flaws import FLAWS, QUALITIES
    from pipeline.tinybooru.styles import STYLES

    found = {*FLAWS, *QUALITIES, *(f"style:{style.name}" for style in STYLES)}
    for style in STYLES:
        found.update(style.subject)
        found.update(tag for choice in style.choices for tag in choice.named if tag is not None)
    return frozenset(found)


def known_tags(showing: Sequence[str]) -> tuple[str, ...]:
    """`showing` as it is. Raises ValueError for a tag that no image of the world has, with the nearest that it has."""
    for tag in showing:
        if tag not in all_tags():
            near = nearest(tag, all_tags())
            raise ValueError(f"no image of tinybooru has the tag {tag!r}" + (f"; did you mean {near}?" if near else ""))
    return tuple(showing)
