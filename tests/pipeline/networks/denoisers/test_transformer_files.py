"""Transformers in one file: in diffusers' names and in those of original codes, with and without ComfyUI's prefixes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flow_studies import CPU, LENGTH, Flows, checked, far
from original_transformers import (
    original_flux,
    original_flux2,
    original_lumina2,
    original_sd3,
    original_z_image,
    transformer_of,
)
from safetensors.torch import load_file, save_file
from single_file import save_sd3_single_file

from pipeline.networks.checkpoints import locate
from pipeline.networks.families import FAMILIES
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.networks.weights.loaded_part import load_part
from pipeline.networks.weights.transformer_file import in_diffusers_names
from pipeline.networks.weights.weight_files import network_digest
from pipeline.prompting.text_settings import TextSettings

Tensors = dict[str, torch.Tensor]
PREFIXES = ("", "model.diffusion_model.", "diffusion_model.")


def written(tensors: Tensors) -> None:
    save_file({key: weight.contiguous() for key, weight in tensors.items()}, "one.safetensors")


def beside(folder: Path) -> dict[str, str]:
    """A study's keys for one.safetensors with everything but the transformer's weights of a folder."""
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    return {"main": "one.safetensors", "guide": "one.safetensors", "config": str(folder)}


def loaded(folder: Path) -> Tensors:
    """The weights of a transformer that is loaded of one.safetensors, with the configurations of a folder."""
    checkpoint = locate("one.safetensors", str(folder))
    tensors: Tensors = load_part(checkpoint.family.model_class, checkpoint, "transformer", torch.float32).state_dict()
    return tensors


def assert_same(found: Tensors, tensors: Tensors) -> None:
    assert found.keys() == tensors.keys()
    assert [key for key, tensor in tensors.items() if not torch.equal(found[key], tensor)] == []


@pytest.fixture
def sd3(flows: Flows) -> Path:
    """A folder whose first CLIP has what published files leave out of it: a projection that is none."""
    folder = flows.copy("sd3")
    first = load_file(folder / "text_encoder/model.safetensors")
    first["text_projection.weight"] = torch.eye(len(first["text_projection.weight"]))
    save_file(first, folder / "text_encoder/model.safetensors", {"format": "pt"})
    return folder


def configurations(folder: Path, *lacking: str) -> Path:
    """A copy of a folder without the weights of some parts, so that these cannot come from there."""
    files = [file for part in lacking for file in (folder / part).glob("*.safetensors")]
    copied = Path(shutil.copytree(folder, "config"))
    for file in files:
        (copied / file.relative_to(folder)).unlink()
    return copied


PUBLISHED_SD3 = {
    "sd3.5_medium": (),
    "sd3_medium_incl_clips": ("text_encoder", "text_encoder_2"),
    "sd3_medium_incl_clips_t5xxl": ("text_encoder", "text_encoder_2", "text_encoder_3"),
}


@pytest.mark.parametrize("texts", PUBLISHED_SD3.values(), ids=PUBLISHED_SD3.keys())
def test_sd3_in_one_file_is_the_same_checkpoint_with_as_many_text_encoders_as_it_holds(
    flows: Flows, sd3: Path, texts: tuple[str, ...]
) -> None:
    whole = flows.draw("sd3", method="cfg", scale=3.0)
    save_sd3_single_file(sd3, Path("one.safetensors"), texts)
    config = str(configurations(sd3, "transformer", "vae", *texts))
    model = {"main": "one.safetensors", "guide": "one.safetensors", "config": config}
    assert far(whole, flows.draw("sd3", model=model, method="cfg", scale=3.0)) == 0


def test_a_guide_in_a_file_of_sd3_is_that_of_its_folder(flows: Flows) -> None:
    save_sd3_single_file(flows.copy("sd3_guide"), Path("guide.safetensors"), ())
    arm = {"method": "autoguidance", "scale": 2.0}
    guided = flows.draw("sd3", "sd3_guide", **arm)
    in_a_file = {"guide": "guide.safetensors", "config": "sd3", "guide_config": "sd3_guide"}
    assert far(guided, flows.draw("sd3", model=in_a_file, **arm)) == 0
    assert far(guided, flows.draw("sd3", **arm)) > 0


def test_t5_in_8_bits_in_a_file_of_sd3_is_t5_rounded_to_them(sd3: Path) -> None:
    save_sd3_single_file(sd3, Path("one.safetensors"), t5=torch.float8_e4m3fn)
    config = configurations(sd3, "text_encoder_3")
    rounded = {
        name: tensor.to(torch.float8_e4m3fn).float()
        for name, tensor in load_file(sd3 / "text_encoder_3/model.safetensors").items()
    }
    save_file(rounded, sd3 / "text_encoder_3/model.safetensors", {"format": "pt"})
    texts, settings = ["1person, blue hair", ""], TextSettings(t5_length=LENGTH)
    mine, theirs = (
        load_text_encoder(checkpoint, CPU, settings).encode(texts)
        for checkpoint in (locate("one.safetensors", str(config)), locate(str(sd3)))
    )
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name])


def test_images_depend_on_the_text_encoders_beside_a_file_and_not_on_those_that_it_holds(sd3: Path) -> None:
    save_sd3_single_file(sd3, Path("one.safetensors"), PUBLISHED_SD3["sd3_medium_incl_clips"])
    checkpoint = locate("one.safetensors", str(sd3))

    def digest_without(part: str) -> str:
        file = sd3 / part / "model.safetensors"
        content = file.read_bytes()
        save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
        digest = network_digest(checkpoint, with_text_encoder=True)
        file.write_bytes(content)
        return digest

    digest = network_digest(checkpoint, with_text_encoder=True)
    assert digest_without("text_encoder_2") == digest != digest_without("text_encoder_3")


def test_a_file_of_sd3_that_lacks_parts_needs_them_in_the_folder_of_its_configurations(flows: Flows, sd3: Path) -> None:
    save_sd3_single_file(sd3, Path("one.safetensors"), ())
    model = {"main": "one.safetensors", "guide": "one.safetensors"}
    fix = (
        "set model.config to a folder or repository of SD3 in diffusers' layout, whose other parts are then read, such "
        "as hub:stabilityai/stable-diffusion-3.5-medium"
    )
    assert flows.refused("sd3", model=model) == f"one.safetensors is SD3 in one file; {fix}"
    flows.copy("flux")
    other = flows.refused("sd3", model=model | {"config": "flux"})
    assert other == f"one.safetensors is SD3 in one file, and model.config is of family flux; {fix}"
    config = configurations(sd3, "transformer", "vae", "text_encoder_3")
    assert flows.refused("sd3", model=model | {"config": str(config)}) == (
        "text_encoder_3 is not read from one.safetensors, and weights config/text_encoder_3/model.safetensors are "
        "missing; download it: hf download <owner>/<name> --include '*.json' '*.txt' '*.jinja' '*.safetensors' "
        "--local-dir config (docs/checkpoints.md names repositories)"
    )
    said = flows.refused("sd3", model=model | {"config": str(flows.copy("sd3_guide"))})
    assert said.startswith("model.main one.safetensors contradicts sd3_guide: it holds ")
    said = flows.refused("sd3", model={"vae": "one.safetensors", "text_encoder": "one.safetensors", "config": "sd3"})
    assert said == (
        "model.text_encoder one.safetensors holds no text_encoder; name a file that does, or leave model.text_encoder "
        "out"
    )
    written(load_file(sd3 / "vae/diffusion_pytorch_model.safetensors"))
    said = flows.refused("sd3", model=model | {"config": "sd3"})
    assert said == "model.main one.safetensors holds an autoencoder alone; name a whole checkpoint"


@pytest.mark.parametrize("name", ["sd3", "flux", "flux2_klein", "qwen_image"])
def test_a_transformer_in_one_file_is_read_with_the_other_parts_of_its_folder(flows: Flows, name: str) -> None:
    whole = flows.draw(name)
    written(transformer_of(Path(name)))
    assert far(whole, flows.draw(name, model=beside(Path(name)))) <= 1


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("name", "original"),
    [
        *((name, dict) for name in ("sd3", "flux", "chroma", "qwen_image", "lumina2")),
        ("sd3", original_sd3),
        ("flux2", original_flux2),
        ("flux2_klein", original_flux2),
        ("z_image", original_z_image),
    ],
)
def test_a_file_in_the_names_of_a_family_is_the_network_of_its_folder(
    flows: Flows, name: str, original: Callable[[Tensors], Tensors], prefix: str
) -> None:
    tensors = transformer_of(flows.copy(name))
    other = {"vae.decoder.x": torch.ones(2), "text_encoders.x": torch.ones(2)} if prefix.startswith("model.") else {}
    written({prefix + key: tensor for key, tensor in original(tensors).items()} | other)
    checked(flows.study(name, model=beside(Path(name))))
    assert_same(loaded(Path(name)), tensors)


# Rows of the layers that original codes have in one matrix, which diffusers cuts as the published networks have them.
PUBLISHED = {
    "flux": {"to_q": 3072, "to_k": 3072, "to_v": 3072, "proj_mlp": 4 * 3072},
    "chroma": {"to_q": 3072, "to_k": 3072, "to_v": 3072, "proj_mlp": 4 * 3072},
    "lumina2": {"to_q": 2304, "to_k": 768, "to_v": 768},
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("name", "original"), [("flux", original_flux), ("chroma", original_flux), ("lumina2", original_lumina2)]
)
def test_original_names_of_a_family_that_is_read_in_its_published_width_are_converted(
    flows: Flows, name: str, original: Callable[[Tensors], Tensors], prefix: str
) -> None:
    """With one column, since a file of a block in its width is of gigabytes."""
    rows = PUBLISHED[name]
    tensors = {
        key: torch.randn(next((own for part, own in rows.items() if f".{part}." in key), 4), *[1] * (old.ndim - 1))
        for key, old in transformer_of(flows.copy(name)).items()
    }
    file = {prefix + key: tensor for key, tensor in original(tensors).items()}
    assert file.keys() != tensors.keys()
    assert_same(in_diffusers_names(file, (), FAMILIES[name].model_name, {}), tensors)
    # What the conversion has no place for is not lost, so that it is refused.
    more = in_diffusers_names({**file, f"{prefix}new.weight": torch.ones(1)}, (), FAMILIES[name].model_name, {})
    assert more.keys() - tensors.keys() == {"new.weight"}


@pytest.mark.parametrize(
    ("name", "original", "lacking", "said"),
    [
        (
            "flux",
            original_flux,
            "",
            "model.main one.safetensors holds names or shapes that diffusers does not convert to those of "
            "FluxTransformer2DModel (split_with_sizes expects split_sizes to sum exactly to ",
        ),
        (
            "flux",
            original_flux,
            "img_in.weight",
            "FluxTransformer2DModel (it lacks img_in.weight); name a file in dif",
        ),
        ("chroma", original_flux, "", "does not convert to those of ChromaTransformer2DModel (split_with_sizes expec"),
        ("lumina2", original_lumina2, "", "does not convert to those of Lumina2Transformer2DModel (split_with_sizes "),
    ],
)
def test_original_names_that_diffusers_does_not_convert_are_refused(
    flows: Flows, name: str, original: Callable[[Tensors], Tensors], lacking: str, said: str
) -> None:
    folder = flows.copy(name)
    file = original(transformer_of(folder))
    file.pop(lacking, None)
    written(file)
    assert said in flows.refused(name, model=beside(folder))


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
    tensors = original_flux2(transformer_of(folder))
    change(tensors)
    written(tensors)
    assert said in flows.refused("flux2_klein", model=beside(folder))


def test_a_transformer_in_one_file_needs_a_folder_of_its_family_with_the_other_parts(flows: Flows) -> None:
    folder = flows.copy("flux2_klein")
    tensors = original_flux2(transformer_of(folder))
    written(tensors)
    model = {"main": "one.safetensors", "guide": "one.safetensors"}
    said = "one.safetensors is FLUX.2 in one file, which holds a transformer alone{}; set model.config to a folder or"
    assert said.format("") in flows.refused("flux2_klein", model=model)
    flows.copy("sd3")
    other = flows.refused("flux2_klein", model=model | {"config": "sd3"})
    assert said.format(", and model.config is of family sd3") in other
    shutil.rmtree(folder / "text_encoder")
    assert "flux2_klein/text_encoder/config.json is missing" in flows.refused("flux2_klein", model=beside(folder))
