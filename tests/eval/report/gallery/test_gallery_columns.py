"""Columns are shown, hidden and moved: by keyboard, by mouse, and from the list above the table."""

from gallery_page import heads, is_focused, source
from playwright.sync_api import Locator, Page
from report_browser import Visit
from report_numbers import ARMS

UNGUIDED, CFG, NEGATIVE = ARMS


def head(page: Page, arm: str) -> Locator:
    return page.locator("#gallery-table thead").get_by_role("button", name=arm, exact=True)


def head_cell(page: Page, arm: str) -> Locator:
    return page.locator("#gallery-table thead th", has=page.get_by_role("button", name=arm, exact=True))


def test_shift_and_an_arrow_key_move_a_column_and_its_images(visit: Visit) -> None:
    page = visit.page
    before = [source(page, 0, column) for column in range(3)]
    head(page, UNGUIDED).focus()
    page.keyboard.press("Shift+ArrowRight")
    assert heads(page) == [CFG, UNGUIDED, NEGATIVE]
    assert is_focused(head(page, UNGUIDED)), "the focus goes with the column"
    assert [source(page, 0, column) for column in range(3)] == [before[1], before[0], before[2]]
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert heads(page) == [CFG, NEGATIVE, UNGUIDED], "the last place is the end"
    page.keyboard.press("Shift+ArrowLeft")
    assert heads(page) == [CFG, UNGUIDED, NEGATIVE]


def test_arrow_keys_walk_along_the_heads_and_delete_hides_all_columns_but_one(visit: Visit) -> None:
    page = visit.page
    assert page.locator('#gallery-table thead button[tabindex="0"]').count() == 1, "the Tab key stops once"
    head(page, UNGUIDED).focus()
    page.keyboard.press("ArrowRight")
    assert is_focused(head(page, CFG))
    page.keyboard.press("Delete")
    assert heads(page) == [UNGUIDED, NEGATIVE]
    assert is_focused(head(page, NEGATIVE))
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")
    assert heads(page) == [UNGUIDED], "one column stays"


def test_a_head_is_dragged_to_the_other_side_of_another(visit: Visit) -> None:
    page = visit.page
    target = head_cell(page, NEGATIVE)
    box = target.bounding_box()
    assert box is not None
    head_cell(page, UNGUIDED).drag_to(target, target_position={"x": box["width"] - 4, "y": box["height"] / 2})
    assert heads(page) == [CFG, NEGATIVE, UNGUIDED]
    head_cell(page, UNGUIDED).drag_to(head_cell(page, CFG), target_position={"x": 4, "y": 10})
    assert heads(page) == [UNGUIDED, CFG, NEGATIVE]
    assert page.locator("[data-drop]").count() == 0


def test_the_list_of_columns_hides_moves_and_says_what_it_did(visit: Visit) -> None:
    page = visit.page
    panel = page.locator("#gallery-columns")
    panel.locator("summary").focus()
    page.keyboard.press("Enter")
    panel.get_by_label(CFG, exact=True).focus()
    page.keyboard.press("Space")
    assert heads(page) == [UNGUIDED, NEGATIVE]
    assert panel.locator("summary").inner_text() == "Columns (2 of 3)"
    assert panel.locator("[role=status]").inner_text() == "cfg_3 is hidden."
    move = panel.get_by_role("button", name="Move negative_long left")
    move.focus()
    page.keyboard.press("Enter")
    assert heads(page) == [NEGATIVE, UNGUIDED]
    assert is_focused(panel.get_by_role("button", name="Move negative_long left")), "it can be pressed again"
    assert panel.locator("[role=status]").inner_text() == "negative_long is column 1 of 2."
    panel.get_by_role("button", name="Show all").click()
    assert heads(page) == list(ARMS)


def test_a_row_that_only_a_hidden_arm_kept_goes_with_it(visit: Visit) -> None:
    page = visit.page
    page.locator("#gallery-filters [name=label]").select_option("legit_human")
    assert page.locator("#gallery-table tbody th").count() == 1, "an image of cfg_3"
    head(page, CFG).focus()
    page.keyboard.press("Delete")
    assert page.locator("#gallery-table tbody th").count() == 0
