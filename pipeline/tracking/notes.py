"""The descriptions that MLflow shows over an experiment, a run and a snapshot, in Markdown."""

from pipeline.results.comparison import Comparison
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.results.rates import Rates
from pipeline.study.arm import Arm
from pipeline.study.study import Study


def experiment_note(study: Study) -> str:
    """What the experiment is, and how to read its runs.

    Its first line stands over every page of the experiment, also over the empty one that MLflow opens it with.
    """
    return (
        "Choose **Model training** (top left), then Runs. Compared: what guidance does to a diffusion model's "
        "distribution (classifier-free guidance, negative prompts, autoguidance), on the same prompts and seeds.\n\n"
        "A parent run is one state of params and data, called by what changed since the last one; its child runs (the "
        "plus sign before the name) are the arms, called by method and scale. "
        "Select those and press Compare: parallel coordinates go from method and scale to any metric.\n\n"
        f"`fd` is an arm's {metric('fd').in_words} ({metric('fd').better} is better; `fd_floor` of the parent is "
        "what real images get), `precision` is quality, `recall` variety; a parent has them as `fd/<arm>`. "
        f"They are numbers of one feature space, `{study.features.primary}`; `<space>_fd` and so on are those of the "
        f"others. `shift_...` is the distance from the baseline arm, here {study.baseline}. "
        "A run's artifact `numbers.json` has every number with its interval. "
        "The Models page keeps a version of each study for every state, with params, numbers and report."
    )


def study_note(study: Study, comparison: Comparison, rates: Rates) -> str:
    """What a parent run compares, with each arm's headline and verdicts."""
    # MLflow folds all but the first lines away, so where to look comes first.
    lines = [
        f"Study **{study.name}**: the same prompts and seeds drawn in {len(study.compared)} ways (arms). "
        "Look at the artifacts `study/index.html` (the whole report) and `gallery/same_seed.png` (one column per "
        "arm, one row per seed), and at the child runs, one per arm, with every score and samples.",
        "",
        "| arm | method | scale | Fréchet distance to real | precision | recall | against the baseline |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in comparison.arms:
        shown = {name: _shown(result.scores[name]) for name in ("fd", "precision", "recall")}
        said = "the baseline" if result.arm == comparison.baseline else _verdicts(comparison, result.arm)
        lines.append(f"| {result.arm} | {result.method} | {result.scale:g} | {' | '.join(shown.values())} | {said} |")
    negatives = {name: arm.used_negative for name, arm in study.compared.items() if arm.used_negative}
    if negatives:
        lines += ["", "| arm | negative prompt |", "|---|---|"]
        lines += [f"| {name} | {_code(text)} |" for name, text in negatives.items()]
    lines += [
        "",
        f"Fréchet distance, precision and recall are those of `{comparison.spaces[0].name}`; a verdict is what "
        f"{len(comparison.spaces)} feature spaces agree on.",
        "",
        f"Each arm has {study.generate.images} images; they are compared with {comparison.reference_n} real ones "
        f"and with the arm **{study.baseline}**. Brackets hold {comparison.level:.0%} intervals.",
    ]
    labels = rates.labels + rates.pair_labels
    if labels:
        lines += ["", f"`human_...` are rates by {labels} labels, with the automatic scores where that narrows them."]
    if rates.simulated_labels:
        lines += [
            "",
            f"{rates.simulated_labels} of the {labels} labels are **simulated**, not people's: `simulated_...`.",
        ]
    return "\n".join(lines)


def arm_note(arm: Arm, comparison: Comparison, name: str) -> str:
    """What an arm is, and what was found of it."""
    texts = {"Description": _code(arm.description), "Negative prompt": _code(arm.used_negative)}
    texts = {title: text for title, text in texts.items() if text}
    if said := _verdicts(comparison, name):
        texts["Against the baseline"] = said
    return "\n\n".join(f"{title}: {text}" for title, text in texts.items())


def _verdicts(comparison: Comparison, arm: str) -> str:
    # Only what is decided: the report has the rest, with its numbers.
    return ", ".join(
        answer.verdict
        for found in comparison.verdicts
        if found.arm == arm
        for answer in found.verdicts
        if answer.decided
    )


def _shown(interval: Interval) -> str:
    return f"{interval.value:.3g} ({interval.low:.3g} to {interval.high:.3g})"


def _code(text: str) -> str:
    # Prompts are untrusted and MLflow renders Markdown; a code span shows them as they are.
    shown = " ".join(text.split()).replace("`", "'").replace("|", "¦")
    return f"`{shown[:160]}{'…' if len(shown) > 160 else ''}`" if shown else ""
