"""Keeps results as a page with images: `python -m docs.results <study> [<folder>]` writes one part of docs/results.md.

The study is one of PARTS, and the folder a copy of the project where it has run (default: this one). The figures are
the report's own, as Chromium shows them; the numbers are those of metrics/compare.json.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from docs.browser import opened_chromium
from docs.learned_rows import cosines_with_guide, learned_rows, nearest_to_real
from docs.markdown import markdown_templates
from docs.method_findings import against_controls, paid_for_colour, unlike_their_controls
from docs.written_block import replaced
from eval.features.plain_text import names_by_arm
from eval.notation import percent, quoted
from eval.report.details import matched_columns, matched_rows
from eval.report.feature_spaces import space_tables
from eval.report.named_concepts import concept_sentences
from pipeline.errors import InputError, run_stage
from pipeline.layout import PARAMS, REPORT
from pipeline.results.comparison import COMPARISON, Alignment, Comparison, load_comparison
from pipeline.results.floor import floor_between
from pipeline.storage.files import write_atomically
from pipeline.study.study import Study, load_study

PAGE = Path("docs/results.md")
IMAGES = Path("docs/results")
# What the page shows of the report, by the id of the element, and what a reader sees there.
FIGURES = {
    "alignment": "Cosine between the directions away from every two references, along unguided trajectories",
    "action": "Where in the schedule each reference acts: its direction's norm relative to the main prediction",
    "frontier-precision": "Precision against recall over each method's scales",
    "frontier-fd": "Fréchet distance to real images against CLIP score",
    "frontier-quality": "Aesthetic score against the shift from unguided",
    "shift": "Drift against spread change of every arm",
}

PAIRS = (("negative", "guide"), ("negative", "empty"), ("empty", "guide"))


def cosines(alignment: Alignment) -> list[str]:
    """The cosines of `PAIRS` along one arm's trajectories."""
    found = {frozenset(pair.references): pair.cosine for pair in alignment.pairs}
    return [quoted(found[frozenset(pair)]) for pair in PAIRS]


def photograph(browser: Browser, report: Path, images: Path) -> None:
    """Save the report's figures as images. Raises InputError for a report without one of them."""
    images.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
    page.goto(report.resolve().as_uri())
    for name in FIGURES:
        plot = page.locator(f"#plot-{name}")
        if plot.count() == 0:
            raise InputError(f"{report} has no figure '{name}'; the study needs probes and at least two scales")
        plot.evaluate("place => { (place.closest('details') ?? {}).open = true; }")
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
        plot.screenshot(path=images / f"{name}.png")
    page.close()


def method_rows(comparison: Comparison) -> list[list[str]]:
    """A row for every method at its chosen scale: what it costs, what it is in terms of CFG, and what it does.

    Differences are arm minus unguided, and arm minus control where there is one.
    """
    removed = {one.arm: one for one in comparison.adherence}
    rows = []
    for one in comparison.chosen:
        arm = comparison.by_name(one.arm)
        pairs = [
            cell
            for name in ("fd", "recall", "vendi")
            for cell in (
                quoted(one.against_baseline[name], signed=True),
                quoted(one.against_control[name], signed=True) if one.against_control else "",
            )
        ]
        rows.append(
            [
                one.arm,
                f"{one.scale:g}",
                f"{arm.cost.nfe_per_image:g}" if arm.cost else "",
                quoted(arm.effective.scale) if arm.effective else "",
                percent(arm.effective.elsewhere.value) if arm.effective else "",
                quoted(one.fd),
                *pairs,
                quoted(removed[one.arm].obeyed, signed=True) if one.arm in removed else "",
            ]
        )
    return rows


def of_sweep(comparison: Comparison, study: Study) -> dict[str, Any]:
    return {
        "comparison": comparison,
        "figures": FIGURES,
        "floor_between": floor_between(comparison),
        "tables": space_tables(comparison),
        "sentences": concept_sentences(comparison, names_by_arm(study)),
        "matched_columns": matched_columns(comparison),
        "matched_rows": matched_rows(comparison),
    }


def of_alignment(comparison: Comparison, study: Study) -> dict[str, Any]:
    return {"aligned": comparison, "cosines": cosines}


def of_methods(comparison: Comparison, study: Study) -> dict[str, Any]:
    retouched = [name for name, arm in study.arms.items() if arm.retouch]
    return {
        "methods": comparison,
        "method_rows": method_rows(comparison),
        "controlled": [
            *against_controls(comparison.chosen, retouched),
            *unlike_their_controls(study, comparison),
        ],
        "coloured": paid_for_colour(comparison, retouched),
    }


def of_learned_negative(comparison: Comparison, study: Study) -> dict[str, Any]:
    return {
        "learned": comparison,
        "nearest_to_real": nearest_to_real(comparison),
        "learned_rows": learned_rows(comparison),
        "cosines_with_guide": cosines_with_guide(comparison),
    }


# The parts of the page, by study: what a part's template (docs/results/<study>.md.j2) is told.
PARTS: dict[str, Callable[[Comparison, Study], dict[str, Any]]] = {
    "sweep": of_sweep,
    "alignment": of_alignment,
    "methods": of_methods,
    "learned_negative": of_learned_negative,
}


def command_of(part: str) -> str:
    """The command that writes a part of the page."""
    return f"python -m docs.results {part}"


def written(part: str, comparison: Comparison, study: Study) -> str:
    """A part of the page. Raises InputError for the results of another study."""
    if study.name != part:
        raise InputError(f"{PARAMS} holds study '{study.name}', not '{part}'; name the folder where that one has run")
    template = markdown_templates(IMAGES).get_template(f"{part}.md.j2")
    return template.render(PARTS[part](comparison, study), quoted=quoted).rstrip("\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.results", description=__doc__)
    parser.add_argument("study", choices=PARTS, help="the part of the page")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="a copy of the project where it has run")
    arguments = parser.parse_args()
    part, folder = arguments.study, arguments.folder
    study = load_study(folder / PARAMS)
    comparison = load_comparison(folder / COMPARISON, study)
    block = written(part, comparison, study)
    page = replaced(PAGE.read_text("utf-8"), PAGE, command_of(part), block)
    if part == "sweep":
        with opened_chromium() as browser:
            photograph(browser, folder / REPORT, IMAGES)
    write_atomically(PAGE, page.encode())
    print(f"{PAGE}: {len(comparison.arms)} arms of study '{comparison.study}'")


if __name__ == "__main__":
    run_stage(main)
