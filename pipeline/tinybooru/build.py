"""Draw splits of the tinybooru world into parquet shards: `python -m pipeline.tinybooru.build --help`."""

import argparse
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path

from datasets import Features, Image, List, Value
from PIL import Image as PillowImage
from tqdm import tqdm

from pipeline.errors import InputError, run_stage
from pipeline.storage.files import fingerprint
from pipeline.storage.shards import encode_png, shard_fingerprint, write_shard
from pipeline.tinybooru.colours import HAIR_COLOURS
from pipeline.tinybooru.image import SPLITS, Plan, draw, plan

# Raise it when an image of some (seed, index) comes out differently than before.
WORLD_VERSION = 3
CANVAS = 64
SHARD_IMAGES = 2048

FEATURES = Features(
    {
        "image_id": Value("string"),
        "image": Image(),
        "prompt": Value("string"),
        "tags": List(Value("string")),
        "kind": Value("string"),
        "style": Value("string"),
        "quality": Value("string"),
        "flaws": List(Value("string")),
        "malformed": Value("bool"),
        "hair": Value("string"),
        "background": Value("string"),
        "glasses": Value("bool"),
        "digits": Value("int8"),
        "arms": Value("int8"),
        "legs": Value("int8"),
        "countable": Value("bool"),
    }
)


def plans(split: str, seed: int, good_only: bool = False, showing: Sequence[str] = ()) -> Iterator[Plan]:
    """All plans of a split in index order, without end; `good_only` keeps flawless ones of good quality.

    Only those with all tags of `showing` are among them; some image of the world must have them all.

    Raises ValueError for an unknown split.
    """
    from pipeline.tinybooru.flaws import GOOD_QUALITIES

    if split not in SPLITS:
        raise ValueError(f"split '{split}' is unknown; known splits: {', '.join(SPLITS)}")
    for index in count():
        planned = plan(seed, index)
        if planned.split != split:
            continue
        if good_only and (planned.flaws or planned.quality not in GOOD_QUALITIES):
            continue
        if showing and not set(showing) <= set(planned.tags):
            continue
        yield planned


def draw_all(wanted: list[Plan], canvas: int, description: str) -> Iterator[PillowImage.Image]:
    """Draw plans in order on all cores, with a progress bar."""
    workers = min(os.cpu_count() or 1, 1 + len(wanted) // 100)
    bar = tqdm(total=len(wanted), desc=description, unit="image", disable=None)
    if workers == 1:
        for planned in wanted:
            yield draw(planned, canvas)
            bar.update()
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for image in pool.map(draw, wanted, [canvas] * len(wanted), chunksize=32):
                yield image
                bar.update()
    bar.close()


def row(planned: Plan, image: PillowImage.Image) -> dict[str, object]:
    """One row of a shard."""
    return {
        "image_id": f"tinybooru-{planned.seed}-{planned.index}",
        "image": {"bytes": encode_png(image), "path": None},
        "prompt": ", ".join(planned.tags),
        "flaws": list(planned.flaws),
        **truths_of(planned),
    }


def truths_of(planned: Plan) -> dict[str, object]:
    """What is known of an image beside its caption, by column."""
    hair = next((t.removesuffix(" hair") for t in planned.tags if t.removesuffix(" hair") in HAIR_COLOURS), "")
    background = next((t.removesuffix(" background") for t in planned.tags if t.endswith(" background")), "")
    return {
        "tags": planned.tags,
        "kind": planned.kind,
        "style": planned.style,
        "quality": planned.quality,
        "malformed": planned.malformed,
        "hair": hair,
        "background": background,
        "glasses": "glasses" in planned.tags or "sunglasses" in planned.tags,
        "digits": planned.structure.digits,
        "arms": planned.structure.arms,
        "legs": planned.structure.legs,
        "countable": planned.countable,
    }


def build(
    folder: Path, split: str, images: int, seed: int, good_only: bool = False, showing: Sequence[str] = ()
) -> list[Path]:
    """Draw the first `images` of a split into `folder`/part-*.parquet; finished shards are kept.

    Shards of an earlier build that do not belong to this one are deleted. Raises InputError where
    `images` is below 1.
    """
    if images < 1:
        raise InputError(f"images is {images}; it must be at least 1")
    wanted = list(islice(plans(split, seed, good_only, showing), images))
    paths = []
    missing: list[tuple[Path, list[Plan], str]] = []
    for part, start in enumerate(range(0, images, SHARD_IMAGES)):
        chunk = wanted[start : start + SHARD_IMAGES]
        path = folder / f"part-{part:05d}.parquet"
        mark = fingerprint(["tinybooru", WORLD_VERSION, CANVAS, split, good_only, seed, [p.index for p in chunk]])
        paths.append(path)
        if shard_fingerprint(path) != mark:
            missing.append((path, chunk, mark))
    for stale in set(folder.glob("part-*.parquet")) - set(paths):
        stale.unlink()
    drawn = draw_all([p for _, chunk, _ in missing for p in chunk], CANVAS, f"tinybooru {split}")
    for path, chunk, mark in missing:
        rows = [row(planned, image) for planned, image in zip(chunk, drawn, strict=False)]
        write_shard(path, {name: [r[name] for r in rows] for name in FEATURES}, FEATURES, mark)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tinybooru.build", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the shards go, one folder a split")
    parser.add_argument("--images", type=int, default=20000, help="training images (default: 20000)")
    parser.add_argument("--held-out", type=int, default=2048, help="validation and reference images each")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world (default: 0)")
    arguments = parser.parse_args()
    for split, images in zip(SPLITS, (arguments.images, arguments.held_out, arguments.held_out), strict=True):
        build(arguments.folder / split, split, images, arguments.seed)
    total = arguments.images + 2 * arguments.held_out
    print(f"{total} images in {arguments.folder}; next: make train")


if __name__ == "__main__":
    run_stage(main)
