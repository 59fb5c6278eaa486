"""The report in Debian's Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from report_browser import Visit
from report_study import Inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A study that no test changes."""
    return Inputs(tmp_path_factory.mktemp("project"))


@pytest.fixture
def own_inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)


@pytest.fixture(scope="session")
def page_file(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "index.html"
    path.write_text(inputs.report(), "utf-8")
    return path


@pytest.fixture
def visit(browser: Browser, page_file: Path) -> Iterator[Visit]:
    """The page; afterwards that it was silent and fetched nothing, whatever was done with it."""
    visit = Visit(browser, page_file)
    visit.unfold()
    yield visit
    visit.page.close()
    assert visit.messages == [], "the page is silent, whatever was done with it"
    assert visit.requests == [page_file.as_uri()], "the page fetches nothing but itself"
