"""Memory that is too small outside a batch: one line that names the model and what takes less.

The errors are torch's own, of more memory than there is anywhere.
"""

import pytest
import torch
from one_arm import generate

from pipeline.errors import InputError, is_out_of_memory
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.storage.places import Places
from pipeline.study.study import parse_study

LESS = r"take less with model\.loading \(dtype=float16, offload, attention_slicing, vae_slicing\), or a smaller model$"


def too_much(*_, **__):
    return torch.empty(2**50)


@pytest.mark.parametrize(
    "part",
    [
        "pipeline.networks.denoisers.unet.load_part",
        "pipeline.networks.denoisers.unet.cpu_offload",
        "pipeline.networks.text.text_encoder._load_tower",
    ],
)
def test_networks_that_do_not_fit_are_refused(params, networks_folder, tmp_path, monkeypatch, part):
    """And are not taken for damaged, which fetching anew would not help."""
    monkeypatch.chdir(networks_folder)
    params["model"] = {"name": "random", "main": "main", "guide": "guide", "loading": {"offload": True}}
    monkeypatch.setattr(part, too_much)
    with pytest.raises(
        InputError, match=rf"^arm 'cfg': its networks do not fit into memory \(cpu, model random\); {LESS}"
    ):
        generate(parse_study(params, "test"), "cfg", Places.under(tmp_path))
    assert not list(tmp_path.rglob("*.parquet"))


def test_start_images_that_do_not_fit_are_refused_with_the_arm_to_draw_first(study, params, tmp_path, monkeypatch):
    params["arms"]["redrawn"] = {
        "method": "cfg",
        "scale": 2.0,
        "image_to_image": {"from": "unguided", "source": params["arms"]["unguided"], "strength": 0.7},
    }
    redrawing, own = parse_study(params, "test"), ArmGenerator.draw
    generate(redrawing, "unguided", Places.under(tmp_path / "drawn"))
    monkeypatch.setattr(
        ArmGenerator, "draw", lambda self, *batch: too_much() if self.arm_name == "unguided" else own(self, *batch)
    )
    with pytest.raises(
        InputError,
        match=rf"^arm 'redrawn': the images of 'unguided' that it starts from do not fit into memory \(cpu, model "
        rf"random\); draw arm unguided first, whose images are then read, or {LESS}",
    ):
        generate(redrawing, "redrawn", Places.under(tmp_path / "anew"))
    assert generate(redrawing, "redrawn", Places.under(tmp_path / "drawn")) == (2, 2), "the way out"


def test_a_cost_that_is_measured_again_may_not_fit_either(study, tmp_path, monkeypatch):
    places = Places.under(tmp_path)
    generate(study, "cfg", places)
    (places.costs / "cfg.json").unlink()
    monkeypatch.setattr(ArmGenerator, "draw", too_much)
    with pytest.raises(InputError, match=r"^4 images of arm 'cfg' at once do not fit into memory"):
        generate(study, "cfg", places)


def test_want_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as raised:
        too_much()
    for error in (
        raised.value,
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        assert is_out_of_memory(error)
    for other in (RuntimeError("shapes do not fit"), ValueError("memory"), OSError("disk")):
        assert not is_out_of_memory(other)
