"""The whole walk as a person takes it: JupyterLab in a real browser, by its menus, on a real rehearsal.

The tests are steps of one walk, in this order; after one that failed the rest is left out.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

from gpurunbook import processes
from tests.browser import evil, hands, lab
from tests.browser.conftest import FAILED
from tests.browser.watch import HEIGHT, WIDTH, Tally, Watch
from tests.e2e.conftest import REPOSITORY, Checkout, make_checkout

pytestmark = pytest.mark.e2e
PACE = '"0.03"'
"""Slow enough for waits to be seen, fast enough for CI."""
START, START_S = "start.look(", 1.0
"""The cell of 00 that shows how far the run has come, and the most seconds until it is seen."""
LONGEST_ERROR = 6
"""Lines: the kind and what failed, where, next; a long one of these may hold a line break."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    folder = tmp_path_factory.mktemp("browser")
    made = make_checkout(folder)
    made = replace(made, root=made.root.rename(folder / "gpurunbook"))  # pictures are looked at: a short path, as a person's
    shutil.copytree(REPOSITORY / "tools" / "lab", made.root / "tools" / "lab")
    yield made
    for run in {p.run for p in processes.of_runs() if p.run and p.run.is_relative_to(made.root)}:
        made("teardown", "--run-id", run.name)


@pytest.fixture(scope="module")
def server(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    with lab.started(checkout, tmp_path_factory.mktemp("jupyter") / "own") as made:
        yield made


@pytest.fixture(scope="module")
def watch(browser: Browser, server: lab.Lab, pictures: Path, tally: Tally) -> Iterator[Watch]:
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    yield Watch.of(context, pictures, tally)
    context.close()


@pytest.fixture
def page(watch: Watch, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The one page of the walk. A step that fails leaves a picture, and what the console said."""
    if request.session.stash.get(FAILED, False):
        pytest.skip("an earlier step of the walk failed")
    yield watch.page
    if request.node.stash[FAILED]:
        request.session.stash[FAILED] = True
        watch.picture(f"failed-{request.node.name}")
        print(f"see {watch.folder}", *watch.console, sep="\n")


def test_an_empty_notebook_logs_no_error_and_asks_nobody_else(page: Page, watch: Watch, server: lab.Lab) -> None:
    book = write(server, "empty.ipynb", "1")
    page.goto(server.page(book))
    hands.ready(page, book)
    hands.run_all(page)
    assert watch.console == []
    assert watch.foreign() == []
    expect(page.locator(".Toastify__toast")).to_have_count(0)
    assert any(url.startswith("ws://127.0.0.1:") for url in watch.asked)


def test_the_start_notebook_shows_its_table_at_once(page: Page, watch: Watch, server: lab.Lab) -> None:
    hands.follow(page, server.book("00_start.ipynb"))
    hands.cell(page, START).click()
    hands.begin(page, "Run", "Run All Above Selected Cell")
    hands.end(page)
    watch.tally.start_s = hands.seconds_to_table(page, START)
    assert watch.tally.start_s <= START_S
    hands.run_all(page)
    ended(page, watch, "00_start.ipynb")


def test_preflight(page: Page, watch: Watch, server: lab.Lab) -> None:
    to_the_end(page, watch, server, "01_preflight.ipynb")


def test_provision_shows_what_it_waits_for(page: Page, watch: Watch, server: lab.Lab) -> None:
    hands.follow(page, server.book("02_provision.ipynb"))
    hands.write(page, 'pace = "instant"', f"pace = {PACE}")
    hands.begin(page, "Run", "Run All Cells")
    live = page.locator(f"{hands.PANEL} .jp-OutputArea-output", has_text=re.compile("… .*: [0-9]+ s")).first
    expect(live).to_be_attached()
    watch.picture("02-while-it-waits", live)
    hands.end(page)
    ended(page, watch, "02_provision.ipynb")


@pytest.mark.parametrize("name", ["03_nodes.ipynb", "04_taint.ipynb", "05_gpu_operator.ipynb"])
def test_nodes_taint_and_operator(page: Page, watch: Watch, server: lab.Lab, name: str) -> None:
    to_the_end(page, watch, server, name)


def test_a_kernel_restarted_in_the_middle_goes_on(page: Page, watch: Watch, server: lab.Lab) -> None:
    hands.follow(page, server.book("06_model.ipynb"))
    middle = hands.cell(page, "model.wait(run)")
    middle.click()
    hands.begin(page, "Run", "Run All Above Selected Cell")
    hands.end(page)
    hands.begin(page, "Kernel", "Restart Kernel and Run up to Selected Cell…", dialog=True)
    hands.end(page)
    assert "[ ]:" in page.evaluate(f"() => {hands.PROMPTS}")
    middle.click()
    hands.begin(page, "Run", "Run Selected Cell and All Below")
    hands.end(page)
    ended(page, watch, "06_model.ipynb")


def test_a_wrong_parameter_says_what_where_and_next(page: Page, watch: Watch, server: lab.Lab) -> None:
    hands.follow(page, server.book("07_next_token.ipynb"))
    hands.write(page, "top = 10", "top = 0")
    hands.run_all(page)
    said = hands.error(page)
    assert short(said), said
    assert "parameter top is 0" in said
    watch.picture("07-wrong-parameter", page.locator(f"{hands.PANEL} {hands.RED}"))
    hands.write(page, "top = 0", "top = 10")
    hands.begin(page, "Kernel", "Restart Kernel and Run All Cells…", dialog=True)
    hands.end(page)
    ended(page, watch, "07_next_token.ipynb")
    explore(page)


def test_a_long_cell_can_be_interrupted_and_run_again(page: Page, watch: Watch, server: lab.Lab) -> None:
    hands.follow(page, server.book("08_latency.ipynb"))
    measuring = hands.cell(page, "next_token.measure")
    hands.begin(page, "Run", "Run All Cells")
    expect(measuring.locator(".jp-OutputArea-output").first).to_contain_text(re.compile("[0-9]+ s"), timeout=hands.RUN_MS)
    watch.picture("08-while-it-measures", measuring)
    hands.menu(page, "Kernel", "Interrupt Kernel")
    hands.end(page)
    said = hands.error(page)
    assert short(said), said
    assert "interrupted" in said
    watch.picture("08-interrupted")
    hands.write(page, "repetitions = 100", "repetitions = 20")
    hands.run_all(page)
    ended(page, watch, "08_latency.ipynb")


def test_the_start_notebook_shows_where_the_walk_is(page: Page, watch: Watch, server: lab.Lab) -> None:
    hands.follow(page, server.book("00_start.ipynb"))
    seconds = hands.seconds_to_table(page, START)
    watch.tally.start_s = max(seconds, watch.tally.start_s or 0)
    assert seconds <= START_S
    table = hands.cell(page, START).locator(".jp-OutputArea-output table")
    expect(table.locator("tr", has_text="08 latency")).to_contain_text("done")
    expect(table.locator("tr", has_text="09 teardown")).to_contain_text("here")
    watch.picture("00-before-teardown", table)


def test_what_a_pod_prints_is_text_for_the_browser(page: Page, watch: Watch, server: lab.Lab) -> None:
    hands.follow(page, write(server, "evil.ipynb", *evil.CELLS))
    hands.run_all(page)
    assert "<img src=x onerror" in hands.error(page)
    assert page.locator(hands.PANEL).get_by_text("<img src=x").count() >= 5
    assert page.locator(evil.HURT).count() == 0
    assert page.evaluate("() => window.hurt") is None
    watch.whole("evil")


def test_teardown_leaves_nothing(page: Page, watch: Watch, server: lab.Lab) -> None:
    to_the_end(page, watch, server, "09_teardown.ipynb")
    left = [p for p in processes.of_runs() if p.run and p.run.is_relative_to(server.checkout.root)]
    assert not left
    assert str(server.checkout.root) not in Path("/proc/mounts").read_text()
    assert Path(REPOSITORY / "runs").resolve() != (server.checkout.root / "runs").resolve()


def test_no_error_in_the_console_and_no_other_host(page: Page, watch: Watch, server: lab.Lab) -> None:
    watch.tally.console_errors, watch.tally.foreign_requests = len(watch.ours()), len(watch.foreign())
    assert watch.ours() == []
    assert watch.foreign() == []


def write(server: lab.Lab, name: str, *cells: str) -> Path:
    """A notebook of our own beside the others."""
    kernel = {"name": "python3", "display_name": "Python 3"}
    book = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)], metadata={"kernelspec": kernel})
    path = server.book(name)
    nbformat.write(book, path)
    return path


def to_the_end(page: Page, watch: Watch, server: lab.Lab, name: str) -> None:
    hands.follow(page, server.book(name))
    hands.run_all(page)
    ended(page, watch, name)


def ended(page: Page, watch: Watch, name: str) -> None:
    """This notebook came to its end: nothing is red, every cell has run, and the last one shows its checks."""
    assert hands.red(page) == []
    prompts = page.evaluate(f"() => {hands.PROMPTS}")
    assert all(re.fullmatch(r"\[[0-9]+\]:", prompt) for prompt in prompts), prompts
    if not name.startswith("00"):
        expect(hands.cell(page, "run.verify(").locator(".jp-OutputArea-output table")).to_have_count(1)
    watch.whole(name.removesuffix(".ipynb"))
    watch.tally.notebooks = (watch.tally.notebooks or 0) + 1


def explore(page: Page) -> None:
    """The temperature's slider, moved by the keyboard, changes the first token's share at once."""
    sliders = hands.cell(page, "explore.sliders(").locator(".jp-OutputArea")
    share = sliders.get_by_text(re.compile(r"^[0-9.]+%$")).first
    before = share.inner_text()
    sliders.locator(".noUi-handle").first.press("Home")
    expect(share).not_to_have_text(before)


def short(error: str) -> bool:
    """Whether an error says what, where and next in a few lines, without a traceback."""
    return len(error.splitlines()) <= LONGEST_ERROR and "Traceback" not in error and "where: " in error and "next: " in error
