"""One real browser for all tests of what people look at, and the one line that they end with."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.watch import Tally

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")
"""A browser that asks nobody anything of its own accord, and runs as root in a container."""
TALLY, BEGAN = pytest.StashKey[Tally](), time.monotonic()
FAILED = pytest.StashKey[bool]()


# Not "session": while Playwright's event loop lives in this thread, no test with a loop of its own can run.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless, with a fresh profile; `CHROMIUM` names another one."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.fail("no Chromium for the tests in a browser: apt-get install chromium, or CHROMIUM=/path/to/one make test")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=[*QUIET])
        yield made
        made.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the screen go: $SCREENSHOTS, else a folder of pytest's."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """What is counted over all tests in the browser, for the line at the end."""
    return pytestconfig.stash.setdefault(TALLY, Tally())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if tally := config.stash.get(TALLY, None):
        terminalreporter.write_line(f"in the browser: {tally}, {time.monotonic() - BEGAN:.0f} s")
