"""Opening pictures that may come from somebody else: of few formats, and no larger than a canvas can be."""

import io
import struct
import zlib

from PIL import Image, ImageOps

# The largest canvas, 4096 x 4096 (sampler.py). A PNG of a few kilobytes can declare a thousand times that.
MOST_PIXELS = 4096**2
# What Pillow raises, beside OSError, for chunks that are damaged or cut.
DAMAGED = (SyntaxError, ValueError, TypeError, LookupError, OverflowError, struct.error, zlib.error)


def open_picture(content: bytes | None, formats: tuple[str, ...] = ("PNG",)) -> Image.Image:
    """A picture of an image set, whose pixels are decoded when they are asked for.

    Raises OSError, as Pillow does for what it cannot read, for other `formats` and for more pixels than MOST_PIXELS;
    so does decoding for what is damaged.
    """
    if content is None:
        raise OSError("there are no bytes of it")
    try:
        # Pillow would try 40 formats, of which one runs another program (EPS).
        image = Image.open(io.BytesIO(content), formats=formats)
    # A damaged header; and Pillow's own bound, which is a warning up to 179 million pixels.
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from None
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise OSError(f"it has {width}x{height} pixels; {MOST_PIXELS} are the most that are read")
    return image


def decode_picture(content: bytes | None) -> Image.Image:
    """The RGB pixels of a picture. Raises OSError."""
    image = open_picture(content)
    try:
        return image.convert("RGB")
    except DAMAGED as error:
        raise OSError(str(error)) from None


def decode_photograph(content: bytes | None) -> Image.Image:
    """The RGB pixels of a PNG, JPEG or WebP picture, upright where it says how the camera was held. Raises OSError."""
    image = open_picture(content, ("PNG", "JPEG", "WEBP"))
    try:
        return ImageOps.exif_transpose(image).convert("RGB")
    except DAMAGED as error:
        raise OSError(str(error)) from None
