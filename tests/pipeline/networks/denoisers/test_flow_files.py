"""Files of families along rectified flow: folders, pieces, and transformers in one file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flow_studies import FLOWS, WITH_FLUX2, Flows, far
from original_transformers import original_flux2_transformer
from safetensors.torch import load_file, save_file
from single_file import save_sd3_single_file

from pipeline.networks.checkpoints import locate
from pipeline.networks.families import FAMILIES
from pipeline.networks.weights.weight_files import weight_paths


@pytest.mark.parametrize("name", WITH_FLUX2)
def test_a_folder_is_of_the_family_with_and_without_its_index(flows: Flows, name: str) -> None:
    folder = flows.copy(name)
    found = locate(name)
    factor = 4 if name.startswith("flux2") else 2  # its latents are patches of them
    assert (found.family, found.factor, found.unit) == (FAMILIES[name], factor, 4)
    (folder / "model_index.json").unlink()
    assert locate(name).family is FAMILIES[name]


@pytest.mark.parametrize("name", FLOWS)
def test_weights_in_pieces_are_read(flows: Flows, name: str) -> None:
    folder = flows.copy(name)
    whole = flows.draw(name)
    transformer = FAMILIES[name].model_class.from_pretrained(folder / "transformer")
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    transformer.save_pretrained(folder / "transformer", max_shard_size="100KB")
    assert len(weight_paths(folder, "transformer")) > 1
    assert far(whole, flows.draw(name)) <= 1


def test_sd3_in_one_file_is_the_same_checkpoint(flows: Flows) -> None:
    folder = flows.copy("sd3")
    # What such files leave out of the first CLIP: a projection that is none.
    first = load_file(folder / "text_encoder/model.safetensors")
    first["text_projection.weight"] = torch.eye(len(first["text_projection.weight"]))
    save_file(first, folder / "text_encoder/model.safetensors", {"format": "pt"})
    whole = flows.draw("sd3", method="cfg", scale=3.0)
    save_sd3_single_file(folder, Path("one.safetensors"))
    config = Path(shutil.copytree(folder, "config", ignore=shutil.ignore_patterns("*.safetensors")))
    model = {"main": "one.safetensors", "guide": "one.safetensors", "config": str(config)}
    assert far(whole, flows.draw("sd3", model=model, method="cfg", scale=3.0)) <= 1
    Path("part.safetensors").write_bytes(Path("sd3/transformer/diffusion_pytorch_model.safetensors").read_bytes())
    said = flows.refused("sd3", model=model | {"main": "part.safetensors"})
    assert said.startswith("model.main part.safetensors holds a transformer alone; name a whole checkpoint")


def transformer_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "transformer/diffusion_pytorch_model.safetensors")


def beside(folder: Path) -> dict[str, str]:
    """A study's keys for one.safetensors with everything but the transformer's weights of a folder."""
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    return {"main": "one.safetensors", "guide": "one.safetensors", "config": str(folder)}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("flux2_klein", original_flux2_transformer),
        *((name, transformer_of) for name in ("flux", "chroma", "qwen_image", "lumina2", "z_image")),
    ],
)
def test_a_transformer_in_one_file_is_read_with_the_other_parts_of_its_folder(
    flows: Flows, name: str, written: Callable[[Path], dict[str, torch.Tensor]]
) -> None:
    whole = flows.draw(name)
    folder = Path(name)
    save_file({key: weight.contiguous() for key, weight in written(folder).items()}, "one.safetensors")
    assert far(whole, flows.draw(name, model=beside(folder))) <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tensors: tensors.pop("double_blocks.0.img_mlp.2.weight"),
            "model.main one.safetensors lacks 1 weight (transformer_blocks.0.ff.linear_out.weight) of the 33 of the "
            "transformer that flux2_klein describes; set model.config to a folder with its own configuration, or down",
        ),
        (
            lambda tensors: tensors.update({"guidance_in.in_layer.weight": torch.ones(32, 32)}),
            "one.safetensors contradicts flux2_klein: it holds 1 weight (time_guidance_embed.guidance_embedder.line",
        ),
        (
            lambda tensors: tensors.update({"img_in.weight": torch.ones(32, 32)}),
            "contradicts flux2_klein: x_embedder.weight is 32x32, the configuration describes 32x64",
        ),
        (lambda tensors: tensors.clear() or tensors.update(x=torch.ones(1)), "holds no transformer of family flux2_kl"),
    ],
)
def test_a_transformer_in_one_file_that_does_not_fit_its_configuration_is_refused(
    flows: Flows, change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    folder = flows.copy("flux2_klein")
    tensors = original_flux2_transformer(folder)
    change(tensors)
    save_file({key: weight.contiguous() for key, weight in tensors.items()}, "one.safetensors")
    assert said in flows.refused("flux2_klein", model=beside(folder))


def test_a_transformer_in_one_file_needs_a_folder_of_its_family_with_the_other_parts(flows: Flows) -> None:
    folder = flows.copy("flux2_klein")
    tensors = original_flux2_transformer(folder)
    save_file({key: weight.contiguous() for key, weight in tensors.items()}, "one.safetensors")
    model = {"main": "one.safetensors", "guide": "one.safetensors"}
    said = "one.safetensors is FLUX.2 in one file, which holds a transformer alone{}; set model.config to a folder or"
    assert said.format("") in flows.refused("flux2_klein", model=model)
    flows.copy("sd3")
    other = flows.refused("flux2_klein", model=model | {"config": "sd3"})
    assert said.format(", and model.config is of family sd3") in other
    shutil.rmtree(folder / "text_encoder")
    assert "flux2_klein/text_encoder/config.json is missing" in flows.refused("flux2_klein", model=beside(folder))
