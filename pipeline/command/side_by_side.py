"""Two finished studies side by side: the headline numbers of their arms, with intervals."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.results.comparison import COMPARISON, ComparedArm, Comparison
from pipeline.results.interval import Interval
from pipeline.results.metrics import TABLE
from pipeline.storage.json_file import read_json_text

# Beside the shift from the baseline; one that a study did not measure is left out.
_SCORES = ("fd", "precision", "recall", "clip_score", "aesthetic", "malformed")
_TRACKED = re.compile(r"[a-z][a-z0-9_]*(@\d+)?")
_LABELS = {row.name: row.label for row in TABLE}
_GAP = "  "


def load_results(what: str) -> Comparison:
    """The results of a study: of its folder, of a compare.json, or of `<study>` or `<study>@<version>` as tracked.

    Raises InputError where it is something else, or what is there cannot be read.
    """
    path = Path(what)
    places = [path, path / COMPARISON, path / COMPARISON.name] if path.exists() else []
    for place in places:
        if place.is_file():
            return _read(place, str(place))
    if places:
        raise InputError(f"{what} has no {COMPARISON}; a study that has run has one")
    if path.suffix or not _TRACKED.fullmatch(what):
        raise InputError(
            f"'{what}' is not a folder of a study, a compare.json or the name of a study; for instance, "
            "guidedrift compare default . compares the default study as it ran last with what is here"
        )
    from pipeline.command.tracked import download_results  # with MLflow, which takes seconds

    with tempfile.TemporaryDirectory() as folder:
        return _read(download_results(what, Path(folder)), what)


def _read(path: Path, name: str) -> Comparison:
    try:
        return Comparison.model_validate_json(read_json_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "its content"
        raise InputError(f"{name}: {key}: {first['msg']}; it is of another version, or no comparison") from None


def differences(left: Comparison, right: Comparison) -> list[str]:
    """Why the numbers of two studies may not be comparable, in words."""
    found = []
    for what, one, other in (
        ("feature space", left.spaces[0].name, right.spaces[0].name),
        ("baseline", left.baseline, right.baseline),
        ("number of real images", left.reference_n, right.reference_n),
        ("number of images per arm", _sizes(left), _sizes(right)),
        ("main network", left.provenance.main, right.provenance.main),
    ):
        if one != other:
            found.append(f"{what}: {one} and {other}")
    return found


def _sizes(results: Comparison) -> str:
    return ", ".join(str(n) for n in sorted({arm.n for arm in results.arms}))


def table(results: Sequence[tuple[str, Comparison]]) -> str:
    """The headline numbers of one study or of several, one block per number and one column per study."""
    titles = [title for title, _ in results]
    arms = list(dict.fromkeys(arm.arm for _, found in results for arm in found.arms))
    found = [{arm.arm: _headlines(one, arm) for arm in one.arms} for _, one in results]
    names = ["shift", *(name for name in _SCORES if any(name in own for one in found for own in one.values()))]
    blocks = []
    for name in names:
        rows = [[arm, *(_cell(one.get(arm), name) for one in found)] for arm in arms]
        blocks.append(_block(_title(name, results[0][1]), titles, rows))
    return "\n\n".join(blocks)


def _headlines(results: Comparison, arm: ComparedArm) -> dict[str, Interval]:
    scores = dict(arm.scores)
    return scores if arm.against_baseline is None else {**scores, "shift": arm.against_baseline.fd}


def _title(name: str, results: Comparison) -> str:
    if name == "shift":
        return f"shift from {results.baseline}, in {results.spaces[0].name}"
    return _LABELS.get(name, name)


def _cell(own: Mapping[str, Interval] | None, name: str) -> str:
    if own is None:
        return "no such arm"
    return _in_words(own[name]) if name in own else "-"


def _in_words(number: Interval) -> str:
    largest = max(abs(number.value), abs(number.low), abs(number.high))
    places = 0 if largest >= 100 else 1 if largest >= 10 else 2 if largest >= 1 else 3
    return f"{number.value:.{places}f} ({number.low:.{places}f} to {number.high:.{places}f})"


def _block(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [["", *heads], *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    shown = [_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([title, *(f"{_GAP}{line}" for line in shown)])
