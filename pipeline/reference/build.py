"""Stage `reference`: the real images that arms are compared with, drawn or copied, and those that show concepts."""

from pathlib import Path

from pipeline.errors import run_stage
from pipeline.layout import CONCEPTS, REFERENCE_SET
from pipeline.reference.image_folder import copy_images
from pipeline.stage_arguments import stage_parser
from pipeline.storage.files import remove_leftovers
from pipeline.study.study import TINYBOORU, load_study
from pipeline.tinybooru.build import build
from pipeline.tinybooru.concepts import build_concepts


def main() -> None:
    stage_parser("pipeline.reference.build", __doc__).parse_args()
    asked = load_study().reference
    # DVC keeps the folder from run to run, and with it what a killed one has left.
    for folder in (REFERENCE_SET, CONCEPTS):
        remove_leftovers(folder)
    if asked.source == TINYBOORU:
        build_concepts(CONCEPTS, asked.world_seed)
        paths = build(REFERENCE_SET, "reference", asked.images, asked.world_seed, good_only=True, showing=asked.showing)
    else:
        # The captions of someone's own images say what they show.
        for stale in CONCEPTS.glob("*.parquet"):
            stale.unlink()
        CONCEPTS.mkdir(parents=True, exist_ok=True)
        canvas = None if asked.canvas is None else asked.canvas.size
        paths = copy_images(Path(asked.source), REFERENCE_SET, asked.images, asked.world_seed, canvas)
    print(f"reference: {asked.images} real images, {asked.title}, in {len(paths)} shards under {REFERENCE_SET}")


if __name__ == "__main__":
    run_stage(main)
