"""Scale as an axis: methods by scales for one seed, seeds by scales for one method."""

from typing import Any

from gallery_page import choose, heads, row_heads, seeds, source
from report_browser import Visit
from report_numbers import ARMS, comparison

from eval.report.gallery.methods import methods
from pipeline.results.comparison import Comparison


def compared(**scales: tuple[str, float]) -> Comparison:
    """The comparison with one guided arm for each of `scales`: its name, its family and its scale."""
    content = comparison()
    baseline, guided = content["arms"][:2]
    arms: list[Any] = [baseline]
    arms += [{**guided, "arm": arm, "family": family, "scale": scale} for arm, (family, scale) in scales.items()]
    families = {frontier["family"] for frontier in content["frontiers"]}
    assert families == {"cfg", "negative"}, "both begin at the baseline"
    return Comparison(**{**content, "arms": arms, "verdicts": []})


def test_a_method_has_its_scales_in_rising_order_from_the_baseline_on() -> None:
    found = methods(compared(cfg_3=("cfg", 3), cfg_2=("cfg", 1.5), negative=("negative", 2)))
    assert found == [
        {"name": "cfg", "scales": [(1.0, 0), (1.5, 2), (3.0, 1)]},
        {"name": "negative", "scales": [(1.0, 0), (2.0, 3)]},
    ]


def test_a_method_without_the_baselines_prompts_does_not_begin_at_it() -> None:
    assert methods(compared(pure=("pure_negative", 2)))[-1] == {"name": "pure_negative", "scales": [(2.0, 1)]}


def test_two_arms_of_one_method_and_scale_are_two_rows() -> None:
    found = methods(compared(cfg_3=("cfg", 3), cfg_noised=("cfg", 3)))
    assert [method["name"] for method in found] == ["cfg", "cfg: cfg_noised"]


def test_methods_by_scale_show_one_seed(visit: Visit) -> None:
    page = visit.page
    baseline, cfg, negative = (source(page, 2, column) for column in range(3))
    choose(page, layout="scales", seed="102")
    assert row_heads(page) == ["cfg", "negative"]
    assert heads(page) == ["scale 1", "scale 3"]
    assert [source(page, row, column) for row in range(2) for column in range(2)] == [baseline, cfg, baseline, negative]
    assert page.locator("#gallery-status").inner_text() == "Seed 102: 2 methods at 2 scales."
    assert not page.locator("#gallery-filters [name=text]").is_visible(), "no filter of rows is shown without rows"
    page.locator("#gallery-table tbody button").nth(1).click()
    assert page.locator("dialog h2").inner_text() == "cfg_3, seed 102"
    page.keyboard.press("ArrowDown")
    assert page.locator("dialog h2").inner_text() == "negative_long, seed 102"
    page.keyboard.press("Escape")
    choose(page, seed="7")
    assert "Seed 7 is not in this page" in page.locator("#gallery-status").inner_text()
    assert page.locator("#gallery-table tbody img").count() == 0


def test_a_hidden_arm_is_in_no_row_of_methods(visit: Visit) -> None:
    page = visit.page
    page.locator("#gallery-columns summary").click()
    page.locator("#gallery-columns").get_by_label(ARMS[2], exact=True).click()
    choose(page, layout="scales")
    assert row_heads(page) == ["cfg", "negative"]
    assert page.locator("#gallery-table tbody img").count() == 3


def test_seeds_by_scale_show_one_method_and_keep_the_filters(visit: Visit) -> None:
    page = visit.page
    sources = [source(page, 3, column) for column in range(3)]
    choose(page, layout="method", method="negative", text="scenery")
    assert heads(page) == ["scale 1", "scale 3"]
    assert seeds(page) == [3]
    assert [source(page, 0, column) for column in range(2)] == [sources[0], sources[2]]
