"""The browser behind the images in the documentation."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from pipeline.errors import InputError


@contextmanager
def opened_chromium() -> Iterator[Browser]:
    """Debian's Chromium without a window. Raises InputError where it is not installed."""
    path = shutil.which("chromium")
    if path is None:
        raise InputError("chromium is missing; `apt-get install --no-install-recommends chromium` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def small_png(image: Image.Image) -> bytes:
    """A screenshot as PNG of 256 colours, which leaves text sharp."""
    buffer = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()
