"""The README's image of the report: `python -m docs.report_image` writes docs/report.png from reports/index.html.

It is the first screen as Chromium shows it: the question, the answer, the small figures and three rows of images.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from docs.browser import opened_chromium
from pipeline.errors import InputError, run_stage
from pipeline.layout import REPORT
from pipeline.storage.files import write_atomically

IMAGE = Path("docs/report.png")
WINDOW, WIDTH = 1280, 1000


def page_image(browser: Browser, report: Path) -> bytes:
    """The image as PNG, `WIDTH` pixels wide, in the colours of the page. Raises InputError where there is no report."""
    if not report.exists():
        raise InputError(f"{report} does not exist; `make repro` makes it")
    page = browser.new_page(viewport={"width": WINDOW, "height": 900}, color_scheme="light")
    page.goto(report.resolve().as_uri())
    with Image.open(io.BytesIO(page.locator("#answer").screenshot())) as whole:
        small = whole.convert("RGB").resize(
            (WIDTH, round(whole.height * WIDTH / whole.width)), Image.Resampling.LANCZOS
        )
    page.close()
    # A palette of 256 colours goes to the images and changes the colours of the methods.
    buffer = io.BytesIO()
    small.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def main() -> None:
    argparse.ArgumentParser(prog="python -m docs.report_image", description=__doc__).parse_args()
    with opened_chromium() as browser:
        shown = page_image(browser, REPORT)
    write_atomically(IMAGE, shown)
    print(f"{IMAGE}: {len(shown) / 1000:.0f} kB")


if __name__ == "__main__":
    run_stage(main)
