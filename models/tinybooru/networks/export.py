"""Write trained networks as the folders that are shipped.

The run's snapshots (run.py) become folders in diffusers' layout: `main` and `guide` of the UNets, `flow/main` and
`flow/guide` of the transformers; `text_encoders` has the UNet early in training, read with two text encoders. Weights
are stored in half precision.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from models.tinybooru.cards import keep_history, keep_training
from models.tinybooru.networks.families import FamilyRecipe, scheduler_of
from models.tinybooru.networks.run import FLOW, FLOW_SMALL, UNET, UNET_SMALL, Sizes, held_out_losses
from models.tinybooru.networks.snapshots import load_network, load_texts

PARTS = {"unet": "unet", "flow": "transformer"}
FOLDERS = {"unet": Path("."), "flow": Path("flow")}


def export_texts(state: Path, seed: int, folder: Path) -> None:
    """Write the frozen text encoder of a training seed and the tokenizer into `folder`."""
    tokenizer, encoder = load_texts(state, seed)
    encoder.half().save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")


def export_pair(state: Path, main: FamilyRecipe, guide: FamilyRecipe, seed: int, sizes: Sizes, folder: Path) -> None:
    """Write a main network with its texts, and its guide, into `folder`/main and `folder`/guide."""
    disable_progress_bar()  # of a file that is written in a second
    # Both are loaded before the folders that are there are replaced.
    networks = [load_network(state, main, seed, sizes.steps), load_network(state, guide, seed, sizes.small_steps)]
    for recipe, network, part in zip((main, guide), networks, ("main", "guide"), strict=True):
        shutil.rmtree(folder / part, ignore_errors=True)
        network.half().save_pretrained(folder / part / PARTS[recipe.family])
        scheduler_of(recipe).save_pretrained(folder / part / "scheduler")
    export_texts(state, seed, folder / "main")


def export_reader(state: Path, recipe: FamilyRecipe, seed: int, step: int, folder: Path) -> None:
    """Write a network as it was at a step, with the text encoder that it reads, into `folder`.

    Raises InputError where the run has no such snapshot.
    """
    disable_progress_bar()
    network = load_network(state, recipe, seed, step)
    shutil.rmtree(folder, ignore_errors=True)
    network.half().save_pretrained(folder / PARTS[recipe.family])
    scheduler_of(recipe).save_pretrained(folder / "scheduler")
    export_texts(state, seed, folder)


def export_seed(state: Path, seed: int, sizes: Sizes, models: Path, device: torch.device) -> None:
    """Write the networks of a training seed, as they are at the end of a run of `sizes`, into `models`.

    Raises InputError where one is not finished.
    """
    for main_recipe, guide in ((UNET, UNET_SMALL), (FLOW, FLOW_SMALL)):
        export_pair(state, main_recipe, guide, seed, sizes, models / FOLDERS[main_recipe.family])
        for recipe, steps in ((main_recipe, sizes.steps), (guide, sizes.small_steps)):
            made = {**asdict(recipe), "seed": seed, "steps": steps, "batch": sizes.batch}
            losses = held_out_losses(state, f"{recipe.family}-{recipe.name}-{seed}")
            keep_history(models, f"{recipe.family}-{recipe.name}", losses)
            keep_training(models, f"{recipe.family}-{recipe.name}", json.loads(json.dumps(made)), device)
