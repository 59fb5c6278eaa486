"""The report page: sections rendered from templates into one self-contained HTML file.

The page needs no network: plotly.js and the images are inside it. Prompts and descriptions are untrusted text, so the
templates escape everything. The first screen needs no script: it is HTML and SVG, and comes before all else.
"""

import base64
import gzip
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from eval.features.plain_text import names_by_arm
from eval.notation import count, number, quoted
from eval.report.composition import composition_figure, composition_rows, tag_rows
from eval.report.details import cost_rows, matched_columns, matched_rows, shift_details
from eval.report.effective_scale import (
    adjusted_columns,
    control_columns,
    control_rows,
    effective_figure,
    effective_rows,
)
from eval.report.external_arms import external_rows
from eval.report.feature_spaces import shift_by_space_figure, space_rows, space_tables
from eval.report.figures import (
    action_figure,
    alignment_figure,
    calibration_figure,
    direction_by_noise,
    direction_figure,
    equal_strength,
    frontier_figure,
    good_corner,
    precision_recall_figure,
    shift_figure,
    trade_off_figure,
)
from eval.report.first_screen.downloads import downloads
from eval.report.first_screen.image_rows import ImageRows, image_rows
from eval.report.first_screen.panels import panels, shown_arms
from eval.report.gallery.gallery import GALLERY_BYTES, Gallery, gallery
from eval.report.gallery.image_labels import image_labels
from eval.report.gallery.parameters import arm_parameters
from eval.report.labels import (
    FEW,
    VERDICT_LABELS,
    agreement_lines,
    arm_rows,
    difference_rows,
    rate_rows,
    strength_lines,
)
from eval.report.matrix import matrix
from eval.report.named_concepts import adherence_rows, concept_rows, concept_sentences, shown_rows
from eval.report.provenance import commit, measured_alone, networks, parameters, scorer_digests, seeds
from eval.report.tables import INPAINTING_COLUMNS, LEARNED_COLUMNS, further_columns, score_columns, shift_columns, table
from eval.report.trajectory import trajectories
from labeling.records import SAMPLED_PAIRS, SAMPLED_TASKS, TASK_LABELS, read_labels, read_pairs, read_tasks
from pipeline.layout import FEATURES, SCORES, SETS, TRACES, TRAJECTORIES
from pipeline.results.answer import answer, told_arms
from pipeline.results.comparison import COMPARISON, ComparedArm, Comparison, load_comparison
from pipeline.results.floor import floor_between, has_other_seeds
from pipeline.results.interval import Interval
from pipeline.results.rates import RATES, VERDICTS, Rates, load_rates
from pipeline.study.study import Study

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A section of the page: `templates/sections/<anchor>.html.j2`, and its title in the navigation."""

    anchor: str
    title: str


# In the order of the page. A section that shows something new gets its own template, its own module beside this one,
# and its own argument in `render`.
SECTIONS = (
    Section("gallery", "Gallery"),
    Section("external-arms", "Where the images come from"),
    Section("trade-off", "Trade-off"),
    Section("direction", "Direction over noise"),
    Section("labels", "What people see"),
)
# Folded below them, under "All numbers".
FOLDED = (
    Section("how-sure", "How sure?"),
    Section("method", "Method"),
    Section("feature-spaces", "In every feature space"),
    Section("named-concepts", "What the negative prompt names"),
    Section("effective-scale", "Effective scale, and arms against plain CFG"),
    Section("frontiers", "Methods over their scales, and at equal strength"),
    Section("arms", "Scores of every arm"),
    Section("inpainting", "Inside the mask, outside and at the rim"),
    Section("against-baseline", "Every arm against the baseline"),
    Section("plots", "Precision, recall, drift and spread change as plots"),
    Section("distribution-shift", "Shift in detail"),
    Section("alignment", "Directions along every arm"),
    Section("composition", "Kinds and tags"),
    Section("cost", "Cost of an image"),
    Section("trajectory", "The trajectory of one image"),
)


@dataclass(frozen=True)
class People:
    """What people were asked and said: the rates of their labels, the images sampled from each arm, and the pairs."""

    rates: Rates
    sampled: Mapping[str, int]
    pairs: int


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
        "frontier-quality": trade_off_figure(comparison),
    }
    for k, one in enumerate(comparison.alignment):
        after = f"-{k + 1}" if k else ""
        found |= {f"alignment{after}": alignment_figure(one), f"action{after}": action_figure(one)}
    return found


def render(
    comparison: Comparison,
    rows: ImageRows,
    shown: Gallery,
    recorded: dict[str, Any] | None,
    directions: dict[str, list[tuple[float, float]]],
    people: People,
    readers: Collection[str],
    names: Mapping[str, Collection[str]],
    provenance: dict[str, Any],
) -> str:
    """The page as HTML; the same input gives the same page.

    `rows` are the first screen's images, `readers` the extractors that read text, `names` is what each arm's negative
    prompt names.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = count
    primary = comparison.spaces[0].name
    unasked = set() if comparison.prompted else {"clip_score"}
    scores = [name for name in comparison.by_name(comparison.baseline).scores if name not in unasked]
    compared = set().union(*(numbers.intervals for _, numbers in comparison.guided)) - unasked
    columns, further = score_columns(scores), further_columns(scores, primary)
    against = shift_columns(compared)
    rates = people.rates
    found, asked = matrix(comparison), answer(comparison)
    drawn = panels(comparison)
    shared = {
        "comparison": comparison,
        "answer": asked,
        "panels": drawn,
        "networks": provenance["networks"],
        "percent": f"{comparison.level * 100:g}",
        "n": comparison.by_name(comparison.baseline).n,
    }
    figure = environment.get_template("figure.svg.j2").render(
        **shared,
        width=48 + sum(panel.width + 36 for panel in drawn) - 36,
        height=130 + max((panel.height for panel in drawn), default=0),
    )
    hidden = _hidden(comparison)
    # Jinja's tojson writes <, >, & and ' as \uXXXX, so no text can end the script element.
    return environment.get_template("page.html.j2").render(
        **shared,
        rows=rows,
        told=len(told_arms(comparison)),
        shown_arms=len(shown_arms(comparison)),
        downloads=downloads(comparison, found, figure if drawn else "", provenance["commit"]),
        sections=[section for section in SECTIONS if section.anchor not in hidden],
        folded=[section for section in FOLDED if section.anchor not in hidden],
        matrix=found,
        repeated_reference=_repeated_reference(comparison),
        detectable=_detectable(comparison),
        external_arms=external_rows(comparison),
        equal_strength=_equal_strength(comparison),
        score_columns=columns,
        score_rows=table([(arm, arm.scores) for arm in comparison.arms], columns),
        further_columns=further,
        further_rows=table([(arm, arm.scores) for arm in comparison.arms], further),
        inpainting_columns=INPAINTING_COLUMNS,
        inpainting_rows=table(_inpainted(comparison), INPAINTING_COLUMNS),
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
        sampled=people.sampled,
        sampled_pairs=people.pairs,
        few_labels=FEW,
        label_rows=arm_rows(comparison, rates, people.sampled),
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
        cost_rows=cost_rows(comparison, provenance["alone"]),
        floor=quoted(comparison.floor.fd),
        floor_shift=quoted(comparison.floor.shift),
        floor_between=floor_between(comparison),
        other_seeds=has_other_seeds(comparison),
        gallery=shown,
        trajectories=recorded,
        provenance=provenance,
        plotlyjs=base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode(),
    )


def _hidden(comparison: Comparison) -> set[str]:
    """The sections that have nothing to show."""
    # A baseline alone has nothing to be compared with.
    base = comparison.by_name(comparison.baseline)
    alone = {"verdicts", "against-baseline", "feature-spaces", "frontiers", "trade-off"}
    return {
        *(alone if not comparison.guided else ()),
        *(("named-concepts",) if not (comparison.named and comparison.guided) else ()),
        # Without probes or several terms no two references were evaluated side by side.
        *(("direction", "alignment") if not comparison.alignment else ()),
        *(("effective-scale",) if not effective_rows(comparison) else ()),
        *(("inpainting",) if not _inpainted(comparison) else ()),
        *(("composition",) if not base.kinds and not tag_rows(comparison) else ()),
        *(("frontiers", "trade-off") if not comparison.frontiers else ()),
        *(("trajectory",) if len(comparison.external) == len(comparison.arms) else ()),
        *(("external-arms",) if not comparison.external else ()),
        *(("cost",) if not any(arm.cost for arm in comparison.arms) else ()),
    }


def _inpainted(comparison: Comparison) -> list[tuple[ComparedArm, Mapping[str, Interval]]]:
    return [(arm, arm.inpainted) for arm in comparison.arms if arm.inpainted]


def _repeated_reference(comparison: Comparison) -> str:
    """What to know of a reference set some of whose images are equal; empty where all differ."""
    distinct, n = comparison.reference_distinct, comparison.reference_n
    if distinct is None or distinct == n:
        return ""
    return (
        f"Only {count(distinct)} of {count(n)} real images differ: an image’s neighbours are its copies, so that "
        "precision, recall and coverage fall."
    )


def _detectable(comparison: Comparison) -> list[str]:
    """From what size on this many images would settle a question in four of five studies, by the median arm."""
    primary = comparison.spaces[0]
    sizes = {
        key: sorted(own.spaces[primary.name].detectable[key] for _, own in comparison.guided)
        for key in ("shift", "variety")
        if comparison.guided
    }
    middle = {key: values[len(values) // 2] for key, values in sizes.items()}
    if not middle:
        return []
    unit = primary.floor.shift.value
    return [
        f"With this many images, four of five studies would settle a shift of {number(middle['shift'] / unit, 2)} "
        f"floors and a change of recall of {number(middle['variety'], 2)} in {primary.name}, for "
        "the middle one of the arms."
    ]


def _equal_strength(comparison: Comparison) -> str:
    """The shift at which methods are compared; empty where fewer than two reach it."""
    levels = [level for _, level, _ in equal_strength(comparison)]
    return number(levels[0], 2) if len(levels) > 1 else ""


def report(study: Study, root: Path = Path(), gallery_bytes: int = GALLERY_BYTES) -> str:
    """The report of the study in `root` as one self-contained HTML page.

    The gallery has at most `gallery_bytes` base64 characters of images. Raises InputError.
    """
    compared = load_comparison(root / COMPARISON, study)
    names = [arm.arm for arm in compared.arms]
    directions = direction_by_noise(
        root / TRACES, [arm.arm for arm, _ in compared.guided if arm.arm not in compared.external]
    )
    tasks = read_tasks(root / SAMPLED_TASKS)
    said = image_labels(tasks, read_labels(root / TASK_LABELS))
    extractor = study.features.spaces[0].extractor
    rows = image_rows(compared, root / SETS, root / FEATURES, extractor)
    parameters_of_arms = arm_parameters(study, compared)
    shown = gallery(
        compared, root / SETS, root / SCORES, root / FEATURES, extractor, said, parameters_of_arms, gallery_bytes
    )
    recorded = trajectories(root / TRAJECTORIES, root / SETS, names)
    provenance = {
        "scorers": scorer_digests(compared, root),
        "seeds": seeds(study),
        "reference": study.reference.title,
        "caution": study.caution,
        "parameters": parameters(study),
        "commit": commit(root),
        "networks": networks(study, rows.canvas),
        "alone": measured_alone(study),
    }
    readers = {name for name, extractor in study.features.extractors.items() if extractor.kind.reads_prompts}
    sampled = Counter(task.arm for task in tasks if task.batch == "random" and task.repeat_of is None)
    people = People(load_rates(root / RATES), sampled, len(read_pairs(root / SAMPLED_PAIRS)))
    return render(compared, rows, shown, recorded, directions, people, readers, names_by_arm(study), provenance)
