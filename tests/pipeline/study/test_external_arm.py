"""What a study says of arms that someone else generated, and what it refuses."""

from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.study.arm import Arm
from pipeline.study.controls import with_controls
from pipeline.study.scales import at_scales
from pipeline.study.study import Study, parse_study


def with_arm(params: dict[str, Any], **arm: Any) -> dict[str, Any]:
    return {**params, "arms": {**params["arms"], "mine": arm}}


def refusal(content: dict[str, Any]) -> str:
    with pytest.raises(InputError) as error:
        parse_study(content, "test")
    return str(error.value)


def test_a_folder_is_an_arm_beside_generated_ones(params: dict[str, Any]) -> None:
    study = parse_study(with_arm(params, from_folder="images/mine"), "test")
    arm = study.arm("mine")
    assert arm.from_folder is not None
    assert (arm.method, arm.family, arm.scale, arm.from_folder.folder) == ("external", "external", 1, "images/mine")
    assert study.external == ["mine"]
    assert "mine" not in study.generated
    assert not study.is_embedded
    assert study.licence == ""
    assert study.caution.endswith("say nothing about how good they are.")


def test_arms_that_are_generated_are_what_they_were_to_a_fingerprint() -> None:
    generated = Arm.model_validate({"method": "cfg", "scale": 3.0})
    assert "from_folder" not in generated.model_dump()
    assert Arm.model_validate({"from_folder": "images/mine"}).model_dump()["from_folder"]["folder"] == "images/mine"


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"from_folder": "images/x", "negative_prompt": "blurry"}, "negative_prompt would do nothing: remove it"),
        ({"from_folder": "images/x", "scale": 3.0}, "scale would do nothing: remove it"),
        ({"from_folder": "images/x", "method": "cfg"}, "method external goes with from_folder"),
        ({"method": "external", "scale": 1.0}, "method external goes with from_folder"),
        ({"from_folder": "elsewhere/x"}, "must lie in images/, the folder that DVC watches"),
        ({"from_folder": "images/../../x"}, "must be a path inside the project, without '..'"),
        ({"from_folder": {"folder": "images/x", "score": "images/x.csv"}}, "did you mean scores?"),
    ],
)
def test_what_does_not_fit_a_folder_is_refused(params: dict[str, Any], arm: dict[str, Any], said: str) -> None:
    assert said in refusal(with_arm(params, **arm))


def test_one_folder_is_not_two_arms(params: dict[str, Any]) -> None:
    content = with_arm(params, from_folder="images/x")
    content["arms"]["again"] = {"from_folder": "images/x"}
    assert "arms.again.from_folder is images/x, as arms.mine.from_folder is" in refusal(content)


def test_the_real_images_are_no_arm(params: dict[str, Any]) -> None:
    content = with_arm(params, from_folder="images/x")
    content["reference"] |= {"source": "images/x"}
    assert "arms.mine.from_folder is images/x, as reference.source is" in refusal(content)


@pytest.mark.parametrize(
    "key", ["model", "sampler", "features.clip", "metrics.aesthetic_head", "metrics.malformed_classifier"]
)
def test_whoever_generates_needs_networks_and_their_scorers(params: dict[str, Any], key: str) -> None:
    group, _, name = key.partition(".")
    if name:
        params[group] = {**params[group], name: None if group == "features" else ""}
    else:
        params[group] = None
    assert f"{key} is missing, which arms that are generated need (unguided is one)" in refusal(params)


def test_an_image_to_image_arm_starts_from_no_folder_of_someone_else(params: dict[str, Any]) -> None:
    content = with_arm(params, from_folder="images/x")
    start = {"from": "mine", "source": {"from_folder": "images/x"}, "strength": 0.5}
    content["arms"]["started"] = {"method": "unguided", "scale": 1.0, "image_to_image": start}
    assert "from 'mine' is external; name an arm that is generated, or shards" in refusal(content)


def test_external_arms_have_neither_controls_nor_scales(params: dict[str, Any]) -> None:
    content = with_arm(params, from_folder="images/x")
    assert "mine@cfg" not in with_controls({**content, "controls": "constant"})["arms"]
    scaled = at_scales(content, [2.0, 4.0])
    assert scaled["arms"]["mine"] == {"from_folder": "images/x"}
    assert "mine" not in scaled["scales"]


def test_a_canvas_is_for_folders(params: dict[str, Any]) -> None:
    params["reference"]["canvas"] = {"width": 32, "height": 32}
    assert "canvas is for a folder of images, and source is tinybooru" in refusal(params)


def test_a_study_of_folders_alone_names_no_network(params: dict[str, Any]) -> None:
    metrics = {**params["metrics"], "aesthetic_head": "", "malformed_classifier": "", "kind_prompts": ""}
    content = {
        **params,
        "model": None,
        "sampler": None,
        "baseline": "a",
        "arms": {"a": {"from_folder": "images/a"}, "b": {"from_folder": "images/b"}},
        "features": {"primary": "pyramid", "extractors": {"pyramid": {"model": "pyramid"}}},
        "metrics": metrics,
    }
    study = parse_study(content, "test")
    assert isinstance(study, Study)
    assert study.generated == []
    assert "metrics.kind_prompts reads the vectors of a CLIP" in refusal(
        {**content, "metrics": {**metrics, "kind_prompts": "models/tinybooru/kinds.json"}}
    )
