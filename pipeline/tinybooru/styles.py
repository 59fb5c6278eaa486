"""The drawing vocabulary of tinybooru: which styles, which parts of them, and what each part is called.

A style is a table of *choices*. A choice maps a tag (or None, for a variation that has no name) to the options that
draw it (dicebear's, or those of figures.py), so the tags of an image are exactly what was drawn and nothing is guessed
from pixels. Only a few variants of each part are kept: the world has to be learnable by a network of a few
million parameters, and a part that is 2 pixels wide at 64x64 cannot be told apart from its neighbour.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from pipeline.tinybooru.colours import BACKGROUNDS, HAIR_COLOURS, SHIRT_COLOURS, SKINS, THING_COLOURS
from pipeline.tinybooru.figures import EYES, GREETING, LONG_HAIR, MOUTHS, PAPERDOLL, SHORT_HAIR

Options = dict[str, Any]

KINDS = ("person", "object", "scenery", "pattern")

# Licences that let us ship the images and what was learnt from them; dicebear also carries styles that are
# "free for personal and commercial use", whose redistribution terms are not stated.
OPEN_LICENCES = ("CC0 1.0", "CC BY 4.0")


@dataclass(frozen=True)
class Choice:
    """One decision of the drawing: `named` maps a tag (None: no tag) to alternatives, each a set of options.

    `weights` are relative chances of the tags, equal when None; alternatives of one tag are equally likely.
    """

    named: Mapping[str | None, Sequence[Options]]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Style:
    """A style as tinybooru uses it: dicebear's, or (`own`) one of figures.py.

    `share` is its relative frequency in the world, `movable` the parts that bad anatomy may deform, `continuous`
    says that the seed alone places parts freely, so that no two images are alike, and
    `redefined` changes the definition's components where an option cannot (ranges of free rotation).
    """

    name: str
    kind: str
    share: float
    subject: tuple[str, ...]
    fixed: Options
    choices: tuple[Choice, ...]
    movable: tuple[str, ...] = ()
    continuous: bool = False
    redefined: Mapping[str, Options] = field(default_factory=dict)
    own: bool = False


def _parts(part: str, named: Mapping[str | None, str]) -> Choice:
    """A choice among variants of one part; each value lists variants separated by spaces."""
    return Choice({t: [{f"{part}Variant": [v]} for v in names.split()] for t, names in named.items()})


def _colour(option: str, palette: Mapping[str, str], noun: str) -> Choice:
    return Choice({f"{name} {noun}": [{option: [value]}] for name, value in palette.items()})


def _unnamed_colour(option: str, values: Sequence[str]) -> Choice:
    return Choice({None: [{option: [value]} for value in values]})


def _without(*parts: str) -> Options:
    return {f"{part}Probability": 0 for part in parts}


_BACKGROUND = _colour("backgroundColor", BACKGROUNDS, "background")
_EYEWEAR_WEIGHTS = (0.7, 0.18, 0.12)


def _figure_choices(*more: Choice) -> tuple[Choice, ...]:
    """What every figure of figures.py is made of, then `more` of it."""
    return (
        Choice(
            {"long hair": [{"hairstyle": h} for h in LONG_HAIR], "short hair": [{"hairstyle": h} for h in SHORT_HAIR]}
        ),
        Choice({f"{name} hair": [{"hair": name}] for name in HAIR_COLOURS}),
        Choice({None: [{"skin": value} for value in SKINS]}),
        Choice({mouth: [{"mouth": mouth}] for mouth in MOUTHS}),
        Choice({None: [{"eyes": kind} for kind in EYES]}),
        Choice(
            {None: [{"eyewear": ""}], "glasses": [{"eyewear": "glasses"}], "sunglasses": [{"eyewear": "sunglasses"}]},
            _EYEWEAR_WEIGHTS,
        ),
        Choice({f"{name} shirt": [{"shirt": name}] for name in SHIRT_COLOURS}),
        *more,
        Choice({None: [{"mirrored": False}, {"mirrored": True}]}),
        Choice({f"{name} background": [{"background": name}] for name in BACKGROUNDS}),
    )


STYLES: tuple[Style, ...] = (
    Style(
        "adventurer",
        "person",
        0.09,
        ("1person", "solo"),
        {**_without("details", "earrings"), "eyebrowsVariant": ["variant01"]},
        (
            _parts(
                "hair", {"long hair": "long01 long04 long15 long22", "short hair": "short01 short04 short06 short16"}
            ),
            _colour("hairColor", HAIR_COLOURS, "hair"),
            _unnamed_colour("skinColor", SKINS),
            _parts("mouth", {"smile": "variant01 variant26", "frown": "variant10", "open mouth": "variant22"}),
            Choice(
                {
                    None: [
                        {**_without("glasses"), "eyesVariant": [v]} for v in ("variant01", "variant12", "variant26")
                    ],
                    "glasses": [
                        {"glassesProbability": 100, "glassesVariant": ["variant02"], "eyesVariant": ["variant26"]}
                    ],
                    "sunglasses": [
                        {"glassesProbability": 100, "glassesVariant": ["variant01"], "eyesVariant": ["variant26"]}
                    ],
                },
                _EYEWEAR_WEIGHTS,
            ),
            _BACKGROUND,
        ),
        ("eyes", "mouth", "hair", "glasses"),
    ),
    Style(
        "big-smile",
        "person",
        0.09,
        ("1person", "solo"),
        {},
        (
            _parts(
                "hair", {"long hair": "straightHair wavyBob bangs", "short hair": "shortHair curlyShortHair mohawk"}
            ),
            _colour("hairColor", HAIR_COLOURS, "hair"),
            _unnamed_colour("skinColor", SKINS),
            _parts("mouth", {"smile": "teethSmile kawaii", "frown": "unimpressed", "open mouth": "openedSmile"}),
            Choice(
                {
                    None: [{**_without("accessories"), "eyesVariant": [v]} for v in ("normal", "cheery", "angry")],
                    "glasses": [
                        {
                            "accessoriesProbability": 100,
                            "accessoriesVariant": ["glasses"],
                            "eyesVariant": ["normal"],
                        }
                    ],
                    "sunglasses": [
                        {
                            "accessoriesProbability": 100,
                            "accessoriesVariant": ["sunglasses"],
                            "eyesVariant": ["normal"],
                        }
                    ],
                },
                _EYEWEAR_WEIGHTS,
            ),
            _BACKGROUND,
        ),
        ("eyes", "mouth", "hair", "accessories"),
    ),
    Style(
        "micah",
        "person",
        0.09,
        ("1person", "solo"),
        {
            **_without("earrings", "facialHair"),
            "clothesVariant": ["crew"],
            "earsVariant": ["attached"],
            "eyebrowsVariant": ["up"],
            "noseVariant": ["curve"],
            "glassesColor": ["000000"],
        },
        (
            _parts("hair", {"long hair": "full pixie", "short hair": "fonze mrT"}),
            _colour("hairColor", HAIR_COLOURS, "hair"),
            _unnamed_colour("baseColor", SKINS),
            _unnamed_colour("shirtColor", ("fc909f", "6bd9e9", "f4d150", "ffffff")),
            _parts("mouth", {"smile": "smile", "frown": "frown", "open mouth": "laughing"}),
            Choice(
                {
                    None: [{**_without("glasses"), "eyesVariant": [v]} for v in ("eyes", "smiling")],
                    "glasses": [
                        {"glassesProbability": 100, "glassesVariant": [v], "eyesVariant": ["eyes"]}
                        for v in ("round", "square")
                    ],
                },
                (0.75, 0.25),
            ),
            _BACKGROUND,
        ),
        ("eyes", "mouth", "hair", "glasses"),
    ),
    Style(
        "dylan",
        "person",
        0.09,
        ("1person", "solo"),
        _without("facialHair"),
        (
            _parts("hair", {"long hair": "longCurls roundBob bangs", "short hair": "plain flatTop spiky"}),
            _colour("hairColor", HAIR_COLOURS, "hair"),
            _unnamed_colour("skinColor", SKINS),
            _parts("mood", {"smile": "happy", "frown": "sad", "open mouth": "superHappy"}),
            _BACKGROUND,
        ),
        ("mood", "hair"),
    ),
    Style(
        "personas",
        "person",
        0.09,
        ("1person", "solo"),
        {**_without("facialHair"), "clothesVariant": ["squared"], "noseVariant": ["smallRound"]},
        (
            _parts("hair", {"long hair": "long bobCut extraLong", "short hair": "shortCombover curlyHighTop curly"}),
            _colour("hairColor", HAIR_COLOURS, "hair"),
            _unnamed_colour("skinColor", SKINS),
            _unnamed_colour("clothingColor", ("456dff", "6dbb58", "e24553", "f3b63a")),
            _parts("mouth", {"smile": "bigSmile", "frown": "frown", "open mouth": "surprise"}),
            Choice(
                {
                    None: [{"eyesVariant": [v]} for v in ("open", "happy")],
                    "glasses": [{"eyesVariant": ["glasses"]}],
                    "sunglasses": [{"eyesVariant": ["sunglasses"]}],
                },
                _EYEWEAR_WEIGHTS,
            ),
            _BACKGROUND,
        ),
        ("eyes", "mouth", "hair"),
    ),
    Style(
        GREETING,
        "person",
        0.25,
        ("1person", "solo", "waving", "open hand"),
        {},
        _figure_choices(),
        ("head",),
        own=True,
    ),
    Style(
        PAPERDOLL,
        "person",
        0.1,
        ("1person", "solo", "full body"),
        {},
        _figure_choices(Choice({f"{name} trousers": [{"trousers": name}] for name in SHIRT_COLOURS})),
        ("head",),
        own=True,
    ),
    Style(
        "sprouts",
        "object",
        0.06,
        ("object", "potted plant"),
        {**_without("pattern", "cheeks"), "animationVariant": ["none"], "plantColor": ["22c55e"]},
        (
            _parts("plant", {"cactus": "cactus", "flower": "flower", "bush": "bush", "palm": "palm"}),
            _parts("pot", {None: "taper round"}),
            _parts("eyes", {None: "dots happy"}),
            _parts("mouth", {None: "smile line"}),
            _unnamed_colour("bloomColor", ("fb7185",)),
            _colour("potColor", THING_COLOURS, "pot"),
            _BACKGROUND,
        ),
    ),
    Style(
        "stack",
        "object",
        0.05,
        ("object", "stones"),
        {},
        (
            _parts("piles", {"three stones": "three threeWide", "five stones": "five"}),
            _parts("stone", {None: "pill block dome"}),
            _parts("cap", {None: "ball cube"}),
            _BACKGROUND,
        ),
    ),
    Style(
        "critters",
        "object",
        0.05,
        ("object", "monster"),
        {**_without("pattern", "cheeks"), "animationVariant": ["none"]},
        (
            _parts("body", {None: "dome block bell"}),
            _parts("top", {"horns": "horns", "antenna": "antenna", "ears": "earsRound"}),
            _parts("eyes", {None: "round", "one eye": "mono", "three eyes": "trio"}),
            _parts("mouth", {None: "smile zigzag frown"}),
            _colour("bodyColor", THING_COLOURS, "monster"),
            _unnamed_colour("accentColor", ("fda4af", "a5b4fc")),
            _BACKGROUND,
        ),
    ),
    Style(
        "landscape",
        "scenery",
        0.055,
        ("scenery", "hills"),
        {"animationVariant": ["none"]},
        (
            Choice({"sun": [{"orbProbability": 100, "orbVariant": ["sun"]}], None: [_without("orb")]}),
            *(_parts(f"hill{i}", {None: "gentle peak rolling"}) for i in (1, 2, 3, 4)),
            _BACKGROUND,
        ),
        continuous=True,
    ),
    Style(
        "planets",
        "scenery",
        0.055,
        ("scenery", "planet"),
        {**_without("moons"), "animationVariant": ["none"], "shadeVariant": ["soft"]},
        (
            Choice({"ring": [{"ringProbability": 100, "ringVariant": ["bold"]}], None: [_without("ring")]}),
            _parts("surface", {"banded": "banded", "cratered": "cratered"}),
            _colour("planetColor", THING_COLOURS, "planet"),
            _BACKGROUND,
        ),
        continuous=True,
    ),
    Style(
        "stripes",
        "pattern",
        0.04,
        ("pattern", "stripes"),
        {},
        (_unnamed_colour("stripeColor", ("000000", "ffffff")), _BACKGROUND),
        redefined={"body": {"rotate": {"min": 0, "max": 135, "step": 45}}},
        continuous=True,
    ),
    Style(
        "waves",
        "pattern",
        0.035,
        ("pattern", "waves"),
        {"animationVariant": ["none"], "rotationVariant": ["none"], "bodyVariant": ["quartet"]},
        (
            _parts("layer", {None: "calm rolling swell"}),
            _unnamed_colour("waveColor", ("000000", "ffffff")),
            _BACKGROUND,
        ),
        continuous=True,
    ),
    Style(
        "patchwork",
        "pattern",
        0.035,
        ("pattern", "patchwork"),
        {},
        (
            _parts("block", {"pinwheels": "pinwheel", "circles": "rings", "hourglasses": "hourglass"}),
            _unnamed_colour("fabricAColor", ("c65b47", "b0413e", "d9776b", "c97ba5")),
            _unnamed_colour("fabricBColor", ("4a7a63", "33415c", "37718e", "6b8f5a")),
            _unnamed_colour("fabricCColor", ("d9a441", "e0b653", "c98a3d")),
            _BACKGROUND,
        ),
    ),
)


@cache
def definition(name: str) -> dict[str, Any]:
    """The dicebear definition of a style with tinybooru's redefinitions. Treat it as read-only.

    Variants that tinybooru never draws are left out: dicebear validates a definition for as long as it is
    large (0.7 s for all of adventurer), and every deformed style is a separate definition.
    """
    drawing: dict[str, Any] = json.loads(files("dicebear_styles").joinpath(f"{name}.json").read_text("utf-8"))
    style = next(style for style in STYLES if style.name == name)
    drawn = _drawn_variants(style)
    for part, component in drawing["components"].items():
        if part in drawn:
            component["variants"] = {v: component["variants"][v] for v in sorted(drawn[part])}
    for part, changes in style.redefined.items():
        drawing["components"][part].update(changes)
    return drawing


def _drawn_variants(style: Style) -> dict[str, set[str]]:
    drawn: dict[str, set[str]] = {}
    alternatives = [o for choice in style.choices for values in choice.named.values() for o in values]
    for options in (style.fixed, *alternatives):
        for option, value in options.items():
            if option.endswith("Variant"):
                drawn.setdefault(option.removesuffix("Variant"), set()).update(value)
    return drawn


@dataclass(frozen=True)
class Credit:
    """Who drew a style, where it comes from and under which licence, from the style's own definition."""

    style: str
    creator: str
    source: str
    licence: str
    licence_url: str


def credits() -> list[Credit]:
    """Credits of every dicebear style in use; the others are this project's own.

    Raises ValueError where a style's licence is not one of OPEN_LICENCES, so that an update of
    dicebear-styles that changes a licence is noticed before an image is drawn.
    """
    found = []
    for style in STYLES:
        if style.own:
            continue
        meta = definition(style.name)["meta"]
        licence = meta["license"]["name"]
        if licence not in OPEN_LICENCES:
            raise ValueError(f"style '{style.name}' is under '{licence}'; only {OPEN_LICENCES} may be used")
        found.append(
            Credit(style.name, meta["creator"]["name"], meta["source"]["url"], licence, meta["license"]["url"])
        )
    return found
