"""The reference images of `study=vibe`: images of the world that no network was trained on, and no prompt names."""

import shutil
from pathlib import Path

from pipeline.tinybooru.build import CANVAS
from pipeline.tinybooru.image import draw, plan

WORLD_SEED = 0
# Files, and the numbers of their images in the world, of the validation split; prompts are those of its first ones.
REFERENCES = {"red_hair.png": 44697, "purple_hair.png": 44006, "hills.png": 43752}


def draw_references(folder: Path) -> None:
    """Draw the references into `folder`, each a PNG; what else is there goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, index in REFERENCES.items():
        draw(plan(WORLD_SEED, index), CANVAS).save(folder / name)
