"""Stage `dataset`: the study as a dataset, one configuration per arm and one of all, with a card; publish.py sends it.

Scores and people's labels stand beside each image. Simulated labels are left out: whoever loads the dataset could not
tell them from people's.
"""

import gc
import hashlib
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, Image, List, Value, load_dataset
from tqdm import tqdm

from labeling.records import (
    PAIR_LABELS,
    SAMPLED_PAIRS,
    SAMPLED_TASKS,
    TASK_LABELS,
    Label,
    PairLabel,
    SampledPair,
    SampledTask,
    read_labels,
    read_pair_labels,
    read_pairs,
    read_tasks,
)
from pipeline.errors import InputError, run_stage
from pipeline.layout import DATASET, SCORES, SETS
from pipeline.publishing.dataset_card import Contents, write_card
from pipeline.publishing.pairs import MOST_BYTES, check_pairs, write_pairs
from pipeline.publishing.same_seeds import GRID, seed_grid
from pipeline.publishing.viewer_groups import viewer_groups
from pipeline.results.comparison import COMPARISON, load_comparison
from pipeline.results.rates import RATES, VERDICTS, load_rates
from pipeline.stage_arguments import stage_parser
from pipeline.storage.files import write_atomically
from pipeline.storage.shards import read_table, shard_paths
from pipeline.study.study import Study, load_study

OUTCOMES = ("better", "worse", "tie")
_KIND = "kind_"
# Where `datasets` keeps the features in a parquet file.
_DESCRIBED = b"huggingface"
_DRAWN = ("image_id", "image", "pair_id", "prompt", "negative_prompt", "seed")


@dataclass(frozen=True)
class HumanLabels:
    """What people said, by image id, and how much there is of it.

    Labellers are numbered: their pseudonyms, which a server with their addresses can undo, stay in the repository.
    `simulated` labels are counted and left out.
    """

    verdicts: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    choices: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    labellers: int = 0
    simulated: int = 0

    @property
    def count(self) -> int:
        """Verdicts on images."""
        return sum(map(len, self.verdicts.values()))

    @property
    def pairs(self) -> int:
        """Choices between two images; the row of each image holds the choice."""
        return sum(map(len, self.choices.values())) // 2


def human_labels(
    tasks: Sequence[SampledTask],
    labels: Sequence[Label],
    pairs: Sequence[SampledPair],
    pair_labels: Sequence[PairLabel],
) -> HumanLabels:
    """Join labels to images. Labels of tasks that are not in the sample belong to other pixels and are left out."""
    shown, compared = {task.task_id: task for task in tasks}, {pair.task_id: pair for pair in pairs}
    given = [label for label in labels if label.task_id in shown]
    chosen = [label for label in pair_labels if label.task_id in compared]
    everything: list[Label | PairLabel] = [*given, *chosen]
    people = sorted({label.labeller for label in everything if not label.simulated})
    number = {labeller: f"labeller-{k}" for k, labeller in enumerate(people, start=1)}
    verdicts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for label in given:
        task = shown[label.task_id]
        if not label.simulated:
            verdicts[task.image_id].append(
                {
                    "labeller": number[label.labeller],
                    "verdict": label.verdict,
                    "body_shape": label.body_shape,
                    "malformed_parts": label.malformed_parts,
                    "batch": task.batch,
                    "inclusion_probability": task.inclusion_probability,
                    "repeat": task.repeat_of is not None,
                }
            )
    choices: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for choice in chosen:
        pair = compared[choice.task_id]
        if not choice.simulated:
            sides = {
                "left": (pair.left_image_id, pair.right_image_id, pair.right_arm),
                "right": (pair.right_image_id, pair.left_image_id, pair.left_arm),
            }
            for side, (image_id, other, other_arm) in sides.items():
                outcome = "tie" if choice.choice == "tie" else "better" if choice.choice == side else "worse"
                choices[image_id].append(
                    {
                        "labeller": number[choice.labeller],
                        "against": other_arm,
                        "against_image_id": other,
                        "outcome": outcome,
                    }
                )
    simulated = sum(label.simulated for label in everything)
    return HumanLabels(dict(verdicts), dict(choices), len(people), simulated)


def majority(verdicts: Sequence[Mapping[str, Any]]) -> str | None:
    """The verdict that most people gave at first sight; None where no one did, or no verdict leads."""
    ranked = Counter(given["verdict"] for given in verdicts if not given["repeat"]).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return str(ranked[0][0])


def dataset_features(arms: Sequence[str], scores: Features) -> Features:
    """The columns of every configuration: what was drawn, what people said, what was measured.

    `scores` are the columns of data/scores/<arm>.parquet.
    """
    return Features(
        {
            "image": Image(),
            "prompt": Value("string"),
            "arm": ClassLabel(names=list(arms)),
            "pair_id": Value("int64"),
            "seed": Value("int64"),
            **({"kind": ClassLabel(names=list(VERDICTS))} if _has_kinds(scores) else {}),
            "verdict": ClassLabel(names=list(VERDICTS)),
            **{name: feature for name, feature in scores.items() if name not in ("image_id", "pair_id")},
            "negative_prompt": Value("string"),
            "labels": List(
                {
                    "labeller": Value("string"),
                    "verdict": ClassLabel(names=list(VERDICTS)),
                    "body_shape": Value("string"),
                    "malformed_parts": List(Value("string")),
                    "batch": Value("string"),
                    "inclusion_probability": Value("float64"),
                    "repeat": Value("bool"),
                }
            ),
            "choices": List(
                {
                    "labeller": Value("string"),
                    "against": ClassLabel(names=list(arms)),
                    "against_image_id": Value("string"),
                    "outcome": ClassLabel(names=list(OUTCOMES)),
                }
            ),
            "image_id": Value("string"),
        }
    )


def write_arm(folder: Path, arm: str, sets: Path, scores: Path, arms: Sequence[str], people: HumanLabels) -> int:
    """Write an arm's images with all that belongs to them as shards below `folder`; returns how many.

    One shard at a time is in memory. Raises InputError where scores are missing or of other images.
    """
    path = scores / f"{arm}.parquet"
    measured = read_table(path)
    if "image_id" not in measured.column_names:
        raise InputError(f"{path} lacks the columns ['image_id']; run `dvc repro score`")
    rows = {row["image_id"]: row for row in measured.to_pylist()}
    features = dataset_features(arms, Features.from_arrow_schema(measured.schema))
    folder.mkdir(parents=True)
    count = 0
    for shard in shard_paths(sets / arm):
        drawn = read_table(shard, _DRAWN)
        ids: list[str] = drawn.column("image_id").to_pylist()
        unscored = [image_id for image_id in ids if image_id not in rows]
        if unscored:
            raise InputError(f"{path} has no scores of {unscored[0]}, which {shard} holds; run `dvc repro score`")
        own = [rows[image_id] for image_id in ids]
        said = [people.verdicts.get(image_id, []) for image_id in ids]
        columns: dict[str, Any] = {name: [row[name] for row in own] for name in features if name in own[0]}
        columns |= {name: drawn.column(name) for name in _DRAWN}
        columns |= {
            "arm": [arm] * len(ids),
            **({"kind": [_kind(row) for row in own]} if _has_kinds(features) else {}),
            "verdict": [majority(given) for given in said],
            "labels": said,
            "choices": [people.choices.get(image_id, []) for image_id in ids],
        }
        _write(folder / shard.name, columns, features)
        count += len(ids)
    if count != len(rows):
        raise InputError(f"{path} has scores of {len(rows)} images, {sets / arm} holds {count}; run `dvc repro score`")
    return count


def _has_kinds(scores: Iterable[str]) -> bool:
    """Whether a study asks what its images are of."""
    return {f"{_KIND}{verdict}" for verdict in VERDICTS} <= set(scores)


def _kind(row: Mapping[str, Any]) -> str:
    return max(VERDICTS, key=lambda verdict: float(row[f"{_KIND}{verdict}"]))


def _write(path: Path, columns: Mapping[str, Any], features: Features) -> None:
    # Classes become their numbers, as `datasets` stores them; images stay the bytes that were drawn.
    schema = _schema(features)
    arrays = [
        columns[name]
        if isinstance(columns[name], pa.ChunkedArray)
        else pa.array([_numbered(value, feature) for value in columns[name]], schema.field(name).type)
        for name, feature in features.items()
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    # The other columns are small and much the same in every row.
    beside = table.drop_columns(["image"]).nbytes // max(1, len(table)) + 1
    sizes = [len(cell["bytes"].as_py() or b"") + beside for cell in columns["image"]]
    with pq.ParquetWriter(path, schema, write_page_index=True) as writer:
        for group in viewer_groups(sizes):
            writer.write_table(table.slice(group.start, group.stop - group.start))


def _schema(features: Features) -> pa.Schema:
    """The columns' types, with lists described as `datasets` did before its version 4: every version reads that."""
    schema = features.arrow_schema
    described = _without_list_type(json.loads(schema.metadata[_DESCRIBED]))
    return schema.with_metadata({**schema.metadata, _DESCRIBED: json.dumps(described).encode()})


def _without_list_type(description: Any) -> Any:
    if not isinstance(description, dict):
        return description
    if description.get("_type") == "List":
        return [_without_list_type(description["feature"])]
    return {key: _without_list_type(value) for key, value in description.items()}


def _numbered(value: Any, feature: Any) -> Any:
    if value is None:
        return None
    if isinstance(feature, ClassLabel):
        return feature.str2int(value)
    if isinstance(feature, List):
        return [_numbered(item, feature.feature) for item in value]
    if isinstance(feature, dict):
        return {key: _numbered(value[key], part) for key, part in feature.items()}
    return value


def build(study: Study, root: Path, folder: Path) -> Contents:
    """Write the dataset of the study under `root` to `folder`: shards, a grid and the card. Raises InputError."""
    comparison, rates = load_comparison(root / COMPARISON, study), load_rates(root / RATES)
    people = human_labels(
        read_tasks(root / SAMPLED_TASKS),
        read_labels(root / TASK_LABELS),
        read_pairs(root / SAMPLED_PAIRS),
        read_pair_labels(root / PAIR_LABELS),
    )
    arms = list(study.compared)
    counts, columns = {}, []
    for arm in tqdm(arms, "dataset: written", unit="arm", disable=None):
        counts[arm] = write_arm(folder / "data" / arm, arm, root / SETS, root / SCORES, arms, people)
        columns = pq.read_schema(next((folder / "data" / arm).iterdir())).names
    pairs = write_pairs(folder, arms, study.baseline, root / SETS, MOST_BYTES)
    seed_grid(root / SETS, arms, study.baseline).save(folder / GRID, optimize=True)
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    contents = Contents(
        images=counts,
        pairs=pairs,
        megabytes=size / 1e6,
        columns=columns,
        labels=people.count,
        choices=people.pairs,
        labellers=people.labellers,
        simulated=people.simulated,
    )
    write_atomically(folder / "README.md", write_card(study, comparison, rates, contents).encode())
    return contents


def check(folder: Path, arms: Sequence[str], sets: Path) -> None:
    """Load each configuration with `datasets` and compare every image's bytes with those that were drawn.

    Raises InputError that names the first image that differs.
    """
    for arm in tqdm(arms, "dataset: read back", unit="arm", disable=None):
        stream = load_dataset(str(folder), arm, split="train", streaming=True)
        stream = stream.select_columns(["image_id", "image"]).cast_column("image", Image(decode=False))
        written = ((row["image_id"], _digest(row["image"]["bytes"])) for row in stream)
        # To its end, and closed: a stream left half-read when the process ends can abort it in Arrow's threads.
        with closing(written):
            for ours, theirs in zip_longest(_drawn(sets / arm), written):
                if ours != theirs:
                    fault = "lost" if theirs is None else "added" if ours is None else "changed"
                    image_id = (ours or theirs)[0]
                    raise InputError(
                        f"{folder} does not read back: {image_id} of arm '{arm}' is {fault}; "
                        "check the disk, then run `dvc repro dataset`"
                    )


def _drawn(folder: Path) -> Iterator[tuple[str, str]]:
    for path in shard_paths(folder):
        table = read_table(path, ["image_id", "image"])
        for image_id, image in zip(table.column("image_id"), table.column("image"), strict=True):
            yield image_id.as_py(), _digest(image["bytes"].as_py())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_dataset(study: Study, root: Path) -> Contents:
    """Build the dataset beside its place, check it, and put it there; what was there is replaced. Raises InputError."""
    place = root / DATASET
    for leftover in place.parent.glob(f"{place.name}.*.tmp"):
        shutil.rmtree(leftover)
    building, old = (place.with_name(f"{place.name}.{os.getpid()}.{what}.tmp") for what in ("new", "old"))
    try:
        contents = build(study, root, building)
        check(building, list(study.compared), root / SETS)
        check_pairs(building, list(study.compared), root / SETS)
        # The streams of both are in cycles of references. Arrow's threads must end with them now: those that live on
        # when the interpreter ends abort the process (https://github.com/huggingface/datasets/issues/7566).
        gc.collect()
        if place.exists():
            place.rename(old)
        building.rename(place)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return contents


def main() -> None:
    stage_parser("pipeline.publishing.dataset", __doc__).parse_args()
    study = load_study()
    made = make_dataset(study, Path())
    labels = f"{made.labels} labels and {made.choices} choices by {made.labellers} people"
    left_out = f" ({made.simulated} simulated ones left out)" if made.simulated else ""
    print(
        f"dataset: {sum(made.images.values())} images in {len(made.images)} arms, {made.pairs} pairs of them, "
        f"{labels}{left_out}, {made.megabytes:.1f} MB in {DATASET}; every image reads back as it was generated; "
        "next: python -m pipeline.publishing.publish repo_id=<owner>/<name> --dry-run"
    )


if __name__ == "__main__":
    run_stage(main)
