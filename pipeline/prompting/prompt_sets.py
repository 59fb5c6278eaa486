"""Prompt sets: where the prompts of a study come from.

Files and datasets are in the folder prompts/, which DVC watches. What a person wrote for the study (files, grids) is
checked strictly; captions of a dataset are taken as they are, and prompts of a published suite as plain text.
"""

import random
from collections.abc import Sequence
from functools import cache
from itertools import islice
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, StringConstraints, field_validator, model_validator

from pipeline.errors import InputError
from pipeline.prompting.emphasis import Syntax, parse, write
from pipeline.prompting.extra_networks import without_loras
from pipeline.prompting.presets import LADDERS
from pipeline.prompting.strict_check import check_prompt
from pipeline.prompting.suites import COLUMNS, SUITES, read_suite
from pipeline.settings import Count, Seed, Settings, nearest, watched_path
from pipeline.storage.file_names import check_names, printable_name, said_missing
from pipeline.tinybooru.words import known_tags

PROMPTS_FOLDER = "prompts"

Tag = Annotated[str, StringConstraints(max_length=1000)]


def _watched(path: str) -> str:
    return watched_path(path, PROMPTS_FOLDER)


class TinybooruPrompts(Settings):
    """Tag lists of held-out tinybooru images of good quality; as many as there are images.

    Only those that have all tags of `showing`; `quality_tag` says whether prompts name the quality.
    """

    source: Literal["tinybooru"]
    split: Literal["validation"]
    world_seed: Seed
    showing: tuple[Tag, ...] = ()
    quality_tag: bool = True

    _showing = field_validator("showing")(known_tags)


class FilePrompts(Settings):
    """A text file, one prompt per line; blank lines are skipped."""

    source: Literal["file"]
    path: str

    _path = field_validator("path")(_watched)


class GridPrompts(Settings):
    """Every combination of one tag from each axis, or a seeded sample of them.

    An axis is a list of tags (an empty one adds nothing) or the name of a ladder of quality (presets.LADDERS). The
    last axis varies fastest; a sample is without repeats and in random order.
    """

    source: Literal["grid"]
    axes: Annotated[list[list[Tag] | str], Field(min_length=1)]
    sample: Count | None = None
    seed: Seed = 0

    @field_validator("axes")
    @classmethod
    def _whole_axes(cls, axes: list[list[str] | str]) -> list[list[str] | str]:
        for axis in axes:
            if isinstance(axis, str) and axis not in LADDERS:
                raise ValueError(f"has the axis {axis!r}; an axis is a list of tags or one of {', '.join(LADDERS)}")
            if not axis:
                raise ValueError("has an axis without tags")
        return axes

    @model_validator(mode="after")
    def _enough_to_sample(self) -> "GridPrompts":
        combinations = prod(len(tags) for tags in self.tags)
        if self.sample is not None and self.sample > combinations:
            raise ValueError(f"sample is {self.sample}; the axes have {combinations} combinations")
        if self.sample is None and combinations > 100_000:
            raise ValueError(f"the axes have {combinations} combinations; set sample to the number you want")
        return self

    @property
    def tags(self) -> list[Sequence[str]]:
        """The axes as tags."""
        return [LADDERS[axis] if isinstance(axis, str) else axis for axis in self.axes]


class DatasetPrompts(Settings):
    """A text column of a dataset on this machine: a parquet file, a folder of them, or what `save_to_disk` wrote."""

    source: Literal["dataset"]
    path: str
    column: str

    _path = field_validator("path")(_watched)


class EmptyPrompts(Settings):
    """The empty prompt for every image."""

    source: Literal["empty"]


class SuitePrompts(Settings):
    """A published suite of prompts (suites.py), from files that the user fetched.

    `path` is their place, if not the suite's usual one; `category` keeps the prompts of one category alone.
    """

    source: Literal["suite"]
    suite: str
    path: str | None = None
    category: str | None = None
    column: str = COLUMNS[0]

    @field_validator("suite")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in SUITES:
            meant = f"did you mean {near}? " if (near := nearest(name, SUITES)) else ""
            raise ValueError(f"'{name}' is unknown; {meant}known suites: {', '.join(SUITES)}")
        return name

    @field_validator("path")
    @classmethod
    def _is_watched(cls, path: str | None) -> str | None:
        return None if path is None else _watched(path)


PromptSet = Annotated[
    TinybooruPrompts | FilePrompts | GridPrompts | DatasetPrompts | EmptyPrompts | SuitePrompts,
    Field(discriminator="source"),
]


def read_prompts(prompt_set: PromptSet, count: int, syntax: Syntax) -> list[str]:
    """`count` prompts; a set of fewer starts again, so that its prompts repeat (with other seeds).

    Deterministic. Raises InputError where a file is missing, empty or damaged, a column is unknown, or a prompt that
    someone wrote for the study has malformed weights.
    """
    match prompt_set:
        case TinybooruPrompts():
            return list(_world_captions(prompt_set, count))
        case FilePrompts():
            prompts = _lines(Path(prompt_set.path), syntax)
        case GridPrompts():
            prompts = _combinations(prompt_set, syntax)
        case DatasetPrompts():
            prompts = _captions(Path(prompt_set.path), prompt_set.column)
        case EmptyPrompts():
            prompts = [""]
        case SuitePrompts():
            prompts = _suite_texts(prompt_set, syntax)
    return [prompts[k % len(prompts)] for k in range(count)]


# Every arm of a study asks for the same, and one of many images takes seconds to find them.
@cache
def _world_captions(asked: TinybooruPrompts, count: int) -> tuple[str, ...]:
    # As below, an import of a second.
    from pipeline.tinybooru.build import plans

    chosen = islice(plans(asked.split, asked.world_seed, good_only=True, showing=asked.showing), count)
    return tuple(
        ", ".join(tag for tag in planned.tags if asked.quality_tag or tag != planned.quality) for planned in chosen
    )


def _lines(path: Path, syntax: Syntax) -> list[str]:
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"prompts.path {path} does not exist{said_missing(path)}; put one prompt per line into it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"prompts.path {path} is not a readable UTF-8 text ({error}); save it as such") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InputError(f"prompts.path {path} holds no prompt; put one per line into it, or choose prompts=empty")
    for number, line in lines:
        _check(line, syntax, f"{path}:{number}")
    return [line for _, line in lines]


def _combinations(grid: GridPrompts, syntax: Syntax) -> list[str]:
    axes = grid.tags
    for number, axis in enumerate(axes):
        for k, tag in enumerate(axis):
            _check(tag, syntax, f"prompts.axes.{number}.{k}")
    total = prod(len(axis) for axis in axes)
    chosen = range(total) if grid.sample is None else random.Random(grid.seed).sample(range(total), grid.sample)  # noqa: S311 (to be repeated)
    return [_combination(axes, number) for number in chosen]


def _combination(axes: Sequence[Sequence[str]], number: int) -> str:
    tags: list[str] = []
    for axis in reversed(axes):
        number, k = divmod(number, len(axis))
        tags.insert(0, axis[k])
    return ", ".join(tag for tag in tags if tag)


def _captions(path: Path, column: str) -> list[str]:
    if not path.exists():
        raise InputError(
            f"prompts.path {path} does not exist{said_missing(path)}; put a parquet file or a saved dataset there"
        )
    check_names(path)
    try:
        captions = _column(path, column)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"prompts.path {path} cannot be read as a dataset ({reason})") from None
    if not captions:
        raise InputError(f"prompts.path {path} holds no rows; choose another dataset, or prompts=empty")
    return captions


def _column(path: Path, column: str) -> list[str]:
    captions: list[str | None] = []
    if path.is_dir() and (path / "state.json").is_file():
        # Every stage reads the study, and only this set is worth the second that the import takes.
        from datasets import load_from_disk

        dataset = load_from_disk(str(path))
        _check_column(dataset.features.arrow_schema, column, path)
        captions += dataset[column]
    else:
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise ValueError("the folder holds neither parquet files nor a saved dataset")
        for file in files:
            # Each by itself: one may hold categories and the next plain text.
            _check_column(pq.read_schema(file), column, file)
            captions += pq.read_table(file, columns=[column]).column(column).to_pylist()
    return [caption or "" for caption in captions]


def _suite_texts(asked: SuitePrompts, syntax: Syntax) -> list[str]:
    if asked.column not in COLUMNS:
        raise InputError(f"prompts.column '{asked.column}' is unknown in a suite; its columns: {', '.join(COLUMNS)}")
    rows = read_suite(asked.suite, asked.path, asked.category)
    # Brackets of a suite are words, which A1111's syntax would read as weights.
    return [write(parse(getattr(row, asked.column), "plain"), syntax) for row in rows]


def _check_column(schema: pa.Schema, column: str, path: Path) -> None:
    place = printable_name(path)
    if column not in schema.names:
        raise InputError(f"prompts.column '{column}' is unknown in {place}; its columns: {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not _is_text(kind):
        raise InputError(f"prompts.column '{column}' of {place} holds {kind}, not text; choose a text column")


def _is_text(kind: pa.DataType) -> bool:
    # Categories of texts are texts, each stored once.
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _check(prompt: str, syntax: Syntax, where: str) -> None:
    try:
        check_prompt(without_loras(prompt, syntax)[0], syntax)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
