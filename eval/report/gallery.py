"""The gallery of the report: the same seeds under every arm."""

import base64
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.comparison import Comparison
from pipeline.errors import InputError
from pipeline.shards import decode_images, encode_png, read_set, read_table, shard_paths

GALLERY_PAIRS = 24
# plotly.js takes 5 MB, and the page shall stay below 15 MB.
GALLERY_BYTES = 9_000_000


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery; `source` is a PNG data URI."""

    arm: str
    prompt: str
    negative_prompt: str
    seed: int
    source: str
    clip_score: float
    aesthetic: float
    p_malformed: float

    @property
    def title(self) -> str:
        negative = [f"negative prompt: {self.negative_prompt}"] if self.negative_prompt else []
        return "\n".join(
            [
                f"{self.arm}, seed {self.seed}",
                f"prompt: {self.prompt or '(empty)'}",
                *negative,
                f"CLIP score {self.clip_score:.3f}, aesthetic {self.aesthetic:.2f}, "
                f"P(malformed) {self.p_malformed:.3f}",
            ]
        )


@dataclass(frozen=True)
class GalleryRow:
    """One seed; a picture an arm, in the arms' order. `prompt` is the baseline's."""

    pair_id: int
    seed: int
    prompt: str
    pictures: list[Picture]


def gallery(
    comparison: Comparison,
    sets: Path,
    scores: Path,
    pairs: int = GALLERY_PAIRS,
    limit: int = GALLERY_BYTES,
) -> list[GalleryRow]:
    """The first `pairs` pairs that every arm has, by pair_id; fewer, at least one, where they exceed `limit` bytes.

    Raises InputError where a set or its scores are missing, unreadable or of different pictures.
    """
    names = [arm.arm for arm in comparison.arms]
    common = set.intersection(*(set(read_set(sets / arm, ["pair_id"])["pair_id"].to_pylist()) for arm in names))
    if not common:
        raise InputError(f"the arms in {sets} share no pair_id; `dvc repro` makes them anew")
    wanted = sorted(common)[:pairs]
    columns = {arm: _pictures(arm, sets / arm, scores / f"{arm}.parquet", wanted) for arm in names}
    rows: list[GalleryRow] = []
    size = 0
    for pair_id in wanted:
        pictures = [columns[arm][pair_id] for arm in names]
        size += sum(len(picture.source) for picture in pictures)
        if rows and size > limit:
            break
        baseline = columns[comparison.baseline][pair_id]
        rows.append(GalleryRow(pair_id, baseline.seed, baseline.prompt, pictures))
    return rows


def _pictures(arm: str, folder: Path, scores: Path, wanted: list[int]) -> dict[int, Picture]:
    columns = ["image_id", "clip_score", "aesthetic", "p_malformed"]
    by_image = {row["image_id"]: row for row in read_table(scores, columns).to_pylist()}
    found: dict[int, Picture] = {}
    # The wanted pairs lie in the first shards, and a set's pictures together may not fit the memory.
    for path in shard_paths(folder):
        if len(found) == len(wanted):
            break
        shard = read_table(path, ["image_id", "image", "pair_id", "prompt", "negative_prompt", "seed"])
        shard = shard.filter(pc.is_in(shard["pair_id"], pa.array(wanted, pa.int64())))
        try:
            images = [encode_png(image) for image in decode_images(shard)]
        except OSError as error:
            raise InputError(f"{path} holds an unreadable picture ({error}); delete it and run `dvc repro`") from None
        for row, png in zip(shard.drop_columns("image").to_pylist(), images, strict=True):
            if row["image_id"] not in by_image:
                raise InputError(f"{scores} has no row for '{row['image_id']}'; delete it and run `dvc repro`")
            score = by_image[row["image_id"]]
            found[row["pair_id"]] = Picture(
                arm=arm,
                prompt=row["prompt"],
                negative_prompt=row["negative_prompt"],
                seed=row["seed"],
                source="data:image/png;base64," + base64.b64encode(png).decode(),
                **{name: score[name] for name in columns[1:]},
            )
    return found
