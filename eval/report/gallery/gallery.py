"""The gallery of the report: the same seeds under every arm, with what is known of each image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import torch
from tqdm import tqdm

from eval.features.extraction import load_features
from eval.report.gallery.image_labels import ImageLabel
from eval.report.gallery.image_metadata import image_metadata
from eval.report.gallery.methods import methods
from eval.report.gallery.selection import Selection, select
from eval.report.gallery.thumbnails import thumbnail
from pipeline.errors import InputError
from pipeline.results.comparison import Comparison
from pipeline.results.metrics import shown_in
from pipeline.results.rates import VERDICTS
from pipeline.storage.remote_path import AnyPath
from pipeline.storage.shards import decode_images, read_set, read_table, shard_paths

# Base64 characters of all images: with them a page opens in less than 3 s (benchmarks/report.py).
GALLERY_BYTES = 20_000_000
# How many images of each arm tell how large a thumbnail of the study is.
MEASURED = 8
# Rows that lie in one element of the page, which is read when one of them is shown.
BLOCK = 32


# In the order of the page; a study has those whose columns its scores hold.
SCORES = shown_in("gallery")


@dataclass(frozen=True)
class ArmImages:
    """What is known of an arm's images, by pair: texts, scores, kind, and how far each moved from the baseline's.

    `kinds` are empty in a study that does not ask for them, `moved` where images stand beside each other by chance, and
    `about`, what files say of themselves, where the study has generated the images.
    """

    ids: dict[int, str]
    seeds: dict[int, int]
    prompts: dict[int, str]
    negatives: dict[int, str]
    scores: dict[str, dict[int, float]]
    kinds: dict[int, int]
    moved: dict[int, float]
    about: dict[int, str]


@dataclass(frozen=True)
class Gallery:
    """What the page holds of the images.

    `content` is what the page's script reads; `blocks` are lines of base64 WebP, `BLOCK` rows of one line per arm,
    empty where an image is not in the page. `total` counts the study's images of shared pairs, `held` those in the
    page.
    """

    content: dict[str, Any]
    blocks: list[str]
    selection: Selection
    pairs: int
    held: int
    total: int


def gallery(
    comparison: Comparison,
    sets: Path,
    scores: Path,
    features: Path,
    primary: str,
    labels: Mapping[str, ImageLabel],
    parameters: Mapping[str, str],
    limit: int = GALLERY_BYTES,
) -> Gallery:
    """The gallery of a study, its images within about `limit` bytes. `primary` is the extractor of `features`.

    `parameters` are those that all images of an arm share, as YAML, by arm.

    Raises InputError where a set, its scores or features are missing, unreadable or of different images.
    """
    names = [arm.arm for arm in comparison.arms]
    known = _arms(comparison, sets, scores, features, primary)
    pairs = sorted(set.intersection(*(set(own.ids) for own in known.values())))
    if not pairs:
        raise InputError(f"the arms in {sets} share no pair_id; `dvc repro` regenerates them")
    rankings = {name: _rankings(own, pairs) for name, own in known.items()}
    size = _thumbnail_size(sets, names)
    selection = select(pairs, names, comparison.baseline, rankings, int(limit / size))
    rows = [*((pair, names) for pair in selection.whole), *selection.parts.items()]
    wanted = {name: [pair for pair, arms in rows if name in arms] for name in names}
    bar = tqdm(names, "thumbnails", unit="arm", disable=None)
    images = {name: _images(sets / name, wanted[name]) for name in bar}
    lines = ["\n".join(images[name].get(pair, "") for name in names) for pair, _ in rows]
    return Gallery(
        content=_content(comparison, known, rows, len(selection.whole), labels, parameters),
        blocks=["\n".join(lines[k : k + BLOCK]) for k in range(0, len(lines), BLOCK)],
        selection=selection,
        pairs=len(pairs),
        held=selection.images(len(names)),
        total=len(pairs) * len(names),
    )


def _arms(comparison: Comparison, sets: Path, scores: Path, features: Path, primary: str) -> dict[str, ArmImages]:
    names, baseline = [arm.arm for arm in comparison.arms], comparison.baseline
    base = load_features(features / baseline / f"{primary}.safetensors")
    known: dict[str, ArmImages] = {}
    base_images: dict[int, torch.Tensor] = {}
    for name in sorted(names, key=lambda name: name != baseline):
        table = read_set(sets / name, ["image_id", "pair_id", "prompt", "negative_prompt", "seed"]).to_pydict()
        path = scores / f"{name}.parquet"
        found = {row["image_id"]: row for row in read_table(path, _score_columns(path)).to_pylist()}
        own = base if name == baseline else load_features(features / name / f"{primary}.safetensors")
        vectors = dict(zip(own.ids, own.images, strict=True))
        for image_id in table["image_id"]:
            for where, there in ((path, found), (features / name, vectors)):
                if image_id not in there:
                    raise InputError(f"{where} has no row for '{image_id}'; delete it and run `dvc repro`")
        ids = dict(zip(table["pair_id"], table["image_id"], strict=True))
        images = {pair: vectors[image_id] for pair, image_id in ids.items()}
        if name == baseline:
            base_images = images
        known[name] = ArmImages(
            ids=ids,
            seeds=dict(zip(table["pair_id"], table["seed"], strict=True)),
            prompts=dict(zip(table["pair_id"], table["prompt"], strict=True)),
            negatives=dict(zip(table["pair_id"], table["negative_prompt"], strict=True)),
            scores={
                score.column: {pair: found[image_id][score.column] for pair, image_id in ids.items()}
                for score in SCORES
                if score.column in next(iter(found.values()), {})
            },
            kinds={pair: kind for pair, image_id in ids.items() if (kind := _kind(found[image_id])) is not None},
            about=image_metadata(sets / name) if name in comparison.external else {},
            moved={}
            if name == baseline or not comparison.is_paired(name)
            else {pair: float((images[pair] - base_images[pair]).norm()) for pair in ids if pair in base_images},
        )
    return {name: known[name] for name in names}


def _kind(scores: Mapping[str, float]) -> int | None:
    """The number of the likeliest kind; None where the study does not ask what its images are of."""
    chances = [scores.get(f"kind_{verdict}") for verdict in VERDICTS]
    known = [chance for chance in chances if chance is not None]
    return known.index(max(known)) if len(known) == len(VERDICTS) else None


def _score_columns(path: Path) -> list[str]:
    """The columns to read: what every study scores, and the additional scores of this one."""
    there = read_table(path).column_names
    kinds = [f"kind_{verdict}" for verdict in VERDICTS]
    wanted = [*kinds, *(score.column for score in SCORES)]
    return ["image_id", *(column for column in wanted if column in there)]


def _rankings(own: ArmImages, pairs: Sequence[int]) -> list[list[int]]:
    """An arm's pairs by every score, from either end, and by how far they moved; what has no value is not ranked."""
    rankings = []
    for values in own.scores.values():
        ordered = sorted((pair for pair in pairs if math.isfinite(values[pair])), key=lambda pair: values[pair])
        rankings += [ordered[::-1], ordered]
    if own.moved:
        rankings.append(sorted(pairs, key=lambda pair: -own.moved[pair]))
    return rankings


def _thumbnail_size(sets: Path, names: Sequence[str]) -> float:
    """Mean base64 characters of a thumbnail, over the first images of every arm."""
    sizes = [
        len(image)
        for name in names
        for image in _thumbnails(shard_paths(sets / name)[0], pa.array(range(MEASURED)), "index").values()
    ]
    return sum(sizes) / len(sizes)


def _images(folder: Path, wanted: Sequence[int]) -> dict[int, str]:
    """{pair: base64 WebP} of the wanted pairs of a set; shard by shard, as a set may not fit the memory."""
    found: dict[int, str] = {}
    for path in shard_paths(folder):
        found |= _thumbnails(path, pa.array(wanted, pa.int64()), "pair_id")
    return found


def _thumbnails(path: AnyPath, wanted: pa.Array, by: Literal["pair_id", "index"]) -> dict[int, str]:
    pairs = read_table(path, ["pair_id"])["pair_id"]
    there = pairs if by == "pair_id" else pa.array(range(len(pairs)))
    asked = pc.is_in(there, wanted)
    if not pc.any(asked).as_py():
        return {}
    # `take` joins all images of the shard first, and ends where they are more than 2 GiB.
    shard = read_table(path, ["pair_id", "image"]).filter(asked)
    try:
        images = [thumbnail(image) for image in decode_images(shard)]
    except OSError as error:
        raise InputError(f"{path} holds an unreadable image ({error}); delete it and run `dvc repro`") from None
    return dict(zip(shard["pair_id"].to_pylist(), images, strict=True))


def _content(
    comparison: Comparison,
    known: Mapping[str, ArmImages],
    rows: Sequence[tuple[int, Sequence[str]]],
    whole: int,
    labels: Mapping[str, ImageLabel],
    parameters: Mapping[str, str],
) -> dict[str, Any]:
    names = list(known)
    base = known[comparison.baseline]
    numbers: dict[str, int] = {}

    def text(words: str) -> int:
        return numbers.setdefault(words, len(numbers))

    columns = [
        {
            "arm": name,
            "parameters": parameters[name],
            "ids": [own.ids[pair] for pair, _ in rows],
            "prompts": [text(own.prompts[pair]) for pair, _ in rows],
            "negatives": [text(own.negatives[pair]) for pair, _ in rows],
            "kinds": [own.kinds[pair] for pair, _ in rows] if own.kinds else None,
            "about": [own.about[pair] for pair, _ in rows] if own.about else None,
            "moved": [_short(own.moved[pair]) for pair, _ in rows] if own.moved else None,
            "scores": {key: [_short(values[pair]) for pair, _ in rows] for key, values in own.scores.items()},
            "labels": {
                str(k): {"majority": said.majority, "verdicts": said.verdicts, "simulated": said.simulated}
                for k, (pair, _) in enumerate(rows)
                if (said := labels.get(own.ids[pair]))
            },
        }
        for name, own in known.items()
    ]
    return {
        "baseline": comparison.baseline,
        "scores": [
            {"key": score.column, "label": score.label, "better": score.better}
            for score in SCORES
            if all(score.column in own.scores for own in known.values())
        ],
        "kinds": [verdict.replace("_", " ") for verdict in VERDICTS] if base.kinds else [],
        "verdicts": list(VERDICTS),
        "methods": methods(comparison),
        "block": BLOCK,
        "pairs": [pair for pair, _ in rows],
        # What is said in place of the baseline's prompt where there is none.
        "nothing": "(prompt not known)" if base.about else "(empty prompt)",
        # What a row is called: its seed, or its number where images made elsewhere share no seed.
        "word": comparison.row_word,
        "seeds": [base.seeds[pair] if comparison.row_word == "seed" else pair for pair, _ in rows],
        # Rows up to here have every arm's image; `parts` lists the columns of those after.
        "whole": whole,
        "parts": [[names.index(arm) for arm in arms] for _, arms in rows[whole:]],
        "columns": columns,
        "texts": list(numbers),
    }


def _short(value: float) -> float | None:
    """Four digits; None for what JSON cannot hold (the realism of a copy is infinite)."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
