"""Plan and draw one tinybooru image from (seed, index).

Planning decides everything discrete (style, parts, colours, quality, flaws) and costs microseconds; drawing
renders the plan and costs about 10 ms. The split of an image is a hash of its discrete plan, so a
combination of parts and colours that is in one split is in no other: held-out images show combinations
that training never saw.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import resvg_py
from dicebear import Avatar
from PIL import Image

from pipeline.tinybooru import figures
from pipeline.tinybooru import flaws as flaw
from pipeline.tinybooru.styles import STYLES, Choice, Options, Style

SPLITS = ("train", "validation", "reference")
_SPLIT_OF_TENTH = ("train",) * 8 + ("validation", "reference")

BAD_ANATOMY_SHARE = 0.2  # of people
FIGURES_BAD_ANATOMY_SHARE = 0.08  # of greetings and paperdolls
BAD_STRUCTURE_SHARE = 0.25  # of greetings (wrong number of digits) and of paperdolls (of limbs)
IMAGE_FLAW_SHARE = 0.2  # of all images
# Chances of each quality, best to worst, for flawless and for flawed images.
QUALITY_SHARES = (0.26, 0.24, 0.2, 0.14, 0.1, 0.06)
FLAWED_QUALITY_SHARES = (0.0, 0.0, 0.1, 0.25, 0.35, 0.3)


@dataclass(frozen=True)
class Plan:
    """Everything discrete about an image; `tags` are in booru order, without quality and flaws."""

    seed: int
    index: int
    style: str
    kind: str
    options: Options
    deformations: tuple[tuple[str, str], ...]
    subject_tags: tuple[str, ...]
    quality: str
    flaws: tuple[str, ...]
    split: str

    @property
    def malformed(self) -> bool:
        """Whether the drawing is of a person with moved or deformed parts, or with a wrong number of them."""
        return bool(self.deformations) or not self.structure.sound

    @property
    def structure(self) -> figures.Structure:
        """How many digits, arms and legs are drawn."""
        return figures.structure(self.style, self.options)

    @property
    def countable(self) -> bool:
        """Whether the drawing has digits or limbs and no flaw keeps one from counting them."""
        return self.structure != figures.Structure() and not set(self.flaws) & set(flaw.UNCOUNTABLE)

    @property
    def tags(self) -> list[str]:
        """All tags: what it is, its quality, its style and looks, its flaws."""
        head, looks = self.subject_tags[:2], self.subject_tags[2:]
        return [*head, self.quality, f"style:{self.style}", *looks, *self.flaws]


def plan(seed: int, index: int) -> Plan:
    """Plan image `index` of the world with this seed. Pure: the same arguments give the same plan."""
    rng = np.random.default_rng([seed, index])
    shares = np.array([style.share for style in STYLES])
    style = STYLES[rng.choice(len(STYLES), p=shares / shares.sum())]

    options: Options = dict(style.fixed)
    tags = list(style.subject)
    for choice in style.choices:
        tag, chosen = _choose(choice, rng)
        options.update(chosen)
        if tag is not None:
            tags.append(tag)

    deformations = _deform(style, options, rng)
    found = [flaw.BAD_ANATOMY] if deformations else []
    if style.own:
        found += _structure(style, options, rng)
    if rng.random() < IMAGE_FLAW_SHARE:
        found.append(str(rng.choice(flaw.IMAGE_FLAWS)))
    quality = str(rng.choice(flaw.QUALITIES, p=FLAWED_QUALITY_SHARES if found else QUALITY_SHARES))

    identity = [style.name, *_visible_identity(style, options, deformations, found, index)]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()
    split = _SPLIT_OF_TENTH[int.from_bytes(digest[:8], "big") % 10]
    return Plan(seed, index, style.name, style.kind, options, deformations, tuple(tags), quality, tuple(found), split)


def draw(plan: Plan, canvas: int) -> Image.Image:
    """Draw a plan on a square RGB canvas of `canvas` pixels."""
    if plan.style in (figures.GREETING, figures.PAPERDOLL):
        rng = np.random.default_rng([plan.seed, plan.index, 2])
        svg = figures.svg(plan.style, plan.options, plan.deformations, rng)
    else:
        style = flaw.deformed_style(plan.style, plan.deformations)
        svg = Avatar(style, {"seed": f"{plan.seed}-{plan.index}", **plan.options}).to_string()
    png = resvg_py.svg_to_bytes(svg_string=svg, width=canvas, height=canvas)
    image = flaw.finish(Image.open(io.BytesIO(bytes(png))).convert("RGB"), plan.quality)
    return flaw.apply(image, plan.flaws, np.random.default_rng([plan.seed, plan.index, 1]))


def _visible_identity(
    style: Style, options: Options, deformations: tuple[tuple[str, str], ...], found: list[str], index: int
) -> list[Any]:
    """What two equal images of one style surely have in common, so that they fall into one split."""
    if "cropped" in found:
        # A corner may show nothing but skin and background.
        colours = (f"{part}Color" for part in ("background", "skin", "base"))
        return ["cropped", *(options.get(colour) for colour in (*colours, "background", "skin"))]
    if style.continuous:
        return [options, index]
    unseen = {f"{part}Variant" for part, deformation in deformations if deformation == "missing"}
    return [{option: value for option, value in options.items() if option not in unseen}]


def _choose(choice: Choice, rng: np.random.Generator) -> tuple[str | None, Options]:
    names = list(choice.named)
    at = int(rng.choice(len(names), p=choice.weights) if choice.weights else rng.integers(len(names)))
    alternatives = choice.named[names[at]]
    return names[at], alternatives[int(rng.integers(len(alternatives)))]


def _structure(style: Style, options: Options, rng: np.random.Generator) -> list[str]:
    """Decide how many digits or limbs there are, into `options`; returns the tags of what is wrong with them."""
    flawed = rng.random() < BAD_STRUCTURE_SHARE
    if style.name == figures.PAPERDOLL:
        arms, legs = figures.SOUND_ARMS, figures.SOUND_LEGS
        if flawed:
            arms, legs = ((3, 2), (2, 3), (1, 2), (2, 1))[int(rng.choice(4, p=(0.35, 0.25, 0.25, 0.15)))]
        options.update(arms=arms, legs=legs, arm_slots=figures.arm_slots(arms, rng))
        more, fewer = arms + legs > 4, arms + legs < 4
        return [flaw.EXTRA_LIMBS] * more + [flaw.MISSING_LIMB] * fewer
    options.update(digits=figures.SOUND_DIGITS, missing=())
    if not flawed:
        return []
    wrong = str(rng.choice((flaw.EXTRA_DIGIT, flaw.FEWER_DIGITS, flaw.MISSING_FINGERS), p=(0.5, 0.25, 0.25)))
    if wrong == flaw.EXTRA_DIGIT:
        options["digits"] = int(rng.choice((6, 7), p=(0.65, 0.35)))
    elif wrong == flaw.FEWER_DIGITS:
        options["digits"] = int(rng.choice((4, 3), p=(0.65, 0.35)))
    else:
        # Those of a hand of five that are not there, counted from the thumb; their places stay empty.
        lost = rng.choice(figures.SOUND_DIGITS, size=int(rng.choice((1, 2), p=(0.65, 0.35))), replace=False)
        options["missing"] = tuple(sorted(int(k) for k in lost))
    return [flaw.BAD_HANDS, wrong]


def _deform(style: Style, options: Options, rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    if not style.movable or rng.random() >= (FIGURES_BAD_ANATOMY_SHARE if style.own else BAD_ANATOMY_SHARE):
        return ()
    if style.own:
        return (("head", str(rng.choice(list(figures.DEFORMATIONS)))),)
    worn = {"glasses", "accessories"}
    wears = any(options.get(f"{part}Probability") == 100 for part in worn)
    # Eyes behind glasses can be moved unseen, and eyewear that is not worn cannot be moved at all.
    parts = [p for p in style.movable if (p != "eyes" or not wears) and (p not in worn or wears)]
    chosen = rng.choice(len(parts), size=2, replace=False) if len(parts) > 2 else range(len(parts))
    picked = [(parts[i], str(rng.choice(flaw.DEFORMATIONS_OF_PART[parts[i]]))) for i in sorted(chosen)]
    return tuple(picked)
