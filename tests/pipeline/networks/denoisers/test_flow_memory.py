"""Memory and time of families along rectified flow: parts kept on the CPU, and what preflight estimates."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from flow_studies import FLOWS, WITH_FLUX2, Flows, far
from transformers import CLIPTextModel

from pipeline.cost.size import H100, values_of
from pipeline.generation.study_estimate import estimated, study_estimate
from pipeline.networks.families import FAMILIES
from pipeline.study.study import parse_study

ALL_PARTS = ["text_encoders", "main", "guide", "vae"]


@pytest.mark.parametrize("name", FLOWS)
def test_a_network_that_stays_on_the_cpu_until_it_is_needed_generates_the_same(flows: Flows, name: str) -> None:
    plain = flows.draw(name, method="cfg", scale=3.0)
    offloaded = flows.draw(name, method="cfg", scale=3.0, model={"loading": {"offload": True}})
    assert far(plain, offloaded) == 0
    assert offloaded.cost.flops == plain.cost.flops


@pytest.mark.parametrize("name", ["chroma", "qwen_image"])
def test_an_offloaded_network_predicts_the_same(flows: Flows, name: str) -> None:
    plain = flows.draw(name)
    assert far(plain, flows.draw(name, model={"loading": {"offload": True}})) <= 1


@pytest.mark.parametrize("name", ["sd3", "flux2", "qwen_image"])
def test_parts_that_stay_on_the_cpu_until_they_are_needed_generate_the_same(
    flows: Flows, cache: Path, name: str
) -> None:
    """A study of another loading encodes the texts again: its cache is its own."""
    arm = {"method": "autoguidance", "scale": 2.0}
    plain = flows.draw(name, f"{name}_guide", **arm)
    shutil.rmtree(cache)
    offloaded = flows.draw(name, f"{name}_guide", model={"loading": {"offload": ALL_PARTS}}, **arm)
    assert far(plain, offloaded) == 0
    assert offloaded.cost.flops == plain.cost.flops


def test_each_part_that_is_offloaded_takes_less_of_the_estimated_memory(flows: Flows) -> None:
    def memory(*offload: str) -> int:
        arm = {"method": "autoguidance", "scale": 2.0, "prompt": "empty", "model": {"loading": {"offload": offload}}}
        return estimated(flows.study("flux", "flux_guide", **arm)).memory

    whole, networks = memory(), {"flux": "main", "flux_guide": "guide"}
    for folder, part in networks.items():
        every, largest = values_of(FAMILIES["flux"].model_class.from_pretrained(f"{folder}/transformer"))
        assert whole - memory(part) == 4 * (every - largest)
    assert memory(*ALL_PARTS) <= memory("main", "guide") < whole


def test_text_encoders_that_are_kept_count_beside_the_network(
    params: dict[str, Any], pipelines_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pipelines_folder)
    params |= {"arms": {"arm": {"method": "cfg", "scale": 3.0}}, "baseline": "arm"}
    params["sampler"] = {"scheduler": "ddim", "steps": 3}

    def memory(*offload: str) -> int:
        params["model"] = {"name": "small", "main": "sd", "guide": "sd", "loading": {"offload": offload}}
        return estimated(parse_study(params, "test")).memory

    every, largest = values_of(CLIPTextModel.from_pretrained("sd/text_encoder"))
    assert memory() - memory("text_encoders") == 4 * (every - largest) > 0


@pytest.mark.parametrize("name", WITH_FLUX2)
def test_preflight_estimates_what_a_study_takes(flows: Flows, name: str) -> None:
    # Language models read a text as it is: one that all images share.
    arm = {"method": "autoguidance", "scale": 2.0, "prompt": "empty"}
    study = flows.study(name, f"{name}_guide", **arm)
    many = study.generate.model_copy(update={"images": 10**11})
    study = study.model_copy(update={"generate": many})
    said = study_estimate(study)
    assert re.fullmatch(
        r"this study: 1 arm x 100,000,000,000 images, about [\d.]+ (h|min) on one H100 at 40 % of its peak, 0 GB "
        r"\(arithmetic, not a measurement\)",
        said,
    )
    # What one image costs is counted when it is generated; that times images is what was said.
    cost = flows.draw(name, f"{name}_guide", seeds=[3], texts={"prompt": [""]}, **arm).cost
    hours, unit = re.search(r"about ([\d.]+) (h|min)", said).groups()
    foreseen = float(hours) * (3600 if unit == "h" else 60) * H100
    assert foreseen == pytest.approx(cost.flops * 10**11, rel=0.05)
