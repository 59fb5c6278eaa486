"""The images that everything of the embedded world is trained and measured with, drawn once and kept."""

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from pipeline.tinybooru.build import CANVAS, WORLD_VERSION, draw_all, plans
from pipeline.tinybooru.image import Plan, plan

WORLD_SEED = 0
TRAINING_IMAGES, HELD_OUT_IMAGES = 40000, 4096


@dataclass(frozen=True)
class World:
    """Images of both splits, uint8 [N, 3, H, W], and what was planned of each."""

    train: torch.Tensor
    train_plans: list[Plan]
    held_out: torch.Tensor
    held_out_plans: list[Plan]


def draw_world(images: int, held_out: int) -> World:
    """The first images of the train and validation splits, drawn on all cores with a progress bar."""
    train = list(islice(plans("train", WORLD_SEED), images))
    validation = list(islice(plans("validation", WORLD_SEED), held_out))
    drawn = [np.asarray(image) for image in draw_all([*train, *validation], CANVAS, "images of the world")]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
    return World(pixels[:images], train, pixels[images:], validation)


def load_world(folder: Path, images: int = TRAINING_IMAGES, held_out: int = HELD_OUT_IMAGES) -> World:
    """The world, kept in `folder` once it is drawn."""
    path = folder / f"world{WORLD_VERSION}-{images}-{held_out}.npz"
    if path.exists():
        kept = np.load(path)
        pixels = torch.from_numpy(kept["pixels"])
        planned = [plan(WORLD_SEED, int(index)) for index in kept["index"]]
        return World(pixels[:images], planned[:images], pixels[images:], planned[images:])
    world = draw_world(images, held_out)
    planned = [*world.train_plans, *world.held_out_plans]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".world.npz"
    np.savez(temporary, pixels=torch.cat([world.train, world.held_out]).numpy(), index=[p.index for p in planned])
    os.replace(temporary, path)
    return world
