"""A visit to the report in Debian's Chromium."""

from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, Request


class Visit:
    """The page in the browser, and whatever it said, asked for or fetched on the way."""

    def __init__(
        self,
        browser: Browser,
        path: Path,
        colour_scheme: str = "light",
        size: tuple[int, int] = (1360, 900),
        fragment: str = "",
    ):
        self.page: Page = browser.new_page(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if colour_scheme == "dark" else "light",
        )
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.messages.append(f"alert {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._asked)
        self.page.goto(f"{path.as_uri()}{fragment}")

    def unfold(self) -> None:
        """Open all that lies folded under "All numbers"."""
        self.page.evaluate("document.querySelectorAll('details.part').forEach((part) => { part.open = true; })")

    def _said(self, message: ConsoleMessage) -> None:
        self.messages.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.requests.append(request.url)


def show_plot(page: Page, name: str) -> None:
    """Bring a plot into view, near which it is drawn, out of the part in which it may be folded."""
    page.locator(f"#plot-{name}").evaluate("place => { (place.closest('details') ?? {}).open = true; }")
    page.locator(f"#plot-{name}").scroll_into_view_if_needed()
    page.locator(f"#plot-{name} .main-svg").first.wait_for()
