"""Damage, weakened copies, attention and dynamic negatives guide each family along rectified flow."""

from typing import Any

import pytest
import torch
from flow_studies import BLOCKS, CPU, FLOWS, ONE, SEEDS, TEXTS, Flows, checked, far, pixels
from safetensors.torch import load_file, save_file

from pipeline.compatibility.loras import lora_changes
from pipeline.generation.arm_generator import ArmGenerator

DAMAGES: list[dict[str, Any]] = [
    {"kind": "pag"},
    {"kind": "seg"},
    {"kind": "seg", "blur": 1.0},
    {"kind": "skip_layers"},
    {"kind": "random_layers", "share": 0.9},
    {"kind": "dropout", "share": 0.3},
    {"kind": "shuffle_tokens", "share": 0.9},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: "_".join(map(str, damage.values())))
@pytest.mark.parametrize("name", FLOWS)
def test_damage_to_named_blocks_guides_and_leaves_no_trace(flows: Flows, name: str, damage: dict[str, Any]) -> None:
    arm = {
        "method": "mix",
        "terms": [{"reference": "damaged"}],
        "references": {"damaged": {"perturb": {**damage, "layers": BLOCKS[name]}}},
    }
    generator = ArmGenerator(checked(flows.study(name, scale=3.0, **arm)), "arm", CPU)
    plain = flows.draw(name)
    first = generator.draw(TEXTS, SEEDS)
    assert far(plain, first) > 1
    assert first.images[0].tobytes() == generator.draw(TEXTS, SEEDS).images[0].tobytes()
    assert first.cost.flops > plain.cost.flops


@pytest.mark.parametrize("name", FLOWS)
def test_a_drawn_share_of_nothing_is_the_undamaged_network(flows: Flows, name: str) -> None:
    tiny = {"kind": "dropout", "share": 1e-9, "layers": BLOCKS[name]}
    references = {"damaged": {"perturb": tiny}}
    guided = flows.draw(name, method="mix", scale=3.0, terms=[{"reference": "damaged"}], references=references)
    assert far(flows.draw(name), guided) <= 1


@pytest.mark.parametrize("how", [
    {"name": "weight_noise", "strength": 0.2},
    {"name": "dropout", "rate": 0.2},
    {"name": "low_bits", "bits": 2},
    {"name": "drop_layers"},
], ids=lambda how: str(how["name"]))  # fmt: skip
@pytest.mark.parametrize("name", FLOWS)
def test_a_weakened_copy_guides(flows: Flows, name: str, how: dict[str, Any]) -> None:
    how = how | ({"layers": BLOCKS[name][:1]} if how["name"] == "drop_layers" else {})
    guided = flows.draw(name, method="autoguidance", scale=2.0, model={"weaken": how})
    assert far(flows.draw(name), guided) > 1


@pytest.mark.parametrize("name", FLOWS)
def test_an_arm_is_steered_in_attention(flows: Flows, name: str) -> None:
    steered = flows.draw(name, attention={"name": "nag"}, negative_prompt="lowres, blurry")
    assert far(flows.draw(name), steered) > 1
    assert steered.cost.nfe == 2 * 3


def test_a_negative_whose_scale_follows_its_probability_guides(flows: Flows) -> None:
    flows.params["sampler"] = {"scheduler": "euler_ancestral", "steps": 4}
    negative = {"method": "negative", "negative_prompt": "lowres"}
    plain = flows.draw("sd3")
    # Half is the static negative prompt; from a small prior the scale has to grow first.
    static = flows.draw("sd3", scale=6.0, **negative)
    dynamic = {"name": "dynamic", "temperature": 0.0, "offset": 0.0}
    half = flows.draw("sd3", scale=6.0, schedule={**dynamic, "prior": 0.5}, **negative)
    assert far(static, half) <= 1 < far(static, plain)
    followed = flows.draw("sd3", scale=6.0, schedule={"name": "dynamic", "prior": 0.1}, **negative)
    assert min(far(followed, plain), far(followed, static)) > 1
    alone = flows.draw(
        "sd3", scale=6.0, schedule={"name": "dynamic", "prior": 0.1}, texts=ONE, seeds=SEEDS[:1], **negative
    )
    assert int((pixels(followed)[0] - pixels(alone)[0]).abs().max()) <= 1


@pytest.mark.parametrize("name", ["flux", "qwen_image"])
def test_a_lora_changes_the_main_network_or_makes_a_guide_of_it(flows: Flows, name: str) -> None:
    layer = "transformer_blocks.0.attn.to_v"
    width = load_file(flows.copy(name) / "transformer/diffusion_pytorch_model.safetensors")[f"{layer}.weight"].shape[0]
    matrices = {"A": torch.randn(2, width), "B": torch.randn(width, 2)}
    save_file(
        {f"transformer.{layer}.lora_{role}.weight": value for role, value in matrices.items()}, "lora.safetensors"
    )
    plain = flows.draw(name)
    assert far(plain, flows.draw(name, model={"loras": [{"file": "lora.safetensors"}]})) > 1
    weaken = {"name": "lora", "file": "lora.safetensors"}
    study = flows.study(name, method="autoguidance", scale=2.0, model={"weaken": weaken})
    assert lora_changes(study) == ["model.weaken.file lora.safetensors changes layers of the guide's transformer: 1"]
    assert far(plain, flows.draw(name, method="autoguidance", scale=2.0, model={"weaken": weaken})) > 1
