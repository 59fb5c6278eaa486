"""The README's image of MLflow: `python -m docs.mlflow_image` writes docs/mlflow.png from the study's runs.

Above, the list of the study's arms as `make mlflow` opens it; below, the plot of MLflow's page that compares them.
"""

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, Page, ViewportSize
from playwright.sync_api import Error as PlaywrightError

from docs.browser import opened_chromium, small_png
from pipeline.errors import InputError, run_stage
from pipeline.storage.files import write_atomically
from pipeline.study.study import load_study
from pipeline.tracking.store import PARENT, open_store, tracking_uri

IMAGE = Path("docs/mlflow.png")
PORT = 5057
WINDOW: ViewportSize = {"width": 1500, "height": 860}
# Beside it MLflow has its menu.
LEFT = 200
GAP = 24


@contextmanager
def served() -> Iterator[str]:
    """`make mlflow`'s server and the address that it prints."""
    command = [sys.executable, "-m", "pipeline.tracking.server", "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[1]
        finally:
            server.terminate()


def arms() -> tuple[str, list[str]]:
    """The experiment and the newest run's arms. Raises InputError where there is no run."""
    study = load_study()
    client = open_store(tracking_uri(study.tracking.uri), Path())
    experiment = client.get_experiment_by_name(study.tracking.experiment)
    if experiment is None:
        raise InputError("no run of the study is tracked; `make repro` makes one")
    newest = client.search_runs(
        [experiment.experiment_id], f"tags.`{PARENT}` != ''", max_results=1, order_by=["attributes.start_time DESC"]
    )
    parent = newest[0].data.tags[PARENT]
    runs = client.search_runs([experiment.experiment_id], f"tags.`{PARENT}` = '{parent}'")
    return experiment.experiment_id, [run.info.run_id for run in runs]


def opened(browser: Browser, address: str) -> Page:
    """A page of MLflow's as soon as its server is up, without the pane of its assistant. Raises InputError."""
    page = browser.new_page(viewport=WINDOW, color_scheme="light")
    for _ in range(60):
        try:
            page.goto(address)
            break
        except PlaywrightError:
            page.wait_for_timeout(1000)
    else:
        raise InputError(f"MLflow does not answer at {address}")
    page.locator("[data-component-id='mlflow.assistant.chat_panel.close']").click()
    return page


def screenshot(page: Page, top: float, bottom: float) -> Image.Image:
    """The page from `top` to `bottom`, without its menu."""
    page.wait_for_timeout(3000)  # plots and tables are drawn once more when the pane is gone
    clip = FloatRect(x=LEFT, y=top, width=WINDOW["width"] - LEFT, height=bottom - top)
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def extent(element: Locator) -> tuple[float, float]:
    """Where an element begins and ends on the page, from its top."""
    box = element.bounding_box()
    assert box is not None, "elements are waited for"
    return box["y"], box["y"] + box["height"]


def listed(browser: Browser, address: str) -> Image.Image:
    """The list of arms."""
    page = opened(browser, address)
    page.get_by_text("autoguidance", exact=True).first.wait_for()
    _, bottom = extent(page.locator(".ag-center-cols-container"))
    return screenshot(page, 0, bottom)


def compared(browser: Browser, server: str, experiment: str, runs: list[str]) -> Image.Image:
    """The plot of guidance against Fréchet distance."""
    query = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
    page = opened(browser, f"{server}/#/compare-runs?{query}")
    plot = page.locator(".pcp-plot")
    plot.wait_for()
    return screenshot(page, *extent(plot))


def main() -> None:
    argparse.ArgumentParser(prog="python -m docs.mlflow_image", description=__doc__).parse_args()
    experiment, runs = arms()
    with served() as address, opened_chromium() as browser:
        above = listed(browser, address)
        below = compared(browser, address.split("/#")[0], experiment, runs)
    whole = Image.new("RGB", (above.width, above.height + GAP + below.height), "white")
    whole.paste(above)
    whole.paste(below, (0, above.height + GAP))
    shown = small_png(whole)
    write_atomically(IMAGE, shown)
    print(f"{IMAGE}: {len(shown) / 1000:.0f} kB")


if __name__ == "__main__":
    run_stage(main)
