"""Checks that a study's artefacts are undamaged, as the study asks for them, and consistent with each other."""

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Features

from pipeline.errors import InputError
from pipeline.external.external_set import external_arms
from pipeline.generation.control_scales import resolved
from pipeline.generation.shard_files import SET_FEATURES, TRACE_FEATURES
from pipeline.generation.shard_plan import DEVICES, MACHINES, Shard, arm_texts, plan_shards
from pipeline.generation.trajectory import TRAJECTORY_FEATURES, trajectory_fingerprint, watched_of
from pipeline.layout import CONCEPTS, COSTS, FEATURES, METRICS, REFERENCE_SET, SCORES, SETS, TRACES, TRAJECTORIES
from pipeline.results.comparison import COMPARISON, load_comparison
from pipeline.results.rates import RATES, load_rates
from pipeline.storage.json_file import read_json_text
from pipeline.storage.places import Places
from pipeline.storage.shards import read_table, set_fingerprint, shard_fingerprint, table_fingerprint
from pipeline.storage.tensor_file import read_tensors
from pipeline.study.study import Study

SAMPLE = Path("data/sample")


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file.

    A `damaged` file is of no use and can be deleted; another is whole, but not what the study asks for now, and the
    stage that makes it decides which part of it to keep.
    """

    path: Path
    fault: str
    damaged: bool


@dataclass(frozen=True)
class Artefact:
    """A file, and the check of its content, which returns what does not fit and raises InputError for damage."""

    path: Path
    check: Callable[[Path], str | None]

    def finding(self) -> Finding | None:
        """What is wrong with the file; None where nothing is."""
        try:
            fault = self.check(self.path)
        except InputError as error:
            return Finding(self.path, str(error), damaged=True)
        return None if fault is None else Finding(self.path, f"{self.path} {fault}; run `dvc repro`", damaged=False)


def study_artefacts(study: Study) -> Iterator[Artefact]:
    """Every file of a study that carries its own checksum. Raises InputError where a network is missing."""
    for path in sorted(REFERENCE_SET.glob("part-*.parquet")):
        yield Artefact(path, partial(_table, ["image_id", "image", "prompt"]))
    yield from _features("reference", study, None, _whole_set(REFERENCE_SET))
    # Only the embedded world draws images for the purpose.
    for path in sorted(CONCEPTS.glob("part-*.parquet")):
        yield Artefact(path, partial(_table, ["image_id", "image", "subject", "concept"]))
        vectors = FEATURES / "concepts" / f"{study.features.clip}.safetensors"
        yield Artefact(vectors, partial(_vectors, None, _whole_set(CONCEPTS)))
    made_elsewhere = {arm.name: arm.shards for arm in external_arms(study)} if study.external else {}
    for arm in study.arms:
        yield from _arm(study, arm, made_elsewhere.get(arm))
    yield Artefact(COMPARISON, lambda path: _read(lambda: load_comparison(path, study)))
    yield Artefact(RATES, lambda path: _read(lambda: load_rates(path)))
    for path in sorted(SAMPLE.glob("*.parquet")):
        yield Artefact(path, partial(_table, ["task_id"]))


def _arm(study: Study, arm: str, made_elsewhere: list[Shard] | None) -> Iterator[Artefact]:
    shards = _drawn_shards(study, arm) if made_elsewhere is None else made_elsewhere
    ids = [f"{arm}-{k:06d}" for k in range(study.generate.images)]
    for shard in shards:
        own = ids[shard.start : shard.stop]
        yield Artefact(SETS / arm / shard.name, partial(_shard, shard.fingerprint, SET_FEATURES, own))
        traced = own if made_elsewhere is None else []
        yield Artefact(TRACES / arm / shard.name, partial(_shard, shard.fingerprint, TRACE_FEATURES, traced))
        if made_elsewhere is not None:
            continue
        if watched := watched_of(range(shard.start, shard.stop), study.generate.watched):
            mark = trajectory_fingerprint(shard, study.generate.watched)
            place = TRAJECTORIES / arm / shard.name
            yield Artefact(place, partial(_shard, mark, TRAJECTORY_FEATURES, own[:watched]))
    marks = {shard.name: shard.fingerprint for shard in shards}
    if made_elsewhere is None:
        yield Artefact(COSTS / f"{arm}.json", partial(_cost, marks))
    drawn = _whole_set(SETS / arm, list(marks))
    yield from _features(arm, study, ids, drawn)
    yield Artefact(SCORES / f"{arm}.parquet", partial(_scores, ids, drawn))
    yield Artefact(METRICS / "detail" / f"{arm}.json", partial(_detail, drawn))


def _drawn_shards(study: Study, arm: str) -> list[Shard]:
    """An arm's shards as the kinds of device and machine drew them that its first is of: sets travel, these do not."""
    # Where the trace of the arm that a control follows is damaged, its own check says so.
    with suppress(InputError):
        study = resolved(study, [arm], Places())
    texts = arm_texts(study, arm)
    planned = plan_shards(study, arm, texts, DEVICES[0])
    found = shard_fingerprint(SETS / arm / planned[0].name)
    if found in (None, planned[0].fingerprint):
        return planned
    for machine in dict.fromkeys((platform.machine(), *MACHINES)):
        for device in DEVICES:
            elsewhere = plan_shards(study, arm, texts, device, machine)
            if found == elsewhere[0].fingerprint:
                return elsewhere
    return planned


def _features(name: str, study: Study, ids: list[str] | None, drawn: str | None) -> Iterator[Artefact]:
    for extractor in study.features.extractors:
        yield Artefact(FEATURES / name / f"{extractor}.safetensors", partial(_vectors, ids, drawn))


def _whole_set(folder: Path, names: Sequence[str] | None = None) -> str | None:
    """The fingerprint of an image set; None where a shard is damaged, as what was made of it may be whole."""
    paths = sorted(folder.glob("part-*.parquet")) if names is None else [folder / name for name in names]
    if not paths or any(shard_fingerprint(path) is None for path in paths):
        return None
    return set_fingerprint(folder)


def _shard(mark: str, features: Features, ids: list[str], path: Path) -> str | None:
    table = read_table(path, list(features))
    if table_fingerprint(table) != mark:
        return "was made with other settings, networks, code or libraries than the study's now"
    found = list(dict.fromkeys(table.column("image_id").to_pylist()))
    if found != ids:
        return f"holds {len(found)} images from {found[:1]} on, not the {len(ids)} from {ids[:1]} on"
    if table.schema.types != features.arrow_schema.types:
        return "has columns of other types than are written now"
    return None


def _table(columns: list[str], path: Path) -> str | None:
    read_table(path, columns)
    return None


def _scores(ids: list[str], drawn: str | None, path: Path) -> str | None:
    table = read_table(path, ["image_id", "pair_id"])
    return _of_other_images(table.column("image_id").to_pylist(), ids, table_fingerprint(table), drawn)


def _vectors(ids: list[str] | None, drawn: str | None, path: Path) -> str | None:
    tensors, known = read_tensors(path)
    missing = [key for key in ("ids", "provenance") if key not in known] + [
        key for key in ("images", "texts") if key not in tensors
    ]
    if missing or any(len(tensor) != len(known["ids"]) for tensor in tensors.values()):
        raise InputError(f"{path} is not a feature file of one row per image; delete it and run `dvc repro`")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise InputError(f"{path} holds numbers that are not finite; delete it and run `dvc repro`")
    return _of_other_images(known["ids"], ids, known["provenance"].get("set"), drawn)


def _of_other_images(seen: list[str], ids: list[str] | None, made_of: str | None, drawn: str | None) -> str | None:
    if ids is not None and seen != ids:
        return f"is of {len(seen)} images from {seen[:1]} on, not of the {len(ids)} from {ids[0]} on"
    if drawn is not None and made_of != drawn:
        return f"was made from the set {made_of}, and there is the set {drawn}"
    return None


def _cost(marks: dict[str, str], path: Path) -> str | None:
    shards = _json(path, "shards")
    foreign = [name for name, entry in shards.items() if marks.get(name) != entry.get("fingerprint")]
    return f"has the cost of another shard {foreign[0]}" if foreign else None


def _detail(drawn: str | None, path: Path) -> str | None:
    made_of = _json(path, "provenance").get("set")
    if drawn is not None and made_of != drawn:
        return f"was made from the set {made_of}, and there is the set {drawn}"
    return None


def _json(path: Path, key: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(read_json_text(path))[key]
        return content
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro` makes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not what a stage wrote ({error!r}); delete it and run `dvc repro`") from None


def _read(load: Callable[[], object]) -> None:
    load()
