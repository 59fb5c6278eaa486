"""Images small enough for the page."""

import base64
import io

from PIL import Image

# The gallery shows images at 96 CSS pixels, and screens have up to two pixels for each.
LONGEST_SIDE = 192
QUALITY = 90


def thumbnail(image: Image.Image) -> str:
    """A WebP copy of an RGB image as base64, at most `LONGEST_SIDE` pixels wide and high, never enlarged."""
    copy = image.copy()
    copy.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    copy.save(buffer, "webp", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
