"""The report page: sections rendered from templates into one self-contained HTML file.

The page needs no network: plotly.js and the images are inside it. Prompts and descriptions are untrusted text,
so the templates escape everything; only plotly.js itself is inserted as it is.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from eval.features.plain_text import names_by_arm
from eval.notation import quoted
from eval.report.composition import composition_figure, composition_rows, tag_rows
from eval.report.details import cost_rows, matched_columns, matched_rows, shift_details
from eval.report.effective_scale import (
    adjusted_columns,
    control_columns,
    control_rows,
    effective_figure,
    effective_rows,
)
from eval.report.feature_spaces import shift_by_space_figure, space_rows, space_tables
from eval.report.figures import (
    action_figure,
    alignment_figure,
    calibration_figure,
    direction_by_noise,
    direction_figure,
    frontier_figure,
    good_corner,
    precision_recall_figure,
    shift_figure,
)
from eval.report.gallery import Gallery, gallery
from eval.report.image_labels import image_labels
from eval.report.labels import VERDICT_LABELS, agreement_lines, arm_rows, difference_rows, rate_rows, strength_lines
from eval.report.named_concepts import adherence_rows, concept_rows, concept_sentences, shown_rows
from eval.report.provenance import commit, parameters, scorer_digests, seeds
from eval.report.tables import LEARNED_COLUMNS, further_columns, score_columns, shift_columns, table
from eval.report.trajectory import trajectories
from labeling.records import SAMPLED_TASKS, TASK_LABELS, read_labels, read_tasks
from pipeline.layout import FEATURES, SCORES, SETS, TRACES, TRAJECTORIES
from pipeline.results.comparison import COMPARISON, Comparison, load_comparison
from pipeline.results.rates import RATES, VERDICTS, Rates, load_rates
from pipeline.study.study import Study

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A section of the page: `templates/sections/<anchor>.html.j2`, and its title in the navigation."""

    anchor: str
    title: str


# In the order of the page. A section that shows something new gets its own template here, its own module beside this
# one, and its own argument in `render`.
SECTIONS = (
    Section("findings", "Findings"),
    Section("feature-spaces", "Feature spaces"),
    Section("named-concepts", "Named concepts"),
    Section("alignment", "Alignment"),
    Section("effective-scale", "Effective scale"),
    Section("frontiers", "Frontiers"),
    Section("arms", "Arms"),
    Section("plots", "Plots"),
    Section("against-baseline", "Against the baseline"),
    Section("distribution-shift", "Shift"),
    Section("composition", "Composition"),
    Section("cost", "Cost"),
    Section("labels", "What people see"),
    Section("gallery", "Gallery"),
    Section("trajectory", "Trajectory"),
)


def figures(
    comparison: Comparison, directions: dict[str, list[tuple[float, float]]], rates: Rates
) -> dict[str, dict[str, Any] | None]:
    """Every plot of the page by the name of its place; None where there is nothing to plot."""
    found = {
        "precision-recall": precision_recall_figure(comparison),
        "shift": shift_figure(comparison),
        "shift-by-space": shift_by_space_figure(comparison) if comparison.guided else None,
        "direction": direction_figure(comparison, directions),
        "effective-scale": effective_figure(comparison),
        "composition": composition_figure(comparison),
        "calibration": calibration_figure(rates),
        "frontier-precision": frontier_figure(comparison, "recall", "precision"),
        "frontier-fd": frontier_figure(comparison, "clip_score", "fd") if comparison.prompted else None,
        "frontier-quality": frontier_figure(comparison, "shift", "aesthetic"),
    }
    for k, one in enumerate(comparison.alignment):
        after = f"-{k + 1}" if k else ""
        found |= {f"alignment{after}": alignment_figure(one), f"action{after}": action_figure(one)}
    return found


def render(
    comparison: Comparison,
    shown: Gallery,
    recorded: dict[str, Any] | None,
    directions: dict[str, list[tuple[float, float]]],
    rates: Rates,
    readers: Collection[str],
    names: Mapping[str, Collection[str]],
    provenance: dict[str, Any],
) -> str:
    """The page as HTML; the same input gives the same page.

    `readers` are the extractors that read text, `names` is what each arm's negative prompt names.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    primary = comparison.spaces[0].name
    unasked = set() if comparison.prompted else {"clip_score"}
    scores = [name for name in comparison.by_name(comparison.baseline).scores if name not in unasked]
    compared = set().union(*(numbers.intervals for _, numbers in comparison.guided)) - unasked
    columns, further = score_columns(scores), further_columns(scores, primary)
    against = shift_columns(compared)
    # A baseline alone has nothing to be compared with.
    hidden = set() if comparison.guided else {"against-baseline", "feature-spaces", "frontiers"}
    hidden |= set() if comparison.named and comparison.guided else {"named-concepts"}
    # Without probes or several terms no two references were evaluated side by side.
    hidden |= set() if comparison.alignment else {"alignment"}
    hidden |= set() if effective_rows(comparison) else {"effective-scale"}
    hidden |= set() if any(arm.cost for arm in comparison.arms) else {"cost"}
    # Jinja's tojson writes <, >, & and ' as \uXXXX, so no text can end the script element.
    return environment.get_template("page.html.j2").render(
        comparison=comparison,
        sections=[section for section in SECTIONS if section.anchor not in hidden],
        score_columns=columns,
        score_rows=table([(arm, arm.scores) for arm in comparison.arms], columns),
        further_columns=further,
        further_rows=table([(arm, arm.scores) for arm in comparison.arms], further),
        learned=[column.key for column in LEARNED_COLUMNS if column.key in scores],
        shift_columns=against,
        shift_rows=table([(arm, numbers.intervals) for arm, numbers in comparison.guided], against),
        primary=primary,
        space_rows=space_rows(comparison, readers),
        space_tables=space_tables(comparison),
        adherence_rows=adherence_rows(comparison),
        shown_rows=shown_rows(comparison),
        concept_rows=concept_rows(comparison),
        concept_sentences=concept_sentences(comparison, names),
        figures=figures(comparison, directions, rates),
        rates=rates,
        verdict_labels=[VERDICT_LABELS[verdict] for verdict in VERDICTS],
        label_rows=arm_rows(comparison, rates),
        canvas_rows=rate_rows(rates.canvases),
        label_difference_rows=difference_rows(rates),
        agreement_lines=agreement_lines(rates),
        strength_lines=strength_lines(rates),
        good_corner=good_corner,
        effective_rows=effective_rows(comparison),
        control_columns=control_columns(comparison),
        adjusted_columns=adjusted_columns(comparison),
        control_rows=control_rows(comparison),
        matched_columns=matched_columns(comparison),
        matched_rows=matched_rows(comparison),
        shift_details=shift_details(comparison),
        kinds=list(comparison.by_name(comparison.baseline).kinds),
        composition_rows=composition_rows(comparison),
        tag_rows=tag_rows(comparison),
        cost_rows=cost_rows(comparison),
        floor=quoted(comparison.floor.fd),
        floor_between=quoted(comparison.floor.between_sets),
        gallery=shown,
        trajectories=recorded,
        provenance=provenance,
        plotlyjs=Markup(get_plotlyjs()),
    )


def report(study: Study, root: Path = Path()) -> str:
    """The report of the study in `root` as one self-contained HTML page. Raises InputError."""
    compared = load_comparison(root / COMPARISON, study)
    names = [arm.arm for arm in compared.arms]
    directions = direction_by_noise(root / TRACES, [arm.arm for arm, _ in compared.guided])
    said = image_labels(read_tasks(root / SAMPLED_TASKS), read_labels(root / TASK_LABELS))
    shown = gallery(compared, root / SETS, root / SCORES, root / FEATURES, study.features.spaces[0].extractor, said)
    recorded = trajectories(root / TRAJECTORIES, root / SETS, names)
    provenance = {
        "scorers": scorer_digests(compared, root),
        "seeds": seeds(study),
        "reference": study.reference.title,
        "caution": study.caution,
        "parameters": parameters(study),
        "commit": commit(root),
    }
    readers = {name for name, extractor in study.features.extractors.items() if extractor.kind.reads_prompts}
    rates = load_rates(root / RATES)
    return render(compared, shown, recorded, directions, rates, readers, names_by_arm(study), provenance)
