"""What a training step of the embedded networks costs: `python -m benchmarks.training`, into benchmarks/results.json.

The shipped recipe on images of the world, from captions and noise to the averaged weights, eager and compiled, on
CUDA where torch sees it, else on the CPU. The share of peak counts the FLOPs of the forward and the backward pass
alone, in the precision of training, against large matrix products measured in the same run. The operators that take
longest are printed with their shares.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peak import matmul_rate
from benchmarks.record import Result, entry, least, record
from models.tinybooru.corpus import Corpus, load_corpus
from models.tinybooru.denoiser import DenoiserRecipe, DenoiserTraining
from models.tinybooru.tokenizer import train_tokenizer
from models.tinybooru.train import GUIDE, MAIN, WORLD_SEED, preset_texts
from pipeline.cost.usage import device_name
from pipeline.execution.allocator import keep_freed_memory
from pipeline.tinybooru.build import build

IMAGES = 1024
# Products of this side take a core about a quarter of a second; smaller ones do not reach the peak of a GPU.
SIDES = {"cpu": 2048, "cuda": 8192}
# From here on the text encoder is frozen and the recipe shows some tags more often: so are most of its steps.
STEP = MAIN.focus_from


def images() -> Corpus:
    """A small corpus of the embedded world."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), "train", IMAGES, WORLD_SEED)
        return load_corpus(Path(folder))


def training(recipe: DenoiserRecipe, corpus: Corpus, device: torch.device, compiled: bool) -> DenoiserTraining:
    """A run that stands at STEP, with the text encoder frozen as it is there."""
    tokenizer = train_tokenizer([*corpus.captions(), *preset_texts()])
    run = DenoiserTraining(recipe, tokenizer, corpus, corpus, None, Path("unused"), device, compiled)
    run.step = STEP
    run.text_encoder.requires_grad_(False)
    return run


def flops_of_a_step(run: DenoiserTraining) -> int:
    """FLOPs of the convolutions and matrix products of one forward and backward pass."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run.step_loss().backward()  # type: ignore[no-untyped-call]
    run.unet.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def longest_operators(run: DenoiserTraining, steps: int = 3, rows: int = 12) -> Sequence[tuple[str, float]]:
    """The operators that take the largest shares of a step's own time on the device, most first."""
    cuda = run.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
        for _ in range(steps):
            run.train_step()
    spent = {
        event.key: event.self_device_time_total if cuda else event.self_cpu_time_total
        for event in profiled.key_averages()
    }
    whole = sum(spent.values())
    return sorted(((name, time / whole) for name, time in spent.items()), key=lambda pair: -pair[1])[:rows]


def measure(device: torch.device, rounds: int) -> list[Result]:
    """Images a second and the share of peak of eager and compiled steps."""
    corpus, peak = images(), matmul_rate(device, torch.float32, SIDES[device.type])
    eager = training(MAIN, corpus, device, compiled=False)
    flops = flops_of_a_step(eager)
    for name, share in longest_operators(eager):
        print(f"{share:6.1%}  {name}")
    compiled = training(MAIN, corpus, device, compiled=True)
    guide = training(GUIDE, corpus, device, compiled=True)
    runs = {"": eager, "_compiled": compiled, "_guide_compiled": guide}
    least(1, *(run.train_step for run in runs.values()))  # compiles, and makes the optimisers' states
    seconds = dict(zip(runs, least(rounds, *(run.train_step for run in runs.values())), strict=True))
    print(f"{flops / 1e9:.1f} GFLOP forward and backward, products of matrices at {peak / 1e9:.0f} GFLOP/s")
    machine = device_name(device) if device.type == "cuda" else None
    found = [
        entry(f"training_step{name}_images_per_second", MAIN.batch / took, None, None,
              f"whole steps of {MAIN.batch}", machine)
        for name, took in seconds.items()
    ]  # fmt: skip
    against = f"products of matrices in single precision, {peak / 1e9:.0f} GFLOP/s; a step is {flops / 1e9:.0f} GFLOP"
    shares = {name: flops / seconds[name] / peak for name in ("", "_compiled")}
    return found + [
        entry(f"training_step{name}_share_of_peak", share, None, None, against, machine)
        for name, share in shares.items()
    ]


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
