"""The image of the labelling page: `python -m docs.label_studio_image` writes docs/label-studio.png.

The pairs of the finished study are sent to a separate server in a temporary folder, and the first page that a labeller
sees is photographed.
"""

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, ViewportSize

from docs.browser import opened_chromium, small_png
from labeling.label_studio.connection import Connection, Credentials, client_of
from labeling.label_studio.project import find_project
from labeling.label_studio.push import push
from labeling.label_studio.server import ENVIRONMENT, running_server
from labeling.records import read_pairs
from pipeline.errors import InputError, run_stage
from pipeline.layout import SETS
from pipeline.storage.files import write_atomically
from pipeline.study.study import load_study

IMAGE = Path("docs/label-studio.png")
WINDOW: ViewportSize = {"width": 1360, "height": 700}
_WAIT_MS = 180_000


def photographed(browser: Browser, credentials: Credentials, project: int) -> Image.Image:
    """The project's first task as its owner sees it, after the labelling guide is closed and a side is chosen."""
    page = browser.new_page(viewport=WINDOW, color_scheme="light")
    page.set_default_timeout(_WAIT_MS)
    page.goto(f"{credentials.url}/user/login/")
    page.fill("input[name=email]", credentials.username)
    page.fill("input[name=password]", credentials.password.get_secret_value())
    page.click("button[type=submit]")
    page.wait_for_url(f"{credentials.url}/**")
    page.goto(f"{credentials.url}/projects/{project}/data?labeling=1")
    guide = page.get_by_text("Labeling Instructions")
    guide.wait_for()
    page.keyboard.press("Escape")
    guide.wait_for(state="hidden")
    page.get_by_text("Which image is better?").wait_for()
    page.wait_for_load_state("networkidle")
    page.get_by_label("Left", exact=False).first.check(force=True)
    page.wait_for_timeout(2000)  # images are scaled once more when they have come
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def main() -> None:
    argparse.ArgumentParser(prog="python -m docs.label_studio_image", description=__doc__).parse_args()
    study, pairs = load_study(), read_pairs()
    if not pairs:
        raise InputError("the study samples no pairs; labeling.ask=pairs does")
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder), ENVIRONMENT) as (credentials, _):
        connection = Connection(credentials.url, credentials.token, "the documentation")
        push(connection, study, [], pairs, SETS)
        with client_of(connection) as client:
            project = find_project(client, study.name, "pairs")
        assert project is not None, "pairs were sent"
        with opened_chromium() as browser:
            shown = small_png(photographed(browser, credentials, project.number))
    write_atomically(IMAGE, shown)
    print(f"{IMAGE}: {len(shown) / 1000:.0f} kB")


if __name__ == "__main__":
    run_stage(main)
