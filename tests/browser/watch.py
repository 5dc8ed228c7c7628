"""What a page did that nobody sees: its console, the hosts it asked; and pictures of what everybody sees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page

from tests.browser import hands

OURS = re.compile(r"(https?|wss?)://127\.0\.0\.1[:/]|(data|blob|about):")
"""The one host that a page may ask; the other three stay inside the browser."""
JUPYTERLABS_OWN: Mapping[str, str] = {}
"""Errors that JupyterLab logs on an empty notebook too (pattern -> reason). There are none."""
WIDTH, HEIGHT, TALLEST = 1280, 900, 12_000
SETTLED = """panel => new Promise(done => {
    panel.scrollTop = 0;
    requestAnimationFrame(() => requestAnimationFrame(done));
})"""
"""From its top, and painted."""


@dataclass
class Tally:
    """What `make e2e-browser` says at its end; None is what was not asked."""

    notebooks: int | None = None
    screenshots: int = 0
    console_errors: int | None = None
    foreign_requests: int | None = None
    violations: int | None = None
    start_s: float | None = None

    def __str__(self) -> str:
        said = {"notebooks run": self.notebooks, "screenshots taken": self.screenshots, "console errors": self.console_errors,
                "foreign requests": self.foreign_requests, "a11y violations": self.violations}
        start = [f"the start notebook's table after {self.start_s:.2f} s"] if self.start_s is not None else []
        return ", ".join([*(f"{'not asked:' if n is None else n} {what}" for what, n in said.items()), *start])


@dataclass
class Watch:
    """A page under watch.

    Attributes:
        console: errors in the console and uncaught ones, with their place.
        asked: every address, of web sockets too.
        folder: where pictures go.
    """

    page: Page
    folder: Path
    tally: Tally
    console: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, context: BrowserContext, folder: Path, tally: Tally) -> Watch:
        made = cls(context.new_page(), folder, tally)
        context.on("request", lambda request: made.asked.append(request.url))
        context.on("console", made._hear)
        context.on("weberror", lambda error: made.console.append(f"uncaught: {error.error}"))
        made.page.on("websocket", lambda socket: made.asked.append(socket.url))
        return made

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console.append(f"{message.text[:500]} at {message.location.get('url', '')}")

    def ours(self) -> list[str]:
        """Errors that JupyterLab does not log by itself."""
        return [said for said in self.console if not any(re.search(own, said) for own in JUPYTERLABS_OWN)]

    def foreign(self) -> list[str]:
        """Addresses on another host."""
        return [url for url in self.asked if not OURS.match(url)]

    def picture(self, name: str, of: Locator | None = None) -> None:
        """What is on the screen now, with this in its middle."""
        if of:
            of.evaluate("seen => seen.scrollIntoView({block: 'center'})")
        self.page.screenshot(path=self.folder / f"{name}.png")
        self.tally.screenshots += 1

    def whole(self, name: str) -> None:
        """The whole notebook in front, in the light theme and in the dark one."""
        self.page.keyboard.press("Escape")
        for theme in ("Dark", "Light"):
            hands.theme(self.page, theme)
            panel = self.page.locator(f"{hands.PANEL} .jp-WindowedPanel-outer")
            for _ in range(2):  # what was out of sight is as high as JupyterLab guessed, until it is seen
                high = panel.evaluate("panel => { panel.scrollTop = 0; return panel.scrollHeight; }")
                self.page.set_viewport_size({"width": WIDTH, "height": min(high + 120, TALLEST)})
            panel.evaluate(SETTLED)
            self.picture(f"{name}-{theme.lower()}")
            self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
