"""What a checkpoint's file declares about itself is compared with the configuration that it is loaded with."""

import json
from pathlib import Path

import pytest
import torch
from checked_networks import Networks, declaring, edit, scheduler
from one_arm import generate
from safetensors.torch import load_file, save_file
from single_file import save_single_file

from pipeline.compatibility.declarations import declared, read_header
from pipeline.errors import InputError
from pipeline.networks.checkpoints import locate
from pipeline.storage.places import Places
from pipeline.study.study import parse_study

V_PREDICTION = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
OWN = "set model.config to a folder with its own configuration"


@pytest.fixture
def networks(params, pipelines_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Networks(params, pipelines_folder)


@pytest.fixture
def single(networks):
    """A single file of SDXL and the folder of its configurations, which predicts noise."""
    path = Path("one.safetensors")
    save_single_file(networks.source / "sdxl", path)
    networks.configuration("sdxl", "config")
    return path


def test_a_file_marked_v_pred_and_ztsnr_is_refused_beside_a_configuration_that_predicts_noise(networks, single):
    networks.check("one.safetensors", config="config")
    declaring(single, "v_pred", "ztsnr")
    assert networks.refused("one.safetensors", config="config") == (
        "model.main one.safetensors contradicts config: tensor v_pred says prediction_type v_prediction, the "
        "configuration says epsilon; tensor ztsnr says rescale_betas_zero_snr true, the configuration says false; "
        + OWN
    )


def test_a_marked_file_is_generated_with_the_configuration_that_says_the_same(networks, single, tmp_path):
    declaring(single, "v_pred", "ztsnr")
    edit(scheduler(Path("config")), **V_PREDICTION)
    networks.check("one.safetensors", config="config", arms={"cfg": {"method": "cfg", "scale": 4.0}})
    networks.params["generate"] = {"images": 10, "first_seed": 0, "shard": 10, "batch": 10}
    assert generate(parse_study(networks.params, "test"), "cfg", Places.under(tmp_path / "made")) == (1, 1)


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"modelspec__prediction_type": "v"}, "modelspec.prediction_type says prediction_type v_prediction"),
        ({"modelspec__predict_key": "v"}, "modelspec.predict_key says prediction_type v_prediction"),
        ({"modelspec__prediction_type": "flow"}, "modelspec.prediction_type says prediction_type 'flow'"),
        ({"ss_v_parameterization": "True"}, "ss_v_parameterization says prediction_type v_prediction"),
        ({"ss_zero_terminal_snr": "True"}, "ss_zero_terminal_snr says rescale_betas_zero_snr true"),
        ({"modelspec__architecture": "stable-diffusion-v1"}, "modelspec.architecture says family sd"),
        ({"modelspec__architecture": "stable-diffusion-v2-768-v"}, "says prediction_type v_prediction"),
        (
            {"modelspec__architecture": "stable-diffusion-xl-v1-refiner"},
            "modelspec.architecture says family 'stable-diffusion-xl-v1-refiner', the configuration says sdxl",
        ),
        ({"modelspec__architecture": "stable-diffusion-xl-v1-base/lora"}, "family 'stable-diffusion-xl-v1-base/lora'"),
        ({"modelspec__architecture": "flux-1-dev"}, "says family flux, the configuration says sdxl"),
        ({"ss_base_model_version": "sd_v1"}, "ss_base_model_version says family sd, the configuration says sdxl"),
        ({"ss_base_model_version": "sd_v2_v"}, "ss_base_model_version says prediction_type v_prediction, the config"),
        ({"ss_base_model_version": "flux1"}, "ss_base_model_version says family flux, the configuration says sdxl"),
        ({"ss_base_model_version": "sd3_m"}, "ss_base_model_version says family sd3, the configuration says sdxl"),
    ],
)
def test_metadata_that_contradict_the_configuration_are_named(networks, single, metadata, says):
    declaring(single, **metadata)
    said = networks.refused("one.safetensors", config="config")
    assert said.startswith("model.main one.safetensors contradicts config: metadata ")
    assert says in said


@pytest.mark.parametrize(
    "metadata",
    [
        {"modelspec__architecture": "stable-diffusion-xl-v1-base", "modelspec__prediction_type": "epsilon"},
        {"modelspec__predict_key": "epsilon", "ss_zero_terminal_snr": "None", "ss_v_parameterization": "False"},
        {"modelspec__architecture": "my own words", "modelspec__prediction_type": " "},
        {"ss_base_model_version": "sdxl_base_v1-0", "modelspec__architecture": "Stable-Diffusion-XL-Turbo"},
    ],
)
def test_metadata_that_agree_or_say_nothing_are_no_fault(networks, single, metadata):
    declaring(single, **metadata)
    networks.check("one.safetensors", config="config")


def test_a_mark_counts_before_metadata_that_a_merge_left_behind(networks, single):
    declaring(single, "v_pred", modelspec__prediction_type="epsilon")
    edit(scheduler(Path("config")), **V_PREDICTION)
    networks.check("one.safetensors", config="config", arms={"cfg": {"method": "cfg", "scale": 4.0}})


@pytest.mark.parametrize("mark", ["edm_vpred.sigma_max", "edm_vpred.sigma_min", "edm_mean"])
def test_a_file_of_edm_is_refused_by_its_mark(networks, single, mark):
    declaring(single, "v_pred", mark)
    assert networks.refused("one.safetensors", config="config") == (
        f"model.main one.safetensors has tensor {mark}: it was trained on EDM's noise levels (arXiv 2206.00364), which "
        "are not supported; take a checkpoint with a DDPM noise schedule"
    )


def test_a_v_main_with_a_noise_guide_are_said_with_a_configuration_each(networks, single):
    guide = Path("guide.safetensors")
    save_single_file(networks.source / "sdxl_guide", guide)
    declaring(single, "v_pred")
    declaring(guide, modelspec__prediction_type="epsilon")
    edit(scheduler(Path("config")), prediction_type="v_prediction")
    networks.configuration("sdxl_guide", "noise")
    both = {"main": "one.safetensors", "guide": "guide.safetensors", "config": "config"}
    assert networks.refused(**both) == (
        "model.guide guide.safetensors contradicts config: metadata modelspec.prediction_type says prediction_type "
        "epsilon, the configuration says v_prediction; set model.guide_config to a folder with its own configuration"
    )
    networks.check(**both, guide_config="noise")


def test_a_guide_that_no_arm_asks_for_is_not_looked_at(networks, single):
    declaring(single, "v_pred")
    networks.copy("sdxl")
    networks.check("sdxl", "one.safetensors", config="config", arms={"cfg": {"method": "cfg", "scale": 4.0}})
    assert "model.guide one.safetensors contradicts config" in networks.refused(
        "sdxl", "one.safetensors", config="config"
    )


def test_the_unet_of_a_folder_declares_as_a_single_file_does(networks):
    weights = networks.copy("sd") / "unet/diffusion_pytorch_model.safetensors"
    declaring(weights, "ztsnr", ss_v_parameterization="True")
    assert networks.refused("sd") == (
        "model.main sd contradicts sd: tensor ztsnr says rescale_betas_zero_snr true, the configuration says false; "
        "metadata ss_v_parameterization says prediction_type v_prediction, the configuration says epsilon; "
        "fetch weights and configuration that belong together"
    )


@pytest.mark.parametrize("is_file", [True, False])
def test_the_sizes_of_weights_contradict_the_configuration_of_another_network(networks, is_file):
    folder = networks.copy("sd")
    weights, name = folder / "unet/diffusion_pytorch_model.safetensors", "conv_in.weight"
    main = {"main": "sd"}
    if is_file:
        weights, name = Path("one.safetensors"), "model.diffusion_model.input_blocks.0.0.weight"
        save_single_file(folder, weights)
        main = {"main": "one.safetensors", "config": "sd"}
    networks.check(**main)
    tensors = load_file(weights)
    wide = torch.cat([tensors[name]] * 3, 1)[:, :9]
    save_file({**tensors, name: wide.contiguous()}, weights, {"format": "pt"})
    assert f"tensor {name} says in_channels 9, the configuration says 4; " in networks.refused(**main)


def test_a_file_of_sdxl_is_no_file_of_sd(networks, single):
    networks.configuration("sd", "other")
    said = networks.refused("one.safetensors", config="other")
    assert "attn2.to_k.weight says cross_attention_dim 80, the configuration says 32" in said
    assert "says projection_class_embeddings_input_dim 96, the configuration says null" in said


ATTENTION = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    "name",
    [
        "scaled_fp8",
        "model.diffusion_model.scaled_fp8",
        f"{ATTENTION}.scale_weight",
        f"{ATTENTION}.weight_scale",
        f"{ATTENTION}.comfy_quant",
        f"{ATTENTION}.weight.absmax",
        f"{ATTENTION}.weight.quant_state.bitsandbytes__nf4",
        f"{ATTENTION}.SCB",
        "metadata _quantization_metadata",
    ],
)
def test_weights_that_mean_something_with_their_scales_alone_are_refused(networks, single, name):
    if name.startswith("metadata"):
        declaring(single, _quantization_metadata="{}")
    else:
        save_file({**load_file(single), name: torch.ones(1)}, single, {"format": "pt"})
    where = name if name.startswith("metadata") else f"tensor {name}"
    assert networks.refused("one.safetensors", config="config") == (
        f"model.main one.safetensors has {where}: its weights are quantized, and their scales are not read; "
        "take a checkpoint in float32, float16 or bfloat16"
    )


def test_a_distilled_network_is_not_generated_with_the_layers_of_the_whole_one(networks, single):
    first, second = (f"{ATTENTION.rsplit('.', 4)[0]}.transformer_blocks.{k}." for k in range(2))
    whole = load_file(single)
    more = {name.replace(first, second): tensor.clone() for name, tensor in whole.items() if first in name}
    save_file({**whole, **more}, single, {"format": "pt"})
    assert (
        f"it holds {len(more)} weights (mid_block.attentions.0.transformer_blocks.1.attn1.to_k.weight ...) that the "
        "configuration has no place for; set model.config to a folder with its own configuration"
    ) in networks.refused("one.safetensors", config="config")
    edit(Path("config/unet/config.json"), transformer_layers_per_block=[1, 2])
    save_file(whole, single, {"format": "pt"})
    said = networks.refused("one.safetensors", config="config")
    assert said.startswith("model.main one.safetensors lacks ")
    assert said.endswith("; set model.config to a folder with its own configuration, or download the file again")


def test_a_weight_of_another_shape_is_named(networks):
    networks.copy("sd")
    edit(Path("sd/unet/config.json"), conv_in_kernel=1)
    assert networks.refused("sd") == (
        "model.main sd contradicts sd: conv_in.weight is 16x4x3x3, the configuration describes 16x4x1x1; fetch weights "
        "and configuration that belong together"
    )


def test_marks_are_no_layers(networks):
    weights = networks.copy("sd") / "unet/diffusion_pytorch_model.safetensors"
    declaring(weights, "v_pred")
    edit(scheduler(Path("sd")), prediction_type="v_prediction")
    networks.check("sd", arms={"cfg": {"method": "cfg", "scale": 4.0}})


def test_a_guides_text_encoder_and_autoencoder_are_not_looked_at(networks, single):
    guide = Path("guide.safetensors")
    save_single_file(networks.source / "sdxl_guide", guide)
    networks.configuration("sdxl_guide", "small")
    name = "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight"
    tensors = load_file(guide)
    save_file({**tensors, name: torch.zeros(248, tensors[name].shape[1])}, guide, {"format": "pt"})
    networks.check("one.safetensors", "guide.safetensors", config="config", guide_config="small")
    assert "says text_encoder max_position_embeddings 248" in networks.refused("guide.safetensors", config="small")


def test_only_the_header_is_read(tmp_path):
    header = json.dumps({"v_pred": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "terabytes.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("r+b") as file:
        file.truncate(2**40)
    assert [(one.key, one.value) for one in declared(read_header(path))] == [("prediction_type", "v_prediction")]


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, (2).to_bytes(8, "little") + b"[]", b"\2" + b"\0" * 7 + b"{"])
def test_a_header_that_is_none_is_one_line(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.safetensors cannot be loaded \(.+\); download the file again"):
        read_header(path)


def test_every_embedded_network_agrees_with_itself(networks_folder):
    for name in ("main", "guide"):
        header = read_header(networks_folder / name / "unet/diffusion_pytorch_model.safetensors")
        unet = locate(str(networks_folder / name)).settings("unet")
        assert {one.key: one.value for one in declared(header)}.items() <= unet.items()
