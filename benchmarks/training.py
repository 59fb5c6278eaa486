"""What a training step of the embedded networks costs: `python -m benchmarks.training`, into benchmarks/results.json.

Whole steps of the shipped recipes on images of the world, from captions and noise to the averaged weights, in bfloat16
where the device has units for it: on a CPU eager and compiled, on CUDA as a graph. The share of peak counts the FLOPs
of the forward and the backward pass alone, against large matrix products in the precision of training, measured in the
same run.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peak import matmul_rate
from benchmarks.record import Result, entry, least, record
from models.tinybooru.networks.families import FamilyRecipe
from models.tinybooru.networks.graphed import GraphedTraining
from models.tinybooru.networks.run import FLOW, SIZES, UNET, UNET_SMALL, Run, SeedInputs
from models.tinybooru.networks.text_encoder import build_text_encoder, text_encoder_digest
from models.tinybooru.precision import has_bfloat16
from models.tinybooru.world import World, draw_world
from pipeline.cost.usage import device_name
from pipeline.execution.allocator import keep_freed_memory

IMAGES = 1024
# Products of this side take a core about a quarter of a second; smaller ones do not reach the peak of a GPU.
SIDES = {"cpu": 2048, "cuda": 8192}
RECIPES = {"": UNET, "_flow": FLOW, "_guide": UNET_SMALL}


def training(
    recipe: FamilyRecipe, world: World, device: torch.device, compiled: bool, state: Path
) -> tuple[GraphedTraining, SeedInputs]:
    """A training of a recipe with a frozen text encoder, and its inputs, filled with a batch."""
    sizes = replace(SIZES["gpu" if device.type == "cuda" else "cpu"], images=IMAGES)
    run = Run(sizes, world, device, state, float("inf"), compiled)
    inputs = SeedInputs(0, run)
    encoder = build_text_encoder(run.tokenizer, 128).to(device).eval().requires_grad_(False)
    inputs.fill(0)
    inputs.make_noise(0, 0)
    inputs.read(encoder)
    return run.training(recipe, inputs, f"{recipe.family}-{recipe.name}", reads=text_encoder_digest(encoder)), inputs


def flops_of_a_step(made: GraphedTraining) -> int:
    """FLOPs of the convolutions and matrix products of one forward and backward pass."""
    made.bind(made.weights)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        made.loss().backward()  # type: ignore[no-untyped-call]
    for p in made.host.values():
        p.grad = None
    return int(counter.get_total_flops())


def stepper(made: GraphedTraining) -> Callable[[], None]:
    """One whole step; on CUDA until the device is done with it."""

    def step() -> None:
        made.advance(1.0)
        if made.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def measure(device: torch.device, rounds: int) -> list[Result]:
    """Images a second and the share of peak of each recipe's steps."""
    dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
    peak, world = matmul_rate(device, dtype, SIDES[device.type]), draw_world(IMAGES, 8)
    kinds = {"": False, "_compiled": True} if device.type == "cpu" else {"": False}
    with tempfile.TemporaryDirectory() as folder:
        made = {
            f"{name}{how}": training(recipe, world, device, compiled, Path(folder))
            for name, recipe in RECIPES.items()
            for how, compiled in kinds.items()
        }
    flops = {name: flops_of_a_step(training(recipe, world, device, False, Path(tempfile.mkdtemp()))[0])
             for name, recipe in RECIPES.items()}  # fmt: skip
    steps = {name: stepper(one) for name, (one, _) in made.items()}
    least(1, *steps.values())  # compiles
    seconds = dict(zip(steps, least(rounds, *steps.values()), strict=True))
    machine = device_name(device) if device.type == "cuda" else None
    said = str(dtype).removeprefix("torch.")
    found = []
    for name, took in seconds.items():
        work, batch = flops[name.removesuffix("_compiled")], made[name][1].run.sizes.batch
        against = f"products of matrices in {said}, {peak / 1e9:.0f} GFLOP/s; a step is {work / 1e9:.0f} GFLOP"
        found += [
            entry(f"training_step{name}_images_per_second", batch / took, None, None, f"whole steps of {batch}",
                  machine),
            entry(f"training_step{name}_share_of_peak", work / took / peak, None, None, against, machine),
        ]  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; the least of each counts")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    record(measure(torch.device("cuda" if torch.cuda.is_available() else "cpu"), arguments.rounds))


if __name__ == "__main__":
    main()
