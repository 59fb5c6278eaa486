"""docs/compatibility.md, "Checkpoints and schedules": its sentences are what is said of such files, and all of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checked_networks import Networks, declaring, edit, scheduler
from repository_copy import ROOT
from safetensors.torch import load_file, save_file
from single_file import save_single_file
from transformers import CLIPTokenizer

SECTION = re.search(
    r"^## Checkpoints and schedules\n(.*?)^## ", (ROOT / "docs/compatibility.md").read_text("utf-8"), re.M | re.S
)
assert SECTION is not None
# A sentence may end early, in "...".
SENTENCES = re.findall(r"^\|[^|\n]+\| `([^`\n]+)` \|$", SECTION[1], re.M)
SINGLE = {"main": "one.safetensors", "config": "sdxl_config"}


def single(networks: Networks, *marks: str, **metadata: str) -> dict[str, Any]:
    save_single_file(networks.source / "sdxl", Path("one.safetensors"))
    networks.configuration("sdxl", "sdxl_config")
    declaring(Path("one.safetensors"), *marks, **metadata)
    return SINGLE


def v_main_with_a_noise_guide(networks: Networks) -> dict[str, Any]:
    single(networks, "v_pred")
    edit(scheduler(Path("sdxl_config")), prediction_type="v_prediction")
    save_single_file(networks.source / "sdxl_guide", Path("guide.safetensors"))
    declaring(Path("guide.safetensors"), modelspec__prediction_type="epsilon")
    return {**SINGLE, "guide": "guide.safetensors"}


def sdxl_file_with_a_configuration_of_sd(networks: Networks) -> dict[str, Any]:
    single(networks)
    networks.configuration("sd", "sd_config")
    return {**SINGLE, "config": "sd_config"}


def folder(networks: Networks, kind: str = "sd", part: str = "unet/config.json", **values: Any) -> dict[str, Any]:
    """A pipeline whose configuration says something else; its weights are not there."""
    networks.configuration(kind, kind)
    edit(Path(kind, part), **values)
    return {"main": kind}


def folder_without(networks: Networks, kind: str, part: str, key: str) -> dict[str, Any]:
    networks.configuration(kind, kind)
    edit(Path(kind, part), lambda content: content.pop(key))
    return {"main": kind}


def schedule(networks: Networks, content: dict[str, Any]) -> dict[str, Any]:
    networks.configuration("sd", "sd")
    edit(scheduler(Path("sd")), lambda old: (old.clear(), old.update(content)))
    return {"main": "sd"}


def replaced(networks: Networks, kind: str, key: str, part: str, **values: Any) -> dict[str, Any]:
    networks.configuration(kind, kind)
    networks.configuration("sd", "other")
    edit(Path("other", part), **values)
    return {"main": kind, key: "other"}


def long_text_encoder(networks: Networks) -> dict[str, Any]:
    changed = replaced(networks, "sdxl", "text_encoder", "text_encoder/config.json", max_position_embeddings=248)
    edit(Path("other/tokenizer/tokenizer_config.json"), model_max_length=248)
    edit(Path("sdxl/tokenizer_2/tokenizer_config.json"), model_max_length=77)
    edit(Path("sdxl/text_encoder_2/config.json"), max_position_embeddings=77)
    return changed


def more_layers(networks: Networks) -> dict[str, Any]:
    weights = networks.copy("sd") / "unet/diffusion_pytorch_model.safetensors"
    first, second = (f"mid_block.attentions.0.transformer_blocks.{k}." for k in range(2))
    tensors = load_file(weights)
    more = {name.replace(first, second): tensor.clone() for name, tensor in tensors.items() if first in name}
    save_file({**tensors, **more}, weights, {"format": "pt"})
    return {"main": "sd"}


def long_single_file(networks: Networks) -> dict[str, Any]:
    single(networks)
    name = "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight"
    tensors = load_file("one.safetensors")
    save_file({**tensors, name: torch.zeros(248, tensors[name].shape[1])}, "one.safetensors", {"format": "pt"})
    return SINGLE


def scaled(networks: Networks) -> dict[str, Any]:
    single(networks)
    scales = {"model.diffusion_model.out.2.scale_weight": torch.tensor(0.01), "scaled_fp8": torch.tensor([])}
    save_file({**load_file("one.safetensors"), **scales}, "one.safetensors", {"format": "pt"})
    return SINGLE


def added_token(networks: Networks, kind: str, tokenizer: str, **encoder: Any) -> dict[str, Any]:
    networks.configuration(kind, kind)
    tokens = CLIPTokenizer.from_pretrained(Path(kind, tokenizer))
    tokens.add_tokens(["<sks>"])
    tokens.save_pretrained(Path(kind, tokenizer))
    edit(Path(kind, tokenizer.replace("tokenizer", "text_encoder"), "config.json"), **encoder)
    return {"main": kind}


BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
CASES: dict[str, Callable[[Networks], dict[str, Any]]] = {
    "marks": lambda n: single(n, "v_pred", "ztsnr"),
    "guide": v_main_with_a_noise_guide,
    "architecture": lambda n: single(n, modelspec__architecture="stable-diffusion-xl-v1-refiner"),
    "trainer": lambda n: single(n, ss_v_parameterization="True", ss_zero_terminal_snr="True"),
    "edm": lambda n: single(n, "edm_vpred.sigma_max"),
    "sizes": sdxl_file_with_a_configuration_of_sd,
    "layers": more_layers,
    "long file": long_single_file,
    "scales": scaled,
    "edm schedule": lambda n: schedule(n, {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5}),
    "flow schedule": lambda n: schedule(n, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}),
    "lcm schedule": lambda n: schedule(n, {"_class_name": "LCMScheduler", **BETAS, "original_inference_steps": 50}),
    "no class": lambda n: schedule(n, {"num_train_timesteps": 1000}),
    "no betas": lambda n: schedule(n, {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000}),
    "continuous": lambda n: schedule(
        n, {"_class_name": "EulerDiscreteScheduler", **BETAS, "timestep_type": "continuous"}
    ),
    "flow prediction": lambda n: schedule(
        n, {"_class_name": "UniPCMultistepScheduler", **BETAS, "prediction_type": "flow_prediction"}
    ),
    "old prediction": lambda n: schedule(n, {"_class_name": "DDPMScheduler", **BETAS, "predict_epsilon": False}),
    "flag": lambda n: schedule(n, {"_class_name": "DDPMScheduler", **BETAS, "rescale_betas_zero_snr": "false"}),
    "inpainting": lambda n: folder(n, in_channels=9),
    "image editing": lambda n: folder(n, in_channels=8),
    "lcm": lambda n: folder(n, time_cond_proj_dim=256),
    "classes": lambda n: folder(n, num_class_embeds=1000),
    "image": lambda n: folder(n, addition_embed_type="image"),
    "image texts": lambda n: folder(n, encoder_hid_dim_type="image_proj", encoder_hid_dim=32),
    "boxes": lambda n: folder(n, attention_type="gated"),
    "variance": lambda n: folder(n, out_channels=8),
    "no canvas": lambda n: folder(n, sample_size=None),
    "another network": lambda n: folder(n, _class_name="UNetMotionModel"),
    "another autoencoder": lambda n: folder(n, part="vae/config.json", _class_name="AutoencoderTiny"),
    "channels": lambda n: folder(n, part="vae/config.json", latent_channels=16),
    "latents": lambda n: replaced(n, "sd", "vae", "vae/config.json", scaling_factor=0.13025),
    "no scale": lambda n: folder_without(n, "sdxl", "vae/config.json", "scaling_factor"),
    "transparency": lambda n: folder(n, part="vae/config.json", out_channels=4),
    "width": lambda n: replaced(n, "sd", "text_encoder", "text_encoder/config.json", hidden_size=1024),
    "pooled": lambda n: folder(n, "sdxl", "text_encoder_2/config.json", projection_dim=1280),
    "length": long_text_encoder,
    "another text encoder": lambda n: folder(n, part="text_encoder/config.json", model_type="t5"),
    "tokens": lambda n: added_token(n, "sd", "tokenizer"),
    "end mark": lambda n: added_token(n, "sdxl", "tokenizer_2", vocab_size=795, eos_token_id=2),
    "another tokenizer": lambda n: folder(n, part="tokenizer/tokenizer_config.json", tokenizer_class="T5Tokenizer"),
    "quantized": lambda n: folder(n, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "means": lambda n: folder(n, part="vae/config.json", latents_mean=[0.0] * 3, latents_std=[1.0] * 3),
}


def is_said(sentence: str, said: str) -> bool:
    return said == sentence or (sentence.endswith("...") and said.startswith(sentence.removesuffix("...")))


@pytest.fixture
def networks(params, pipelines_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Networks(params, pipelines_folder)


@pytest.mark.parametrize("case", CASES)
def test_what_is_said_stands_in_the_documentation(networks, case):
    said = networks.refused(**CASES[case](networks))
    assert is_said(SENTENCES[list(CASES).index(case)], said), said


def test_every_sentence_of_the_documentation_is_said():
    assert len(SENTENCES) == len(CASES) > 0
