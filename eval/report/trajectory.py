"""The trajectory of one image under each guidance: the guided estimate of the image at several noise levels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.report.gallery.thumbnails import thumbnail
from pipeline.errors import InputError
from pipeline.storage.shards import decode_images, read_set

# Images with a trajectory that the page holds.
IMAGES = 8


def trajectories(folder: Path, sets: Path, arms: Sequence[str]) -> dict[str, Any] | None:
    """What the page's script reads: images, noise levels in the order of sampling, and frames[image][arm][level].

    A frame is base64 WebP, and empty where an arm recorded nothing at that noise level (its sampler may be another).
    None where nothing is recorded. Raises InputError for shards that are unreadable or of other images.
    """
    recorded = [arm for arm in arms if any((folder / arm).glob("part-*.parquet"))]
    if not recorded:
        return None
    found: dict[int, dict[tuple[str, float], str]] = {}
    words: dict[int, tuple[int, str]] = {}
    for arm in recorded:
        table = read_set(folder / arm, ["image_id", "step", "sigma", "image"])
        own = read_set(sets / arm, ["image_id", "pair_id", "seed", "prompt"]).to_pylist()
        pair_of = {row["image_id"]: row for row in own}
        try:
            frames = [thumbnail(image) for image in decode_images(table)]
        except OSError as error:
            raise InputError(f"{folder / arm} holds an unreadable image ({error}); run `dvc repro`") from None
        for row, frame in zip(table.drop_columns("image").to_pylist(), frames, strict=True):
            if row["image_id"] not in pair_of:
                raise InputError(f"{folder / arm} has '{row['image_id']}', which {sets / arm} lacks; run `dvc repro`")
            image = pair_of[row["image_id"]]
            sigma = round(row["sigma"], 4)
            found.setdefault(image["pair_id"], {})[arm, sigma] = frame
            # An arm with the empty prompt says less about the image than the others.
            if len(image["prompt"]) >= len(words.get(image["pair_id"], (0, ""))[1]):
                words[image["pair_id"]] = image["seed"], image["prompt"]
    if not found:
        return None
    pairs = sorted(found)[:IMAGES]
    levels = sorted({sigma for own in found.values() for _, sigma in own}, reverse=True)
    return {
        "images": [{"seed": words[pair][0], "prompt": words[pair][1]} for pair in pairs],
        # At a terminal SNR of zero the first level is infinite, which JSON has no number for.
        "sigmas": [f"{sigma:.3g}".replace("inf", "\N{INFINITY}") for sigma in levels],
        "arms": recorded,
        "frames": [[[found[pair].get((arm, sigma), "") for sigma in levels] for arm in recorded] for pair in pairs],
    }
