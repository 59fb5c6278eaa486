"""LoRAs of transformers: what they make of the weights is what diffusers' pipelines make of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    ChromaPipeline,
    Flux2KleinPipeline,
    FluxPipeline,
    Lumina2Pipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    ZImagePipeline,
)
from original_transformers import original_flux2, transformer_of
from safetensors.torch import save_file

from pipeline.errors import InputError
from pipeline.networks.checkpoints import locate
from pipeline.networks.weights.lora import fuse, read_lora
from pipeline.networks.weights.transformer_file import in_diffusers_names

Tensors = dict[str, torch.Tensor]
PIPELINES: dict[str, Any] = {
    "sd3": StableDiffusion3Pipeline,
    "flux": FluxPipeline,
    "flux2_klein": Flux2KleinPipeline,
    "chroma": ChromaPipeline,
    "qwen_image": QwenImagePipeline,
    "lumina2": Lumina2Pipeline,
    "z_image": ZImagePipeline,
}
FILE = Path("lora.safetensors")
BLOCK = "transformer_blocks.0.attn"
# Four of each network: those of joint blocks, of Lumina 2's and of Z-Image's.
LAYERS = (
    *(f"{BLOCK}.{layer}" for layer in ("to_q", "to_out.0", "add_k_proj", "to_add_out")),
    *(f"{block}.attn.{layer}" for block in ("layers.0", "noise_refiner.0") for layer in ("to_q", "to_out.0")),
    *(f"{block}.attention.{layer}" for block in ("layers.0", "noise_refiner.0") for layer in ("to_q", "to_out.0")),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def transformer(flows_folder: Path) -> Callable[[str], Any]:
    """Loads the transformer of a pipeline by its name."""

    def load(name: str) -> Any:
        checkpoint = locate(str(flows_folder / name))
        return checkpoint.family.model_class.from_pretrained(checkpoint.path / "transformer")

    return load


def pair(out: int, width: int, seed: int, rank: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rank, width, generator=random), torch.randn(out, rank, generator=random)


def as_diffusers_names_them(network: Any) -> Tensors:
    file, layers = {}, dict(network.named_modules())
    for seed, name in enumerate(name for name in LAYERS if name in layers):
        out, width = network.get_submodule(name).weight.shape
        down, up = pair(out, width, seed)
        file |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    return file


def as_fluxs_original_code_names_them(network: Any) -> Tensors:
    file = {}
    width = network.inner_dim
    for seed, (name, out) in enumerate((("img_attn_qkv", 3 * width), ("txt_attn_proj", width))):
        down, up = pair(out, width, seed)
        stem = f"lora_unet_double_blocks_0_{name}"
        file |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.5)}
    return file


def as_xlabs_names_them(network: Any) -> Tensors:
    file = {}
    width = network.inner_dim
    for seed, (name, out) in enumerate((("qkv_lora1", 3 * width), ("proj_lora2", width))):
        down, up = pair(out, width, seed)
        stem = f"double_blocks.0.processor.{name}"
        file |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    return file


def as_flux2s_original_code_names_them(network: Any) -> Tensors:
    file, width = {}, network.inner_dim
    for seed, name in enumerate(("double_blocks.0.img_attn.qkv", "single_blocks.1.linear1")):
        rows = (
            3 * width if name.endswith("qkv") else len(network.single_transformer_blocks[1].attn.to_qkv_mlp_proj.weight)
        )
        down, up = pair(rows, width, seed)
        file |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
    return file


@pytest.mark.parametrize(
    ("name", "written"),
    [
        *((name, as_diffusers_names_them) for name in PIPELINES),
        *((name, as_fluxs_original_code_names_them) for name in ("flux", "flux2_klein", "chroma")),
        ("flux2_klein", as_flux2s_original_code_names_them),
        ("flux", as_xlabs_names_them),
    ],
)
def test_a_fused_lora_is_that_of_the_pipeline(
    transformer: Callable[[str], Any], flows_folder: Path, name: str, written: Callable[[Any], Tensors]
) -> None:
    network, before = transformer(name), dict(transformer(name).named_parameters())
    save_file(written(network), FILE)
    fuse(network, FILE, 0.7)
    pipeline = PIPELINES[name].from_pretrained(flows_folder / name, use_safetensors=True)
    pipeline.load_lora_weights(str(FILE))
    pipeline.fuse_lora(lora_scale=0.7)
    pipeline.unload_lora_weights()
    theirs = dict(pipeline.transformer.named_parameters())
    changed = [key for key, weight in network.named_parameters() if not torch.equal(weight, before[key])]
    assert len(changed) == 4
    for key, weight in network.named_parameters():
        torch.testing.assert_close(weight, theirs[key], atol=1e-5, rtol=1e-5)


def test_a_lora_of_flux_2s_original_layers_is_the_original_network_with_it(
    transformer: Callable[[str], Any], flows_folder: Path
) -> None:
    """Every kind of layer that FLUX.2's code has, the last norm too, whose rows diffusers has in another order."""
    network = transformer("flux2_klein")
    original = original_flux2(transformer_of(flows_folder / "flux2_klein"))
    layers = {key.removesuffix(".weight"): value for key, value in original.items() if key.endswith(".weight")}
    file = {}
    for seed, (name, weight) in enumerate(layers.items()):
        down, up = pair(*weight.shape, seed)
        file |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
        original[f"{name}.weight"] = weight + 0.7 * up @ down
    save_file(file, FILE)
    fuse(network, FILE, 0.7)
    kind = "Flux2Transformer2DModel"
    for key, weight in in_diffusers_names(original, (), kind, {}).items():
        torch.testing.assert_close(network.get_parameter(key).data, weight)
    # Kohya's names of some of them are unknown to diffusers, which would leave them out.
    kohyas = {
        key.replace("diffusion_model.", "lora_unet_").removesuffix(f".lora_{part}.weight").replace(".", "_")
        + f".lora_{ours}.weight": tensor
        for key, tensor in file.items()
        for part, ours in (("A", "down"), ("B", "up"))
        if key.endswith(f".lora_{part}.weight")
    }
    save_file(kohyas, FILE)
    said = "cannot be converted from FLUX.2's original names .unknown: lora_unet_double_stream_modulation_img_lin.lora_"
    with pytest.raises(InputError, match=said):
        read_lora(FILE, network)
    peft = {key.replace("diffusion_model.", "base_model.model."): tensor for key, tensor in file.items()}
    save_file(peft, FILE)
    with pytest.raises(InputError, match=r"was saved by PEFT .* whose alpha stands in another file"):
        read_lora(FILE, network)


def test_a_lora_of_another_transformer_is_refused(transformer: Callable[[str], Any]) -> None:
    save_file(as_fluxs_original_code_names_them(transformer("flux")), FILE)
    for name in ("sd3", "qwen_image"):
        with pytest.raises(InputError, match=r"2 of its 2 layers match no layer of this transformer .lora_unet_dou"):
            read_lora(FILE, transformer(name))
    save_file({f"transformer.{LAYERS[0]}.lora_A.weight": torch.ones(2, 5)}, FILE)
    with pytest.raises(InputError, match="without its up matrix"):
        read_lora(FILE, transformer("sd3"))


def test_layers_that_diffusers_cannot_convert_are_refused(transformer: Callable[[str], Any]) -> None:
    file = as_fluxs_original_code_names_them(transformer("flux"))
    file |= {key.replace("txt_attn_proj", "txt_attn_new"): tensor for key, tensor in file.items() if "proj" in key}
    save_file({key: tensor.clone() for key, tensor in file.items()}, FILE)
    said = (
        r"cannot be converted from FLUX.1's original names .Incompatible keys detected: lora_unet_double_blocks_0_txt"
    )
    with pytest.raises(InputError, match=said):
        read_lora(FILE, transformer("flux"))
    file = as_fluxs_original_code_names_them(transformer("flux"))
    save_file(file | {"lora_unet_double_blocks_0_img_attn_qkv.dora_scale": torch.ones(1)}, FILE)
    with pytest.raises(InputError, match="is trained with DoRA"):
        read_lora(FILE, transformer("flux"))
