"""Keeps results as a page with images: `python -m docs.results <sweep> <alignment> <methods> [<learned>]` writes
docs/results.md.

The arguments are copies of the project, one where `make repro OVERRIDES="study=sweep"` has run, one with
`study=alignment`, one with `study=methods` and, for its section, one with `study=learned_negative`. The figures are the
report's own, as Chromium shows them; the numbers are those of metrics/compare.json.
"""

import argparse
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from docs.browser import opened_chromium
from docs.learned_rows import cosines_with_guide, learned_rows, nearest_to_real
from docs.markdown import markdown_templates
from docs.method_findings import against_controls, paid_for_colour, unlike_their_controls
from eval.features.plain_text import names_by_arm
from eval.notation import percent, quoted
from eval.report.details import matched_columns, matched_rows
from eval.report.feature_spaces import space_tables
from eval.report.named_concepts import concept_sentences
from pipeline.errors import InputError, run_stage
from pipeline.layout import PARAMS, REPORT
from pipeline.results.comparison import COMPARISON, Alignment, Comparison, load_comparison
from pipeline.results.floor import floor_between
from pipeline.study.study import load_study

DOCS = Path("docs")
IMAGES = DOCS / "results"
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


def compared(folder: Path) -> Comparison:
    """The results of a copy of the project. Raises InputError."""
    return load_comparison(folder / COMPARISON, load_study(folder / PARAMS))


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.results", description=__doc__)
    parser.add_argument("sweep", type=Path, help="a copy of the project with a run of study=sweep")
    parser.add_argument("alignment", type=Path, help="a copy of the project with a run of study=alignment")
    parser.add_argument("methods", type=Path, help="a copy of the project with a run of study=methods")
    parser.add_argument(
        "learned", type=Path, nargs="?", help="a copy of the project with a run of study=learned_negative"
    )
    arguments = parser.parse_args()
    folder: Path = arguments.sweep
    comparison = compared(folder)
    with opened_chromium() as browser:
        photograph(browser, folder / REPORT, IMAGES)
    environment = markdown_templates(DOCS)
    methods = compared(arguments.methods)
    learned = compared(arguments.learned) if arguments.learned else None
    retouched = [name for name, arm in load_study(arguments.methods / PARAMS).arms.items() if arm.retouch]
    content: dict[str, Any] = {
        "comparison": comparison,
        "aligned": compared(arguments.alignment),
        "methods": methods,
        "method_rows": method_rows(methods),
        "controlled": [
            *against_controls(methods.chosen, retouched),
            *unlike_their_controls(load_study(arguments.methods / PARAMS), methods),
        ],
        "coloured": paid_for_colour(methods, retouched),
        "learned": learned,
        "nearest_to_real": nearest_to_real(learned) if learned else [],
        "learned_rows": learned_rows(learned) if learned else [],
        "cosines_with_guide": cosines_with_guide(learned) if learned else [],
        "cosines": cosines,
        "figures": FIGURES,
        "quoted": quoted,
        "floor_between": floor_between(comparison),
        "tables": space_tables(comparison),
        "sentences": concept_sentences(comparison, names_by_arm(load_study(folder / PARAMS))),
        "matched_columns": matched_columns(comparison),
        "matched_rows": matched_rows(comparison),
    }
    page = DOCS / "results.md"
    page.write_text(environment.get_template("results.md.j2").render(content), "utf-8")
    print(f"{page}: {len(comparison.arms)} arms of study '{comparison.study}', {len(FIGURES)} figures in {IMAGES}")


if __name__ == "__main__":
    run_stage(main)
