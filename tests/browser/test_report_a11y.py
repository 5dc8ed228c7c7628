"""The report in a real browser: no violation that axe-core knows of, what is copied is what was typed, and it fits its window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from gpurunbook import plots, stages
from gpurunbook.readiness.rungs import Ladder, NodeLadder, Step
from gpurunbook.report import page as report
from tests.browser.watch import Tally
from tests.unit.test_report import at, each, intent, ladder, saved, stage
from tests.unit.test_walk import hand_written

ODD = "kubectl exec pod -- python -c 'print(\"a  b\")' --prompt='Long long ago, in a' " + "--more=x" * 30


def success(root: Path) -> Path:
    """All there is on a page: charts in both themes, tables, changes, folds, an error that was overcome."""
    folder = hand_written(
        root, "success", *(r for name in stages.NAMES for r in each("started", name)), stage("started", 1),
        {"kind": "error", "stage": "taint", "error": "e", "what": "w", "where": "here", "next": "do", "time": at(2)},
        intent("a", shown=ODD, argv=["/bin/kubectl", "exec"], time=at(3), usual=[1, 30]),
        {"kind": "result", "id": "a", "code": 0, "seconds": 20, "time": at(23)},
        intent("b", changes=False, time=at(4)),
        {"kind": "result", "id": "b", "code": 1, "seconds": 20, "tail": "no", "time": at(24)},
        {"kind": "changed", "stage": "taint", "rows": [["node a", "x", "y"]], "left_out": {"CRDs": "late"}, "since": ""},
        {"kind": "checks", "stage": "taint", "checks": [{"name": n, "state": n, "evidence": "e", "fix": "f"}
                                                        for n in ("pass", "warn", "unknown")]},
        *({**r, "time": at(40)} for r in each("done", *stages.NAMES)), {"kind": "run", "state": "finished", "time": at(41)})
    told, artifacts = saved(), folder / "artifacts"
    for arm in told["arms"]:
        arm["samples_ms"] = [20.0 + i % 7 for i in range(40)]
    artifacts.mkdir()
    for name, found in (("next_tokens", told), ("latency", told), ("ladder", ladder())):
        (artifacts / f"{name}.json").write_text(json.dumps(found))
    figure = plots.rungs(Ladder((NodeLadder("n", (Step("joined", "done"),)),)), footer="f")
    for name in ("top10", "spread", "latency", "rungs"):
        (artifacts / f"{name}.png").write_bytes(figure.png())
    dark = plots.rungs(Ladder((NodeLadder("n", (Step("joined", "done"),)),)), footer="f", theme="dark")
    (artifacts / "top10.dark.png").write_bytes(dark.png())
    return folder


def failure(root: Path) -> Path:
    return hand_written(
        root, "failure", *each("done", "preflight", "provision"), stage("started", 1), intent("a", shown=ODD, time=at(2)),
        {"kind": "result", "id": "a", "code": 3, "seconds": 2, "tail": "error: it said\nno", "time": at(4)}, stage("failed", 5),
        {"kind": "error", "stage": "taint", "error": "it broke", "what": "it broke", "where": "/a/" + "long/" * 60,
         "next": "look"})


def unfinished(root: Path) -> Path:
    folder = hand_written(root, "unfinished", *each("done", "preflight"), stage("started", 6), intent("a", shown=ODD, time=at(7)))
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write('{"time": "2026')  # torn
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name -> address of each report."""
    root = tmp_path_factory.mktemp("reports")
    return {make.__name__: report.write(make(root)).as_uri() for make in (success, failure, unfinished)}


def opened(browser: Browser, address: str, **how: Any) -> Page:
    page = browser.new_page(**how)
    page.goto(address)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 480])
@pytest.mark.parametrize("name", ["success", "failure", "unfinished"])
def test_axe_finds_no_violation(browser: Browser, pages: dict[str, str], tally: Tally, name: str, width: int,
                                scheme: Any) -> None:
    page = opened(browser, pages[name], viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.reload()
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    found = Axe().run(page)
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.close()
    print(f"{name} {scheme} {width}: a11y violations {found.violations_count}")
    tally.violations = (tally.violations or 0) + found.violations_count
    assert found.violations_count == 0, found.generate_report()
    assert wide <= 0, f"the page is {wide} px wider than its window"
    assert complaints == []


def test_what_is_selected_is_the_command_and_no_prompt(browser: Browser, pages: dict[str, str]) -> None:
    page = opened(browser, pages["failure"])
    copied = page.evaluate("""() => [...document.querySelectorAll('pre.typed')].filter(one => one.offsetParent).map(one => {
        getSelection().selectAllChildren(one); return getSelection().toString(); })""")
    page.close()
    assert ODD in copied
    assert copied[0] == "gpurunbook run --run-id failure"
    assert not any(one.startswith("$") for one in copied)


def test_the_page_follows_the_theme_and_prints_light_with_its_folds_open(browser: Browser, pages: dict[str, str]) -> None:
    page = opened(browser, pages["success"], color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = """() => { const it = document.querySelector('picture source').parentElement;
                     return it.querySelector('img').currentSrc === it.querySelector('source').srcset; }"""
    assert page.evaluate(paper) == "rgb(13, 17, 23)"
    assert page.evaluate(dark) is True
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.wait_for_function(f"() => !({dark})()")
    fold = page.locator("details:not(.whole) pre").first
    assert fold.evaluate("one => one.checkVisibility({contentVisibilityAuto: true}) && one.getBoundingClientRect().height > 0")
    page.close()


def test_it_prints_on_pages_of_a4(browser: Browser, pages: dict[str, str]) -> None:
    page = opened(browser, pages["success"])
    printed = page.pdf(prefer_css_page_size=True)
    page.close()
    count = printed.count(b"/Type /Page\n") or printed.count(b"/Type /Page ")
    assert b"/MediaBox [0 0 595" in printed or b"/MediaBox [0 0 594.9" in printed, "A4 is 595 by 842 points"
    assert 2 <= count <= 12
