"""Stage `report`: the comparison becomes one self-contained HTML page with tables, plots and a gallery.

The page needs no network: plotly.js and the pictures are inside it. Prompts and descriptions are untrusted text,
so the template escapes everything; only plotly.js itself is inserted as it is.
"""

import argparse
import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import InputError, run_stage
from pipeline.files import write_atomically
from pipeline.layout import METRICS, REPORT, SCORES, SETS, TRACES
from pipeline.section import Name
from pipeline.shards import decode_images, encode_png, read_set, read_table, shard_paths
from pipeline.study import Study, load_study

COMPARISON = METRICS / "compare.json"

UNDECIDED = "undecided"

GALLERY_PAIRS = 24
# plotly.js takes 5 MB, and the page shall stay below 15 MB.
GALLERY_BYTES = 9_000_000

# Okabe & Ito, "Color universal design" (2008), without black: the baseline takes a grey that both themes show.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_BASELINE_COLOUR = "#8A8A8A"
# As many as are coprime with the colours, so a pair of both comes back only after 7 x 12 arms.
_SYMBOLS = (
    *("square", "diamond", "triangle-up", "cross", "x", "star"),
    *("triangle-down", "pentagon", "hexagram", "hourglass", "bowtie", "star-square"),
)
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    # Keys that the page does not show are none of its business, so unknown ones are let through.
    model_config = ConfigDict(frozen=True)


class Interval(_Record):
    """A number with its interval, over `n` pictures."""

    value: Finite
    low: Finite
    high: Finite
    n: int


class Scores(_Record):
    """An arm against the reference set (fd to coverage), and means over its pictures (the rest)."""

    fd: Interval
    precision: Interval
    recall: Interval
    density: Interval
    coverage: Interval
    clip_score: Interval
    aesthetic: Interval
    malformed: Interval


class AgainstBaseline(_Record):
    """An arm against the baseline: fd = drift + contraction, and paired differences, arm minus baseline."""

    fd: Interval
    drift: Interval
    contraction: Interval
    spread_ratio: Interval
    mean_share: Finite
    clip_score: Interval
    aesthetic: Interval
    malformed: Interval


class ComparedArm(_Record):
    """One arm; `against_baseline` is None for the baseline itself."""

    arm: Name
    method: str
    scale: Finite
    prompt: Literal["positive", "empty"]
    negative_prompt: str
    description: str
    n: int
    scores: Scores
    against_baseline: AgainstBaseline | None


class Floor(_Record):
    """What two disjoint halves of the reference set, of the arms' N, differ by."""

    fd: Interval


class Provenance(_Record):
    """Where the numbers come from."""

    extractor: str
    extractor_digest: str
    resize: str
    main: str
    guide: str
    reference: str
    code: str
    libraries: dict[str, str]
    params: str


class Comparison(_Record):
    """What `metrics/compare.json` holds."""

    study: str
    baseline: Name
    level: Finite
    arms: list[ComparedArm]
    floor: Floor
    reference_n: int
    provenance: Provenance

    @model_validator(mode="after")
    def _one_baseline(self) -> "Comparison":
        without = [arm.arm for arm in self.arms if arm.against_baseline is None]
        if without != [self.baseline]:
            raise ValueError(f"against_baseline must be null for the baseline '{self.baseline}' alone, not {without}")
        return self

    def by_name(self, name: str) -> ComparedArm:
        return next(arm for arm in self.arms if arm.arm == name)

    @property
    def guided(self) -> list[tuple[ComparedArm, AgainstBaseline]]:
        return [(arm, arm.against_baseline) for arm in self.arms if arm.against_baseline is not None]


def load_comparison(path: Path, study: Study) -> Comparison:
    """Read and validate `metrics/compare.json`.

    Raises InputError where the file is missing, malformed, or not of this study's name, baseline and arms.
    """
    try:
        comparison = Comparison.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro` makes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: {key}: {first['msg']}; delete it and run `dvc repro`") from None
    for what, seen, wanted in (
        ("study", [comparison.study], [study.name]),
        ("baseline", [comparison.baseline], [study.baseline]),
        ("arms", sorted(arm.arm for arm in comparison.arms), sorted(study.arms)),
    ):
        if seen != wanted:
            raise InputError(
                f"{path} has {what} {', '.join(seen)}, but params.yaml has {', '.join(wanted)}; run `dvc repro`"
            )
    return comparison


def decimals(values: Iterable[float]) -> int:
    """How many decimals, at most 4, show 3 digits of the largest value and 2 of the smallest."""
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return 2
    largest, smallest = (math.floor(math.log10(size)) for size in (max(sizes), min(sizes)))
    return min(4, max(0, 2 - largest, 1 - smallest))


def number(value: float, places: int, signed: bool = False) -> str:
    """A number with a real minus sign; `signed` also shows the plus, for differences."""
    text = f"{value:{'+' if signed else ''}.{places}f}"
    # A rounded -0.00 is zero.
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def span(interval: Interval, places: int, signed: bool = False) -> str:
    """The interval's ends: `0.80` dash `0.83`, or `-0.10 to +0.20` where a dash would look like a sign."""
    low, high = number(interval.low, places, signed), number(interval.high, places, signed)
    return f"{low}\N{EN DASH}{high}" if interval.low >= 0 and not signed else f"{low} to {high}"


def _quoted(interval: Interval, signed: bool = False) -> str:
    places = decimals([max(abs(interval.value), abs(interval.low), abs(interval.high))])
    return f"{number(interval.value, places, signed)} ({span(interval, places, signed)})"


@dataclass(frozen=True)
class Statement:
    """One answer about an arm: what was asked, the verdict, and the numbers behind it."""

    topic: str
    verdict: str
    numbers: str

    @property
    def decided(self) -> bool:
        return self.verdict != UNDECIDED


def verdict(interval: Interval, neutral: float, above: str, below: str) -> str:
    """`above` or `below` where the whole interval lies on that side of `neutral`, undecided where it contains it."""
    if interval.low > neutral:
        return above
    if interval.high < neutral:
        return below
    return UNDECIDED


def findings(comparison: Comparison) -> list[tuple[str, list[Statement]]]:
    """For each guided arm, in order, what the numbers say about it; undecided where an interval leaves it open."""
    baseline = comparison.by_name(comparison.baseline)
    return [(arm.arm, _statements(arm, against, baseline, comparison.floor)) for arm, against in comparison.guided]


def _statements(arm: ComparedArm, against: AgainstBaseline, baseline: ComparedArm, floor: Floor) -> list[Statement]:
    name = baseline.arm
    own, other = arm.scores.fd, baseline.scores.fd
    # FD is never negative and grows as N shrinks, so the floor stands in for the zero of the other numbers.
    shifts = "shifts the distribution" if against.fd.low > floor.fd.high else UNDECIDED
    distance = UNDECIDED
    if own.high < other.low:
        distance = "closer to the reference set"
    elif own.low > other.high:
        distance = "farther from the reference set"
    return [
        Statement(
            "Shift",
            shifts,
            f"FD to {name} {_quoted(against.fd)}, floor {_quoted(floor.fd)}; "
            f"the drift of the mean is {against.mean_share:.0%} of it",
        ),
        Statement("Distance", distance, f"FD to the reference set {_quoted(own)}, {name} {_quoted(other)}"),
        Statement(
            "Spread",
            verdict(against.spread_ratio, 1, above="widens", below="contracts"),
            f"spread {_quoted(against.spread_ratio)} times that of {name}",
        ),
        Statement(
            "Quality",
            verdict(against.aesthetic, 0, above="raises the aesthetic score", below="lowers the aesthetic score"),
            f"by {_quoted(against.aesthetic, signed=True)} on a scale of 0 to 5",
        ),
        Statement(
            "Malformed",
            verdict(against.malformed, 0, above="more malformed pictures", below="fewer malformed pictures"),
            f"mean P(malformed) changes by {_quoted(against.malformed, signed=True)}",
        ),
        Statement(
            "Prompt",
            verdict(against.clip_score, 0, above="follows the prompt more", below="follows the prompt less"),
            f"CLIP score changes by {_quoted(against.clip_score, signed=True)}",
        ),
    ]


@dataclass(frozen=True)
class Column:
    """A column of intervals. `better` says which end is the good one; None where neither is."""

    key: str
    label: str
    better: Literal["higher", "lower"] | None = None
    signed: bool = False


@dataclass(frozen=True)
class Cell:
    """One interval of a table, ready to print; `value` is what sorting uses."""

    value: float
    text: str
    span: str
    n: int
    best: bool


SCORE_COLUMNS = (
    Column("fd", "FD", "lower"),
    Column("precision", "Precision", "higher"),
    Column("recall", "Recall", "higher"),
    Column("density", "Density", "higher"),
    Column("coverage", "Coverage", "higher"),
    Column("clip_score", "CLIP score", "higher"),
    Column("aesthetic", "Aesthetic", "higher"),
    Column("malformed", "P(malformed)", "lower"),
)
SHIFT_COLUMNS = (
    Column("fd", "FD to baseline"),
    Column("drift", "Drift"),
    Column("contraction", "Contraction"),
    Column("spread_ratio", "Spread ratio"),
    Column("clip_score", "Δ CLIP score", signed=True),
    Column("aesthetic", "Δ Aesthetic", signed=True),
    Column("malformed", "Δ P(malformed)", signed=True),
)


def table(
    rows: Sequence[tuple[ComparedArm, Scores | AgainstBaseline]], columns: Sequence[Column]
) -> list[tuple[ComparedArm, list[Cell]]]:
    """A row of cells an arm; equal best values are all marked, and none where there is nothing to compare."""
    cells: list[list[Cell]] = [[] for _ in rows]
    for column in columns:
        intervals: list[Interval] = [getattr(numbers, column.key) for _, numbers in rows]
        values = [interval.value for interval in intervals]
        places = decimals(values)
        best = None
        if column.better is not None and len(set(values)) > 1:
            best = max(values) if column.better == "higher" else min(values)
        for row, interval in zip(cells, intervals, strict=True):
            text = number(interval.value, places, column.signed)
            ends = span(interval, places, column.signed)
            row.append(Cell(interval.value, text, ends, interval.n, interval.value == best))
    return [(arm, row) for (arm, _), row in zip(rows, cells, strict=True)]


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: never by colour alone."""

    colour: str
    symbol: str
    dash: str


def looks(comparison: Comparison) -> dict[str, Look]:
    """One look an arm, the same in every plot."""
    result = {comparison.baseline: Look(_BASELINE_COLOUR, "circle", "solid")}
    for k, (arm, _) in enumerate(comparison.guided):
        result[arm.arm] = Look(_COLOURS[k % len(_COLOURS)], _SYMBOLS[k % len(_SYMBOLS)], _DASHES[k % len(_DASHES)])
    return result


def precision_recall_figure(comparison: Comparison) -> dict[str, Any]:
    """Plotly figure: recall along x, precision along y, one marker with error bars an arm."""
    points = [(arm, arm.scores.recall, arm.scores.precision) for arm in comparison.arms]
    return _scatter(points, looks(comparison), "recall", "precision")


def shift_figure(comparison: Comparison) -> dict[str, Any]:
    """Plotly figure: drift along x, contraction along y, one marker with error bars a guided arm."""
    points = [(arm, against.drift, against.contraction) for arm, against in comparison.guided]
    figure = _scatter(points, looks(comparison), "drift (means)", "contraction (spread)")
    for axis in ("xaxis", "yaxis"):
        figure["layout"][axis]["rangemode"] = "tozero"
    return figure


def direction_figure(comparison: Comparison, directions: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Plotly figure: mean direction size over noise level, one line an arm of `directions`."""
    look = looks(comparison)
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": arm,
            "x": [sigma for sigma, _ in steps],
            "y": [size for _, size in steps],
            "line": {"color": look[arm].colour, "dash": look[arm].dash, "width": 2},
            "marker": _marker(look[arm], size=7),
            "hovertemplate": "\N{GREEK SMALL LETTER SIGMA} %{x:.3g}<br>direction %{y:.3g}",
        }
        for arm, steps in directions.items()
    ]
    layout = _layout("noise level \N{GREEK SMALL LETTER SIGMA}", "mean direction size (RMS in x0)")
    # Sampling starts at the highest noise, so it reads from left to right.
    layout["xaxis"] |= {"type": "log", "autorange": "reversed", "dtick": 1, "exponentformat": "power"}
    layout["yaxis"]["rangemode"] = "tozero"
    return {"data": data, "layout": layout}


def _scatter(
    points: Sequence[tuple[ComparedArm, Interval, Interval]], look: dict[str, Look], x_title: str, y_title: str
) -> dict[str, Any]:
    data = [*_sweeps(points)]
    for arm, x, y in points:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": arm.arm,
                "x": [x.value],
                "y": [y.value],
                "error_x": _error_bar(x, look[arm.arm]),
                "error_y": _error_bar(y, look[arm.arm]),
                "marker": _marker(look[arm.arm], size=12),
                "hovertemplate": f"{x_title} %{{x:.4g}} ({x.low:.4g} to {x.high:.4g})<br>"
                f"{y_title} %{{y:.4g}} ({y.low:.4g} to {y.high:.4g})",
            }
        )
    return {"data": data, "layout": _layout(x_title, y_title)}


def _sweeps(points: Sequence[tuple[ComparedArm, Interval, Interval]]) -> list[dict[str, Any]]:
    """Thin lines through arms that differ in nothing but the scale: the method's frontier."""
    groups: dict[tuple[str, str, str], list[tuple[ComparedArm, Interval, Interval]]] = {}
    for point in points:
        arm = point[0]
        groups.setdefault((arm.method, arm.prompt, arm.negative_prompt), []).append(point)
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [x.value for _, x, _ in group],
            "y": [y.value for _, _, y in group],
            "line": {"color": _BASELINE_COLOUR, "dash": "dot", "width": 1},
            "showlegend": False,
            "hoverinfo": "skip",
        }
        for group in (sorted(points, key=lambda point: point[0].scale) for points in groups.values())
        if len(group) > 1
    ]


def _error_bar(interval: Interval, look: Look) -> dict[str, Any]:
    # A percentile interval may lie beside its value; plotly knows no negative lengths.
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, interval.high - interval.value)],
        "arrayminus": [max(0.0, interval.value - interval.low)],
        "color": look.colour,
        "thickness": 1.5,
        "width": 4,
    }


def _marker(look: Look, size: int) -> dict[str, Any]:
    # The grey rim keeps yellow and light blue visible on white.
    return {"color": look.colour, "symbol": look.symbol, "size": size, "line": {"color": "#6B6B6B", "width": 1}}


def _layout(x_title: str, y_title: str) -> dict[str, Any]:
    grid = {"gridcolor": "rgba(128,128,128,0.22)", "linecolor": "#808080", "zeroline": False, "showline": True}
    return {
        "xaxis": {**grid, "title": {"text": x_title, "standoff": 8}, "automargin": True},
        "yaxis": {**grid, "title": {"text": y_title, "standoff": 8}, "automargin": True},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        # The template's stylesheet replaces this grey by the theme's own.
        "font": {"color": "#808080", "family": "system-ui, sans-serif", "size": 13},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "showlegend": True,
        "hovermode": "closest",
    }


def direction_by_noise(traces: Path, arms: Iterable[str]) -> dict[str, list[tuple[float, float]]]:
    """For each arm, (sigma, direction averaged over its pictures) at every step, from high noise to low.

    Steps whose sigma has no logarithm are left out. Raises InputError where a trace is missing or unreadable.
    """
    result = {}
    for arm in arms:
        trace = read_set(traces / arm, ["step", "sigma", "direction"])
        means = trace.group_by("step").aggregate([("sigma", "mean"), ("direction", "mean")]).sort_by("step")
        steps = zip(means["sigma_mean"].to_pylist(), means["direction_mean"].to_pylist(), strict=True)
        result[arm] = [(s, size) for s, size in steps if s > 0 and math.isfinite(s) and math.isfinite(size)]
    return result


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


def render(comparison: Comparison, rows: Sequence[GalleryRow], directions: dict[str, list[tuple[float, float]]]) -> str:
    """The page as HTML; the same input gives the same page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Jinja's tojson writes <, >, & and ' as \uXXXX, so no text can end the script element.
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        findings=findings(comparison),
        score_columns=SCORE_COLUMNS,
        score_rows=table([(arm, arm.scores) for arm in comparison.arms], SCORE_COLUMNS),
        shift_columns=SHIFT_COLUMNS,
        shift_rows=table(comparison.guided, SHIFT_COLUMNS),
        figures={
            "precision-recall": precision_recall_figure(comparison),
            "shift": shift_figure(comparison),
            "direction": direction_figure(comparison, directions),
        },
        floor=_quoted(comparison.floor.fd),
        gallery=rows,
        plotlyjs=Markup(get_plotlyjs()),
    )


def report(study: Study, comparison: Path, sets: Path, scores: Path, traces: Path) -> str:
    """The report of a study as one self-contained HTML page. Raises InputError."""
    compared = load_comparison(comparison, study)
    directions = direction_by_noise(traces, [arm.arm for arm, _ in compared.guided])
    return render(compared, gallery(compared, sets, scores), directions)


def main() -> None:
    argparse.ArgumentParser(prog="python -m eval.report", description=__doc__).parse_args()
    page = report(load_study(), COMPARISON, SETS, SCORES, TRACES).encode()
    write_atomically(REPORT, page)
    print(f"report: {REPORT} ({len(page) / 1e6:.1f} MB)")


if __name__ == "__main__":
    run_stage(main)
