"""LoRA files of every layout end in W + scale * alpha / rank * up @ down; other methods are refused by name."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from single_file import original_unet

from eval import preflight
from pipeline.compatibility.loras import lora_changes
from pipeline.errors import InputError
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_plan import arm_texts, plan_arm
from pipeline.networks.weights.lora import fuse, layer_names, read_lora
from pipeline.preflight import check_arms
from pipeline.study.study import parse_study

Tensors = dict[str, torch.Tensor]
FILE = Path("lora.safetensors")
LAYERS = {
    "attention": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "attention to texts": "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k",
    "attention's output": "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "feed-forward": "up_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "projection": "down_blocks.1.attentions.0.proj_in",
    "convolution": "mid_block.resnets.1.conv2",
    "1x1 convolution": "up_blocks.1.resnets.0.conv_shortcut",
    "time": "down_blocks.0.resnets.0.time_emb_proj",
    "downsampler": "down_blocks.0.downsamplers.0.conv",
    "upsampler": "up_blocks.0.upsamplers.0.conv",
    "first": "conv_in",
    "last": "conv_out",
    "time embedding": "time_embedding.linear_2",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unet(pipelines_folder: Path) -> Callable[[str], UNet2DConditionModel]:
    """Loads the UNet of a pipeline by its name."""
    return lambda kind: UNet2DConditionModel.from_pretrained(pipelines_folder / kind / "unet")


def pair(weight: torch.Tensor, rank: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A random down and up matrix for a layer, of a convolution's shape where it is one."""
    random = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, *weight.shape[1:], generator=random)
    return down, torch.randn(weight.shape[0], rank, *(1,) * (weight.ndim - 2), generator=random)


def by_formula(weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, factor: float) -> torch.Tensor:
    """W + factor * up @ down, summed over ranks one at a time."""
    delta = torch.zeros_like(weight)
    for k in range(down.shape[0]):
        delta += up[:, k].reshape(-1, *(1,) * (weight.ndim - 1)) * down[k].reshape(1, *weight.shape[1:])
    return weight + factor * delta


def kohya(module: str, down: torch.Tensor, up: torch.Tensor, alpha: float | None) -> Tensors:
    stem = f"lora_unet_{module.replace('.', '_')}"
    more = {} if alpha is None else {f"{stem}.alpha": torch.tensor(alpha)}
    return {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, **more}


def weights(unet: UNet2DConditionModel) -> Tensors:
    return {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}


def check_fused(unet: UNet2DConditionModel, expected: Tensors, scale: float) -> None:
    """Fuse the file and compare every weight; those that `expected` leaves out stay as they are, to the bit."""
    before = weights(unet)
    fuse(unet, FILE, scale)
    for name, weight in unet.named_parameters():
        if name in expected:
            torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=1e-5)
            assert not torch.equal(weight, before[name])
        else:
            assert torch.equal(weight, before[name]), name


def plan(unet: UNet2DConditionModel) -> list[tuple[str, torch.Tensor, int, float | None]]:
    """Layers of every kind with mixed ranks, and with alphas of which every third is missing."""
    modules = [name for name in LAYERS.values() if f"{name}.weight" in dict(unet.named_parameters())]
    return [
        (name, unet.get_submodule(name).weight.detach(), 1 + k % 4, None if k % 3 == 2 else 0.5 + k)
        for k, name in enumerate(modules)
    ]


@pytest.mark.parametrize("kind", ["sd", "sd2", "sdxl"])
@pytest.mark.parametrize("scale", [1.0, -0.7])
def test_kohyas_layers_are_fused_by_the_formula(unet, kind, scale):
    network, file, expected = unet(kind), {}, {}
    for seed, (module, weight, rank, alpha) in enumerate(plan(network)):
        down, up = pair(weight, rank, seed)
        file |= kohya(module, down, up, alpha)
        factor = scale * (1.0 if alpha is None else alpha / rank)
        expected[f"{module}.weight"] = by_formula(weight, down, up, factor)
    assert len(expected) >= 12
    save_file(file, FILE)
    check_fused(network, expected, scale)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_kohyas_old_names_are_those_of_the_original_code(unet, pipelines_folder, kind):
    network = unet(kind)
    # tests/single_file.py knows the original names by another way; which tensor is which is seen by their values.
    original = original_unet(pipelines_folder / kind)
    file, expected = {}, {}
    for seed, name in enumerate(sorted(layer_names(network).values())):
        weight = network.get_submodule(name).weight.detach()
        stem = next(
            key.removesuffix(".weight")
            for key, value in original.items()
            if key.endswith(".weight") and value.shape == weight.shape and torch.equal(value, weight)
        )
        down, up = pair(weight, 2, seed)
        file |= kohya(stem, down, up, 1.0)
        expected[f"{name}.weight"] = by_formula(weight, down, up, 0.5)
    assert "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q.lora_down.weight" in file
    assert len(expected) > 50
    save_file(file, FILE)
    check_fused(network, expected, 1.0)


def test_a_whole_sdxl_has_the_names_that_kohya_gives_them():
    """Names of a published SDXL LoRA, against SDXL's own configuration."""
    from accelerate import init_empty_weights

    blocks = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    with init_empty_weights():
        network = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=blocks,
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    names = layer_names(network)
    for old, new in {
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "input_blocks_4_1_transformer_blocks_1_attn2_to_k": (
            "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"
        ),
        "input_blocks_8_1_transformer_blocks_9_ff_net_0_proj": (
            "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj"
        ),
        "middle_block_1_proj_in": "mid_block.attentions.0.proj_in",
        "middle_block_2_in_layers_2": "mid_block.resnets.1.conv1",
        "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks_5_1_transformer_blocks_0_attn1_to_out_0": (
            "up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_out.0"
        ),
        "output_blocks_8_0_skip_connection": "up_blocks.2.resnets.2.conv_shortcut",
        "time_embed_0": "time_embedding.linear_1",
        "label_emb_0_2": "add_embedding.linear_2",
        "out_2": "conv_out",
    }.items():
        assert names[old] == new


@pytest.mark.parametrize(
    ("down_end", "up_end", "prefix", "changed"),
    [
        (".lora_A.weight", ".lora_B.weight", "unet.", str),
        (".lora_A.weight", ".lora_B.weight", "", str),
        (".lora.down.weight", ".lora.up.weight", "unet.", str),
        (".lora_down.weight", ".lora_up.weight", "diffusion_model.", str),
        (
            "_lora.down.weight",
            "_lora.up.weight",
            "unet.",
            lambda module: re.sub(r"(attn\d)\.", r"\1.processor.", module).replace("to_out.0", "to_out"),
        ),
    ],
)
def test_other_layouts_of_the_same_pairs_are_the_same_lora(unet, down_end, up_end, prefix, changed):
    network, file, expected = unet("sd"), {}, {}
    for seed, module in enumerate(name for name in LAYERS.values() if ".attn" in name):
        weight = network.get_submodule(module).weight.detach()
        down, up = pair(weight, 3, seed)
        stem = prefix + changed(module)
        file |= {stem + down_end: down, stem + up_end: up, f"{stem}.alpha": torch.tensor([1.5])}
        if "_lora" in down_end[:5]:
            del file[f"{stem}.alpha"]
        expected[f"{module}.weight"] = by_formula(weight, down, up, 1.0 if "_lora" in down_end[:5] else 0.5)
    save_file(file, FILE)
    check_fused(network, expected, 1.0)


def test_a_matrix_fits_a_1x1_convolution_and_the_other_way_round(unet):
    file, expected = {}, {}
    for kind in ("sd", "sdxl"):  # 1x1 convolutions in one, matrices in the other
        network = unet(kind)
        module = LAYERS["projection"]
        weight = network.get_submodule(module).weight.detach()
        down, up = pair(weight.flatten(1)[..., None, None] if weight.ndim == 2 else weight.flatten(1), 2)
        assert down.ndim != weight.ndim
        file = kohya(module, down, up, 1.0)
        expected = {f"{module}.weight": by_formula(weight, down, up.flatten(1), 0.5)}
        save_file(file, FILE)
        check_fused(network, expected, 1.0)


def test_pefts_pairs_of_several_ranks_without_alphas_have_alpha_equal_to_rank(unet):
    network, library, file, expected = unet("sd"), unet("sd"), {}, {}
    for seed, module in enumerate(name for name in LAYERS.values() if ".attn" in name or "resnets" in name):
        weight = network.get_submodule(module).weight.detach()
        down, up = pair(weight, 1 + seed, seed)
        file |= {f"unet.{module}.lora_A.weight": down, f"unet.{module}.lora_B.weight": up}
        expected[f"{module}.weight"] = by_formula(weight, down, up, 0.8)
    save_file(file, FILE)
    check_fused(network, expected, 0.8)
    library.load_lora_adapter(file, prefix="unet", adapter_name="guide")
    library.fuse_lora(lora_scale=0.8, adapter_names=["guide"])
    library.unload_lora()
    for name, weight in library.named_parameters():
        torch.testing.assert_close(weight, network.get_parameter(name), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
def test_pefts_alphas_are_those_of_the_files_header(unet, rslora):
    network = unet("sd")
    trained = unet("sd")
    trained.add_adapter(
        LoraConfig(
            r=2,
            lora_alpha=3,
            rank_pattern={"attn2.to_v": 4},
            alpha_pattern={"attn2.to_v": 5},
            target_modules=["to_q", "to_v"],
            use_rslora=rslora,
            init_lora_weights=False,
        )
    )
    own = {f"unet.{key}": value.contiguous() for key, value in get_peft_model_state_dict(trained).items()}
    config = trained.peft_config["default"]
    header = {"unet.r": 2, "unet.lora_alpha": config.lora_alpha, "unet.alpha_pattern": config.alpha_pattern}
    save_file(own, FILE, {"lora_adapter_metadata": json.dumps({**header, "unet.use_rslora": rslora})})
    expected = {}
    for key in own:
        if key.endswith("lora_A.weight"):
            name = key.removeprefix("unet.").removesuffix(".lora_A.weight")
            down, up = own[key], own[key.replace("lora_A", "lora_B")]
            alpha, rank = (5, 4) if name.endswith("attn2.to_v") else (3, 2)
            weight = network.get_submodule(name).weight.detach()
            expected[f"{name}.weight"] = by_formula(weight, down, up, alpha / (rank**0.5 if rslora else rank))
    check_fused(network, expected, 1.0)
    trained.fuse_lora()
    fused = dict(trained.named_parameters())
    for name, weight in expected.items():
        library = fused[name.replace(".weight", ".base_layer.weight")].detach()
        torch.testing.assert_close(library, weight, atol=1e-5, rtol=1e-5)


def test_half_precision_rounds_once(unet):
    network = unet("sd").half()
    module = LAYERS["attention"]
    weight = network.get_submodule(module).weight.detach().float()
    down, up = pair(weight, 4)
    save_file({key: value.half() for key, value in kohya(module, down, up, 2.0).items()}, FILE)
    expected = by_formula(weight, down.half().float(), up.half().float(), 0.5)
    fuse(network, FILE, 1.0)
    torch.testing.assert_close(network.get_submodule(module).weight.float(), expected, atol=4e-3, rtol=1e-3)


def simple(unet: UNet2DConditionModel, module: str = LAYERS["attention"]) -> Tensors:
    weight = unet.get_submodule(module).weight.detach()
    return kohya(module, *pair(weight, 2), 1.0)


def refusal(network: UNet2DConditionModel, file: Tensors) -> str:
    before = weights(network)
    save_file(file, FILE)
    with pytest.raises(InputError) as raised:
        fuse(network, FILE, 1.0)
    assert all(torch.equal(weight, before[name]) for name, weight in network.named_parameters())
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("end", "method"),
    [
        ("hada_w1_a", "LoHa"),
        ("hada_t1", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("lokr_w2_b", "LoKr"),
        ("dora_scale", "DoRA"),
        ("lora_magnitude_vector", "DoRA"),
        ("oft_blocks", "OFT"),
        ("on_input", "IA3"),
        ("a1.weight", "GLoRA"),
        ("b2.weight", "GLoRA"),
        ("lora_mid.weight", "LoRA with a Tucker core (lora_mid)"),
        ("diff", "full weight differences (diff)"),
        ("vera_lambda_b", "VeRA"),
        ("w_norm", "full weight differences (diff)"),
        ("lora_B.bias", "biases (lora_bias)"),
        ("lora_B.default.bias", "biases (lora_bias)"),
        ("reshape_weight", "layers of another size (reshape_weight)"),
        ("scale_weight", "scaled 8-bit weights"),
    ],
)
def test_other_methods_are_refused_by_name(unet, end, method):
    network = unet("sd")
    key = f"lora_unet_mid_block_attentions_0_proj_in.{end}"
    said = refusal(network, {**simple(network), key: torch.ones(2, 2)})
    assert said == (
        f"model.weaken.file lora.safetensors is trained with {method} ({key}), which is not supported; name a LoRA of "
        "lora_down and lora_up pairs, or merge the file into a checkpoint and name that as model.guide"
    )


def test_layers_of_another_network_are_named(unet):
    network = unet("sd")
    stems = [f"lora_unet_double_blocks_{k}_img_attn_qkv" for k in range(4)]
    file = {f"{stem}.lora_{end}.weight": torch.ones(2, 2) for stem in stems for end in ("down", "up")}
    assert refusal(network, {**simple(network), **file}) == (
        "model.weaken.file lora.safetensors: 4 of its 5 layers match no layer of this UNet "
        f"({', '.join(stems[:3])} ...); name a LoRA that was trained for this kind of network"
    )
    # One of PEFT's, of a network with more blocks.
    peft = {f"unet.down_blocks.7.resnets.0.conv1.lora_{x}.weight": torch.ones(2, 2) for x in "AB"}
    assert "1 of its 1 layers match no layer of this UNet (unet.down_blocks.7.resnets.0.conv1)" in refusal(
        network, peft
    )


def test_layers_of_another_width_are_named(unet):
    file = simple(unet("sd"), LAYERS["attention to texts"])
    said = refusal(unet("sdxl"), file)
    assert "lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_attn2_to_k holds down 2x32 and up 32x2" in said
    assert "do not fit the layer's weight 32x80; name a LoRA that was trained for this kind of network" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file, stem: file.pop(f"{stem}.lora_up.weight"), "without its up matrix; download the file again"),
        (lambda file, stem: file.pop(f"{stem}.lora_down.weight"), "without its down matrix; download the file again"),
        (lambda file, stem: file.update({f"{stem}.alpha": torch.tensor(float("nan"))}), "is not one finite number"),
        (lambda file, stem: file.update({f"{stem}.alpha": torch.ones(2)}), "is not one finite number"),
        (lambda file, stem: file.update({f"{stem}.scalar": torch.ones(())}), "is not a LoRA: it holds "),
        (lambda file, stem: file.update({"conv_in.weight": torch.ones(2)}), "is not a LoRA: it holds conv_in.weight"),
        (lambda file, stem: file.clear(), "is empty"),
        (
            lambda file, stem: file[f"{stem}.lora_up.weight"].fill_(float("nan")),
            ".lora_up.weight holds values that are not finite numbers, so its training has failed; name another file",
        ),
        (lambda file, stem: file[f"{stem}.lora_down.weight"][0].fill_(float("inf")), "are not finite numbers"),
        (
            lambda file, stem: file.update({f"{stem}.lora_up.weight": file[f"{stem}.lora_up.weight"].to(torch.int8)}),
            ".lora_up.weight holds integers, whose scale is not read; name a file of floats",
        ),
        (
            lambda file, stem: file.update(
                {f"{stem}.lora_up.weight": torch.zeros_like(file[f"{stem}.lora_up.weight"])}
            ),
            "changes no weight of this network: its matrices or its alphas are zero",
        ),
        (
            lambda file, stem: file.update(
                {
                    key.replace("down_blocks_1_attentions_0", "input_blocks_3_1"): value.clone()
                    for key, value in file.items()
                }
            ),
            "changes down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q twice",
        ),
    ],
)
def test_damaged_files_are_named(unet, change: Callable[[Tensors, str], Any], message):
    network = unet("sd")
    file = simple(network)
    change(file, f"lora_unet_{LAYERS['attention'].replace('.', '_')}")
    assert message in refusal(network, file)


def peft(module: str, down: torch.Tensor, up: torch.Tensor, prefix: str = "unet.", adapter: str = "") -> Tensors:
    return {f"{prefix}{module}.lora_A{adapter}.weight": down, f"{prefix}{module}.lora_B{adapter}.weight": up}


@pytest.mark.parametrize("adapter", ["", ".default", ".default_0", ".style"])
def test_the_name_of_pefts_adapter_changes_nothing(unet, adapter):
    network, module = unet("sd"), LAYERS["attention"]
    weight = network.get_submodule(module).weight.detach().clone()
    down, up = pair(weight, 2)
    save_file(peft(module, down, up, adapter=adapter), FILE)
    check_fused(network, {f"{module}.weight": by_formula(weight, down, up, 0.5)}, 0.5)


def test_a_file_of_several_adapters_is_refused(unet):
    network = unet("sd")
    first, second = LAYERS["attention"], LAYERS["attention to texts"]
    files = [
        peft(module, *pair(network.get_submodule(module).weight.detach(), 2), adapter=adapter)
        for module, adapter in ((first, ".a"), (second, ".b"))
    ]
    assert refusal(network, files[0] | files[1]) == (
        "model.weaken.file lora.safetensors holds several adapters (a, b); name a file with one of them"
    )


def test_a_file_that_peft_saved_by_itself_lacks_its_alpha(unet):
    network, module = unet("sd"), LAYERS["attention"]
    file = peft(module, *pair(network.get_submodule(module).weight.detach(), 2), prefix="base_model.model.")
    said = refusal(network, file)
    assert said.startswith(f"model.weaken.file lora.safetensors was saved by PEFT (base_model.model.{module}.lora_A.")
    assert said.endswith("save it with diffusers' save_lora_weights and unet_lora_adapter_metadata")


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "loftq", "corda"])
def test_a_lora_that_holds_a_part_of_its_networks_weights_is_refused(unet, start):
    network, module = unet("sd"), LAYERS["attention"]
    before = weights(network)
    file = peft(module, *pair(network.get_submodule(module).weight.detach(), 2))
    for init in (start, True, "gaussian"):
        header = {"unet.r": 2, "unet.lora_alpha": 2, "unet.init_lora_weights": init}
        save_file(file, FILE, {"format": "pt", "lora_adapter_metadata": json.dumps(header)})
        if init != start:
            assert len(read_lora(FILE, network).layers) == 1
            continue
        with pytest.raises(InputError, match=rf"holds a part of the weights .* \(init_lora_weights {start}\), which"):
            fuse(network, FILE, 1.0)
        assert all(torch.equal(weight, before[name]) for name, weight in network.named_parameters())


@pytest.mark.parametrize("prefix", ["lycoris_", "unet."])
def test_names_of_other_trainers_are_the_same_layers(unet, prefix):
    network, module = unet("sd"), LAYERS["attention"]
    weight = network.get_submodule(module).weight.detach().clone()
    down, up = pair(weight, 2)
    name = module.replace(".", "_")
    if prefix == "unet.":  # OneTrainer's: the original code's names with dots
        name = "input_blocks.3.1.transformer_blocks.0.attn1.to_q"
    save_file(
        {
            f"{prefix}{name}.lora_down.weight": down,
            f"{prefix}{name}.lora_up.weight": up,
            f"{prefix}{name}.alpha": torch.tensor(1.0),
        },
        FILE,
    )
    check_fused(network, {f"{module}.weight": by_formula(weight, down, up, 0.25)}, 0.5)


def test_a_truncated_file_is_named(unet):
    network = unet("sd")
    save_file(simple(network), FILE)
    FILE.write_bytes(FILE.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"model.weaken.file lora.safetensors cannot be loaded .* download it again"):
        read_lora(FILE, network)


TEXTS = (
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1",
    "lora_te2_text_model_encoder_layers_0_mlp_fc2",
)


def with_texts(stems: tuple[str, ...] = TEXTS) -> Tensors:
    return {f"{stem}.lora_{end}.weight": torch.ones(2, 2) for stem in stems for end in ("down", "up")} | {
        f"{stem}.alpha": torch.tensor(1.0) for stem in stems
    }


@pytest.fixture
def lora_study(params, pipelines_folder, monkeypatch):
    """A study whose guide is made with the LoRA `lora.safetensors`."""
    monkeypatch.chdir(pipelines_folder)
    params["model"] = {
        "name": "lora",
        "main": "sd",
        "guide": "sd",
        "weaken": {"name": "lora", "file": str(FILE)},
    }
    params["arms"] = {"auto": {"method": "autoguidance", "scale": 1.5}, "cfg": {"method": "cfg", "scale": 3.0}}
    params["baseline"] = "cfg"
    return lambda: parse_study(params, "test")


def test_what_is_left_out_of_the_text_encoders_is_said_before_the_first_image(
    unet, lora_study, params, capsys, monkeypatch
):
    network = unet("sd")
    save_file({**simple(network), **with_texts()}, FILE)
    study = lora_study()
    check_arms(study)
    assert lora_changes(study) == [
        "model.weaken.file lora.safetensors changes layers of the guide's UNet: 1; "
        "left out are layers of text encoders: 3 (a guide reads the main network's texts)"
    ]
    # PEFT's name for the same part.
    save_file({**simple(network), **with_texts(("text_encoder.text_model.encoder.layers.0.self_attn.q_proj",))}, FILE)
    assert "left out are layers of text encoders: 1 " in str(lora_changes(study))
    # ComfyUI's, and embeddings that OneTrainer bundles.
    comfy = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj"
    bundled = {"bundle_emb.me.string_to_param.*": torch.ones(2, 32), "bundle_emb.me.clip_l": torch.ones(2, 32)}
    save_file({**simple(network), **with_texts((comfy,)), **bundled}, FILE)
    assert "left out are layers of text encoders: 2 " in str(lora_changes(study))
    params["arms"].pop("auto")
    assert lora_changes(lora_study()) == []


def test_a_lora_of_text_encoders_alone_is_refused(unet):
    assert refusal(unet("sd"), with_texts()) == (
        "model.weaken.file lora.safetensors changes text encoders alone (3 layers), and a guide reads the main "
        "network's texts; name a LoRA that changes a UNet"
    )


def test_preflight_refuses_a_lora_that_does_not_fit(unet, lora_study):
    save_file(simple(unet("sd"), LAYERS["attention to texts"]), FILE)
    check_arms(lora_study())
    save_file(simple(unet("sdxl"), LAYERS["attention to texts"]), FILE)
    with pytest.raises(InputError, match="do not fit the layer's weight 32x32"):
        check_arms(lora_study())


def test_the_stage_says_what_the_lora_changes(unet, lora_study, monkeypatch, capsys, tmp_path):
    save_file({**simple(unet("sd")), **with_texts()}, FILE)
    study = lora_study()
    study = study.model_copy(update={"headlines": {arm: arm for arm in study.arms}})
    for name, value in {"load_study": lambda: study, "check_measurable": lambda _: None}.items():
        monkeypatch.setattr(preflight, name, value)
    monkeypatch.setattr(preflight, "needed_files", lambda _: [])
    monkeypatch.setattr(preflight, "remember_params", lambda: None)
    monkeypatch.setattr("sys.argv", ["preflight"])
    for name in ("CODE", "WEIGHTS", "MEASURING"):
        monkeypatch.setattr(preflight, name, tmp_path / name)
    preflight.main()
    assert "preflight: model.weaken.file lora.safetensors changes layers of the guide's UNet: 1; left out" in (
        capsys.readouterr().out
    )


def test_a_lora_of_the_main_network_leaves_its_base_to_be_the_guide(unet, params, pipelines_folder, monkeypatch):
    """W + scale x alpha / rank x up x down in main, W in the guide from the same place; its digest is the study's."""
    monkeypatch.chdir(pipelines_folder)
    network = unet("sd")
    save_file(simple(network), FILE)
    params["model"] = {"name": "lora", "main": "sd", "guide": "sd", "loras": [{"file": str(FILE), "weight": 0.5}]}
    params["arms"] = {"auto": {"method": "autoguidance", "scale": 1.5}, "cfg": {"method": "cfg", "scale": 3.0}}
    params["baseline"] = "cfg"
    study = parse_study(params, "test")
    check_arms(study)
    assert lora_changes(study) == ["model.loras.0.file lora.safetensors changes layers of the main network's UNet: 1"]
    model = LoadedModel(study, torch.device("cpu"))
    fuse(network, FILE, 0.5)
    main, guide = (dict(one.unet.named_parameters()) for one in (model.main, model.guide))
    changed = [name for name in main if not torch.equal(main[name], guide[name])]
    assert len(changed) == 1
    assert torch.equal(main[changed[0]], network.get_parameter(changed[0]))
    planned = plan_arm(study, "cfg", arm_texts(study, "cfg"), "cpu")
    params["model"].pop("loras")
    other = plan_arm(parse_study(params, "test"), "cfg", arm_texts(study, "cfg"), "cpu")
    assert planned.shards[0].fingerprint != other.shards[0].fingerprint
    assert set(planned.inputs) - set(other.inputs) == {"networks.main_loras"}
    params["model"]["loras"] = [{"file": "none.safetensors"}]
    with pytest.raises(InputError, match=r"model\.loras\.0\.file none\.safetensors does not exist"):
        check_arms(parse_study(params, "test"))
