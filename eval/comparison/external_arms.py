"""What is known of external arms: counted over their images, and others' scores of them as means with intervals."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from eval.statistics.bootstrap import mean_interval
from pipeline.layout import SETS
from pipeline.results.external_arms import ExternalArm, JoinedScore, Unread
from pipeline.storage.images import open_image
from pipeline.storage.shards import read_set
from pipeline.study.study import Metrics, Study

_COLUMNS = ["image", "prompt", "seed", "file", "metadata", "fault", "size", "done", "scores", "paired_by"]
# Of the values of one setting, and of the files whose metadata cannot be read.
_NAMED = 5
# In the order in which the report shows them.
_SETTINGS = ("model", "sampler", "steps", "scale", "negative")
# Fewer images with a score than this have no interval.
_FEWEST = 2


def external_records(study: Study, prompts: Tensor) -> dict[str, ExternalArm]:
    """The record of every external arm, of pairs with the numbers of their `prompts` [N]. Raises InputError."""
    tables = {name: read_set(SETS / name, _COLUMNS) for name in study.external}
    scores = {name: _by_score(table["scores"].to_pylist()) for name, table in tables.items()}
    found = {}
    for name, table in tables.items():
        own = study.arm(name).from_folder
        assert own is not None
        width, height = open_image(table["image"][0]["bytes"].as_py()).size
        rows = table.drop_columns(["image"]).to_pylist()
        metadata = [json.loads(row["metadata"]) for row in rows if row["metadata"]]
        faults = [Unread(file=row["file"], fault=row["fault"]) for row in rows if row["fault"]]
        found[name] = ExternalArm(
            folder=own.folder,
            paired_by=rows[0]["paired_by"],
            canvas=f"{width}x{height}",
            sizes=_counted(row["size"] for row in rows),
            done=dict(Counter(done for row in rows for done in json.loads(row["done"])).most_common()),
            tools=_counted(one["tool"] for one in metadata),
            prompts=sum(bool(row["prompt"]) for row in rows),
            seeds=sum(row["seed"] is not None for row in rows),
            settings={
                key: values
                for key in _SETTINGS
                if (values := _counted(_shown(one[key]) for one in metadata if key in one))
            },
            faults=len(faults),
            unread=faults[:_NAMED],
            scores=_joined(
                scores[name], scores.get(study.baseline, {}), name == study.baseline, prompts, study.metrics
            ),
        )
    return found


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _counted(values: Iterable[str]) -> dict[str, int]:
    """The most frequent values with how many have them, and those of all others together."""
    counts = Counter(values)
    named = dict(counts.most_common(_NAMED))
    rest = sum(counts.values()) - sum(named.values())
    return {**named, "others": rest} if rest else named


def _by_score(cells: list[str]) -> dict[str, Tensor]:
    """Scores [N] by name, NaN where an image has none."""
    rows: list[dict[str, float]] = [json.loads(cell) for cell in cells]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: torch.tensor([row.get(name, torch.nan) for row in rows], dtype=torch.float64) for name in names}


def _joined(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], is_baseline: bool, prompts: Tensor, settings: Metrics
) -> dict[str, JoinedScore]:
    found = {}
    for name, values in ours.items():
        if int(values.isfinite().sum()) < _FEWEST:
            continue
        difference: Any = None
        if name in theirs and not is_baseline:
            apart = values - theirs[name]
            difference = _mean(apart, prompts, settings) if int(apart.isfinite().sum()) >= _FEWEST else None
        found[name] = JoinedScore(mean=_mean(values, prompts, settings), difference=difference)
    return found


def _mean(values: Tensor, prompts: Tensor, settings: Metrics) -> Any:
    known = values.isfinite()
    clusters = prompts[known] if len(torch.unique(prompts)) < len(prompts) else None
    return mean_interval(values[known], settings.resamples, settings.level, settings.seed, clusters)
