"""Write trained networks of world 3 as the folders that are shipped: `python -m models.tinybooru.export --help`.

The run's snapshots (gpu.py) become folders in diffusers' layout: `main` and `guide` of the UNets, `flow/main` and
`flow/guide` of the transformers. Weights are stored in half precision.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from models.tinybooru.cards import keep_training
from models.tinybooru.denoiser import build_text_encoder
from models.tinybooru.families import TEXT_WIDTH, FamilyRecipe, build_network, scheduler_of
from models.tinybooru.gpu import CPU, FLOW, FLOW_SMALL, UNET, UNET_SMALL, load_weights, snapshot_weights
from pipeline.errors import InputError, run_stage

HERE = Path(__file__).parent
PARTS = {"unet": "unet", "flow": "transformer"}
FOLDERS = {"unet": Path("."), "flow": Path("flow")}
GUIDE_STEPS = {"unet": 1500, "flow": 1500}


def export_network(state: Path, recipe: FamilyRecipe, seed: int, step: int, folder: Path) -> None:
    """Write one network and its scheduler into `folder`. Raises InputError where the run has no such snapshot."""
    name = f"{recipe.family}-{recipe.name}-{seed}-{step}"
    if not (state / "snapshots" / f"{name}.safetensors").exists():
        raise InputError(f"{state} has no snapshot {name}; `make train` makes it")
    network = build_network(recipe)
    load_weights(network, {n: t.float() for n, t in snapshot_weights(state, name).items()})
    network.half().save_pretrained(folder / PARTS[recipe.family])  # type: ignore[operator]
    scheduler_of(recipe).save_pretrained(folder / "scheduler")


def export_texts(state: Path, seed: int, folder: Path) -> None:
    """Write the frozen text encoder of a training seed and the tokenizer into `folder`."""
    tokenizer = CLIPTokenizer.from_pretrained(state / "tokenizer")
    encoder = build_text_encoder(tokenizer, TEXT_WIDTH)
    weights = {n: t.float() for n, t in snapshot_weights(state, f"text-{seed}").items()}
    encoder.load_state_dict(weights, strict=False)
    encoder.half().save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")


def export_pair(state: Path, main: FamilyRecipe, guide: FamilyRecipe, seed: int, step: int, folder: Path) -> None:
    """Write a main network with its texts, and its guide, into `folder`/main and `folder`/guide."""
    for part in ("main", "guide"):
        shutil.rmtree(folder / part, ignore_errors=True)
    export_network(state, main, seed, step, folder / "main")
    export_texts(state, seed, folder / "main")
    export_network(state, guide, seed, GUIDE_STEPS[guide.family], folder / "guide")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.tinybooru.export", description=__doc__)
    parser.add_argument("--state", type=Path, default=HERE / "checkpoints" / "world3", help="where the run is kept")
    parser.add_argument("--seed", type=int, default=0, help="training seed (default: 0)")
    parser.add_argument("--step", type=int, default=CPU.steps, help=f"step of the main networks (default: {CPU.steps})")
    parser.add_argument("--output", type=Path, default=HERE, help="where the folders go")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for main_recipe, guide in ((UNET, UNET_SMALL), (FLOW, FLOW_SMALL)):
        folder = arguments.output / FOLDERS[main_recipe.family]
        export_pair(arguments.state, main_recipe, guide, arguments.seed, arguments.step, folder)
        if arguments.output == HERE:
            for recipe, steps in ((main_recipe, arguments.step), (guide, GUIDE_STEPS[guide.family])):
                made = json.loads(json.dumps({**asdict(recipe), "seed": arguments.seed, "steps": steps}))
                keep_training(HERE, f"{recipe.family}-{recipe.name}", made, device)
    print(f"exported step {arguments.step} of seed {arguments.seed} to {arguments.output}; next: make worldcheck")


if __name__ == "__main__":
    run_stage(main)
