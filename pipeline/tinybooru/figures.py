"""People drawn by this project's own code, whose structure can be counted: waving hands and full figures.

A dicebear head is learnt within minutes; a hand of five thin digits is not. `greeting` is a half-figure that waves with
a big hand, `paperdoll` a full figure with arms and legs. How many digits or limbs there are is decided by the plan, so
it is exact; lengths, angles, spread and pose are drawn from the image's own generator, so no two images are alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.tinybooru.colours import BACKGROUNDS, HAIR_COLOURS, SHIRT_COLOURS

GREETING, PAPERDOLL = "greeting", "paperdoll"
SOUND_DIGITS, SOUND_ARMS, SOUND_LEGS = 5, 2, 2
VIEW = 64  # the side of the drawing's own coordinates

LONG_HAIR = ("straight", "waves", "ponytail")
SHORT_HAIR = ("cap", "spikes", "curls")
MOUTHS = ("smile", "frown", "open mouth")
EYES = ("dots", "wide", "closed")
# How a deformed head sits: (dx, dy) in units of its radius, turn in degrees, scale. A moved eye or mouth would be a few
# pixels that a low quality hides.
DEFORMATIONS: dict[str, tuple[float, float, float, float]] = {
    "tilted": (0.0, 0.0, 100.0, 1.0),
    "upside down": (0.0, 0.0, 180.0, 1.0),
    "off": (-0.75, 0.35, 0.0, 1.0),
    "huge": (0.0, 0.1, 0.0, 1.45),
}


@dataclass(frozen=True)
class Structure:
    """What can be counted; None where the drawing has no such part to count."""

    digits: int | None = None
    arms: int | None = None
    legs: int | None = None

    @property
    def sound(self) -> bool:
        """Whether every count is the one that a person has."""
        return (
            self.digits in (None, SOUND_DIGITS) and self.arms in (None, SOUND_ARMS) and self.legs in (None, SOUND_LEGS)
        )


def structure(style: str, options: Mapping[str, Any]) -> Structure:
    """The exact counts of a figure planned with these options; empty for any other style."""
    if style == GREETING:
        return Structure(digits=int(options["digits"]) - len(options["missing"]))
    if style == PAPERDOLL:
        return Structure(arms=int(options["arms"]), legs=int(options["legs"]))
    return Structure()


def svg(
    style: str, options: Mapping[str, Any], deformations: Sequence[tuple[str, str]], rng: np.random.Generator
) -> str:
    """The drawing of a greeting or a paperdoll as SVG, 64x64 units. Raises KeyError for another style."""
    body = {GREETING: _greeting, PAPERDOLL: _paperdoll}[style](options, dict(deformations).get("head"), rng)
    if options["mirrored"]:
        body = f'<g transform="translate({VIEW},0) scale(-1,1)">{body}</g>'
    background = BACKGROUNDS[options["background"]]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{VIEW}" height="{VIEW}" viewBox="0 0 {VIEW} {VIEW}">'
        f'<rect width="{VIEW}" height="{VIEW}" fill="#{background}"/>{body}</svg>'
    )


def _shade(colour: str, factor: float) -> str:
    """A hex colour made darker (factor < 1)."""
    return "".join(f"{round(int(colour[i : i + 2], 16) * factor):02x}" for i in (0, 2, 4))


def _line(colour: str) -> str:
    # Dark skin needs an outline that can still be told from the fill.
    value = sum(int(colour[i : i + 2], 16) for i in (0, 2, 4)) / 3
    return _shade(colour, 0.5 if value > 90 else 0.3)


def _path(d: str, fill: str, line: str, width: float = 1.0) -> str:
    return f'<path d="{d}" fill="#{fill}" stroke="#{line}" stroke-width="{width}" stroke-linejoin="round"/>'


def _capsule(x: float, y: float, angle: float, length: float, width: float, fill: str, line: str) -> str:
    """A rounded bar from (x, y) along `angle` (degrees clockwise from straight up)."""
    return (
        f'<g transform="translate({x:.2f},{y:.2f}) rotate({angle:.2f})"><rect x="{-width / 2:.2f}" y="{-length:.2f}" '
        f'width="{width:.2f}" height="{length + width / 2:.2f}" rx="{width / 2:.2f}" fill="#{fill}" '
        f'stroke="#{line}" stroke-width="0.9"/></g>'
    )


def _hand(x: float, y: float, angle: float, options: Mapping[str, Any], rng: np.random.Generator) -> str:
    """An open hand seen from the palm, its wrist at (x, y), the thumb on the left; fingers point along `angle`."""
    skin = options["skin"]
    line = _line(skin)
    fingers = int(options["digits"]) - 1
    missing = set(options["missing"])
    size = rng.uniform(0.9, 1.08)
    # The fan is as wide for three fingers as for six, up to a limit: the gaps tell how many there are.
    step = float(np.clip(rng.uniform(46, 62) / max(fingers - 1, 1), 8.5, 17))
    width = float(np.clip(17.5 / fingers, 3.0, 4.0))
    palm_width = float(np.clip(fingers * (width + 0.25), 12.0, 16.5))
    palm_height = 13.0
    middle = (fingers - 1) / 2
    lengths = 12.5 - 0.9 * np.abs(np.arange(fingers) - middle) ** 1.5 + rng.uniform(-1.1, 1.1, fingers)
    parts = []
    for k in range(fingers):
        if k + 1 in missing:
            continue
        turn = (k - middle) * step + rng.uniform(-1.2, 1.2)
        base_x = (k - middle) * (palm_width - width) / max(fingers - 1, 1)
        base_y = -palm_height + 1.2 + 0.35 * abs(k - middle) ** 1.6
        parts.append(_capsule(base_x, base_y, turn, float(lengths[k]), width, skin, line))
    thumb = rng.uniform(52, 72)
    thumb_length = rng.uniform(10.0, 12.0)
    if 0 not in missing:
        parts.append(_capsule(-palm_width / 2 + 2.6, -4.5, -thumb, thumb_length, 4.1, skin, line))
    left, right, top = -palm_width / 2, palm_width / 2, -palm_height
    palm = (
        f"M{left + 2:.2f} 1.5 Q{left - 0.6:.2f} -4 {left:.2f} {top + 2.5:.2f} Q{left + 0.4:.2f} {top:.2f} "
        f"{left + 2.5:.2f} {top:.2f} L{right - 2.5:.2f} {top:.2f} Q{right - 0.2:.2f} {top:.2f} {right:.2f} "
        f"{top + 2.5:.2f} Q{right + 0.4:.2f} -4 {right - 2:.2f} 1.5 Z"
    )
    parts.append(_path(palm, skin, line, 0.9))
    # The fingers and the thumb grow out of the palm: no line between.
    parts.append(
        f'<rect x="{left + 0.7:.2f}" y="{top + 0.1:.2f}" width="{palm_width - 1.4:.2f}" height="{palm_height:.2f}" '
        f'rx="3" fill="#{skin}"/>'
    )
    crease = _shade(skin, 0.8)
    parts.append(
        f'<path d="M{left + 3:.2f} -7.5 Q0 -9.5 {right - 3:.2f} -7" fill="none" stroke="#{crease}" stroke-width="0.7"/>'
    )
    return f'<g transform="translate({x:.2f},{y:.2f}) rotate({angle:.2f}) scale({size:.3f})">{"".join(parts)}</g>'


def _head(x: float, y: float, radius: float, options: Mapping[str, Any], deformation: str | None) -> str:
    """A head with its centre at (x, y): back hair, ears, face, features, front hair, eyewear."""
    skin, hair = options["skin"], HAIR_COLOURS[options["hair"]]
    line, hair_line = _line(skin), _shade(hair, 0.6)
    cut = options["hairstyle"]
    back = {
        "straight": "M-1.12 -0.2 Q-1.1 -1.15 0 -1.15 Q1.1 -1.15 1.12 -0.2 L1.2 1.35 Q0.6 1.5 0 1.4 "
        "Q-0.6 1.5 -1.2 1.35 Z",
        "waves": "M-1.05 -0.3 Q-1.1 -1.15 0 -1.15 Q1.1 -1.15 1.05 -0.3 Q1.5 0.1 1.2 0.5 Q1.55 0.95 1.1 1.3 "
        "Q0.7 1.5 0.4 1.3 L-0.4 1.3 Q-0.7 1.5 -1.1 1.3 Q-1.55 0.95 -1.2 0.5 Q-1.5 0.1 -1.05 -0.3 Z",
        "ponytail": "M-0.6 -0.8 Q-1.9 -1.1 -1.75 0.1 Q-1.65 0.9 -1.25 1.2 Q-1.3 0.3 -0.8 -0.1 Z",
    }.get(cut, "")
    front = {
        "straight": "M-1.08 0.25 Q-1.2 -1.12 0 -1.14 Q1.2 -1.12 1.08 0.25 Q0.85 -0.35 0.55 -0.55 Q0 -0.3 -0.55 -0.55 "
        "Q-0.85 -0.35 -1.08 0.25 Z",
        "waves": "M-1.06 0.2 Q-1.2 -1.14 0.1 -1.14 Q1.2 -1.1 1.06 0.2 Q0.95 -0.4 0.3 -0.75 Q-0.3 -0.3 -1.06 0.2 Z",
        "ponytail": "M-1.05 0 Q-1.1 -1.12 0 -1.14 Q1.1 -1.12 1.05 0 Q0.8 -0.6 0 -0.62 Q-0.8 -0.6 -1.05 0 Z",
        "cap": "M-1.04 -0.1 Q-1.08 -1.14 0 -1.16 Q1.08 -1.14 1.04 -0.1 Q0.7 -0.55 0 -0.5 Q-0.7 -0.55 -1.04 -0.1 Z",
        "spikes": "M-1.05 0 L-1.25 -0.75 L-0.8 -0.7 L-0.75 -1.35 L-0.25 -1 L0.05 -1.5 L0.35 -1 L0.85 -1.3 L0.85 -0.7 "
        "L1.25 -0.7 L1.05 0 Q0.6 -0.6 0 -0.55 Q-0.6 -0.6 -1.05 0 Z",
        "curls": "M-1.1 0.1 Q-1.5 -0.2 -1.15 -0.5 Q-1.3 -0.95 -0.8 -0.95 Q-0.6 -1.4 -0.15 -1.15 Q0.3 -1.45 0.6 -1.05 "
        "Q1.1 -1.1 1.1 -0.6 Q1.5 -0.3 1.1 0.1 Q0.8 -0.5 0.3 -0.5 Q-0.4 -0.45 -1.1 0.1 Z",
    }[cut]
    stroke = 1.0 / radius

    def curve(d: str, fill: str, outline: str) -> str:
        return _path(d, fill, outline, stroke)

    parts = [curve(back, hair, hair_line) if back else ""]
    for side in (-1, 1):
        parts.append(
            f'<circle cx="{side * 1.0}" cy="0.12" r="0.2" fill="#{skin}" stroke="#{line}" stroke-width="{stroke:.3f}"/>'
        )
    parts.append(
        f'<ellipse cx="0" cy="0" rx="1" ry="1.04" fill="#{skin}" stroke="#{line}" stroke-width="{stroke:.3f}"/>'
    )
    parts.append(_mouth(options["mouth"]))
    eyewear = options["eyewear"]
    if eyewear != "sunglasses":
        parts.append(_eyes(options["eyes"]))
    parts.append(curve(front, hair, hair_line))
    if eyewear == "glasses":
        parts += [
            f'<circle cx="{side * 0.42}" cy="0.1" r="0.31" fill="#ffffff" fill-opacity="0.35" stroke="#101010" '
            f'stroke-width="{1.1 / radius:.3f}"/>'
            for side in (-1, 1)
        ]
        parts.append(f'<path d="M-0.11 0.08 h0.22" stroke="#101010" stroke-width="{1.1 / radius:.3f}"/>')
    if eyewear == "sunglasses":
        parts.append(
            '<path d="M-0.82 -0.12 h1.64 l-0.08 0.38 q-0.34 0.22 -0.62 -0.16 h-0.24 q-0.28 0.38 -0.62 0.16 Z" '
            'fill="#101010"/>'
        )
    dx, dy, turn, scale = (0.0, 0.0, 0.0, 1.0) if deformation is None else DEFORMATIONS[deformation]
    x, y, radius = x + dx * radius, y + dy * radius, radius * scale
    return f'<g transform="translate({x:.2f},{y:.2f}) rotate({turn:g}) scale({radius:.2f})">{"".join(parts)}</g>'


def _eyes(kind: str) -> str:
    if kind == "closed":
        arcs = "".join(f"M{x - 0.18} 0.12 Q{x} -0.1 {x + 0.18} 0.12 " for x in (-0.42, 0.42))
        return f'<path d="{arcs}" fill="none" stroke="#181818" stroke-width="0.12" stroke-linecap="round"/>'
    white = "".join(f'<ellipse cx="{x}" cy="0.1" rx="0.2" ry="0.24" fill="#ffffff"/>' for x in (-0.42, 0.42))
    dots = "".join(f'<circle cx="{x}" cy="0.1" r="0.14" fill="#181818"/>' for x in (-0.42, 0.42))
    return white + dots if kind == "wide" else dots


def _mouth(kind: str) -> str:
    if kind == "open mouth":
        return '<ellipse cx="0" cy="0.6" rx="0.22" ry="0.2" fill="#7a1f1f"/>'
    d = "M-0.36 0.52 Q0 0.86 0.36 0.52" if kind == "smile" else "M-0.32 0.72 Q0 0.42 0.32 0.72"
    return f'<path d="{d}" fill="none" stroke="#5a1515" stroke-width="0.13" stroke-linecap="round"/>'


def _greeting(options: Mapping[str, Any], deformation: str | None, rng: np.random.Generator) -> str:
    skin, shirt = options["skin"], SHIRT_COLOURS[options["shirt"]]
    line, shirt_line = _line(skin), _shade(shirt, 0.6)
    x, y = 18.5 + rng.uniform(-1.5, 1.5), 26 + rng.uniform(-1.5, 1.5)
    wrist_x, wrist_y = 47 + rng.uniform(-1.5, 1.5), 44.5 + rng.uniform(-2, 2)
    lean = rng.uniform(-12, 11)
    elbow_x = wrist_x - 2 + rng.uniform(-1.5, 1.5)
    torso = (
        f"M{x - 18:.1f} 66 Q{x - 17:.1f} 47 {x - 6:.1f} 44.5 L{x + 6:.1f} 44.5 Q{x + 17:.1f} 46.5 {x + 18.5:.1f} 66 Z"
    )
    parts = [
        _path(f"M{x - 4:.1f} 34 h8 v9.5 q-4 4.5 -8 0 Z", skin, line),
        _path(torso, shirt, shirt_line),
        f'<path d="M{x - 4.5:.1f} 44.3 q4.5 5 9 0 Z" fill="#{skin}" stroke="#{line}" stroke-width="0.8"/>',
        # Forearm, then the sleeve over its lower half.
        _path(
            f"M{wrist_x - 4:.1f} {wrist_y:.1f} L{wrist_x + 4:.1f} {wrist_y:.1f} L{elbow_x + 5:.1f} 67 "
            f"L{elbow_x - 5:.1f} 67 Z",
            skin, line, 0.9,
        ),
        _path(
            f"M{wrist_x - 5.4:.1f} {wrist_y + 8:.1f} L{wrist_x + 5.2:.1f} {wrist_y + 8:.1f} L{elbow_x + 7:.1f} 67 "
            f"L{x + 9:.1f} 67 L{x + 13:.1f} 60 Z",
            shirt, shirt_line,
        ),
        _head(x, y, 11.2, options, deformation),
        _hand(wrist_x, wrist_y, lean, options, rng),
    ]  # fmt: skip
    return "".join(parts)


def _limb(points: Sequence[tuple[float, float]], width: float, fill: str, line: str) -> str:
    d = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return "".join(
        f'<path d="{d}" fill="none" stroke="#{colour}" stroke-width="{w:.1f}" stroke-linecap="round" '
        'stroke-linejoin="round"/>'
        for colour, w in ((line, width + 1.8), (fill, width))
    )


# Directions of limbs from their joint, degrees clockwise from straight down, towards the viewer's right; so far apart
# that no two limbs of one side hide each other.
_ARM_SLOTS = {"down": 28.0, "out": 82.0, "up": 128.0}
_LEG_SLOTS = {2: (-15.0, 15.0), 1: (4.0,), 3: (-27.0, 0.0, 27.0)}


def _paperdoll(options: Mapping[str, Any], deformation: str | None, rng: np.random.Generator) -> str:
    skin, shirt, trousers = (
        options["skin"], SHIRT_COLOURS[options["shirt"]], SHIRT_COLOURS[options["trousers"]],
    )  # fmt: skip
    skin_line, shirt_line, trouser_line = _line(skin), _shade(shirt, 0.6), _shade(trousers, 0.55)
    x, y = 32 + rng.uniform(-2, 2), rng.uniform(-1, 1)
    parts = []
    for angle in _LEG_SLOTS[int(options["legs"])]:
        turn = math.radians(angle + rng.uniform(-4, 4))
        hip_x, hip_y = x + angle / 7, 41 + y
        knee = (hip_x + 9 * math.sin(turn), hip_y + 9 * math.cos(turn))
        bend = math.radians(angle * 0.5 + rng.uniform(-5, 5))
        foot = (knee[0] + 8.5 * math.sin(bend), knee[1] + 8.5 * math.cos(bend))
        parts.append(_limb([(hip_x, hip_y), knee, foot], 4.4, trousers, trouser_line))
        toe = 1.0 if angle >= 0 else -1.0
        parts.append(f'<ellipse cx="{foot[0] + toe:.1f}" cy="{foot[1] + 1.6:.1f}" rx="3.6" ry="2.1" fill="#2b2b2b"/>')
    for side, slot in options["arm_slots"]:
        turn = math.radians(_ARM_SLOTS[slot] + rng.uniform(-8, 8))
        joint = (x + side * 6.2, 25.5 + y)
        bend = turn + math.radians(rng.uniform(-16, 16))
        elbow = (joint[0] + side * 8 * math.sin(turn), joint[1] + 8 * math.cos(turn))
        wrist = (elbow[0] + side * 7.5 * math.sin(bend), elbow[1] + 7.5 * math.cos(bend))
        parts.append(_limb([elbow, wrist], 3.2, skin, skin_line))
        parts.append(_limb([joint, elbow], 4.2, shirt, shirt_line))
        parts.append(
            f'<circle cx="{wrist[0]:.1f}" cy="{wrist[1]:.1f}" r="2.7" fill="#{skin}" stroke="#{skin_line}" '
            'stroke-width="0.9"/>'
        )
    top, hem = 22.5 + y, 42.5 + y
    parts.append(
        _path(
            f"M{x - 6:.1f} {top:.1f} Q{x:.1f} {top - 2:.1f} {x + 6:.1f} {top:.1f} L{x + 5.6:.1f} {hem:.1f} "
            f"Q{x:.1f} {hem + 1.5:.1f} {x - 5.6:.1f} {hem:.1f} Z",
            shirt, shirt_line,
        )
    )  # fmt: skip
    parts.append(_head(x, 13.2 + y, 8.4, options, deformation))
    return "".join(parts)


def arm_slots(arms: int, rng: np.random.Generator) -> tuple[tuple[int, str], ...]:
    """Side (-1 or 1) and pose of each of `arms` arms (1 to 3); a third one shares a side with room between."""
    first, second = (int(s) for s in rng.permutation([-1, 1]))
    poses = tuple(_ARM_SLOTS)
    taken = [(first, str(rng.choice(poses))), (second, str(rng.choice(poses)))]
    if arms == 3:
        taken[0] = (first, "down")
        taken.append((first, str(rng.choice(("out", "up")))))
    return tuple(taken[:arms])
