"""The README's images of the arms and of the world: `python -m docs.arms_image` after `make repro`.

docs/arms.png shows the same seeds under each kind of guidance, from data/sets; docs/tinybooru.png shows real images.
"""

import argparse
from itertools import islice
from pathlib import Path

from pipeline.errors import InputError, run_stage
from pipeline.layout import SETS
from pipeline.results.colours import BASELINE, hues, shade
from pipeline.storage.contact_sheet import grid, same_seed_grid
from pipeline.storage.shards import decode_images, read_set
from pipeline.tinybooru.build import CANVAS
from pipeline.tinybooru.image import draw, plan

DOCS = Path("docs")
ARMS = ("unguided", "cfg", "negative", "autoguidance", "pure_negative")
# Seeds of the default study that show a pattern, five people of as many styles, and an object.
SEEDS = (0, 1, 4, 5, 7, 8, 9)
REAL, COLUMNS = 96, 16
# As in the report: the baseline is grey, each method has its hue.
COLOURS = {arm: shade(hue) for arm, hue in hues(ARMS[1:]).items()} | {ARMS[0]: BASELINE}


def main() -> None:
    argparse.ArgumentParser(prog="python -m docs.arms_image", description=__doc__).parse_args()
    if missing := [arm for arm in ARMS if not (SETS / arm).is_dir()]:
        raise InputError(f"{SETS} has no {', '.join(missing)}; `make repro` generates the default study")
    drawn = {arm: list(islice(decode_images(read_set(SETS / arm, ["image"])), max(SEEDS) + 1)) for arm in ARMS}
    sheet = same_seed_grid(
        [[drawn[arm][seed] for arm in ARMS] for seed in SEEDS], ARMS, 2, [COLOURS[arm] for arm in ARMS]
    )
    sheet.save(DOCS / "arms.png", optimize=True)
    grid([draw(plan(0, index), CANVAS) for index in range(REAL)], COLUMNS).save(DOCS / "tinybooru.png", optimize=True)
    print(f"{len(SEEDS)} seeds of {len(ARMS)} arms and {REAL} real images in {DOCS}")


if __name__ == "__main__":
    run_stage(main)
