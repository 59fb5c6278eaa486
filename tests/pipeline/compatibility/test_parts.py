"""The parts of a study's networks fit each other, and a UNet reads nothing that sampling does not give it."""

from pathlib import Path

import pytest
import torch
from checked_networks import Networks, edit
from one_arm import generate
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipeline.errors import InputError
from pipeline.generate import arm_anlas
from pipeline.networks.checkpoints import locate
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.storage.places import Places
from pipeline.storage.shards import decode_images, read_set
from pipeline.study.study import parse_study

CFG = {"cfg": {"method": "cfg", "scale": 4.0}}
NOT_GIVEN = "which sampling does not provide; take a plain text-to-image checkpoint"
UNET = "sd/unet/config.json"


@pytest.fixture
def networks(params, pipelines_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Networks(params, pipelines_folder)


def unet(folder, **values):
    edit(Path(folder, "unet/config.json"), **values)


def without_weights(folder):
    """Configurations alone: what is refused by them was not seen in a weight."""
    for path in Path(folder).rglob("*.safetensors"):
        path.unlink()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"in_channels": 8}, "in_channels to 8, but latents have 4 channels: its UNet also reads an image (InstructP"),
        (
            {"in_channels": 5},
            "in_channels to 5, but latents have 4 channels: its UNet also reads 1 more channel, which",
        ),
        (
            {"in_channels": 7},
            "in_channels to 7, but latents have 4 channels: its UNet also reads 3 more channels, which",
        ),
        ({"time_cond_proj_dim": 256}, "time_cond_proj_dim to 256: its UNet reads the guidance scale (a latent consis"),
        ({"class_embed_type": "timestep"}, "class_embed_type to timestep: its UNet reads a class label, which"),
        ({"class_embed_type": "projection"}, "class_embed_type to projection: its UNet reads a class label, which"),
        ({"num_class_embeds": 1000}, "num_class_embeds to 1000: its UNet reads a class label, which"),
        ({"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type to image_proj: its UNet reads the embedding of"),
        ({"attention_type": "gated"}, "attention_type to gated: its UNet reads boxes (GLIGEN), which"),
    ],
)
@pytest.mark.parametrize("who", ["main", "guide"])
def test_an_input_that_sampling_does_not_give_is_named(networks, who, changes, what):
    for folder in ("sd", "sd_guide"):
        networks.copy(folder)
        without_weights(folder)
    folder = "sd" if who == "main" else "sd_guide"
    unet(folder, **changes)
    if who == "guide" and "in_channels" in changes:
        said = networks.refused("sd", "sd_guide")
        assert said.startswith("the guide sd_guide does not fit: channels of a sample is 4 in the main network")
        return
    said = networks.refused("sd", "sd_guide")
    assert said.startswith(f"model.{who}: {folder}/unet/config.json sets {what}")
    assert said.endswith(NOT_GIVEN)


@pytest.mark.parametrize("kind", ["image", "image_hint", "text_image"])
def test_added_conditions_of_images_are_named(networks, kind):
    networks.copy("sd")
    unet("sd", addition_embed_type=kind)
    assert networks.refused("sd") == (
        f"model.main: {UNET} sets addition_embed_type to {kind}, but UNets of family sd have null or text; "
        "take a plain text-to-image checkpoint of that family"
    )


def test_a_unet_that_says_sdxl_and_reads_no_sizes_is_named(networks):
    networks.copy("sdxl")
    unet("sdxl", addition_embed_type=None)
    assert "sets addition_embed_type to null, but UNets of family sdxl have text_time" in networks.refused("sdxl")


def test_an_inpainting_network_is_refused_for_an_arm_without_a_mask(networks):
    weights = networks.copy("sd") / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.weight"] = torch.cat([tensors["conv_in.weight"]] * 3, 1)[:, :9].contiguous()
    save_file(tensors, weights, {"format": "pt"})
    unet("sd", in_channels=9)
    assert networks.refused("sd") == (
        "arms.cfg has no inpaint, and the UNet of sd reads a mask and an image (in_channels 9); set inpaint and "
        "image_to_image.from a folder of shards, or take a plain text-to-image checkpoint"
    )


def test_an_inpainting_network_is_given_masks_without_grey(networks):
    without_weights(networks.copy("sd"))
    unet("sd", in_channels=9)
    arm = {**CFG["cfg"], "image_to_image": {"from": "kept/cfg", "strength": 1.0}}
    networks.check("sd", arms={"cfg": {**arm, "inpaint": {"box": [0, 0, 0.5, 1]}}})
    with pytest.raises(InputError, match=r"^arms\.cfg\.inpaint\.feather is 0\.1, but the UNet of sd reads a mask"):
        networks.check("sd", arms={"cfg": {**arm, "inpaint": {"box": [0, 0, 0.5, 1], "feather": 0.1}}})


def test_a_learned_variance_is_named(networks):
    without_weights(networks.copy("sd"))
    unet("sd", out_channels=8)
    assert networks.refused("sd").startswith(
        f"model.main: {UNET} sets out_channels to 8 and in_channels to 4: it also predicts a variance"
    )


def test_fewer_channels_than_latents_are_named(networks):
    without_weights(networks.copy("sd"))
    unet("sd", in_channels=3)
    assert networks.refused("sd") == (
        f"model.main: {UNET} sets in_channels to 3, but latents have 4 channels; take a checkpoint whose UNet and "
        "autoencoder fit"
    )


@pytest.mark.parametrize(("part", "name"), [("unet", "UNetMotionModel"), ("vae", "AutoencoderTiny")])
def test_another_kind_of_network_is_named(networks, part, name):
    networks.copy("sd")
    edit(Path("sd", part, "config.json"), _class_name=name)
    assert networks.refused("sd").startswith(f"model.main: sd/{part}/config.json describes {name}, but only ")


def test_an_autoencoder_of_other_channels_is_named(networks):
    networks.copy("sd")
    edit(Path("sd/vae/config.json"), latent_channels=16)
    assert networks.refused("sd") == (
        "model.main: sd/vae/config.json sets latent_channels to 16, but model.main sd predicts 4 (out_channels); "
        "take an autoencoder that fits the UNet"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latent_channels": 16}, "16 channels for 2x2 pixels, scaled by 0.18215"),
        ({"scaling_factor": 0.13025}, "4 channels for 2x2 pixels, scaled by 0.13025"),
        ({"shift_factor": 0.1159}, "4 channels for 2x2 pixels, scaled by 0.18215, shifted by 0.1159"),
        ({"latents_mean": [0.0] * 4}, "scaled by 0.18215, latents_mean [0.0, 0.0, 0.0, 0.0]"),
        ({"block_out_channels": [8, 16, 16, 16]}, "4 channels for 8x8 pixels, scaled by 0.18215"),
    ],
)
def test_an_autoencoder_in_place_of_the_main_one_has_the_same_latents(networks, changes, says):
    networks.copy("sd")
    networks.copy("sd_guide", "other")
    networks.check("sd", vae="other")
    edit(Path("other/vae/config.json"), **changes)
    said = networks.refused("sd", vae="other")
    assert said.startswith("model.vae: other/vae/config.json describes other latents (")
    assert f"{says}) than the autoencoder of model.main sd (4 channels for 2x2 pixels, scaled by 0.18215); " in said


def test_a_scale_that_the_first_configurations_left_out_is_theirs(networks):
    networks.copy("sd")
    networks.copy("sd_guide")
    edit(Path("sd/vae/config.json"), lambda content: content.pop("scaling_factor"))
    networks.check("sd", "sd_guide")
    edit(Path("sd_guide/vae/config.json"), scaling_factor=0.13025)
    assert networks.refused("sd", "sd_guide").startswith("the guide sd_guide does not fit: space of the samples is 4 c")


@pytest.mark.parametrize("scale", [None, 0, -1.0, "0.18215", True])
def test_a_scale_that_is_not_a_positive_number_is_named(networks, scale):
    networks.copy("sd")
    edit(Path("sd/vae/config.json"), scaling_factor=scale)
    said = f"model.main: sd/vae/config.json sets scaling_factor to {'null' if scale is None else scale}, which must be"
    assert networks.refused("sd").startswith(said)


def test_an_autoencoder_of_transparent_images_is_named(networks):
    networks.copy("sd")
    edit(Path("sd/vae/config.json"), out_channels=4)
    assert networks.refused("sd").startswith(
        "model.main: sd/vae/config.json sets out_channels to 4: images have 3 channels; take an autoencoder for"
    )


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_texts_of_another_width_are_named(networks, kind):
    networks.copy(kind)
    networks.copy("sd_guide", "wide")
    edit(Path("wide/text_encoder/config.json"), hidden_size=64)
    files = "wide/text_encoder and sdxl/text_encoder_2" if kind == "sdxl" else "wide/text_encoder"
    own = 80 if kind == "sdxl" else 32
    assert networks.refused(kind, text_encoder="wide") == (
        f"model.main: {kind}/unet/config.json sets cross_attention_dim to {own}, but the text embeddings of {files} "
        f"have width {own + 32}; take text encoders that fit the UNet"
    )


def test_one_width_for_each_block_is_compared_block_by_block(networks):
    networks.copy("sd")
    unet("sd", cross_attention_dim=[32, 32])
    networks.check("sd")
    unet("sd", cross_attention_dim=[32, 64])
    assert (
        "sets cross_attention_dim to 64, but the text embeddings of sd/text_encoder have width 32"
        in networks.refused("sd")
    )


def test_a_pooled_text_of_another_width_is_named(networks):
    networks.copy("sdxl")
    edit(Path("sdxl/text_encoder_2/config.json"), projection_dim=64)
    assert networks.refused("sdxl") == (
        "model.main: sdxl/unet/config.json sets projection_class_embeddings_input_dim to 96, but the pooled embedding "
        "of sdxl/text_encoder_2/config.json and the image's sizes have width 112; take text encoders that fit the UNet"
    )


def test_a_text_encoder_that_is_not_clips_is_named(networks):
    networks.copy("sd")
    edit(Path("sd/text_encoder/config.json"), model_type="t5")
    assert networks.refused("sd").startswith(
        "model.main: sd/text_encoder/config.json describes a t5 model, but only CLIP"
    )


def long_text_encoder(networks, positions):
    """A folder `long` whose text encoder and tokenizer read more tokens than those of the main network."""
    folder = networks.copy("sd_guide", "long")
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config.max_position_embeddings = positions
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    edit(folder / "tokenizer/tokenizer_config.json", model_max_length=positions)


def test_two_text_encoders_of_different_lengths_are_named(networks):
    networks.copy("sdxl")
    long_text_encoder(networks, 248)
    own = min(locate("sdxl").mapping("tokenizer_2/tokenizer_config.json")["model_max_length"], 248)
    assert networks.refused("sdxl", text_encoder="long") == (
        "model.text_encoder: long/text_encoder/config.json and its tokenizer read 248 tokens at once, "
        f"sdxl/text_encoder_2/config.json and its tokenizer {own}; their embeddings are joined token by token, so "
        "take text encoders of equal contexts"
    )
    # More positions than its tokenizer cuts to are no longer text.
    edit(Path("long/tokenizer/tokenizer_config.json"), model_max_length=own)
    networks.check("sdxl", text_encoder="long")


def test_one_text_encoder_reads_what_length_it_has(networks, tmp_path):
    networks.copy("sd")
    long_text_encoder(networks, 248)
    networks.check("sd", arms=CFG, text_encoder="long")
    networks.params["generate"] = {"images": 10, "first_seed": 0, "shard": 10, "batch": 10}
    assert generate(parse_study(networks.params, "test"), "cfg", Places.under(tmp_path / "made")) == (1, 1)


@pytest.mark.parametrize("size", [None, "absent", 0, [16], "16", True])
def test_without_a_canvas_of_training_an_arm_needs_its_own(networks, tmp_path, size):
    networks.copy("sd")
    edit(
        Path("sd/unet/config.json"),
        lambda content: content.pop("sample_size") if size == "absent" else content.update(sample_size=size),
    )
    said = networks.refused("sd")
    assert said.startswith("arms.cfg: sd/unet/config.json gives no canvas (sample_size is ")
    assert said.endswith("; set the arm's canvas, for example {width: 512, height: 512}")


@pytest.mark.parametrize("canvas", [{"width": 48, "height": 24}, None])
def test_a_canvas_of_the_arm_stands_for_the_missing_one(networks, tmp_path, canvas):
    networks.copy("sd")
    unet("sd", sample_size=None if canvas else [12, 24])
    networks.check("sd", arms={"cfg": {**CFG["cfg"], **({"canvas": canvas} if canvas else {})}})
    networks.params["generate"] = {"images": 10, "first_seed": 0, "shard": 10, "batch": 10}
    study = parse_study(networks.params, "test")
    assert generate(study, "cfg", Places.under(tmp_path)) == (1, 1)
    assert {image.size for image in decode_images(read_set(tmp_path / "data/sets/cfg"))} == {(48, 24)}
    assert arm_anlas(study, "cfg") > 0


def test_an_arm_that_others_start_from_is_looked_at_with_them(networks):
    networks.copy("sd")
    networks.copy("sd_guide")
    unet("sd_guide", time_cond_proj_dim=256)
    networks.params["model"] = {"name": "small", "main": "sd", "guide": "sd_guide"}
    auto = {"method": "autoguidance", "scale": 1.5}
    start = {"from": "auto", "source": auto, "strength": 0.5}
    networks.params["arms"] = {"auto": auto, "cfg": {**CFG["cfg"], "image_to_image": start}}
    study = parse_study(networks.params, "test")
    with pytest.raises(InputError, match=r"model\.guide: sd_guide/unet/config\.json sets time_cond_proj_dim to 256"):
        generate(study, "cfg", Places.under(Path("made")))
    assert not Path("made").exists()


def test_every_kind_that_is_read_fits(networks, networks_folder):
    for kind in ("sd", "sd2", "sdxl"):
        networks.copy(kind)
        networks.copy(f"{kind}_guide")
        networks.check(kind, f"{kind}_guide")
    for name in ("main", "guide"):
        Path(name).symlink_to(networks_folder / name)
    networks.check("main", "guide")


def add_token(folder):
    """Add a token above the end mark; returns its number."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<sks>"])
    tokenizer.save_pretrained(folder)
    return len(tokenizer) - 1


def test_a_trained_token_is_read_with_the_embedding_that_was_saved_with_it(networks):
    networks.copy("sd")
    number = add_token(Path("sd/tokenizer"))
    assert f"has token {number} (<sks>)" in networks.refused("sd")
    model = CLIPTextModel.from_pretrained("sd/text_encoder")
    model.resize_token_embeddings(number + 1)
    model.config.eos_token_id = 2  # of early configurations; no pooled embedding is taken from this encoder
    model.save_pretrained("sd/text_encoder")
    networks.check("sd", arms=CFG)
    texts = load_text_encoder(Path("sd"), torch.device("cpu")).encode(["a <sks> dog", "a dog"])["tokens"]
    assert not torch.equal(*texts)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_part_with_quantized_weights_is_named(networks, part):
    networks.copy("sd")
    edit(Path(f"sd/{part}/config.json"), quantization_config={"quant_method": "torchao", "quant_type": "int8wo"})
    assert networks.refused("sd") == (
        f"model.main: sd/{part}/config.json has a quantization_config (torchao), which is not supported; "
        "take the checkpoint in float32, float16 or bfloat16"
    )


@pytest.mark.parametrize("name", ["main", "guide"])
def test_a_gguf_file_is_refused_by_its_suffix(networks, name):
    model = {"name": "small", "main": "sd", "guide": "sd", name: "models/sdxl-Q4_0.gguf"}
    networks.params["model"] = model
    with pytest.raises(InputError, match=r"sdxl-Q4_0.gguf': is a file of quantized weights \(GGUF\), which is not"):
        parse_study(networks.params, "test")
