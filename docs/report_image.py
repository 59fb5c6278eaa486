"""The README's image of the report: `python -m docs.report_image` writes docs/report.png from reports/index.html.

It is the page as Chromium shows it, with some of its sections left out so that the rest fits a README.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from docs.browser import opened_chromium, small_png
from pipeline.errors import InputError, run_stage
from pipeline.layout import REPORT
from pipeline.storage.files import write_atomically

IMAGE = Path("docs/report.png")
WINDOW, WIDTH = 1360, 1000
# Three verdicts, the plots of alignment, a few rows of the gallery, one trajectory.
LEFT_OUT = """
main > section:not(#findings, #alignment, #gallery, #trajectory), footer, .findings > li:nth-child(n + 4),
#alignment > p, #gallery p.screen { display: none !important; }
section { margin-top: 1.75rem; }
.gallery { max-height: 27rem; }
main { padding-bottom: 1.25rem; }
"""


def page_image(browser: Browser, report: Path) -> bytes:
    """The image as PNG of 256 colours, `WIDTH` pixels wide. Raises InputError where there is no report."""
    if not report.exists():
        raise InputError(f"{report} does not exist; `make repro` makes it")
    page = browser.new_page(viewport={"width": WINDOW, "height": 900}, color_scheme="light")
    page.goto(report.resolve().as_uri())
    page.add_style_tag(content=LEFT_OUT)
    recorded = page.locator("#trajectory-choice select option")
    if recorded.count() > 1:
        # The embedded world's first image is a pattern, its second a face.
        page.locator("#trajectory-choice select").select_option(index=1)
    for plot in page.locator("#alignment .plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
    page.evaluate("scrollTo(0, 0)")
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as whole:
        small = whole.convert("RGB").resize(
            (WIDTH, round(whole.height * WIDTH / whole.width)), Image.Resampling.LANCZOS
        )
    page.close()
    return small_png(small)


def main() -> None:
    argparse.ArgumentParser(prog="python -m docs.report_image", description=__doc__).parse_args()
    with opened_chromium() as browser:
        shown = page_image(browser, REPORT)
    write_atomically(IMAGE, shown)
    print(f"{IMAGE}: {len(shown) / 1000:.0f} kB")


if __name__ == "__main__":
    run_stage(main)
