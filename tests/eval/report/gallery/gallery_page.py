"""What tests of the gallery look at in its page."""

from playwright.sync_api import Locator, Page


def seeds(page: Page) -> list[int]:
    """The seeds of the rows, from top to bottom, as numbers of their pairs."""
    names = page.locator("#gallery-table tbody th b").all_inner_texts()
    return [int(name.removeprefix("seed ")) - 100 for name in names]


def heads(page: Page) -> list[str]:
    """The heads of the columns, without that of the rows."""
    return page.locator("#gallery-table thead th").all_inner_texts()[1:]


def row_heads(page: Page) -> list[str]:
    return page.locator("#gallery-table tbody th b").all_inner_texts()


def cell(page: Page, row: int, column: int) -> Locator:
    return page.locator(f'#gallery-table button[data-row="{row}"][data-column="{column}"]')


def source(page: Page, row: int, column: int) -> str:
    return cell(page, row, column).locator("> img").get_attribute("src") or ""


def is_focused(locator: Locator) -> bool:
    return bool(locator.evaluate("element => element === document.activeElement"))


def choose(page: Page, **values: str) -> None:
    for name, value in values.items():
        field = page.locator(f"#gallery-filters [name={name}]")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def fragment(page: Page) -> str:
    return str(page.evaluate("location.hash"))


def wait_for_fragment(page: Page, expected: str) -> None:
    """Typing and walking reach the address once they rest."""
    page.wait_for_function("expected => location.hash === expected", arg=expected)
