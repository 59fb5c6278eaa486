"""What can be wrong with a tinybooru image, and how good its finish is.

The flaws of structure are drawn: `bad anatomy` really moves and deforms parts (through a copy of the dicebear
definition, or in figures.py), and bad hands and limbs have the wrong number of digits or limbs. The other flaws are
image operations. The quality tag names the finish: saturation, contrast and
softness fall from masterpiece to worst quality, so quality is visible and has one right answer.
"""

import copy
import io
from functools import cache
from typing import Any

import numpy as np
from dicebear import Style as DicebearStyle
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from pipeline.tinybooru.styles import definition

QUALITIES = ("masterpiece", "best quality", "high quality", "normal quality", "low quality", "worst quality")
GOOD_QUALITIES = QUALITIES[:3]
# (saturation, contrast, blur radius in pixels) of each quality.
_FINISH = {
    "masterpiece": (1.2, 1.05, 0.0),
    "best quality": (1.0, 1.0, 0.0),
    "high quality": (0.85, 0.97, 0.0),
    "normal quality": (0.65, 0.9, 0.0),
    "low quality": (0.42, 0.75, 0.4),
    "worst quality": (0.18, 0.55, 0.7),
}

BAD_ANATOMY = "bad anatomy"
BAD_HANDS, EXTRA_DIGIT, FEWER_DIGITS, MISSING_FINGERS = "bad hands", "extra digit", "fewer digits", "missing fingers"
EXTRA_LIMBS, MISSING_LIMB = "extra limbs", "missing limb"
# What can be wrong with the drawing itself: parts moved, or the wrong number of them.
STRUCTURE_FLAWS = (BAD_ANATOMY, BAD_HANDS, EXTRA_DIGIT, FEWER_DIGITS, MISSING_FINGERS, EXTRA_LIMBS, MISSING_LIMB)
IMAGE_FLAWS = (
    "lowres", "blurry", "jpeg artifacts", "cropped", "watermark", "text", "signature", "username", "artist name",
    "error",
)  # fmt: skip
FLAWS = (*STRUCTURE_FLAWS, *IMAGE_FLAWS)
# After these nobody can count digits or limbs.
UNCOUNTABLE = ("lowres", "blurry", "jpeg artifacts", "cropped", "error")

# Definition overrides of one part; ranges in degrees, or in percent of the part's own width and height.
DEFORMATIONS: dict[str, dict[str, Any]] = {
    "left": {"translate": {"x": {"min": -70, "max": -45}, "y": {"min": -10, "max": 10}}},
    "right": {"translate": {"x": {"min": 45, "max": 70}, "y": {"min": -10, "max": 10}}},
    "down": {"translate": {"x": {"min": -15, "max": 15}, "y": {"min": 60, "max": 90}}},
    "tilted": {"rotate": {"min": 55, "max": 125}},
    "upside down": {"rotate": {"min": 165, "max": 195}},
    "huge": {"scale": {"min": 1.9, "max": 2.4}},
    "missing": {"probability": 0},
}
# A bald head is a legitimate drawing and a missing mouth is a pixel or two, so each part has its own list.
DEFORMATIONS_OF_PART = {
    "hair": ("left", "right", "down", "tilted", "upside down"),
    "eyes": ("left", "right", "down", "huge", "missing"),
    "mouth": ("left", "right", "huge"),
    "mood": ("left", "right", "tilted", "upside down", "huge", "missing"),
    "glasses": ("tilted", "huge", "left", "right"),
    "accessories": ("tilted", "huge", "left", "right"),
}


@cache
def deformed_style(name: str, deformations: tuple[tuple[str, str], ...]) -> DicebearStyle:
    """The dicebear style with (part, deformation) applied; no deformation gives the style itself."""
    drawing = definition(name)
    if deformations:
        drawing = copy.deepcopy(drawing)
        for part, deformation in deformations:
            drawing["components"][part].update(DEFORMATIONS[deformation])
    return DicebearStyle(drawing)


def finish(image: Image.Image, quality: str) -> Image.Image:
    """Render the finish that `quality` names; RGB in, RGB out, the same canvas."""
    saturation, contrast, radius = _FINISH[quality]
    image = ImageEnhance.Color(image).enhance(saturation)
    image = ImageEnhance.Contrast(image).enhance(contrast)
    return image.filter(ImageFilter.GaussianBlur(radius)) if radius else image


def _lowres(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = int(rng.integers(14, 19))
    return image.resize((side, side), Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def _blurry(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.8, 2.8))))


def _jpeg_artifacts(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=int(rng.integers(2, 8)))
    return Image.open(buffer).convert("RGB")


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    side = int(width * rng.uniform(0.42, 0.55))
    # Corners only: a centred crop of a portrait is a close-up, not a cut-off image.
    left = int(rng.choice((0, width - side)))
    top = int(rng.choice((0, height - side)))
    return image.crop((left, top, left + side, top + side)).resize((width, height), Image.Resampling.BICUBIC)


def _watermark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    overlay = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(overlay)
    step, shade = int(rng.integers(12, 17)), int(rng.choice((0, 255)))
    offsets = range(-height, width, step)
    for start in offsets:
        draw.line((start, height, start + height, 0), fill=(shade, shade, shade, 110), width=2)
    return Image.alpha_composite(image.convert("RGBA"), overlay).convert("RGB")


def _text(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    letters = "".join(chr(ord("A") + int(i)) for i in rng.integers(0, 26, 5))
    draw = ImageDraw.Draw(image)
    top = int(rng.integers(0, 2)) * (height - 16)
    draw.rectangle((0, top, width, top + 15), fill=(255, 255, 255))
    draw.text((width // 2, top + 8), letters, fill=(0, 0, 0), font=ImageFont.load_default(15), anchor="mm")
    return image


def _signature(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A scribble in a lower corner."""
    width, height = image.size
    left = int(rng.choice((3, width - 25)))
    x = np.linspace(left, left + 22, 12)
    y = height - 7 + 4 * np.sin(np.linspace(0, rng.uniform(9, 14), 12) + rng.uniform(0, 6))
    draw = ImageDraw.Draw(image)
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    draw.line(points, fill=(255, 255, 255), width=3, joint="curve")
    draw.line(points, fill=(20, 20, 20), width=1, joint="curve")
    return image


def _letters(count: int, rng: np.random.Generator) -> str:
    return "".join(chr(ord("a") + int(i)) for i in rng.integers(0, 26, count))


def _username(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A handle in small white letters on a dark strip at the lower edge."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height - 9, width, height), fill=(30, 30, 30))
    draw.text(
        (2, height - 5), f"@{_letters(6, rng)}", fill=(255, 255, 255), font=ImageFont.load_default(9), anchor="lm"
    )
    return image


def _artist_name(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A name in small dark letters, written upwards along the left edge."""
    height = image.height
    strip = Image.new("RGB", (height, 10), (255, 255, 255))
    name = f"by {_letters(5, rng)}"
    ImageDraw.Draw(strip).text((height // 2, 5), name, fill=(0, 0, 0), font=ImageFont.load_default(9), anchor="mm")
    image.paste(strip.rotate(90, expand=True), (0, 0))
    return image


def _error(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A transmission gone wrong: bands of rows shifted sideways, their colours swapped."""
    pixels = np.asarray(image).copy()
    for _ in range(3):
        top, rows = int(rng.integers(0, len(pixels) - 12)), int(rng.integers(5, 11))
        band = np.roll(pixels[top : top + rows], int(rng.integers(10, 40)), axis=1)
        pixels[top : top + rows] = band[:, :, [2, 0, 1]]
    return Image.fromarray(pixels)


_OPERATIONS = {
    "signature": _signature,
    "username": _username,
    "artist name": _artist_name,
    "error": _error,
    "lowres": _lowres,
    "blurry": _blurry,
    "jpeg artifacts": _jpeg_artifacts,
    "cropped": _cropped,
    "watermark": _watermark,
    "text": _text,
}


def apply(image: Image.Image, flaws: tuple[str, ...], rng: np.random.Generator) -> Image.Image:
    """Apply the image flaws among `flaws` in a fixed order (those of the structure are drawn, not applied)."""
    for flaw in IMAGE_FLAWS:
        if flaw in flaws:
            image = _OPERATIONS[flaw](image, rng)
    return image
