"""What a study can be made of, each with one line that says what it is, taken from where it is defined."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import yaml

from pipeline.errors import InputError
from pipeline.layout import CONF
from pipeline.prompting.presets import NEGATIVE_PRESETS, QUALITY_TAGS
from pipeline.prompting.suites import SUITES
from pipeline.results.metrics import TABLE
from pipeline.settings import nearest
from pipeline.study.arm import METHODS
from pipeline.study.extractors import EXTRACTORS
from pipeline.study.scorers import SCORERS
from pipeline.study.solvers import SOLVERS

_LINE = 114


def configurations(group: str, conf: Path = CONF) -> dict[str, str]:
    """The choices of a group of conf/: an arm's `description`, else the first sentence of the file's comment."""
    return {path.stem: _described(path) for path in sorted((conf / group).glob("*.yaml"))}


def guiders() -> dict[str, str]:
    """The guiders of diffusers that an arm's `post` may name, with the first sentence of their documentation."""
    from diffusers import guiders as module

    kinds = {name: kind for name, kind in vars(module).items() if inspect.isclass(kind)}
    return {
        name: _sentence((inspect.getdoc(kind) or "").split("\n\n")[0])
        for name, kind in sorted(kinds.items())
        if issubclass(kind, module.BaseGuidance) and kind is not module.BaseGuidance
    }


def modules() -> dict[str, str]:
    """The modules that can be run, with the first sentence of their documentation, in the order of the study."""
    found = {}
    for name in _MODULES:
        path = Path(*name.split("."))
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        found[f"python -m {name}"] = _sentence(_docstring(path))
    return found


def negative_presets() -> dict[str, str]:
    """The lists of unwanted content."""
    return {name: f"[{preset.syntax}] {preset.text}" for name, preset in NEGATIVE_PRESETS.items()}


def quality_presets() -> dict[str, str]:
    """The tags that ask for quality."""
    return {name: f"[{tags.place}] {tags.text}" for name, tags in QUALITY_TAGS.items()}


def suites() -> dict[str, str]:
    """The published suites of prompts, with the licence and the source of each."""
    return {name: f"{suite.title}, licence: {suite.licence}, {suite.source}" for name, suite in SUITES.items()}


def methods() -> dict[str, str]:
    """An arm's methods, by the reference that each goes away from."""
    away = {name: f"away from the reference '{reference}'" for name, reference in METHODS.items()}
    return {"unguided": "no reference", **away, "mix": "away from several references, listed as terms"}


def samplers() -> dict[str, str]:
    """The samplers, with the noise levels that fit each."""
    return {name: f"levels: {', '.join(solver.levels)}" for name, solver in SOLVERS.items()}


def metrics() -> dict[str, str]:
    """The metrics, with what the report calls them, the good end and the unit."""
    return {
        row.name: ", ".join(
            part
            for part in (row.label, f"of one {row.level}", f"{row.better} is better" if row.better else "", row.unit)
            if part
        )
        for row in TABLE
    }


def extractor_kinds() -> dict[str, str]:
    """The kinds of extractors."""
    return {name: kind.line for name, kind in EXTRACTORS.items()}


def scorer_kinds() -> dict[str, str]:
    """The scorers that read files."""
    return {name: kind.line for name, kind in SCORERS.items()}


# What `python -m pipeline <list>` can show, with how it is chosen.
LISTS: dict[str, tuple[str, Callable[[], dict[str, str]]]] = {
    "studies": ("guidedrift run --study <name>", lambda: configurations("study")),
    "arms": ("/arm: [<name>] in a study's defaults", lambda: configurations("arm")),
    "methods": ("method: <name> of an arm", methods),
    "negatives": ("negative: {preset: <name>} of a study, or negative_preset: <name> of an arm", negative_presets),
    "qualities": ("quality_preset: <name> of an arm", quality_presets),
    "models": ("guidedrift run --model <name>", lambda: configurations("model")),
    "prompts": ("prompts=<name>", lambda: configurations("prompts")),
    "suites": ("prompts=suite prompts.suite=<name>", suites),
    "texts": ("text=<name>", lambda: configurations("text")),
    "samplers": ("sampler.scheduler=<name>", samplers),
    "extractors": ("features=[<name>,...]", lambda: configurations("features")),
    "extractor_kinds": ("model: <name> of an extractor", extractor_kinds),
    "scorers": ("scorers=[<name>,...]", lambda: configurations("scorers")),
    "metrics": ("measured in every study, except scores by name; docs/metrics.md", metrics),
    "scorer_kinds": ("a key of metrics.scorers or of metrics, with the place of its files", scorer_kinds),
    "guiders": ("post: {name: guider, guider: <name>} of an arm", guiders),
    "modules": ("each has --help", modules),
}
# diffusers takes seconds to load.
SLOW = ("guiders",)

_MODULES = (
    "pipeline.command",
    "pipeline.compose",
    "pipeline.reference.build",
    "eval.preflight",
    "pipeline.generate",
    "eval.measure",
    "eval.comparison.compare",
    "labeling.sampling.sample",
    "labeling.label_studio.push",
    "labeling.label_studio.pull",
    "labeling.rates.label_rates",
    "pipeline.publishing.dataset",
    "eval.report",
    "pipeline.tracking.track",
    "pipeline.integrity.verify",
    "pipeline.integrity.recover",
    "pipeline.publishing.publish",
    "pipeline.tracking.server",
    "labeling.label_studio.server",
    "labeling.label_studio.demo",
)


def listed(names: list[str]) -> str:
    """The named lists as text; without names, those that take no seconds. Raises InputError for an unknown one."""
    if unknown := next((name for name in names if name not in LISTS), None):
        meant = f" did you mean {near}?" if (near := nearest(unknown, LISTS)) else ""
        raise InputError(f"list '{unknown}' is unknown;{meant} known lists: {', '.join(LISTS)}")
    return shown(names or [name for name in LISTS if name not in SLOW])


def shown(lists: list[str]) -> str:
    """The named lists as text, one line per entry."""
    parts = []
    for name in lists:
        how, entries = LISTS[name]
        found = entries()
        width = max(len(entry) for entry in found)
        lines = [f"  {entry:<{width}}  {_cut(text, _LINE - width)}".rstrip() for entry, text in found.items()]
        parts.append("\n".join([f"{name} ({how}):", *lines]))
    return "\n\n".join(parts)


def _described(path: Path) -> str:
    text = path.read_text("utf-8")
    # A value of a group's own, so only what stands at the beginning of a line.
    if found := re.search(r"^description: .*$", text, re.MULTILINE):
        return str(yaml.safe_load(found[0])["description"])
    lines = text.splitlines()
    comment = []
    for line in lines[1:] if lines[0].startswith("# @package") else lines:
        if not line.startswith("# "):
            break
        comment.append(line.removeprefix("# ").strip())
    return _sentence(" ".join(comment))


def _docstring(path: Path) -> str:
    found = re.match(r'"""(.*?)"""', path.read_text("utf-8"), re.DOTALL)
    return found[1] if found else ""


def _sentence(text: str) -> str:
    return re.split(r"(?<=[.?])\s", " ".join(text.split()), maxsplit=1)[0].removesuffix(".")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
