"""Arms that inpaint have a section of their numbers, and studies without a mask have none."""

import json

from report_numbers import comparison
from report_study import Inputs

from pipeline.results.comparison import Comparison
from pipeline.tracking.numbers import arm_numbers

NUMBERS = ("outside_change", "rim_step", "fd_inside", "fd_rim")


def test_numbers_of_masks_are_shown_of_the_arms_that_have_them(own_inputs: Inputs) -> None:
    content = comparison()
    number = {"value": 1.25, "low": 1.0, "high": 1.5, "n": 32}
    arm = content["arms"][-1]["arm"]
    content["arms"][-1]["inpainted"] = dict.fromkeys(NUMBERS, number)
    own_inputs.comparison.write_text(json.dumps(content))
    page = own_inputs.report()
    _, _, section = page.partition('<section id="inpainting">')
    section = section.partition("</section>")[0]
    assert section.count('<th scope="row"') == 1
    assert arm in section
    assert all(
        label in section for label in ("Change outside", "Step at the rim", "FD inside the mask", "FD at the rim")
    )
    assert "\N{BLACK STAR}" not in section, "arms with other masks are not ranked"
    assert {*NUMBERS} <= set(arm_numbers(Comparison(**content).by_name(arm)))


def test_a_study_without_masks_has_no_section_and_keeps_no_numbers_of_them(own_inputs: Inputs) -> None:
    assert '<section id="inpainting">' not in own_inputs.report()
    assert "inpainted" not in Comparison(**comparison()).model_dump_json()
