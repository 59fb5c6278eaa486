"""What an image was generated with is copied as text, and a hostile prompt in it stays text."""

import yaml
from gallery_page import cell
from report_browser import Visit
from report_numbers import comparison
from report_study import PROMPTS, STEPS, study

from eval.report.gallery.parameters import arm_parameters
from pipeline.results.comparison import Comparison


def test_the_parameters_of_an_image_are_copied_whole(visit: Visit) -> None:
    page = visit.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    cell(page, 0, 2).click()
    page.get_by_role("button", name="Copy parameters").click()
    page.get_by_text("The parameters are in the clipboard.").wait_for()
    copied = yaml.safe_load(page.evaluate("navigator.clipboard.readText()"))
    model = study().model
    assert copied == {
        "image": "negative_long-000000",
        "arm": "negative_long",
        "seed": 100,
        "prompt": PROMPTS[0],
        "negative_prompt": "lowres",
        "method": "negative",
        "scale": 3.0,
        "sampler": {"scheduler": "ddim", "steps": STEPS},
        "model": {"name": model.name, "main": model.main, "guide": model.guide},
        "study": "smoke",
    }
    page.locator("dialog summary").click()
    assert yaml.safe_load(page.locator("dialog pre").inner_text()) == copied


def test_where_the_browser_keeps_the_clipboard_the_parameters_are_selected(visit: Visit) -> None:
    page = visit.page
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    cell(page, 0, 1).click()
    page.get_by_role("button", name="Copy parameters").click()
    page.get_by_text("the parameters are selected").wait_for()
    assert yaml.safe_load(page.evaluate("getSelection().toString()"))["prompt"] == PROMPTS[0]


def test_settings_of_an_arm_and_its_measured_scale_are_parameters() -> None:
    content = comparison()
    content["arms"][1]["scale"] = 2.71
    arms = study().arms
    changed = study().model_copy(
        update={"arms": {**arms, "cfg_3": arms["cfg_3"].model_copy(update={"negative_from_prompt": True})}}
    )
    found = yaml.safe_load(arm_parameters(changed, Comparison(**content))["cfg_3"])
    assert found["scale"] == 2.71
    assert "negative_from_prompt" not in found, "the image's own negative prompt says it"
