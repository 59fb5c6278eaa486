"""External arms become image sets, as `generate` leaves them, so that whatever follows need not know the difference.

A row has what a generated one has, and beside it the file, its metadata, what reading it did, and others' scores. The
trace is there and empty: what guidance did to these images no one has recorded.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Features, Value
from tqdm import tqdm

from pipeline.code_units import unit_digests
from pipeline.errors import InputError
from pipeline.external.folder_images import (
    ExternalImage,
    check_external,
    folder_images,
    key_of,
    on_canvas,
)
from pipeline.external.joined_scores import joined_scores
from pipeline.external.pairing import Pairing, paired
from pipeline.generation.shard_files import SET_FEATURES, TRACE_FEATURES
from pipeline.generation.shard_plan import Shard
from pipeline.layout import REFERENCE_SET
from pipeline.reference.source_folder import SourceImage
from pipeline.storage.files import fingerprint, write_atomically
from pipeline.storage.images import open_image
from pipeline.storage.places import Places
from pipeline.storage.shards import encode_png, encode_table, read_table, shard_fingerprint, shard_paths
from pipeline.study.from_folder import FromFolder
from pipeline.study.study import Study

# What reads these images, beside Pillow.
_UNITS = ("pipeline/external", "pipeline/reference")
# A number of JavaScript, which the report's gallery shows seeds as, is exact up to here; ComfyUI's seeds go further.
_MOST_SEED = 2**53
EXTERNAL_FEATURES = Features(
    {
        **SET_FEATURES,
        "file": Value("string"),
        "metadata": Value("string"),
        "fault": Value("string"),
        "size": Value("string"),
        "done": Value("string"),
        "scores": Value("string"),
        "paired_by": Value("string"),
    }
)


@dataclass(frozen=True)
class ExternalArm:
    """An external arm of a study: its images pair by pair, others' scores of them, and its shards."""

    name: str
    settings: FromFolder
    images: list[ExternalImage]
    scores: list[dict[str, float]]
    pairing: Pairing
    canvas: tuple[int, int]
    shards: list[Shard]


def external_arms(study: Study) -> list[ExternalArm]:
    """The external arms of a study, whose images are paired with each other and with those that are generated.

    Raises InputError for folders, files and tables of scores that cannot be read, and where there are too few images.
    """
    folders = {name: own for name in study.external if (own := study.arm(name).from_folder) is not None}
    for name, settings in folders.items():
        check_external(name, settings, study.generate.images)
    found = {name: folder_images(name, settings) for name, settings in folders.items()}
    count, first = study.generate.images, study.generate.first_seed
    pairing = paired(found, count, first, range(first, first + count) if study.generated else None)
    canvas = study_canvas(study)
    arms = []
    for name, settings in folders.items():
        images = [found[name][k] for k in pairing.order[name]]
        scores = [{} for _ in images] if settings.scores is None else _scores(name, Path(settings.scores), images)
        arms.append(
            ExternalArm(
                name,
                settings,
                images,
                scores,
                pairing,
                canvas,
                _shards(study, name, images, scores, pairing.by, canvas),
            )
        )
    return arms


def study_canvas(study: Study) -> tuple[int, int]:
    """The canvas (width, height) that external arms are brought to: that of the real images. Raises InputError."""
    if study.reference.canvas is not None:
        return study.reference.canvas.size
    table = read_table(shard_paths(REFERENCE_SET)[0], ["image"])
    try:
        return open_image(table["image"][0]["bytes"].as_py()).size
    except OSError as error:
        raise InputError(
            f"{REFERENCE_SET} holds an unreadable image ({error}); delete it and run `dvc repro`"
        ) from None


def _scores(name: str, path: Path, images: Sequence[ExternalImage]) -> list[dict[str, float]]:
    return joined_scores(path, f"{key_of(name)}.scores", [one.file for one in images])


def _shards(
    study: Study,
    name: str,
    images: Sequence[ExternalImage],
    scores: Sequence[dict[str, float]],
    by: str,
    canvas: tuple[int, int],
) -> list[Shard]:
    common = {
        "arm": name,
        "canvas": canvas,
        "paired_by": by,
        "code": {path: digest for unit in _UNITS for path, digest in unit_digests(unit).items()},
        "pillow": version("pillow"),
    }
    rows = [[one.file, one.digest, one.caption, own] for one, own in zip(images, scores, strict=True)]
    size = study.generate.shard
    return [
        Shard(name, part, start, min(start + size, len(rows)), fingerprint([common, rows[start : start + size]]))
        for part, start in enumerate(range(0, len(rows), size))
    ]


def bring(arm: ExternalArm, places: Places) -> int:
    """Write what is missing of an external arm's image set and trace, and delete what is not its; returns its shards.

    Finished shards are kept. Raises InputError for an image that cannot be decoded.
    """
    own = places.of(arm.name)
    names = {shard.name for shard in arm.shards}
    for folder in (own.sets, own.traces, own.trajectories):
        for stale in [path for path in folder.glob("*") if path.name not in names or folder == own.trajectories]:
            stale.unlink()
    own.trajectories.mkdir(parents=True, exist_ok=True)
    own.costs.parent.mkdir(parents=True, exist_ok=True)
    own.costs.unlink(missing_ok=True)
    missing = [shard for shard in arm.shards if not _holds(own, shard)]
    total = sum(shard.stop - shard.start for shard in missing)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=total, desc=f"read {arm.name}", unit="image", disable=None) as bar,
    ):
        for shard in missing:
            rows = list(pool.map(lambda k: _row(arm, k), range(shard.start, shard.stop)))
            columns = {name: [row[name] for row in rows] for name in EXTERNAL_FEATURES}
            nothing: dict[str, list[Any]] = {name: [] for name in TRACE_FEATURES}
            write_atomically(own.traces / shard.name, encode_table(nothing, TRACE_FEATURES, shard.fingerprint))
            write_atomically(own.sets / shard.name, encode_table(columns, EXTERNAL_FEATURES, shard.fingerprint))
            bar.update(len(rows))
    return len(missing)


def _holds(own: Places, shard: Shard) -> bool:
    return all(shard_fingerprint(place / shard.name) == shard.fingerprint for place in (own.sets, own.traces))


def _row(arm: ExternalArm, k: int) -> dict[str, Any]:
    image = arm.images[k]
    folder = Path(arm.settings.folder)
    source = SourceImage(image.file, _read(folder / image.file), image.caption)
    read = on_canvas(source, arm.canvas, folder, key_of(arm.name))
    metadata = image.found.metadata
    return {
        "image_id": f"{arm.name}-{k:06d}",
        "image": {"bytes": encode_png(read.image), "path": None},
        "arm": arm.name,
        "pair_id": k,
        "prompt": image.prompt,
        "negative_prompt": image.negative,
        "seed": image.seed if image.seed is not None and image.seed <= _MOST_SEED else None,
        "file": image.file,
        "metadata": "" if metadata is None else json.dumps(metadata.as_dict(), ensure_ascii=False),
        "fault": image.found.fault,
        "size": read.size,
        "done": json.dumps(read.done),
        "scores": json.dumps(arm.scores[k]),
        "paired_by": arm.pairing.by,
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable or take it out") from None


def bring_all(study: Study, places: Places) -> Iterator[tuple[ExternalArm, int]]:
    """Every external arm of a study as an image set, with how many of its shards were written. Raises InputError."""
    for arm in external_arms(study):
        yield arm, bring(arm, places)
