"""Embeddings and LoRAs in the embedded world, from params.yaml to the bytes of an image set."""

from pathlib import Path
from typing import Any

import pytest
import torch
from compositions import composed
from diffusers import UNet2DConditionModel
from repository_copy import ROOT
from safetensors.torch import save_file

from pipeline import generate as stage
from pipeline.compatibility.networks import check_networks
from pipeline.embeddings.from_words import write_embedding
from pipeline.errors import InputError
from pipeline.layout import SETS
from pipeline.prompting.presets import NEGATIVE_PRESETS
from pipeline.storage.places import Places
from pipeline.storage.shards import read_set
from pipeline.study.study import Study, parse_study

WORDS = NEGATIVE_PRESETS["tinybooru"].text


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the embedded networks."""
    monkeypatch.chdir(tmp_path)
    Path("models").symlink_to(ROOT / "models")
    Path("loras").mkdir()
    Path("prompts").mkdir()
    return tmp_path


def small(content: dict[str, Any]) -> Study:
    content["generate"] = {"images": 10, "first_seed": 0, "shard": 10, "batch": 10}
    content["reference"]["images"] = 20
    content["sampler"]["steps"] = 2
    content["arms"].pop("reseeded", None)
    for arm in content["arms"].values():
        arm.pop("probes", None)
    return parse_study(content, "test")


def images(study: Study, root: Path) -> dict[str, list[bytes]]:
    stage.generate(study, list(study.arms), Places.under(root))
    return {arm: [image["bytes"] for image in read_set(root / SETS / arm)["image"].to_pylist()] for arm in study.arms}


def test_an_embedding_of_a_negative_prompts_words_generates_its_images(world):
    study = small(composed("study=embedding"))
    with pytest.raises(InputError, match=r"embedding:tinybooru_bad names no file; put embeddings/tinybooru_bad\.safe"):
        check_networks(study, study.generated)
    assert write_embedding(study, "tinybooru_bad", WORDS) == Path("embeddings/tinybooru_bad.safetensors")
    check_networks(study, study.generated)
    made = images(study, world)
    assert made["negative_embedding"] == made["negative"]
    for first, second in (("negative", "unguided"), ("negative", "half_embedding"), ("unguided", "half_embedding")):
        assert not set(made[first]) & set(made[second])
    with pytest.raises(InputError, match=r"tinybooru_bad\.safetensors is there already"):
        write_embedding(study, "Tinybooru_Bad", WORDS)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("a, b", "lowres", "'a, b' is not a name that a text can call"),
        ("../x", "lowres", "'../x' is not a name that a text can call"),
        ("long", "lowres, " * 60, "' has 120 tokens; an embedding has 1 to 46"),
        ("none", " ", "' ' has 0 tokens; an embedding has 1 to 46"),
    ],
)
def test_words_that_make_no_embedding_are_refused(world, name, words, said):
    with pytest.raises(InputError) as caught:
        write_embedding(small(composed("study=embedding")), name, words)
    assert said in str(caught.value)
    assert not list(Path().glob("embeddings/*"))


def test_a_lora_in_every_prompt_is_that_of_the_model(world, networks_folder):
    Path("networks").symlink_to(networks_folder)
    unet = UNet2DConditionModel.from_pretrained("networks/main/unet")
    random, tensors = torch.Generator().manual_seed(0), {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_v")):
            stem = f"lora_unet_{name.replace('.', '_')}"
            tensors[f"{stem}.lora_down.weight"] = torch.randn(2, module.in_features, generator=random)
            tensors[f"{stem}.lora_up.weight"] = torch.randn(module.out_features, 2, generator=random) * 0.2
    save_file(tensors, "loras/style.safetensors")

    def asking(prompts: list[str], *loras: dict[str, Any]) -> Study:
        Path("prompts/own.txt").write_text("\n".join(prompts))
        content = composed("prompts=file", "prompts.path=prompts/own.txt")
        content["model"] = {"name": "random", "main": "networks/main", "guide": "networks/guide", "loras": loras}
        content["arms"] = {"cfg": {"method": "cfg", "scale": 3.0}}
        return small({**content, "baseline": "cfg"})

    plain = [f"1person, {hair} hair, smile" for hair in ("blue", "red", "green", "brown", "black")]
    by_prompt = asking([f"{prompt} <lora:Style:0.5>" for prompt in plain])
    first = images(by_prompt, world)["cfg"]
    assert read_set(world / SETS / "cfg")["prompt"].to_pylist()[:5] == plain
    by_model = asking(plain, {"file": "loras/style.safetensors", "weight": 0.5})
    assert images(by_model, world / "model")["cfg"] == first
    assert not set(images(asking(plain), world / "without")["cfg"]) & set(first)
    Path("loras/style.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.loras\.0\.file loras/style\.safetensors does not exist"):
        images(asking(plain, {"file": "loras/style.safetensors"}), world / "gone")
