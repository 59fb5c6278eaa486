"""LoRAs of SD3 change its transformer and both CLIPs as they do in diffusers' pipeline."""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from flow_pipelines import T5_LENGTH
from flow_studies import CPU, Flows, far
from parity_pairs import NEGATIVE, WORSE, Pair, assert_equal
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from pipeline.compatibility.loras import lora_changes
from pipeline.networks.checkpoints import locate
from pipeline.networks.families import SD3
from pipeline.networks.weights.loaded_part import load_part
from pipeline.networks.weights.lora import fuse
from pipeline.prompting.text_settings import TextSettings
from pipeline.study.main_lora import AddedLora

FILE = Path("lora.safetensors")
TARGETS = {
    "transformer": ["to_q", "to_out.0", "add_k_proj", "to_add_out"],
    "text_encoder": ["q_proj", "fc1"],
    "text_encoder_2": ["q_proj", "fc1"],
}
# The names of PEFT's matrices before diffusers left LoRAs to it.
OLDER = {
    "transformer": {"lora_A": "lora.down", "lora_B": "lora.up"},
    "text_encoder": {"lora_A": "lora_linear_layer.down", "lora_B": "lora_linear_layer.up"},
}


def pipeline_of(folder: Path) -> Any:
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def saved(folder: Path, layout: str) -> None:
    """Adapters of PEFT with random matrices on a pipeline's parts, as diffusers saves them, or as it once did."""
    pipeline, random = pipeline_of(folder), torch.Generator().manual_seed(0)
    layers, alphas = {}, {}
    for part, targets in TARGETS.items():
        alphas[part] = LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=targets)
        network = getattr(pipeline, part)
        network.add_adapter(alphas[part], "style")
        state = get_peft_model_state_dict(network, adapter_name="style")
        layers[part] = {key: 0.3 * torch.randn(value.shape, generator=random) for key, value in state.items()}
    StableDiffusion3Pipeline.save_lora_weights(
        ".",
        weight_name=FILE.name,
        **{f"{part}_lora_layers": own for part, own in layers.items()},
        **{f"{part}_lora_adapter_metadata": config.to_dict() for part, config in alphas.items()},
    )
    if layout == "older":
        renamed = {}
        for key, tensor in load_file(FILE).items():
            for role, old in OLDER["transformer" if key.startswith("transformer.") else "text_encoder"].items():
                key = key.replace(role, old)
            renamed[key] = tensor
        save_file(renamed, FILE)


@pytest.mark.parametrize("layout", ["diffusers", "older"])
def test_images_of_sd3_with_a_lora_are_those_of_load_lora_weights(
    flows: Flows, pair_of: Callable[..., Pair], layout: str
) -> None:
    folder, pair = flows.copy("sd3"), copy(pair_of("sd3"))
    saved(folder, layout)
    pair.pipeline = pipeline_of(folder)
    pair.pipeline.load_lora_weights(str(FILE), adapter_name="style")
    pair.pipeline.set_adapters("style", [{"transformer": 0.8, "text_encoder": 0.5, "text_encoder_2": 0.5}])
    theirs = pair.theirs(guidance_scale=5.0, negative_prompt=[WORSE] * 2)
    checkpoint, lora = locate("sd3"), AddedLora("model.loras.0.file", FILE, 0.8, 0.5)
    pair.network = checkpoint.family.load(checkpoint, CPU, how=(lora,))
    without, pair.encoder = (
        checkpoint.family.load_texts(checkpoint, CPU, TextSettings(t5_length=T5_LENGTH), loras=loras)
        for loras in ((), (lora,))
    )
    assert_equal(pair.ours(**NEGATIVE), theirs)
    pair.encoder = without
    with pytest.raises(AssertionError):
        assert_equal(pair.ours(**NEGATIVE), theirs)


def test_a_lora_in_onetrainers_names_is_that_in_diffusers(flows: Flows) -> None:
    """Which diffusers' pipeline leaves out with a warning."""
    saved(flows.copy("sd3"), "diffusers")

    def fused() -> dict[str, torch.Tensor]:
        network = load_part(SD3.model_class, locate("sd3"), "transformer", torch.float32)
        fuse(network, FILE, 0.7)
        weights: dict[str, torch.Tensor] = network.state_dict()
        return weights

    expected = fused()
    renamed = {}
    for key, tensor in load_file(FILE).items():
        layer, _, role = key.removesuffix(".weight").rpartition(".")
        layer = layer.replace("transformer.", "lora_transformer_", 1).replace(".", "_")
        renamed[f"{layer}.{ {'lora_A': 'lora_down', 'lora_B': 'lora_up'}[role] }.weight"] = tensor
    save_file({key: tensor for key, tensor in renamed.items() if key.startswith("lora_transformer_")}, FILE)
    for key, weight in fused().items():
        assert torch.equal(weight, expected[key])


def test_embeddings_that_are_kept_are_those_of_the_loras_and_their_weights(flows: Flows, cache: Path) -> None:
    saved(flows.copy("sd3"), "diffusers")
    save_file({key: own for key, own in load_file(FILE).items() if key.startswith("text_encoder")}, FILE)
    once, twice, none = (
        flows.draw("sd3", model={"loras": [{"file": str(FILE), "text_weight": weight}] if weight else []})
        for weight in (1.0, 2.0, None)
    )
    assert far(once, twice) > 0
    assert far(once, none) > 0


def test_layers_of_t5_in_a_lora_are_left_out_and_counted(flows: Flows) -> None:
    saved(flows.copy("sd3"), "diffusers")
    tensors = load_file(FILE)
    for name in (
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
        "lora_te3_encoder_block_1_layer_0_SelfAttention_q",
    ):
        tensors |= {f"{name}.lora_down.weight": torch.ones(2, 8), f"{name}.lora_up.weight": torch.ones(8, 2)}
    save_file(tensors, FILE)
    (said,) = lora_changes(flows.study("sd3", model={"loras": [{"file": str(FILE)}]}))
    assert said == (
        "model.loras.0.file lora.safetensors changes layers of the main network's transformer: 13, of its text "
        "encoders: 6 and 6; left out are layers of text encoders: 2 (embeddings in the file, and T5's)"
    )


@pytest.mark.parametrize(
    "name", ["lora_unet_joint_blocks_0_x_block_attn_qkv", "diffusion_model.joint_blocks.0.x_block.attn.qkv"]
)
def test_a_lora_in_the_names_of_sd3s_original_code_is_refused_by_them(flows: Flows, name: str) -> None:
    save_file({f"{name}.lora_down.weight": torch.ones(2, 32), f"{name}.lora_up.weight": torch.ones(96, 2)}, FILE)
    assert flows.refused("sd3", model={"loras": [{"file": str(FILE)}]}) == (
        "model.loras.0.file lora.safetensors cannot be converted from SD3's original names (diffusers has no "
        "conversion for them); name a file in diffusers' names"
    )
