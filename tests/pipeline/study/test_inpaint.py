"""A mask is refused where it cannot be one, before anything is loaded."""

from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.study.controls import with_controls
from pipeline.study.study import parse_study

BOX = {"box": [0.25, 0.25, 0.75, 0.75]}
FOLDER = {"from": "kept/cfg", "strength": 1.0}


def refused(params: dict[str, Any], inpaint: Any, **arm: Any) -> str:
    params["arms"]["inpainted"] = {"method": "unguided", "scale": 1.0, "inpaint": inpaint, **arm}
    with pytest.raises(InputError) as raised:
        parse_study(params, "test")
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("inpaint", "message"),
    [
        ({"feather": 0.1}, "arms.inpainted.inpaint: needs exactly one of box, polygon, file, column"),
        ({**BOX, "file": "masks/a.png"}, "arms.inpainted.inpaint: needs exactly one of box, polygon, file, column"),
        ({"box": [0.5, 0.2, 0.5, 0.8]}, "box [0.5, 0.2, 0.5, 0.8] is empty"),
        ({"box": [0, 0, 1, 1]}, "box [0, 0, 1, 1] keeps nothing of the start image"),
        ({"box": [0, 0, 1.5, 1]}, "arms.inpainted.inpaint.box.2 is 1.5: Input should be less than or equal to 1"),
        ({"polygon": [[0, 0], [0.5, 0.5], [1, 1]]}, "polygon has 3 corners and no area"),
        ({"polygon": [[0, 0], [0.5, -0.1], [1, 1]]}, "arms.inpainted.inpaint.polygon.1.1 is -0.1"),
        ({"file": "../mask.png"}, "must be a path inside the project"),
        ({**BOX, "feather": 0.9}, "arms.inpainted.inpaint.feather is 0.9"),
    ],
)
def test_a_mask_without_one_area_inside_the_canvas_is_refused(
    params: dict[str, Any], inpaint: Any, message: str
) -> None:
    assert message in refused(params, inpaint, image_to_image=FOLDER)


def test_a_mask_without_a_start_image_is_refused(params: dict[str, Any]) -> None:
    assert "inpaint needs image_to_image, the images that it keeps outside the mask" in refused(params, BOX)


def test_noise_on_a_start_of_which_nothing_is_left_is_refused(params: dict[str, Any]) -> None:
    said = refused(params, BOX, image_to_image={**FOLDER, "noise": 0.1})
    assert "inpaint at image_to_image.strength 1 starts from noise alone; remove image_to_image.noise" in said


@pytest.mark.parametrize("start", ["cfg", "data/reference"])
def test_a_column_of_masks_needs_a_folder_that_has_it(params: dict[str, Any], start: str) -> None:
    own = {"from": start, "strength": 1.0, "source": params["arms"]["cfg"]}
    assert f"{start} has none: take box, polygon or file" in refused(params, {"column": "mask"}, image_to_image=own)


def test_the_control_of_an_arm_that_inpaints_inpaints_the_same_area(params: dict[str, Any]) -> None:
    arm = {"method": "negative", "scale": 2.0, "negative_prompt": "lowres", "image_to_image": FOLDER, "inpaint": BOX}
    arms = with_controls({"arms": {"inpainted": arm}, "controls": "constant"})["arms"]
    assert arms["inpainted@cfg"]["inpaint"] == BOX
