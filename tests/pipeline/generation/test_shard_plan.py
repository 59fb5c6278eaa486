"""What a shard's fingerprint covers."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from arrows import file_arrows
from repository_copy import ROOT
from safetensors.torch import save_file

from pipeline.code_units import unit_digests
from pipeline.errors import InputError
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.shard_plan import PIXEL_UNITS, arm_texts, plan_shards
from pipeline.preflight import check_arms
from pipeline.study.study import parse_study

CPU = torch.device("cpu")

# Units that are imported behind an image and are not in its fingerprint, and why.
LEFT_OUT = {
    "what they compute is in the fingerprint itself: settings, texts, digests of files and of decoded images": {
        "pipeline",
        "pipeline/reference",
        "pipeline/study",
        "pipeline/tinybooru",
    },
    "they write, read and name files, whose contents have checksums of their own": {"pipeline/storage"},
    "they measure what generation takes": {"pipeline/cost"},
}


def units_behind(module: str) -> set[str]:
    """The units of every module that a module imports, directly or not."""
    arrows, waiting, seen = file_arrows(ROOT), {module}, set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= arrows[name] - seen
    return {"/".join(name.split(".")[:-1][:2]) for name in seen}


def test_every_unit_behind_an_image_is_in_its_fingerprint_or_left_out_for_a_reason():
    left_out = set().union(*LEFT_OUT.values())
    assert not left_out & set(PIXEL_UNITS)
    assert units_behind("pipeline.generation.shard_generator") == left_out | set(PIXEL_UNITS)


def test_images_of_a_gpu_are_others(study):
    texts = arm_texts(study, "cfg")
    ours, theirs = ([s.fingerprint for s in plan_shards(study, "cfg", texts, kind)] for kind in ("cpu", "cuda"))
    assert not set(ours) & set(theirs)


@pytest.fixture
def checkpoint_params(params, pipelines_folder, monkeypatch):
    """A small study of the random Stable Diffusion 1.x; the folder of pipelines is current."""
    monkeypatch.chdir(pipelines_folder)
    params["model"] = {"name": "sd", "main": "sd", "guide": "sd_guide", "licence": "mit"}
    params["arms"] = {"cfg": {"method": "cfg", "scale": 2.0}, "autoguidance": {"method": "autoguidance", "scale": 2.0}}
    params["baseline"] = "cfg"
    return params


@pytest.fixture
def lora_params(checkpoint_params, pipelines_folder, tmp_path, monkeypatch):
    """The same with a LoRA and another autoencoder; all weights are in a folder of their own, the current one."""
    for name in ("sd", "sd_guide", "sd2"):
        shutil.copytree(pipelines_folder / name, tmp_path / name)
    save_file({"weight": torch.ones(2, 2)}, tmp_path / "epoch.safetensors")
    checkpoint_params["model"].update(vae="sd2", weaken={"name": "lora", "file": "epoch.safetensors"})
    monkeypatch.chdir(tmp_path)
    return checkpoint_params


def planned(params, arm="autoguidance"):
    study = parse_study(params, "test")
    return [shard.fingerprint for shard in plan_shards(study, arm, arm_texts(study, arm), "cpu")]


def change_a_weight(path):
    content = bytearray(Path(path).read_bytes())
    content[-1] ^= 1
    Path(path).write_bytes(content)


DECIDING = {
    "seeds": lambda p, _: p["generate"].update(first_seed=1),
    "batch": lambda p, _: p["generate"].update(batch=2),
    "threads": lambda p, _: p["generate"].update(threads=3),
    "loading": lambda p, _: p["model"].update(loading={"attention_slicing": True}),
    "another vae": lambda p, _: p["model"].update(vae="sd_guide"),
    "another text encoder": lambda p, _: p["model"].update(text_encoder="sd_guide"),
    "scale of the LoRA": lambda p, _: p["model"]["weaken"].update(scale=0.5),
    **{
        weights: lambda _p, _, path=f"{weights}.safetensors": change_a_weight(path)
        for weights in (
            "sd/unet/diffusion_pytorch_model",
            "sd/text_encoder/model",
            "sd2/vae/diffusion_pytorch_model",
            "sd_guide/unet/diffusion_pytorch_model",
            "epoch",
        )
    },
    "code": lambda _, patch: patch.setattr(
        "pipeline.generation.shard_plan.unit_digests",
        lambda unit: unit_digests(unit) | ({"sampler.py": "new"} if unit == "pipeline/sampling" else {}),
    ),
    "library": lambda _, patch: patch.setattr(
        "pipeline.generation.shard_plan.version", lambda name: "new" if name == "torch" else version(name)
    ),
    "machine": lambda _, patch: patch.setattr("platform.machine", lambda: "new"),
}


@pytest.mark.parametrize("change", DECIDING.values(), ids=DECIDING)
def test_what_decides_a_pixel_makes_every_shard_another(lora_params, monkeypatch, change):
    before = planned(lora_params)
    change(lora_params, monkeypatch)
    assert not set(before) & set(planned(lora_params))


BESIDE_THE_PIXELS = {
    "description": lambda p: p["arms"]["autoguidance"].update(description="away from a weaker network"),
    "family": lambda p: p["arms"]["autoguidance"].update(family="weaker"),
    "workers": lambda p: p["executor"].update(workers=2),
    "watched": lambda p: p["generate"].update(watched=1),
    "the guide's text encoder": lambda _: change_a_weight("sd_guide/text_encoder/model.safetensors"),
}


@pytest.mark.parametrize("change", BESIDE_THE_PIXELS.values(), ids=BESIDE_THE_PIXELS)
def test_what_decides_no_pixel_leaves_every_shard_the_same(lora_params, change):
    before = planned(lora_params)
    change(lora_params)
    assert planned(lora_params) == before


def test_shards_of_an_arm_without_a_guide_are_the_same_with_any_guide(lora_params):
    before = planned(lora_params, "cfg")
    lora_params["model"].update(guide="none", weaken=None)
    assert planned(lora_params, "cfg") == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda p: p["arms"]["cfg"].update(probes=["pag"], perturb={"layers": ["mid"]}), r"arms\.cfg\.perturb\.layers: "
         r"the network has no transformer block under 'mid'; its blocks are down_blocks"),
        (lambda p: p["model"].update(weaken={"name": "drop_layers", "layers": ["up_blocks.7"]}),
         r"model\.weaken\.layers: the network has no transformer block under 'up_blocks\.7'"),
        (lambda p: p["text"].update(clip_skip=4), r"text\.clip_skip is 4; .* 4 layers, so at most 3 can be skipped"),
        (lambda p: p["arms"]["cfg"].update(canvas={"width": 33, "height": 32}), r"arms\.cfg\.canvas is 33x32"),
        (lambda p: p["model"].update(guide="none"), "model folder none is missing"),
    ],
)  # fmt: skip
def test_an_arm_that_does_not_fit_is_refused_before_any_is_drawn(checkpoint_params, changed, message):
    check_arms(parse_study(checkpoint_params, "test"))
    changed(checkpoint_params)
    with pytest.raises(InputError, match=message):
        check_arms(parse_study(checkpoint_params, "test"))


def test_a_guide_that_no_arm_uses_need_not_be_there(checkpoint_params):
    checkpoint_params["model"]["guide"] = "none"
    del checkpoint_params["arms"]["autoguidance"]
    check_arms(parse_study(checkpoint_params, "test"))


@pytest.mark.parametrize(
    ("of_main", "of_guide", "scheduler", "message"),
    [
        ("v_prediction", "v_prediction", "ddim", None),
        ("v_prediction", "v_prediction", "dpmsolver++", None),
        ("v_prediction", "v_prediction", "heun", "scheduler heun does not support .* take one of ddim"),
        ("epsilon", "v_prediction", "ddim", "the main network .* predicts noise"),
        ("v_prediction", "epsilon", "ddim", "the guide .* predicts noise .* take a guide that predicts v or x0"),
    ],
)
def test_training_without_signal_at_its_end_is_drawn_from_or_refused(
    checkpoint_params, pipelines_folder, of_main, of_guide, scheduler, message
):
    checkpoint_params["sampler"] = {"scheduler": scheduler, "steps": 3}
    paths = [pipelines_folder / name / "scheduler/scheduler_config.json" for name in ("sd", "sd_guide")]
    before = [path.read_text() for path in paths]
    try:
        for path, text, kind in zip(paths, before, (of_main, of_guide), strict=True):
            changes = {"prediction_type": kind, "rescale_betas_zero_snr": True}
            path.write_text(json.dumps({**json.loads(text), **changes}))
        study = parse_study(checkpoint_params, "test")
        if message is None:
            check_arms(study)
            drawn = ArmGenerator(study, "autoguidance", CPU).draw({"prompt": ["a cat"]}, [1])
            assert np.isfinite(drawn.traces[0]["direction"]).all()
            assert np.array(drawn.images[0]).std() > 1
        else:
            with pytest.raises(InputError, match=message):
                check_arms(study)
    finally:
        for path, text in zip(paths, before, strict=True):
            path.write_text(text)
