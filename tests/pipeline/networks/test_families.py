"""Families: every network is of one that is known by name, and what is of none is named."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from repository_copy import ROOT
from transformers import CLIPTextModel

from pipeline.errors import InputError
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.networks.checkpoints import check_schedules, locate
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.families import FAMILIES, PIXEL, SD, SDXL, known_families
from pipeline.networks.noise_path import RECTIFIED_FLOW
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.networks.weights.weight_files import network_digest
from pipeline.preflight import study_digests
from pipeline.study.sampler import Sampler
from pipeline.study.solvers import SOLVERS
from pipeline.study.study import parse_study

CPU = torch.device("cpu")
TEXTS = {"prompt": ["1person, blue hair"], "empty": [""]}


def study_of(params, main, guide=None):
    params["model"] = {"name": "small", "main": main, "guide": guide or main}
    params["arms"], params["baseline"] = {"cfg": {"method": "cfg", "scale": 3.0}}, "cfg"
    params["sampler"] = {"scheduler": "ddim", "steps": 2}
    return parse_study(params, "test")


@pytest.fixture
def folder(pipelines_folder, tmp_path, monkeypatch):
    """A copy of one pipeline by its name, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return lambda name: Path(shutil.copytree(pipelines_folder / name, name))


@pytest.mark.parametrize(("name", "family"), [("sd", SD), ("sd2", SD), ("sdxl", SDXL), ("sdxl_guide", SDXL)])
def test_a_folder_is_of_the_family_that_its_pipeline_names(folder, name, family):
    path = folder(name)
    assert locate(str(path)).family is family
    assert load_network(path, CPU).family is family
    # Single files' folders of configurations, and networks alone, do not say what they are.
    (path / "model_index.json").unlink()
    assert locate(str(path)).family is family
    shutil.rmtree(path / "vae")
    assert locate(str(path)).family is family


def test_the_embedded_networks_are_a_family(networks_folder):
    for path in (networks_folder / "main", networks_folder / "guide", ROOT / "models/tinybooru/main"):
        assert locate(str(path)).family is PIXEL
    assert load_network(networks_folder / "main", CPU).family is PIXEL


@pytest.mark.parametrize("index", ["model_index.json", "modular_model_index.json"])
def test_a_pipeline_of_no_family_is_named_with_those_known(params, tmp_path, monkeypatch, index):
    monkeypatch.chdir(tmp_path)
    for part in ("transformer", "scheduler", "text_encoder"):
        (tmp_path / "sana" / part).mkdir(parents=True)
        (tmp_path / "sana" / part / "config.json").write_text("{}")
    (tmp_path / "sana" / index).write_text(json.dumps({"_class_name": "SanaPipeline"}))
    with pytest.raises(InputError) as raised:
        study_digests(study_of(params, "sana"))
    said = f"sana is SANA (SanaPipeline), which is not supported; supported families: {known_families()}"
    assert str(raised.value) == said


def test_known_families_are_listed_with_their_pipelines():
    listed = known_families()
    assert listed.startswith("sd3 (StableDiffusion3Pipeline, StableDiffusion3Img2ImgPipeline), flux (FluxPipeline, ")
    assert listed.endswith(
        "sdxl (StableDiffusionXLPipeline, StableDiffusionXLInpaintPipeline), pixel (no model_index.json)"
    )
    assert listed.count("(") == len(FAMILIES)


def test_a_guide_of_no_family_is_named(params, folder):
    index = folder("sd_guide") / "model_index.json"
    folder("sd")
    index.write_text(json.dumps({"_class_name": "SanaPipeline"}))
    study = study_of(params, "sd", "sd_guide")
    with pytest.raises(InputError, match=r"sd_guide is SANA .SanaPipeline., which is not"):
        _ = ArmGenerator(study, "cfg", CPU).model.guide


def test_no_two_families_answer_to_one_pipeline():
    answered = [pipeline for family in FAMILIES.values() for pipeline in family.pipelines]
    assert len(answered) == len(set(answered))
    assert [family.name for family in FAMILIES.values()] == list(FAMILIES)


def test_families_are_read_without_torch():
    code = "import sys, pipeline.networks.families; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def in_pieces(folder: Path) -> None:
    """The weights of a pipeline as large checkpoints have them: in pieces, with a list of them."""
    for kind, part, size in (
        (UNet2DConditionModel, "unet", "150KB"),
        (AutoencoderKL, "vae", "20KB"),
        (CLIPTextModel, "text_encoder", "50KB"),
    ):
        model = kind.from_pretrained(folder / part)
        for path in (folder / part).glob("*.safetensors"):
            path.unlink()
        model.save_pretrained(folder / part, max_shard_size=size)
        assert len(list((folder / part).glob("*.safetensors"))) > 1
        assert len(list((folder / part).glob("*.index.json"))) == 1


def test_a_checkpoint_in_pieces_is_the_same_checkpoint(params, folder):
    path = folder("sd")
    shutil.copytree(path, "whole")
    in_pieces(path)
    whole, pieces = (ArmGenerator(study_of(params, name), "cfg", CPU) for name in ("whole", "sd"))
    for own in (
        lambda g: g.model.main.unet,
        lambda g: g.model.main.latents.vae,
        lambda g: g.text_encoder.towers[0].model,
    ):
        weights, same = (dict(own(generator).named_parameters()) for generator in (whole, pieces))
        assert weights.keys() == same.keys()
        assert all(torch.equal(weight, same[name]) for name, weight in weights.items())
    # Where weights lie in a file decides how they lie in memory, and that decides the last bit of a sum.
    one, other = (g.draw(TEXTS, [1]).images[0].tobytes() for g in (whole, pieces))
    assert max(abs(a - b) for a, b in zip(one, other, strict=True)) <= 1


def test_a_digest_follows_every_piece_and_a_missing_one_is_named(folder):
    path = folder("sd")
    in_pieces(path)
    before = network_digest(path, with_text_encoder=True)
    piece = sorted((path / "unet").glob("*.safetensors"))[-1]
    content = piece.read_bytes()
    piece.write_bytes(content[:-4] + b"\0\0\1\1")
    assert network_digest(path, with_text_encoder=True) != before
    piece.write_bytes(content[:-4])
    with pytest.raises(InputError, match=f"{piece.name} cannot be loaded"):
        network_digest(path, with_text_encoder=True)
    piece.unlink()
    with pytest.raises(InputError, match=f"{piece.name} is missing, one of [0-9]+ pieces; download it: hf download"):
        load_network(path, CPU)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": "x.bin"}}'],
)
def test_a_list_of_pieces_that_is_none_is_named(folder, content):
    path = folder("sd")
    in_pieces(path)
    index = next((path / "text_encoder").glob("*.index.json"))
    index.write_text(content)
    with pytest.raises(InputError, match=f"{index.name} is not a list of the pieces of a checkpoint"):
        load_text_encoder(path, CPU)


def test_a_solver_that_does_not_step_along_the_path_is_named_with_those_that_do(folder, monkeypatch):
    main = locate(str(folder("sd")))
    assert main.family.solvers == tuple(SOLVERS)
    check_schedules(Sampler(scheduler="heun", steps=4), main, None)
    flow = replace(SD, name="flow", path=RECTIFIED_FLOW)
    monkeypatch.setattr("pipeline.networks.families.FAMILIES", {"flow": flow})
    check_schedules(Sampler(scheduler="euler", steps=4), main, None)
    said = "sampler.scheduler heun does not step along rectified_flow, the noise path of sd .flow.; take one of euler"
    with pytest.raises(InputError, match=said):
        check_schedules(Sampler(scheduler="heun", steps=4), main, None)
    said = "sampler.levels karras are those of the variance preserving path; along rectified_flow levels are native"
    with pytest.raises(InputError, match=said):
        check_schedules(Sampler(scheduler="euler", steps=4, levels="karras"), main, None)
