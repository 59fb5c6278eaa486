"""An image of NaN or infinite values is none: as bytes it would be black or white, and kept as finished."""

import shutil
from dataclasses import replace

import pytest
import torch
from one_arm import generate
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from pipeline.generation import arm_generator
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.storage.places import Places
from pipeline.study.study import parse_study

CPU = torch.device("cpu")


@pytest.fixture
def overflowing(params, pipelines_folder, tmp_path, monkeypatch):
    """A study of the random Stable Diffusion 1.x with one value of a part's last bias not finite."""
    shutil.copytree(pipelines_folder / "sd", tmp_path / "sd")
    monkeypatch.chdir(tmp_path)
    params["arms"] = {"cfg": {"method": "cfg", "scale": 30.0}, "plain": {"method": "unguided", "scale": 1.0}}
    params["baseline"] = "plain"

    def study(part, bias, value, **loading):
        path = tmp_path / "sd" / part / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        tensors[bias][0] = value
        save_file(tensors, path, {"format": "pt"})
        params["model"] = {"name": "sd", "main": "sd", "guide": "sd", "loading": loading}
        return parse_study(params, "test")

    return study


@pytest.mark.parametrize(
    ("part", "bias", "value", "loading", "message"),
    [
        (
            "unet", "conv_out.bias", float("nan"), {"dtype": "bfloat16"},
            r"^arm 'cfg' generated no image from seed 0, 1, 2, 3: what the sampler generated is not finite "
            r"\(model\.loading\.dtype is bfloat16\); take model\.loading\.dtype=float32 or a scale smaller than 30 or "
            r"another autoencoder \(model\.vae\) or other weights$",
        ),
        (
            "vae", "decoder.conv_out.bias", float("inf"), {},
            r"from seed 0, 1, 2, 3: what the autoencoder decoded is not finite \(model\.loading\.dtype is float32\); "
            r"take a scale smaller than 30 or another autoencoder \(model\.vae\) or other weights$",
        ),
    ],
    ids=["sampler", "autoencoder"],
)  # fmt: skip
def test_an_arm_that_overflows_is_refused_and_leaves_no_image(
    overflowing, tmp_path, part, bias, value, loading, message
):
    with pytest.raises(InputError, match=message):
        generate(overflowing(part, bias, value, **loading), "cfg", Places.under(tmp_path))
    assert not list(tmp_path.rglob("*.parquet"))


def spoiling(monkeypatch, spoil):
    """Has what the sampler returns go through `spoil` (samples, trace)."""
    own = arm_generator.sample
    monkeypatch.setattr(arm_generator, "sample", lambda *arguments: spoil(*own(*arguments)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_image_of_a_batch_is_enough_and_its_seed_is_named(study, monkeypatch, value):
    def one_value(samples, trace):
        spoiled = samples.clone()
        spoiled[1, 0, 2, 3] = value
        return spoiled, trace

    generator, texts = ArmGenerator(study, "unguided", CPU), {"prompt": ["cat", "dog", "cow"]}
    assert len(generator.draw(texts, [5, 6, 7]).images) == 3
    spoiling(monkeypatch, one_value)
    with pytest.raises(
        InputError, match=r"'unguided' generated no image from seed 6: .* float32\); take other weights$"
    ):
        generator.draw(texts, [5, 6, 7])


def test_of_many_seeds_the_first_are_named(study, monkeypatch):
    spoiling(monkeypatch, lambda samples, trace: (samples * float("nan"), trace))
    with pytest.raises(InputError, match=r"from seed 0, 1, 2, 3, 4, 5, 6, 7 and 2 more: "):
        ArmGenerator(study, "unguided", CPU).draw({"prompt": ["cat"] * 10}, list(range(10)))


def test_the_way_to_an_image_is_finite_as_well(study, monkeypatch):
    def way(samples, trace):
        return samples, [replace(step, estimates=step.estimates * float("nan")) for step in trace]

    spoiling(monkeypatch, way)
    with pytest.raises(InputError, match="from seed 5: what the sampler generated"):
        ArmGenerator(study, "unguided", CPU).draw({"prompt": ["cat", "dog"]}, [5, 6], None, 1)
