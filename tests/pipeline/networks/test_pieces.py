"""Checkpoints in pieces and variants: read, followed by digests, and what is missing is named with what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from pipeline.compatibility.networks import check_networks
from pipeline.errors import InputError
from pipeline.networks.checkpoints import locate
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.networks.weights.weight_files import network_digest
from pipeline.preflight import study_digests
from pipeline.study.study import parse_study

Params = dict[str, Any]
CPU = torch.device("cpu")
KINDS = {
    "unet": (UNet2DConditionModel, "150KB"),
    "vae": (AutoencoderKL, "20KB"),
    "text_encoder": (CLIPTextModel, "50KB"),
    "text_encoder_2": (CLIPTextModelWithProjection, "50KB"),
}
HF = "download it: hf download <owner>/<name> --include '*.json' '*.txt' '*.jinja' '*.safetensors' --local-dir sd"


@pytest.fixture
def folder(pipelines_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A copy of one pipeline by its name, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return lambda name: Path(shutil.copytree(pipelines_folder / name, name))


def in_pieces(path: Path, variant: str | None = None, keep: bool = False) -> None:
    """Save every part of a pipeline in pieces, as a variant; `keep` leaves the whole files beside them."""
    for part, (kind, size) in KINDS.items():
        if not (path / part).is_dir():
            continue
        model = kind.from_pretrained(path / part)
        before = {file: file.read_bytes() for file in (path / part).glob("*.safetensors")}
        for file in before:
            file.unlink()
        model.save_pretrained(path / part, max_shard_size=size, variant=variant)
        assert len(list((path / part).glob("*-of-*.safetensors"))) > 1
        for file, content in before.items() if keep else ():
            file.write_bytes(content)


def parameters(path: Path) -> dict[str, torch.Tensor]:
    network, texts = load_network(path, CPU), load_text_encoder(path, CPU)
    modules = [network.unet, network.latents.vae, *(tower.model for tower in texts.towers)]
    return {f"{k}.{name}": value for k, module in enumerate(modules) for name, value in module.named_parameters()}


@pytest.mark.parametrize("variant", [None, "fp16", "bf16"])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_pieces_of_any_variant_are_the_same_checkpoint(folder, kind, variant):
    path = folder(kind)
    shutil.copytree(path, "whole")
    in_pieces(path, variant)
    one, other = parameters(Path("whole")), parameters(path)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    before = network_digest(path, with_text_encoder=True)
    for part in KINDS:
        for piece in sorted((path / part).glob("*.safetensors"))[-1:]:
            content = piece.read_bytes()
            piece.write_bytes(content[:-4] + b"\0\0\1\1")
            assert network_digest(path, with_text_encoder=True) != before
            piece.write_bytes(content)


def test_a_list_of_pieces_that_were_not_fetched_gives_way_to_the_variant_that_was(folder):
    """What `hf download --include '*.json' '*.fp16*'` leaves of a repository of both."""
    path = folder("sd")
    in_pieces(path, "fp16")
    shutil.copytree(path, "one")
    plain = json.loads(next((path / "unet").glob("*.index.fp16.json")).read_text())
    plain["weight_map"] = dict.fromkeys(plain["weight_map"], "diffusion_pytorch_model-00001-of-00001.safetensors")
    (path / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(plain))
    one, other = parameters(Path("one")), parameters(path)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_what_is_loaded_is_what_the_digest_follows_where_both_are_there(folder):
    path = folder("sd")
    in_pieces(path, keep=True)
    for part, name in (("unet", "conv_in.bias"), ("text_encoder", "final_layer_norm.bias")):
        for file in (path / part).glob("*.safetensors"):
            before, tensors = network_digest(path, with_text_encoder=True), load_file(file)
            loaded = parameters(path)
            changed = [key for key in tensors if key.endswith(name)]
            if not changed:
                continue
            save_file(tensors | {changed[0]: tensors[changed[0]] + 1}, file, {"format": "pt"})
            after = parameters(path)
            differs = any(not torch.equal(value, after[key]) for key, value in loaded.items())
            assert differs == (network_digest(path, with_text_encoder=True) != before), file


def test_several_variants_without_a_plain_one_are_named(folder):
    path = folder("sd")
    file = path / "vae/diffusion_pytorch_model.safetensors"
    for variant in ("non_ema", "bf16"):
        shutil.copy(file, path / f"vae/diffusion_pytorch_model.{variant}.safetensors")
    assert network_digest(path, with_text_encoder=True)
    file.unlink()
    with pytest.raises(InputError) as raised:
        network_digest(path, with_text_encoder=True)
    assert str(raised.value) == (
        "sd/vae holds the variants bf16, non_ema and none without a name; keep the one to draw with as "
        "diffusion_pytorch_model.safetensors"
    )
    (path / "vae/diffusion_pytorch_model.non_ema.safetensors").unlink()
    assert load_network(path, CPU).latents is not None


def refusal(params, main: str = "sd") -> str:
    params["model"] = {"name": "small", "main": main, "guide": main}
    with pytest.raises(InputError) as raised:
        study_digests(parse_study(params, "test"))
    assert "\n" not in str(raised.value)
    assert "make train" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_preflight_names_pieces_that_are_missing_or_damaged(folder, params, part, variant):
    path = folder("sd")
    in_pieces(path, variant)
    first, second, *others = sorted((path / part).glob("*.safetensors"))
    number = len(others) + 2
    content = second.read_bytes()
    second.write_bytes(content[:-8])
    assert refusal(params).startswith(f"{second} cannot be loaded (")
    assert f"{HF} (docs/checkpoints.md names repositories)" in refusal(params)
    second.unlink()
    assert refusal(params).startswith(f"{second} is missing, one of {number} pieces; {HF}")
    first.unlink()
    assert refusal(params).startswith(f"{first} is missing, one of {number} pieces (2 are missing); {HF}")


def test_preflight_names_a_piece_of_another_checkpoint(folder, params):
    path = folder("sd")
    in_pieces(path)
    first, second, *_ = sorted((path / "unet").glob("*.safetensors"))
    shutil.copy(second, first)
    assert f"{first} lacks " in refusal(params)
    assert f", which diffusion_pytorch_model.safetensors.index.json lists in it; {HF}" in refusal(params)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_pieces_without_their_list_are_named(folder, params, part):
    path = folder("sd")
    in_pieces(path)
    index = next((path / part).glob("*.index.json"))
    index.unlink()
    assert refusal(params).startswith(f"{index} is missing, the list of the pieces beside it; {HF}")


def test_only_the_embedded_networks_are_made_by_make_train(folder, params, tmp_path):
    shutil.rmtree(folder("sd") / "unet")
    (Path("sd") / "unet").mkdir()
    (Path("sd") / "unet/config.json").write_text("{}")
    assert refusal(params).startswith(f"weights sd/unet/diffusion_pytorch_model.safetensors are missing; {HF}")
    assert refusal(params, "models/other").startswith("model folder models/other is missing; download it: hf download")
    for main in ("models/tinybooru/main", "models/tinybooru/epoch-2"):
        with pytest.raises(InputError) as raised:
            locate(main)
        assert str(raised.value) == f"model folder {main} is missing; `make train` makes it"
    shutil.copytree("sd", "models/tinybooru/main")
    with pytest.raises(InputError, match="safetensors are missing; `make train` makes it"):
        network_digest(Path("models/tinybooru/main"), with_text_encoder=False)


def test_a_repository_in_the_cache_is_fetched_by_its_name_and_revision(folder, params, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--tiny-xl"
    shutil.copytree(folder("sd"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    path = repository / "snapshots" / commit
    in_pieces(path)
    piece = sorted((path / "unet").glob("*.safetensors"))[0]
    piece.unlink()
    assert refusal(params, "hub:owner/tiny-xl").endswith(
        f"; download it: hf download owner/tiny-xl --revision {commit} --include "
        "'*.json' '*.txt' '*.jinja' '*.safetensors'"
    )


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1000000\n"


def refused(params: Params) -> str:
    with pytest.raises(InputError) as raised:
        check_all(params)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def check_all(params: Params) -> None:
    params["model"] = {"name": "small", "main": "sd", "guide": "sd"}
    params["arms"], params["baseline"] = {"cfg": {"method": "cfg", "scale": 4.0}}, "cfg"
    study = parse_study(params, "test")
    check_networks(study, study.arms)
    study_digests(study)


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model-00001-of-*.safetensors",
        "unet/diffusion_pytorch_model-00001-of-*.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
    ],
)
def test_a_pointer_of_git_lfs_is_not_taken_for_a_damaged_file(folder, params, name):
    sd = folder("sd")
    if "-of-" in name or "index" in name:
        in_pieces(sd)
    path = next(sd.glob(name))
    path.write_text(POINTER)
    assert refused(params) == (
        f"{path} is a pointer of Git LFS, not the file itself; run `git lfs pull` in its repository, or {HF}"
        " (docs/checkpoints.md names repositories)"
    )


@pytest.mark.parametrize("name", ["safetensors.fp16.index.json", "fp16.safetensors.index.json"])
def test_a_list_under_the_name_of_an_earlier_diffusers_is_to_be_renamed(folder, params, name):
    sd = folder("sd")
    in_pieces(sd, "fp16")
    path = sd / "unet/diffusion_pytorch_model.safetensors.index.fp16.json"
    path.rename(path.with_name(f"diffusion_pytorch_model.{name}"))
    assert refused(params) == (
        f"sd/unet/diffusion_pytorch_model.{name} has a name that is not read; rename it to {path.name}"
    )


def test_a_list_without_metadata_is_completed(folder, params):
    sd = folder("sd")
    in_pieces(sd)
    index = sd / "unet/diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["metadata"]
    index.write_text(json.dumps(content))
    assert refused(params) == f'{index} has no metadata; add "metadata": {{}} to it'
    index.write_text(json.dumps({**content, "metadata": {}}))
    check_all(params)


def test_a_download_that_was_interrupted_is_named_by_its_missing_piece(folder, params):
    sd = folder("sd")
    in_pieces(sd)
    piece = next((sd / "unet").glob("*-00001-of-*.safetensors"))
    piece.unlink()
    piece.symlink_to("../../blobs/of-an-unfinished-download")
    assert refused(params).startswith(f"{piece} is missing, one of ")


def test_a_stray_file_beside_the_pieces_is_not_read(folder, params):
    sd = folder("sd")
    in_pieces(sd)
    (sd / "unet/old-4bit.safetensors").write_bytes(b"no weights")
    check_all(params)
