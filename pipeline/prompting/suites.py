"""Published suites of prompts, read from the files that their authors publish and that a user has fetched.

Nothing of a suite is in this repository. A prompt of a suite is what it says: whoever wrote it meant no weights, so a
bracket is text in every syntax.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from pipeline.errors import InputError, printable
from pipeline.storage.file_names import said_missing


@dataclass(frozen=True)
class SuitePrompt:
    """A prompt of a suite and the category that the suite puts it in."""

    prompt: str
    category: str


# What a suite's prompts can be asked for by, as a dataset's columns.
COLUMNS = ("prompt", "category")


@dataclass(frozen=True)
class Suite:
    """A suite: its `licence` as its `source` states it, the `path` of its files, and the command that `fetch`es
    them there.

    `read` makes the prompts of the files at a place. It raises ValueError for another layout.
    """

    title: str
    licence: str
    source: str
    path: str
    fetch: str
    read: Callable[[Path], list[SuitePrompt]]


def read_suite(name: str, path: str | None = None, category: str | None = None) -> list[SuitePrompt]:
    """The prompts of a suite, of one `category` if given; `path` is the place of its files, if not the usual one.

    Categories take turns, each in proportion to its size: suites stand sorted by category, and a study of fewer images
    than prompts would else ask for the first ones alone. Raises InputError, with the command that fetches the suite,
    where files are missing or have another layout.
    """
    suite = SUITES[name]
    place = Path(path or suite.path)
    try:
        rows = suite.read(place)
    except FileNotFoundError as error:
        missing = Path(error.filename)
        raise InputError(
            f"prompts.path {missing} does not exist{said_missing(missing)}; get {suite.title} (licence: "
            f"{suite.licence}) with `{suite.fetch}`"
        ) from None
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(
            f"prompts.path {place} is not {suite.title} as it is published ({printable(str(error))[:200]}); "
            f"get it with `{suite.fetch}`"
        ) from None
    known = list(dict.fromkeys(row.category for row in rows))
    if category is not None and category not in known:
        raise InputError(
            f"prompts.category '{category}' is unknown in {suite.title}; its categories: {', '.join(known)}"
        )
    return _in_turns([row for row in rows if category in (None, row.category)])


def _in_turns(rows: Sequence[SuitePrompt]) -> list[SuitePrompt]:
    sizes = Counter(row.category for row in rows)
    seen: Counter[str] = Counter()
    places = []
    for row in rows:
        places.append((seen[row.category] + 0.5) / sizes[row.category])
        seen[row.category] += 1
    return [rows[k] for k in sorted(range(len(rows)), key=lambda k: (places[k], k))]


def _whole(rows: list[SuitePrompt]) -> list[SuitePrompt]:
    """The rows as they are. Raises ValueError for none, and for one without a prompt."""
    if not rows:
        raise ValueError("it holds no prompt")
    if (empty := next((number for number, row in enumerate(rows, start=1) if not row.prompt), None)) is not None:
        raise ValueError(f"row {empty} has no prompt")
    return rows


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV or TSV file, whose columns have to include these. Raises ValueError."""
    text = path.read_text("utf-8-sig")
    head = text.partition("\n")[0]
    reader = csv.DictReader(StringIO(text, newline=""), delimiter="\t" if "\t" in head else ",")
    names = reader.fieldnames or []
    if missing := [column for column in columns if column not in names]:
        raise ValueError(f"it has no column {', '.join(missing)}; its columns: {', '.join(names) or 'none'}")
    # A row with fewer cells than columns has None in the rest.
    return [{column: (row[column] or "").strip() for column in columns} for row in reader]


def _drawbench(path: Path) -> list[SuitePrompt]:
    rows = _table(path, ("Prompts", "Category"))
    return _whole([SuitePrompt(row["Prompts"], row["Category"]) for row in rows])


def _oneig_anime(path: Path) -> list[SuitePrompt]:
    rows = _table(path, ("category", "prompt_en", "class"))
    anime = [row for row in rows if row["category"] == "Anime_Stylization"]
    # Prompts of a style have it in `class`; the others are anime.
    return _whole([SuitePrompt(row["prompt_en"], row["class"] or "anime") for row in anime])


def _geneval2(path: Path) -> list[SuitePrompt]:
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("prompt"), str)
            or type(row.get("atom_count")) is not int
        ):
            raise ValueError(f"line {number} has no text `prompt` and number `atom_count`")
        rows.append(SuitePrompt(row["prompt"].strip(), f"{row['atom_count']} atoms"))
    return _whole(rows)


_HPD_STYLES = ("anime", "concept-art", "paintings", "photo")


def _hpdv2(folder: Path) -> list[SuitePrompt]:
    rows = []
    for style in _HPD_STYLES:
        found = json.loads((folder / f"{style}.json").read_text("utf-8"))
        if not isinstance(found, list) or not all(isinstance(prompt, str) for prompt in found):
            raise ValueError(f"{style}.json is not a list of prompts")
        rows += [SuitePrompt(prompt.strip(), style) for prompt in found]
    return _whole(rows)


SUITES: dict[str, Suite] = {
    "drawbench": Suite(
        "DrawBench",
        "none stated",
        "https://imagen.research.google",
        "prompts/drawbench/DrawBench Prompts - Sheet1.csv",
        'hf download sayakpaul/drawbench "DrawBench Prompts - Sheet1.csv" --repo-type dataset '
        "--local-dir prompts/drawbench",
        _drawbench,
    ),
    "geneval2": Suite(
        "GenEval 2",
        "CC BY-NC 4.0",
        "https://github.com/facebookresearch/GenEval2",
        "prompts/geneval2_data.jsonl",
        "curl -fLo prompts/geneval2_data.jsonl "
        "https://raw.githubusercontent.com/facebookresearch/GenEval2/main/geneval2_data.jsonl",
        _geneval2,
    ),
    "hpdv2": Suite(
        "HPDv2",
        "Apache-2.0",
        "https://huggingface.co/datasets/zhwang/HPDv2",
        "prompts/hpdv2/benchmark",
        f"hf download zhwang/HPDv2 {' '.join(f'benchmark/{style}.json' for style in _HPD_STYLES)} --repo-type dataset "
        "--local-dir prompts/hpdv2",
        _hpdv2,
    ),
    "oneig_anime": Suite(
        "OneIG-Bench's anime part",
        "CC BY-NC 4.0",
        "https://github.com/OneIG-Bench/OneIG-Benchmark",
        "prompts/OneIG-Bench.csv",
        "curl -fLo prompts/OneIG-Bench.csv "
        "https://raw.githubusercontent.com/OneIG-Bench/OneIG-Benchmark/main/OneIG-Bench.csv",
        _oneig_anime,
    ),
}
