"""The trajectory of one image: rows are arms, columns noise levels."""

import shutil

import numpy as np
import pytest
from playwright.sync_api import Page
from report_browser import Visit
from report_numbers import ARMS
from report_study import Inputs, image

from eval.report.trajectory import trajectories
from pipeline.errors import InputError
from pipeline.generation.trajectory import TRAJECTORY_FEATURES
from pipeline.storage.shards import write_shard

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"


def rows(page: Page) -> list[str]:
    return page.locator("#trajectory-table tbody th").all_inner_texts()


def test_every_recorded_arm_has_a_row_and_every_noise_level_a_column(visit: Visit) -> None:
    page = visit.page
    assert rows(page) == list(ARMS[:2])
    assert page.locator("#trajectory-table thead th").all_inner_texts() == [
        "Arm",
        *(f"{SIGMA} {x}" for x in ("150", "4", "0.8")),
    ]
    counts = page.locator("#trajectory-table tbody tr").evaluate_all(
        "rows => rows.map(row => row.querySelectorAll('img').length)"
    )
    assert counts == [3, 2], "the second arm has recorded no last level"
    assert "arms without a row have recorded nothing" in page.locator("#trajectory").inner_text()


def test_another_image_is_chosen_and_seen_large(visit: Visit) -> None:
    page = visit.page
    first = page.locator("#trajectory-table img").first
    before = first.get_attribute("src")
    page.locator("#trajectory-choice select").select_option("1")
    assert first.get_attribute("src") != before
    page.locator("#trajectory-table button").first.click()
    title = page.locator("dialog h2")
    assert title.inner_text() == f"unguided, seed 101, {SIGMA} 150"
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == f"unguided, seed 101, {SIGMA} 4"
    page.keyboard.press("ArrowDown")
    assert title.inner_text() == f"cfg_3, seed 101, {SIGMA} 4"
    page.keyboard.press("Escape")
    assert page.locator('#trajectory-table button[data-row="1"][data-column="1"]').evaluate(
        "button => button === document.activeElement"
    )


def test_without_recordings_the_section_says_what_to_run(own_inputs: Inputs) -> None:
    shutil.rmtree(own_inputs.trajectories)
    page = own_inputs.report()
    assert "No trajectories are recorded" in page
    assert "make repro" in page
    assert 'id="trajectories"' not in page


def test_a_recording_of_other_images_is_refused(own_inputs: Inputs) -> None:
    row = {"image_id": ["cfg_3-999999"], "step": [0], "sigma": [1.0], "image": [image(np.random.default_rng(0))]}
    write_shard(own_inputs.trajectories / "cfg_3/part-00000.parquet", row, TRAJECTORY_FEATURES, "mark")
    with pytest.raises(InputError, match=r"'cfg_3-999999', which .* lacks"):
        trajectories(own_inputs.trajectories, own_inputs.sets, ARMS)


def test_an_infinite_noise_level_is_a_column_and_shards_without_images_are_no_recording(own_inputs: Inputs) -> None:
    def write(**columns: list[object]) -> None:
        write_shard(own_inputs.trajectories / "unguided/part-00000.parquet", columns, TRAJECTORY_FEATURES, "mark")

    def recorded() -> dict[str, object] | None:
        return trajectories(own_inputs.trajectories, own_inputs.sets, ["unguided"])

    images: list[object] = [image(np.random.default_rng(k)) for k in range(2)]
    write(image_id=["unguided-000000"] * 2, step=[0, 1], sigma=[float("inf"), 0.25], image=images)
    found = recorded()
    assert found is not None
    assert found["sigmas"] == ["\N{INFINITY}", "0.25"]
    write(image_id=[], step=[], sigma=[], image=[])
    assert recorded() is None
