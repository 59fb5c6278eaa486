"""Three seeds under every method, chosen by how far guidance moved their images and not by eye."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from eval.features.extraction import load_features
from eval.report.first_screen.panels import arm_label, shown_arms
from eval.report.gallery.thumbnails import thumbnail
from pipeline.errors import InputError
from pipeline.results.answer import family_arm, family_arms, untold_arms
from pipeline.results.colours import arm_colours
from pipeline.results.comparison import ComparedArm, Comparison
from pipeline.storage.shards import decode_images, read_set, read_table, shard_paths

# CSS pixels that a cell of the table has at most.
SHARP = 96


@dataclass(frozen=True)
class ImageColumn:
    """An arm; `narrow` is one that a phone shows as well."""

    arm: str
    label: str
    colour: str
    narrow: bool


@dataclass(frozen=True)
class ImageRow:
    """One seed or pair: why it is here, and its images as base64 WebP in the order of the columns."""

    why: str
    seed: int  # or the number of the pair, by `Comparison.row_word`
    prompt: str
    images: list[str]


@dataclass(frozen=True)
class ImageRows:
    """The rows, what they were chosen by, and the canvas as `64x64`."""

    columns: list[ImageColumn]
    rows: list[ImageRow]
    chosen_by: str
    canvas: str

    @property
    def small(self) -> bool:
        """Whether the images are shown as large as they are, or larger: then pixels stay sharp."""
        return min(map(int, self.canvas.split("x"))) <= SHARP


def image_rows(comparison: Comparison, sets: Path, features: Path, extractor: str) -> ImageRows:
    """The median, the most moved and the most typical seed, by the `features` of an extractor.

    Raises InputError where sets or features are missing or share no images.
    """
    asked = _asked(comparison)
    arms = [comparison.by_name(comparison.baseline), *(shown_arms(comparison) or untold_arms(comparison)[:8])]
    pairs = {arm.arm: _pairs(sets / arm.arm) for arm in arms}
    shared = sorted(set.intersection(*(set(own) for own in pairs.values())))
    if not shared:
        raise InputError(f"the arms in {sets} share no pair_id; `dvc repro` regenerates them")
    base = _vectors(features, comparison.baseline, extractor, pairs[comparison.baseline], shared)
    if asked is None or not comparison.is_paired(asked.arm):
        moved = base - base.mean(0)
        words = ("median", "most unusual", "most typical")
        chosen_by = f"distance from the mean image of {comparison.baseline}, in the vectors of {extractor}"
    else:
        moved = _vectors(features, asked.arm, extractor, pairs[asked.arm], shared) - base
        words = ("median change", "most moved", "most typical")
        chosen_by = (
            f"how far {asked.arm} moved the image of {comparison.baseline}, in the vectors of {extractor}; "
            "most typical is the change nearest to the mean change"
        )
    seeds = _seeds(sets / comparison.baseline, comparison.row_word == "seed")
    chosen = [shared[k] for k in by_number(moved)]
    images = {arm.arm: _images(sets / arm.arm, chosen) for arm in arms}
    colours = arm_colours(comparison.arms, comparison.baseline)
    kept = {comparison.baseline, *(arm.arm for arm in family_arms(comparison))}
    _, canvas = next(iter(images[comparison.baseline].values()))
    return ImageRows(
        columns=[
            ImageColumn(
                arm.arm,
                arm.arm if arm.arm == comparison.baseline else arm_label(arm),
                colours[arm.arm],
                arm.arm in kept,
            )
            for arm in arms
        ],
        rows=[
            ImageRow(why, *seeds[pair], [images[arm.arm][pair][0] for arm in arms])
            for why, pair in zip(words, chosen, strict=False)
        ],
        chosen_by=chosen_by,
        canvas=canvas,
    )


def by_number(moved: Tensor) -> list[int]:
    """Of displacements [N, D], the index of the median length, of the longest, and of the one nearest to their mean.

    No index twice, so fewer than three of fewer than three; of equal ones the first.
    """
    length = moved.norm(dim=1)
    by_length = torch.argsort(length, stable=True).tolist()
    typical = torch.argsort((moved - moved.mean(0)).norm(dim=1), stable=True).tolist()
    longest = by_length[-1]
    around = sorted(range(len(by_length)), key=lambda place: abs(place - (len(by_length) - 1) / 2))
    median = next((by_length[place] for place in around if by_length[place] != longest), longest)
    near = next((k for k in typical if k not in (longest, median)), longest)
    return list(dict.fromkeys((median, longest, near)))


def _asked(comparison: Comparison) -> ComparedArm | None:
    """The arm that the question is about: a negative prompt where there is one."""
    arms = shown_arms(comparison) or untold_arms(comparison)
    negatives = [arm for arm in arms if arm.method == "negative"]
    return family_arm(negatives or arms[:1]) if arms else None


def _pairs(folder: Path) -> dict[int, str]:
    table = read_set(folder, ["pair_id", "image_id"]).to_pydict()
    return dict(zip(table["pair_id"], table["image_id"], strict=True))


def _seeds(folder: Path, by_seed: bool) -> dict[int, tuple[int, str]]:
    rows = read_set(folder, ["pair_id", "seed", "prompt"]).to_pylist()
    return {row["pair_id"]: (row["seed"] if by_seed else row["pair_id"], row["prompt"]) for row in rows}


def _vectors(features: Path, arm: str, extractor: str, ids: dict[int, str], pairs: Sequence[int]) -> Tensor:
    """The vectors [N, D] of an arm's images, pair by pair."""
    path = features / arm / f"{extractor}.safetensors"
    found = load_features(path)
    place = {image_id: k for k, image_id in enumerate(found.ids)}
    if missing := [ids[pair] for pair in pairs if ids[pair] not in place]:
        raise InputError(f"{path} has no row for '{missing[0]}'; delete it and run `dvc repro`")
    return found.images[[place[ids[pair]] for pair in pairs]].double()


def _images(folder: Path, wanted: Sequence[int]) -> dict[int, tuple[str, str]]:
    """{pair: (base64 WebP, canvas)}; shard by shard, as a set may not fit the memory."""
    found = {}
    for path in shard_paths(folder):
        shard = read_table(path, ["pair_id", "image"])
        shard = shard.filter(pc.is_in(shard["pair_id"], pa.array(wanted, pa.int64())))
        try:
            images = list(decode_images(shard))
        except OSError as error:
            raise InputError(f"{path} holds an unreadable image ({error}); delete it and run `dvc repro`") from None
        for pair, image in zip(shard["pair_id"].to_pylist(), images, strict=True):
            found[pair] = thumbnail(image), f"{image.width}x{image.height}"
    return found
