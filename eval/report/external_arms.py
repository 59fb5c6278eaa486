"""The report's section on external arms: where their images come from, what reading did, what their files say."""

from collections.abc import Mapping
from dataclasses import dataclass

from eval.notation import quoted
from pipeline.results.comparison import Comparison
from pipeline.results.external_arms import ExternalArm, Unread

_PAIRS = {
    "name": "Images of the same name are pairs.",
    "seed": "Images of the same seed are pairs.",
    "prompt": "Images stand beside another of the same prompt; they share no seed, and are not pairs otherwise.",
    "none": "Neither names nor seeds make pairs: images stand beside each other by chance.",
}
_TITLES = {"scale": "CFG scale", "negative": "Negative prompt"}


@dataclass(frozen=True)
class ScoreRow:
    """A score of others: its mean, and the difference from the baseline's; empty where there is none."""

    name: str
    mean: str
    n: int
    difference: str


@dataclass(frozen=True)
class ExternalRow:
    """An external arm: lines of what is known of it by their titles, the files not read, and others' scores."""

    arm: str
    lines: list[tuple[str, str]]
    unread: list[Unread]
    more_unread: int
    scores: list[ScoreRow]


def external_rows(comparison: Comparison) -> list[ExternalRow]:
    """Every external arm, in the order of the study."""
    n = comparison.by_name(comparison.baseline).n
    return [_row(arm, own, comparison.by_name(arm).description, n) for arm, own in comparison.external.items()]


def _row(arm: str, own: ExternalArm, description: str, n: int) -> ExternalRow:
    read = ", ".join(f"{what} ({count})" for what, count in own.done.items())
    lines = [
        ("Folder", f"{own.folder}{f' ({description})' if description else ''}"),
        ("Pairs", _PAIRS[own.paired_by]),
        ("Sizes", _counts(own.sizes)),
        ("Reading", f"{read}; every image is now {own.canvas}" if read else f"as they are, {own.canvas}"),
        ("Metadata", _counts(own.tools) or "none that says what the images were generated with"),
        ("Prompts and seeds", f"{own.prompts} of {n} images have a prompt, {own.seeds} a seed"),
        *((_TITLES.get(key, key.capitalize()), _counts(values)) for key, values in own.settings.items()),
    ]
    scores = [
        ScoreRow(name, quoted(one.mean), one.mean.n, quoted(one.difference, signed=True) if one.difference else "")
        for name, one in own.scores.items()
    ]
    return ExternalRow(arm, lines, own.unread, own.faults - len(own.unread), scores)


def _counts(values: Mapping[str, int]) -> str:
    if len(values) == 1:
        value, count = next(iter(values.items()))
        return f"{value} ({count})"
    return ", ".join(f"{value} ({count})" for value, count in values.items())
