"""The report page: sections rendered from templates into one self-contained HTML file.

The page needs no network: plotly.js and the pictures are inside it. Prompts and descriptions are untrusted text,
so the templates escape everything; only plotly.js itself is inserted as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from eval.notation import quoted
from eval.report.details import MATCHED_COLUMNS, composition_rows, cost_rows, matched_rows, shift_details
from eval.report.figures import (
    action_figure,
    alignment_figure,
    calibration_figure,
    direction_by_noise,
    direction_figure,
    frontier_figure,
    precision_recall_figure,
    shift_figure,
)
from eval.report.gallery import GalleryRow, gallery
from eval.report.labels import VERDICT_LABELS, agreement_lines, difference_rows, rate_rows, strength_lines
from eval.report.tables import SHIFT_COLUMNS, score_columns, table
from pipeline.comparison import Comparison, load_comparison
from pipeline.rates import VERDICTS, Rates, load_rates
from pipeline.study import Study


@dataclass(frozen=True)
class Section:
    """A section of the page: `templates/sections/<anchor>.html.j2`, and its title in the navigation."""

    anchor: str
    title: str


# In the order of the page. A section that shows something new gets its own template here, its own module beside this
# one, and its own argument in `render`.
SECTIONS = (
    Section("findings", "Findings"),
    Section("alignment", "Alignment"),
    Section("frontiers", "Frontiers"),
    Section("arms", "Arms"),
    Section("plots", "Plots"),
    Section("against-baseline", "Against the baseline"),
    Section("distribution-shift", "Shift"),
    Section("composition", "Composition"),
    Section("cost", "Cost"),
    Section("labels", "What people see"),
    Section("gallery", "Gallery"),
)

ALIGNMENT_FIGURES = {"alignment": alignment_figure, "action": action_figure}


def render(
    comparison: Comparison, rows: Sequence[GalleryRow], directions: dict[str, list[tuple[float, float]]], rates: Rates
) -> str:
    """The page as HTML; the same input gives the same page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    columns = score_columns(comparison.by_name(comparison.baseline).scores)
    # A baseline alone has nothing to be compared with.
    hidden = set() if comparison.guided else {"against-baseline", "frontiers"}
    # Without probes or several terms no two references were evaluated side by side.
    hidden |= set() if comparison.alignment else {"alignment"}
    hidden |= set() if any(arm.cost for arm in comparison.arms) else {"cost"}
    # Jinja's tojson writes <, >, & and ' as \uXXXX, so no text can end the script element.
    return environment.get_template("page.html.j2").render(
        comparison=comparison,
        sections=[section for section in SECTIONS if section.anchor not in hidden],
        score_columns=columns,
        score_rows=table([(arm, arm.scores) for arm in comparison.arms], columns),
        shift_columns=SHIFT_COLUMNS,
        shift_rows=table([(arm, against.intervals) for arm, against in comparison.guided], SHIFT_COLUMNS),
        figures={
            "precision-recall": precision_recall_figure(comparison),
            "shift": shift_figure(comparison),
            "direction": direction_figure(comparison, directions),
            "calibration": calibration_figure(rates),
            "frontier-precision": frontier_figure(comparison, "recall", "precision", "recall", "precision"),
            "frontier-fd": frontier_figure(comparison, "clip_score", "fd", "CLIP score", "FD to the reference set"),
            "frontier-quality": frontier_figure(comparison, "shift", "aesthetic", "shift (FD)", "aesthetic score"),
            **{name: figure(one) for one in comparison.alignment[:1] for name, figure in ALIGNMENT_FIGURES.items()},
        },
        rates=rates,
        verdict_labels=[VERDICT_LABELS[verdict] for verdict in VERDICTS],
        label_rows=rate_rows(rates.arms),
        canvas_rows=rate_rows(rates.canvases),
        label_difference_rows=difference_rows(rates),
        agreement_lines=agreement_lines(rates),
        strength_lines=strength_lines(rates),
        matched_columns=MATCHED_COLUMNS,
        matched_rows=matched_rows(comparison),
        shift_details=shift_details(comparison),
        kinds=list(comparison.by_name(comparison.baseline).kinds),
        composition_rows=composition_rows(comparison),
        cost_rows=cost_rows(comparison),
        floor=quoted(comparison.floor.fd),
        gallery=rows,
        plotlyjs=Markup(get_plotlyjs()),
    )


def report(study: Study, comparison: Path, sets: Path, scores: Path, traces: Path, rates: Path) -> str:
    """The report of a study as one self-contained HTML page. Raises InputError."""
    compared = load_comparison(comparison, study)
    directions = direction_by_noise(traces, [arm.arm for arm, _ in compared.guided])
    return render(compared, gallery(compared, sets, scores), directions, load_rates(rates))
