"""FLOPs of a prediction: counted from shapes alone, and those of the evaluation itself."""

from dataclasses import replace
from fractions import Fraction
from math import prod

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.cost.evaluation_counts import prediction_flops
from pipeline.guidance.algebra import GUIDE, MAIN, Perturbation
from pipeline.networks.checkpoints import locate
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.perturbation import perturbed
from pipeline.networks.text.conditioning import Conditioning
from pipeline.study.loading import Loading
from pipeline.study.weaken import DropLayers, Lora, LowBits

CPU = torch.device("cpu")
DAMAGE = {
    "whole": None,
    "pag": Perturbation("pag", ("mid_block",), None),
    "seg": Perturbation("seg", ("mid_block", "up_blocks"), 1.5),
    "blurred to the mean": Perturbation("seg", ("mid_block",), None),
    "skip_layers": Perturbation("skip_layers", ("mid_block",), None),
}


@pytest.fixture
def place(networks_folder, pipelines_folder):
    """The folder of a network by its name."""
    return lambda name: (networks_folder if name == "main" else pipelines_folder) / name


def read(network, name, rows=16, columns=16):
    """A sample and a text for a network, as inference leaves them."""
    with torch.inference_mode():
        x = torch.randn(1, network.unet.config.in_channels, rows, columns, dtype=torch.float32)
        width = network.unet.config.cross_attention_dim
        texts = {"tokens": torch.randn(1, 77, width)}
        if name == "sdxl":
            texts |= {"pooled": torch.randn(1, 48), "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]])}
        return x, Conditioning(texts)


def of_the_evaluation(network, prediction, x, texts):
    """The FLOPs of what is computed."""
    with (
        torch.compiler.set_stance("force_eager"),
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):
        if prediction.perturbation is None:
            network.at_timestep(x, torch.tensor(1), texts)
        else:
            with perturbed(network.unet, prediction.perturbation, x.shape[-2:]):
                network.at_timestep(x, torch.tensor(1), texts)
    return counter.get_total_flops()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", ["main", "sd", "sdxl"])
def test_flops_are_those_of_the_evaluation(place, name, damage):
    network = load_network(locate(str(place(name))), CPU)
    prediction = replace(MAIN, perturbation=damage)
    for extent in ((16, 16), (12, 20)):
        x, texts = read(network, name, *extent)
        counted = prediction_flops(network, prediction, x, texts)
        assert counted == of_the_evaluation(network, prediction, x, texts) > 0
        assert type(counted) is int


HELD = {
    "half precision": {"dtype": "bfloat16"},
    "sliced": {"attention_slicing": True},
    "offloaded": {"offload": True},
    "compiled": {"compile": True},
}


@pytest.mark.parametrize("loading", HELD.values(), ids=HELD)
def test_counting_knows_every_way_to_hold_weights_and_leaves_them_as_they_were(place, monkeypatch, loading):
    own = UNet2DConditionModel.compile
    monkeypatch.setattr(UNet2DConditionModel, "compile", lambda unet, **how: own(unet, backend="eager", **how))
    network = load_network(locate(str(place("sd"))), CPU, Loading(**loading))
    x, texts = read(network, "sd")
    before = network.at_timestep(x, torch.tensor(500), texts)
    for damage in DAMAGE.values():
        prediction = replace(MAIN, perturbation=damage)
        counted = prediction_flops(network, prediction, x, texts)
        assert counted == of_the_evaluation(network, prediction, x, texts) > 0
    assert torch.equal(network.at_timestep(x, torch.tensor(500), texts), before)


@pytest.mark.parametrize(
    "how",
    [LowBits(name="low_bits", bits=4), DropLayers(name="drop_layers", layers=("mid_block",)), "lora"],
    ids=["low bits", "dropped layers", "lora"],
)
def test_flops_of_a_weakened_guide_are_those_of_its_evaluation(place, tmp_path, monkeypatch, how):
    if how == "lora":
        monkeypatch.chdir(tmp_path)
        layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        weights = {f"unet.{layer}.lora_A.weight": torch.ones(2, 32), f"unet.{layer}.lora_B.weight": torch.ones(32, 2)}
        save_file(weights, "epoch.safetensors", {"format": "pt"})
        how = Lora(name="lora", file="epoch.safetensors")
    guide = load_network(locate(str(place("sd"))), CPU, how=how)
    x, texts = read(guide, "sd")
    counted = prediction_flops(guide, GUIDE, x, texts)
    assert counted == of_the_evaluation(guide, GUIDE, x, texts)


def test_a_canvas_is_counted_whose_attention_scores_are_larger_than_any_memory(place):
    """Convolutions grow with the positions n, self-attention with their square: three canvases say the fourth."""
    network, counted = load_network(locate(str(place("sd"))), CPU), {}
    for side in (16, 32, 64, 2048):
        x, texts = read(network, "sd", side, side)
        counted[side**2] = prediction_flops(network, MAIN, x, texts)
    (*small, large) = counted
    expected = sum(
        counted[n] * prod(Fraction(large - other, n - other) for other in small if other != n) for n in small
    )
    assert counted[large] == expected
