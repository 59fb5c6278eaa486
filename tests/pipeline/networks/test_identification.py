"""What cannot be drawn with is named for what it is, before anything is generated, with what to name instead."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from single_file import original_unet, original_vae, save_single_file

from pipeline.errors import InputError, run_stage
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.networks.families import known_families
from pipeline.preflight import check_arms, study_digests
from pipeline.study.study import parse_study

CPU = torch.device("cpu")
FAMILIES = f"supported families: {known_families()}"
REFINER = (
    "is SDXL's refiner, which only continues images of SDXL's base model; name the base model, for instance "
    "hub:stabilityai/stable-diffusion-xl-base-1.0"
)
ONE = torch.ones(2, 2)


@pytest.fixture
def folder(pipelines_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A copy of one pipeline by its name, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return lambda name: Path(shutil.copytree(pipelines_folder / name, name))


def looked_at(params: dict[str, Any], main: str, **model: str) -> None:
    """What stage preflight does with a study's networks."""
    params["model"] = {"name": "small", "main": main, "guide": main, **model}
    params["arms"], params["baseline"] = {"auto": {"method": "autoguidance", "scale": 1.5}}, "auto"
    study = parse_study(params, "test")
    study_digests(study)
    check_arms(study)


def refusal(params: dict[str, Any], main: str, **model: str) -> str:
    with pytest.raises(InputError) as raised:
        looked_at(params, main, **model)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def saved(name: str, keys: list[str]) -> str:
    save_file({key: ONE.clone() for key in keys}, name, {"format": "pt"})
    return name


@pytest.mark.parametrize(
    "key",
    [
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
        "unet.mid_block.attentions.0.proj_in.lora_A.weight",
        "unet.mid_block.attentions.0.processor.to_q_lora.down.weight",
        "lora_unet_mid_block_attentions_0_proj_in.hada_w1_a",
        "diffusion_model.mid.lokr_w1",
    ],
)
@pytest.mark.parametrize("config", [{}, {"config": "sd"}])
def test_a_lora_as_main_is_named(folder, params, key, config):
    folder("sd")
    assert refusal(params, saved("style.safetensors", [key]), **config) == (
        "style.safetensors is a LoRA, not a network; name the checkpoint that it was trained on. A guide takes it as "
        "model.weaken: {name: lora, file: style.safetensors}; the main network as model.loras: "
        "[{file: style.safetensors}]"
    )


def test_a_lora_as_guide_or_in_a_folder_is_named(folder, params):
    folder("sd")
    file = saved("style.safetensors", ["unet.conv_in.lora_A.weight"])
    assert refusal(params, "sd", guide=file, config="sd").startswith("style.safetensors is a LoRA, not a network")
    Path("peft").mkdir()
    shutil.copy(file, "peft/pytorch_lora_weights.safetensors")
    said = refusal(params, "peft")
    assert said.startswith("peft is a LoRA, not a network")
    assert "file: peft/pytorch_lora_weights.safetensors}" in said


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        (
            "x.safetensors",
            ["emb_params"],
            "is an embedding (textual inversion), which a text calls by its name in embeddings/",
        ),
        (
            "x.safetensors",
            ["clip_l", "clip_g"],
            "is an embedding (textual inversion), which a text calls by its name in embeddings/",
        ),
        ("x.safetensors", ["control_model.input_blocks.0.0.weight"], "is a ControlNet or an adapter"),
        ("x.safetensors", ["controlnet_cond_embedding.conv_in.weight"], "is a ControlNet or an adapter"),
        ("x.safetensors", ["image_proj.proj.weight"], "is a ControlNet or an adapter"),
        ("x.safetensors", ["text_model.final_layer_norm.bias"], "holds a text encoder alone; name a whole checkpoint"),
        ("x-00001-of-00003.safetensors", ["conv_in.weight"], "is one of 3 pieces of a checkpoint; name the folder"),
        ("x.safetensors", ["conditioner.embedders.0.model.ln_final.weight"], REFINER),
        ("x.safetensors", ["model.diffusion_model.joint_blocks.0.x"], "is SD3 in one file, which holds a"),
        ("x.safetensors", ["model.diffusion_model.double_blocks.0.x", "vae.x"], "is FLUX in one file, and model.co"),
        (
            "x.safetensors",
            ["double_blocks.0.x"],
            "is FLUX in one file, which holds a transformer alone, and model.conf",
        ),
        (
            "x.safetensors",
            ["double_blocks.0.x", "distilled_guidance_layer.x"],
            "is Chroma in one file, which holds a transformer alone, and model.config is of family sd; set "
            "model.config to a folder or repository of Chroma in diffusers' layout, whose other parts are then read, "
            "such as "
            "hub:lodestones/Chroma1-HD",
        ),
        ("x.safetensors", ["cap_embedder.0.weight", "x_pad_token"], "is Z-Image in one file, which"),
        ("x.safetensors", ["model.diffusion_model.cap_embedder.0.weight"], "is Lumina 2 in one file, which"),
        ("x.safetensors", ["double_layers.0.x"], "is AuraFlow, which is not {}"),
        ("x.safetensors", ["transformer_blocks.0.attn.add_k_proj.weight"], "is SD3 in one file, which holds"),
        ("x.safetensors", ["transformer_blocks.0.other"], "is a diffusion transformer, which is not {}"),
    ],
)
def test_files_of_another_kind_are_named(folder, params, name, keys, message):
    folder("sd")
    said = refusal(params, saved(name, keys), config="sd")
    assert f"{name} {message.format(f'supported; {FAMILIES}')}" in said


@pytest.mark.parametrize("layout", ["original", "prefixed", "diffusers"])
def test_a_unet_alone_as_main_is_named(folder, params, layout):
    path = folder("sd")
    tensors = load_file(path / "unet/diffusion_pytorch_model.safetensors")
    if layout != "diffusers":
        prefix = "model.diffusion_model." if layout == "prefixed" else ""
        tensors = {prefix + name: tensor for name, tensor in original_unet(path).items()}
    save_file(tensors, "unet.safetensors", {"format": "pt"})
    said = (
        "model.main unet.safetensors holds a UNet alone; name a whole checkpoint, "
        "or add model.text_encoder and model.vae"
    )
    assert refusal(params, "unet.safetensors") == said
    assert refusal(params, "unet.safetensors", config="sd") == said
    said = "model.main unet.safetensors holds a UNet alone; name a whole checkpoint, or add model.vae"
    assert refusal(params, "unet.safetensors", config="sd", text_encoder="sd") == said
    looked_at(params, "unet.safetensors", config="sd", text_encoder="sd", vae="sd")


def test_a_unet_alone_draws_with_the_parts_that_are_added(folder, params):
    path = folder("sd")
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in original_unet(path).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, "unet.safetensors", {"format": "pt"})
    texts = {"prompt": ["1person, blue hair"], "empty": [""]}
    params["arms"], params["baseline"] = {"cfg": {"method": "cfg", "scale": 3.0}}, "cfg"
    drawn = []
    for model in ({"main": "sd"}, {"main": "unet.safetensors", "config": "sd", "text_encoder": "sd", "vae": "sd"}):
        params["model"] = {"name": "small", "guide": "sd", **model}
        drawn.append(ArmGenerator(parse_study(params, "test"), "cfg", CPU).draw(texts, [1]).images[0].tobytes())
    assert drawn[0] == drawn[1]


def test_an_sdxl_unet_alone_needs_a_whole_checkpoint(folder, params):
    path = folder("sdxl")
    tensors = {f"model.diffusion_model.{name}": tensor.contiguous() for name, tensor in original_unet(path).items()}
    save_file(tensors, "unet.safetensors", {"format": "pt"})
    assert refusal(params, "unet.safetensors", config="sdxl", text_encoder="sdxl", vae="sdxl") == (
        "model.main unet.safetensors holds a UNet alone; name a whole checkpoint"
    )


def test_an_autoencoder_alone_and_a_file_without_one_are_named(folder, params):
    path = folder("sd")
    save_file(original_vae(path), "vae.safetensors", {"format": "pt"})
    assert refusal(params, "vae.safetensors", config="sd") == (
        "model.main vae.safetensors holds an autoencoder alone; name a whole checkpoint"
    )
    save_single_file(path, Path("whole.safetensors"))
    looked_at(params, "whole.safetensors", config="sd")
    tensors = load_file("whole.safetensors")
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("first_stage_model.")}
    save_file(without, "pruned.safetensors", {"format": "pt"})
    assert refusal(params, "pruned.safetensors", config="sd") == (
        "model.main pruned.safetensors holds no autoencoder; name a whole checkpoint, or add model.vae"
    )
    looked_at(params, "pruned.safetensors", config="sd", vae="sd")


@pytest.mark.parametrize(
    ("name", "part", "family"),
    [
        ("Flux2KleinKVTransformer2DModel", "", "another kind of FLUX.2"),
        ("PixArtTransformer2DModel", "transformer", "PixArt"),
        ("ChromaRadianceTransformer2DModel", "", "another kind of Chroma"),
        ("QwenImageEditTransformer2DModel", "", "another kind of Qwen-Image"),
        ("PriorTransformer", "prior", None),
    ],
)
@pytest.mark.parametrize("index", [False, True])
def test_a_folder_of_another_family_is_named_by_it(folder, params, name, part, family, index):
    place = folder("sd").parent / "other" / part
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"_class_name": name}))
    (place / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    if index:
        name = name.replace("Transformer2DModel", "") + "Pipeline"
        Path("other/model_index.json").write_text(json.dumps({"_class_name": name}))
    said = refusal(params, "other")
    if family is None:
        assert said.startswith(f"other is a {name}, of no known family; known families: sd3 (")
    else:
        assert said == f"other is {family} ({name}), which is not supported; {FAMILIES}"


def test_sdxls_refiner_is_named_with_the_base_model(folder, params):
    path = folder("sdxl")
    index = json.loads((path / "model_index.json").read_text())
    change = {"_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": True}
    (path / "model_index.json").write_text(json.dumps({**index, **change}))
    assert refusal(params, "sdxl") == f"sdxl {REFINER}"
    # Without the index, the UNet's configuration says it.
    (path / "model_index.json").unlink()
    unet = json.loads((path / "unet/config.json").read_text())
    change = {"cross_attention_dim": 48, "projection_class_embeddings_input_dim": 48 + 5 * 8}
    (path / "unet/config.json").write_text(json.dumps({**unet, **change}))
    shutil.rmtree(path / "text_encoder")
    assert refusal(params, "sdxl") == f"sdxl {REFINER}"


def test_one_part_given_as_a_folder_is_named(folder, params):
    folder("sd")
    assert refusal(params, "sd/unet") == "sd/unet is a UNet alone; name the folder of the whole checkpoint: sd"
    assert refusal(params, "sd/vae") == (
        "sd/vae is one part of a checkpoint alone (AutoencoderKL); name the folder of the whole checkpoint"
    )
    assert "sd/text_encoder is one part of a checkpoint alone (CLIPTextModel)" in refusal(params, "sd/text_encoder")
    shutil.copytree("sd/unet", "alone")
    assert refusal(params, "alone").endswith(": the one that holds it as unet/, with scheduler/ beside it")


def test_a_single_file_in_a_folder_is_named(folder, params):
    Path("models/anime").mkdir(parents=True)
    save_single_file(folder("sd"), Path("models/anime/v3.safetensors"))
    assert refusal(params, "models/anime") == (
        "models/anime holds no unet/; a checkpoint in a single file is named itself: models/anime/v3.safetensors, "
        "with model.config"
    )


def test_a_stage_ends_with_exit_code_2_and_one_line(folder, params, capsys):
    folder("sd")
    saved("style.safetensors", ["unet.conv_in.lora_A.weight"])
    with pytest.raises(SystemExit) as ended:
        run_stage(lambda: looked_at(params, "style.safetensors"))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: style.safetensors is a LoRA, not a network")
    assert said.count("\n") == 1
