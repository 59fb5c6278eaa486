"""Opening images that may come from somebody else: of few formats, no larger than a canvas can be, in known colours."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, PngImagePlugin, UnidentifiedImageError

_NAMES = {"WEBP": "WebP"}
# The largest canvas, 4096 x 4096 (sampler.py). A PNG of a few kilobytes can declare a thousand times that.
MOST_PIXELS = 4096**2
# What Pillow raises, beside OSError, for chunks that are damaged or cut.
DAMAGED = (SyntaxError, ValueError, TypeError, LookupError, OverflowError, struct.error, zlib.error)
# The most that one compressed text or colour profile of a PNG may unpack to. Pillow's own bound, 1 MiB, is less than
# a ComfyUI workflow may have; all texts of a file together stay within Pillow's 64 MiB.
MOST_TEXT = 16 * 2**20
PngImagePlugin.MAX_TEXT_CHUNK = MOST_TEXT
# What shows where an image is transparent (docs/decisions.md).
BACKDROP = "white"
# The space of a colour profile that goes with each mode.
_PROFILED = {"RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK", "L": "GRAY"}
# What PNG's gAMA says of values that need no change, 1 / 2.2, and how far it may be from that.
_GAMMA, _NEAR = 1 / 2.2, 0.01
_LFS = b"version https://git-lfs.github.com/spec/"
# The levels between neighbours, of 255, in a PNG of 2 or 4 bits.
_GREY_STEP = {"L;2": 85, "L;4": 17}


def open_image(content: bytes | None, formats: tuple[str, ...] = ("PNG",)) -> Image.Image:
    """An image of an image set, whose pixels are decoded when they are asked for.

    Raises OSError, as Pillow does for what it cannot read, for other `formats` and for more pixels than MOST_PIXELS;
    so does decoding for what is damaged.
    """
    if content is None:
        raise OSError("there are no bytes of it")
    try:
        # Pillow would try 40 formats, of which one runs another program (EPS).
        image = Image.open(io.BytesIO(content), formats=formats)
        _check_transparent_colour(image)
    except UnidentifiedImageError:
        kinds = " or ".join(", ".join(_NAMES.get(kind, kind) for kind in formats).rsplit(", ", 1))
        what = "a pointer of Git LFS, not the image itself; run `git lfs pull`" if content.startswith(_LFS) else ""
        raise OSError(f"it is {what or f'not a {kinds} image, or its header is damaged'}") from None
    # A damaged header; and Pillow's own bound, which is a warning up to 179 million pixels.
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise _unreadable(error) from None
    if image.mode == "P" and image.palette is None:
        raise OSError("its mode is P, and it has no palette")
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise OSError(f"it has {width}x{height} pixels; at most {MOST_PIXELS} are read")
    return image


def decode_image(content: bytes | None) -> Image.Image:
    """The RGB pixels of an image, as `to_rgb` reads them. Raises OSError."""
    image = open_image(content)
    try:
        return to_rgb(image)
    except DAMAGED as error:
        raise _unreadable(error) from None


def decode_photograph(content: bytes | None) -> Image.Image:
    """The sRGB pixels of a PNG, JPEG or WebP image, upright where it says how the camera was held. Raises OSError."""
    image = open_image(content, ("PNG", "JPEG", "WEBP"))
    try:
        image.load()
        return to_rgb(_in_srgb(_upright(image)))
    except DAMAGED as error:
        raise _unreadable(error) from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGED:  # of its EXIF, without which viewers show it as it lies
        return image


def _in_srgb(image: Image.Image) -> Image.Image:
    """The image with its colour profile (ICC) or else its gamma (PNG's gAMA) applied; with neither it is in sRGB."""
    profile, power = image.info.get("icc_profile"), _power(image)
    if profile is None and power == 1:
        return image
    if image.mode == "P" or (image.mode == "RGB" and image.has_transparency_data):
        # A palette's colours, and one that is declared transparent, before they change.
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if profile is not None:
        return _by_profile(image, profile)
    colours = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3}.get(image.mode)
    if colours is None or "transparency" in image.info:
        return image
    curve = [round(255 * (v / 255) ** power) for v in range(256)]
    return image.point([*curve * colours, *range(256)] if image.mode.endswith("A") else curve * colours)


def _power(image: Image.Image) -> float:
    """The power that brings the values of a PNG to those of sRGB, by its gAMA; sRGB's own mark counts before it."""
    gamma = float(image.info.get("gamma") or _GAMMA)
    return 1 if "srgb" in image.info or gamma < 0 or abs(gamma - _GAMMA) < _NEAR else _GAMMA / gamma


def _by_profile(image: Image.Image, content: bytes) -> Image.Image:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        about = profile.profile
        # Profiles of sRGB itself differ by what they round, and viewers take them as one.
        if about.xcolor_space.strip() != _PROFILED.get(image.mode) or "sRGB" in (about.profile_description or ""):
            return image
        found = ImageCms.profileToProfile(
            image,
            profile,
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent(about.rendering_intent),
            "RGBA" if image.mode == "RGBA" else "RGB",
        )
    except (OSError, ValueError, ImageCms.PyCMSError):  # viewers do without a profile that they cannot read
        return image
    assert found is not None  # it is in place that gives None
    return found


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB with 8 bits: v / 257 of 16 bits, and BACKDROP where it is transparent.

    Raises OSError that names the mode where it does not say which values are black and white.
    """
    if image.mode not in _TO_RGB:
        reason = _REFUSED.get(image.mode, "which is unknown here")
        raise OSError(f"its mode is {image.mode}, {reason}; save it in RGB with 8 bits")
    return _TO_RGB[image.mode](image)


def _unreadable(error: Exception) -> OSError:
    text = str(error)
    if "MAX_TEXT" in text:  # Pillow names its constants
        each, together = (bound // 2**20 for bound in (MOST_TEXT, PngImagePlugin.MAX_TEXT_MEMORY))
        text = f"a text or colour profile in it unpacks to more than {each} MiB, or all to {together}; save it without"
    return OSError(text)


def _check_transparent_colour(image: ImageFile.ImageFile) -> None:
    """Bring the colour that a PNG declares transparent (tRNS) to the levels of its decoded pixels.

    Pillow compares it as it stands in the file with pixels that are already scaled to 8 bits. Raises OSError where
    scaling has merged it with other colours.
    """
    if image.format != "PNG" or "transparency" not in image.info:
        return
    stored = image.tile[0].args if image.tile else None
    if stored == "RGB;16B":
        raise OSError(
            "it has 16 bits per channel and declares one colour transparent, which are no longer exact in 8 bits; save "
            "it with an alpha channel"
        )
    if isinstance(stored, str) and stored in _GREY_STEP:
        image.info["transparency"] *= _GREY_STEP[stored]


def _direct(image: Image.Image) -> Image.Image:
    return _on_backdrop(image) if image.has_transparency_data else image.convert("RGB")


def _on_backdrop(image: Image.Image) -> Image.Image:
    colours = image.convert("RGBA")
    sheet = Image.new("RGB", image.size, BACKDROP)
    sheet.paste(colours, mask=colours)
    return sheet


def _premultiplied(image: Image.Image) -> Image.Image:
    return _on_backdrop(image.convert(image.mode.upper()))


def _of_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)  # [H, W]; 65535 = 257 x 255
    grey = ((values + 128) // 257).astype(np.uint8)
    key = image.info.get("transparency")
    if key is not None:
        grey[values == key] = 255  # BACKDROP
    return Image.fromarray(grey).convert("RGB")


def _of_floats(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    # Not a number compares as False.
    if not (low >= 0 and high <= 255):
        raise OSError(f"its mode is F, with values from {low:g} to {high:g}; 0 to 1 and 0 to 255 are read")
    return Image.fromarray(np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)).convert("RGB")


# Every mode of Pillow is here or in _REFUSED; a test goes over those of the installed version.
_TO_RGB: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    **dict.fromkeys(("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"), _direct),
    **dict.fromkeys(("LA", "PA", "RGBA"), _on_backdrop),
    **dict.fromkeys(("La", "RGBa"), _premultiplied),
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), _of_16_bits),
    "F": _of_floats,
}
_REFUSED = {"I": "integers of 32 bits that do not say which is white"}
