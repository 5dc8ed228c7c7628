"""Whether the watch sees what the walk must not do: on a page that does all of it."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from tests.browser.evil import HURT, MARKUP
from tests.browser.watch import Tally, Watch

ELSEWHERE = "http://192.0.2.1:9/pixel.png"
"""An address that nobody has (RFC 5737)."""


def test_a_page_that_errs_and_asks_another_host_is_seen(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context()
    context.route(ELSEWHERE, lambda route: route.abort())
    watch = Watch.of(context, tmp_path, Tally())
    watch.page.set_content(f"<script>console.error('ours'); setTimeout(() => {{ throw Error('not caught') }})</script>"
                           f"<img src='{ELSEWHERE}'><script>new WebSocket('ws://192.0.2.1:9/')</script>")
    watch.page.wait_for_function("() => document.images[0].complete")
    assert sorted(watch.foreign()) == [ELSEWHERE, "ws://192.0.2.1:9/"]  # the browser asks both at once
    assert any("ours" in said for said in watch.ours())
    assert any("not caught" in said for said in watch.ours())
    context.close()


def test_markup_that_is_not_escaped_is_seen(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(MARKUP)
    page.wait_for_function("() => window.hurt == 1")
    assert page.locator(HURT).count() == 2
    page.close()
