"""Known changes of real images, to which the feature spaces are asked to answer (`models/tinybooru/spaces.py`).

A change plans other images, edits the drawn ones, or both. Image k stands in place of image k; where a change
leaves it alone, it stays the same, so that a changed set and the unchanged one are paired.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from pipeline.results.space_cards import EXCHANGED, Group, KnownChange
from pipeline.tinybooru.build import CANVAS
from pipeline.tinybooru.flaws import BAD_ANATOMY, GOOD_QUALITIES
from pipeline.tinybooru.image import Plan, draw, plan
from pipeline.tinybooru.styles import STYLES

Drawer = Callable[[Plan], Image.Image]
Replan = Callable[[list[Plan]], list[Plan]]
Edit = Callable[[Image.Image, np.random.Generator], Image.Image]

# The images that nothing was done to, beside the changed ones.
UNCHANGED = "unchanged"
PATCH = 4
# Of the images' random streams, the world draws with 1 (pipeline/tinybooru/image.py).
_STREAM = 2


def drawn(planned: Plan) -> Image.Image:
    """An image of the world, RGB."""
    return draw(planned, CANVAS)


def _as_planned(plans: list[Plan]) -> list[Plan]:
    return plans


def _as_drawn(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image


@dataclass(frozen=True)
class Change:
    """A known change: what it is, which images it plans in place of others, and how it edits what is drawn."""

    known: KnownChange
    replan: Replan = _as_planned
    edit: Edit = _as_drawn

    def images(self, plans: list[Plan], drawer: Drawer = drawn) -> list[Image.Image]:
        """The changed images of these plans, one for each, of the same size. Pure: chance is seeded per image."""
        return [
            self.edit(drawer(planned), np.random.default_rng([planned.seed, planned.index, _STREAM]))
            for planned in self.replan(plans)
        ]


def _blurred(image: Image.Image, _: np.random.Generator, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def _noisy(image: Image.Image, rng: np.random.Generator, sd: float) -> Image.Image:
    return _offset(image, rng.normal(0, sd, (image.height, image.width, 3)))


def _compressed(image: Image.Image, _: np.random.Generator, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return Image.open(buffer).convert("RGB")


def _speckled(image: Image.Image, rng: np.random.Generator, sd: float) -> Image.Image:
    """Every patch gets an offset in each colour: the seams that networks leave which work on patches."""
    offsets = rng.normal(0, sd, (-(-image.height // PATCH), -(-image.width // PATCH), 3))
    return _offset(image, offsets.repeat(PATCH, 0).repeat(PATCH, 1)[: image.height, : image.width])


def _offset(image: Image.Image, offsets: NDArray[np.float64]) -> Image.Image:
    values = np.asarray(image, np.float64) + offsets
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _saturated(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _contrasted(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _all_of_quality(plans: list[Plan], quality: str) -> list[Plan]:
    return [replace(planned, quality=quality) for planned in plans]


def others_for(plans: list[Plan], dropped: Callable[[Plan], bool]) -> list[Plan]:
    """The same plans with the next ones of the world in place of those that are dropped."""
    following = (planned for planned in _following(plans) if _is_good(planned) and not dropped(planned))
    return [next(following) if dropped(planned) else planned for planned in plans]


def _without_kind(plans: list[Plan], kind: str) -> list[Plan]:
    return others_for(plans, lambda planned: planned.kind == kind)


# Every second style: each kind loses some and keeps some.
DROPPED_STYLES = frozenset(style.name for style in STYLES[1::2])


def _half_the_styles(plans: list[Plan]) -> list[Plan]:
    return others_for(plans, lambda planned: planned.style in DROPPED_STYLES)


def _half_the_prompts(plans: list[Plan]) -> list[Plan]:
    half = -(-len(plans) // 2)
    return [*plans[:half], *plans[: len(plans) - half]]


_MALFORMED_STYLES = frozenset(style.name for style in STYLES if style.movable)


def _malformed_people(plans: list[Plan]) -> list[Plan]:
    """Every person with parts that can be malformed becomes a malformed one of the same style and quality."""
    found: dict[str, list[Plan]] = {}
    following = (planned for planned in _following(plans) if planned.flaws == (BAD_ANATOMY,))
    changed = []
    for planned in plans:
        if planned.style not in _MALFORMED_STYLES:
            changed.append(planned)
            continue
        waiting = found.setdefault(planned.style, [])
        while not waiting:
            other = next(following)
            found.setdefault(other.style, []).append(other)
        changed.append(replace(waiting.pop(0), quality=planned.quality))
    return changed


def _following(plans: list[Plan]) -> Iterator[Plan]:
    """The plans of the same world and split that follow, without end."""
    last = max(plans, key=lambda planned: planned.index)
    return (planned for i in count(last.index + 1) if (planned := plan(last.seed, i)).split == last.split)


def _is_good(planned: Plan) -> bool:
    return not planned.flaws and planned.quality in GOOD_QUALITIES


def _known(name: str, group: Group, cause: str, words: str) -> KnownChange:
    return KnownChange(name=name, group=group, cause=cause, words=words)


def _exchanged(quality: str) -> Change:
    known = _known(f"all {quality}", "finish", EXCHANGED, f"every image has the quality `{quality}`")
    return Change(known, partial(_all_of_quality, quality=quality))


def _edited(name: str, group: Group, cause: str, words: str, edit: Edit) -> Change:
    return Change(_known(name, group, cause, words), edit=edit)


def _dropped(kind: str, plural: str) -> Change:
    known = _known(f"no {plural}", "content", "a dropped kind", f"no {plural}; other kinds take their place")
    return Change(known, partial(_without_kind, kind=kind))


CHANGES = (
    *(_exchanged(quality) for quality in ("masterpiece", "normal quality", "worst quality")),
    *(
        _edited(
            f"saturation x{factor:g}", "finish", "saturation", f"{factor:g} times the saturation",
            partial(_saturated, factor=factor),
        )
        for factor in (1.1, 1.3)
    ),
    *(
        _edited(
            f"contrast x{factor:g}", "finish", "contrast", f"{factor:g} times the contrast",
            partial(_contrasted, factor=factor),
        )
        for factor in (1.1, 1.2)
    ),
    *(
        _edited(
            f"blur {radius:g} px", "texture", "blur", f"Gaussian blur, standard deviation {radius:g} px",
            partial(_blurred, radius=radius),
        )
        for radius in (0.5, 1.0)
    ),
    *(
        _edited(
            f"noise {sd:g}", "texture", "noise",
            f"noise in every pixel and colour, standard deviation {sd:g} of 255", partial(_noisy, sd=sd),
        )
        for sd in (4, 10)
    ),
    *(
        _edited(
            f"JPEG {quality}", "texture", "JPEG", f"JPEG of quality {quality}", partial(_compressed, quality=quality)
        )
        for quality in (50, 15)
    ),
    *(
        _edited(
            f"speckle {sd:g}", "texture", "patch speckle",
            f"every patch of {PATCH}x{PATCH} pixels is offset in each colour, standard deviation {sd:g} of 255",
            partial(_speckled, sd=sd),
        )
        for sd in (6, 12)
    ),
    _dropped("object", "objects"),
    _dropped("scenery", "scenery"),
    _dropped("pattern", "patterns"),
    Change(
        _known(
            "half the styles", "content", "dropped styles",
            f"{len(DROPPED_STYLES)} of {len(STYLES)} drawing styles are missing; the others take their place",
        ),
        _half_the_styles,
    ),
    Change(
        _known(
            "half the prompts", "content", "dropped prompts",
            "half of the images are missing; the other half is shown twice",
        ),
        _half_the_prompts,
    ),
    Change(
        _known(
            "malformed people", "structure", "malformed people",
            "every person becomes a malformed one of the same style and quality",
        ),
        _malformed_people,
    ),
)  # fmt: skip


def shown_changes() -> list[str]:
    """The names of the changes that a sheet of images shows: of each edit the strongest, which comes last."""
    return list({c.known.name if c.edit is _as_drawn else c.known.cause: c.known.name for c in CHANGES}.values())
