"""What an evaluation takes is known from a configuration: the bytes are those that torch allocates."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.profiler import ProfilerActivity, profile

from docs.full_sizes import DOCUMENT, PUBLISHED, built, parameters, qwen_vl, row
from pipeline.cost.size import size_of, values_of
from pipeline.networks.checkpoints import locate
from pipeline.networks.text.conditioning import Conditioning

CPU = torch.device("cpu")


def measured_peak(call: Callable[[], object]) -> int:
    """The most bytes that torch's allocator has handed out at a time during a call."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = profiled.profiler.kineto_results.events()
    live = peak = 0
    for _, change in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        live += change
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize(
    ("name", "width", "pooled"),
    [
        *(("sd3", 64, 64), ("flux", 64, 24), ("chroma", 64, 1)),
        *(("flux2", 96, 1), ("qwen_image", 64, 1), ("lumina2", 32, 1), ("z_image", 32, 1)),
    ],
)
@pytest.mark.parametrize("side", [8, 16])
def test_the_memory_of_an_evaluation_is_what_torch_allocates(
    flows_folder: Path, name: str, width: int, pooled: int, side: int
) -> None:
    checkpoint = locate(str(flows_folder / name))
    network = checkpoint.family.load(checkpoint, CPU)

    def evaluate(device: str) -> Callable[[], object]:
        x = torch.zeros(2, network.channels, side, side, device=device)
        told = {"tokens": torch.zeros(2, 48, width, device=device), "pooled": torch.zeros(2, pooled, device=device)}
        told["read"] = torch.ones(2, 48, dtype=torch.bool)  # which is counted
        return lambda: network(x, 1.0, Conditioning(told))

    measured = measured_peak(evaluate("cpu"))
    file = load_file(checkpoint.path / "transformer/diffusion_pytorch_model.safetensors")
    network.module.to("meta")
    size = size_of(network.module, evaluate("meta"))
    assert size.activations == pytest.approx(measured, rel=0.05)
    assert size.memory(4) == sum(weight.nbytes for weight in file.values()) + size.activations
    assert size.flops > 0


@pytest.mark.parametrize(
    ("name", "count"),
    # As the published weights have them.
    [
        ("SD 1.5", 859_520_964),
        ("SDXL", 2_567_463_684),
        ("FLUX.1 dev", 11_901_408_320),
        ("Lumina Image 2.0", 2_609_769_152),
        ("Z-Image", 6_154_908_736),
        ("Qwen-Image", 20_430_401_088),
    ],
)
def test_networks_of_published_configurations_have_as_many_parameters_as_their_weights(name: str, count: int) -> None:
    assert parameters(built(PUBLISHED[name].network)) == count


@pytest.mark.parametrize(
    ("name", "billions"),
    # As its authors round them; nothing more exact is published but the weights.
    [("FLUX.2 dev", 32), ("FLUX.2 klein base 9B", 9), ("FLUX.2 klein base 4B", 4)],
)
def test_networks_of_flux_2_are_as_large_as_their_names_say(name: str, billions: int) -> None:
    assert round(parameters(built(PUBLISHED[name].network)) / 1e9) == billions


def test_the_file_of_sd3_5_medium_is_as_large_as_its_published_one() -> None:
    """With its table of positions, a tenth of it. The Hub lists 4.94 GB."""
    whole, largest = values_of(built(PUBLISHED["SD3.5 medium"].network))
    assert round(2 * whole / 1e9, 2) == 4.94
    assert largest == 384**2 * 1536


def test_the_language_model_of_qwen_image_has_as_many_parameters_as_its_weights() -> None:
    assert 2 * parameters(built(qwen_vl)) == 16_584_333_312  # bytes of its files


@pytest.mark.parametrize("name", ["SD 1.5", "SD3.5 medium", "FLUX.1 dev"])
def test_the_documented_size_of_a_network_is_that_of_its_published_configuration(name: str) -> None:
    assert row(name) in DOCUMENT.read_text("utf-8").splitlines()
