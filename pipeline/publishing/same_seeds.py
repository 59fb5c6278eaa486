"""What the card of a dataset begins with: the same seeds under every arm."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipeline.publishing.pairs import images_of
from pipeline.storage.contact_sheet import same_seed_grid
from pipeline.storage.images import decode_image
from pipeline.storage.shards import read_table, shard_paths

GRID = "grid.png"
# The first seeds of the study: nobody chose them.
SEEDS = 4
# Longest side of an image in the grid, in pixels.
SIDE = 160


def seed_grid(sets: Path, arms: Sequence[str], baseline: str) -> Image.Image:
    """The baseline's first `SEEDS` pairs under every arm: one column per arm, one row per pair. Raises InputError."""
    pairs = read_table(shard_paths(sets / baseline)[0], ["pair_id"]).column("pair_id").to_pylist()[:SEEDS]
    found = [images_of(sets / arm, pairs) for arm in arms]
    rows = [[_shown(own[pair]) for own in found] for pair in pairs if all(pair in own for own in found)]
    return same_seed_grid(rows, arms)


def _shown(content: bytes) -> Image.Image:
    image = decode_image(content)
    longest = max(image.size)
    # Whole multiples of small images, so that their pixels stay squares.
    factor = SIDE // longest if longest <= SIDE else SIDE / longest
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.NEAREST if longest <= SIDE else Image.Resampling.LANCZOS)
