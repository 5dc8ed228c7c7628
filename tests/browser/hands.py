"""What a person does in JupyterLab: menus, dialogs, links, the keyboard; and what is seen there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

OPEN_MS, RUN_MS, SOON_MS = 60_000, 150_000, 30_000
expect.set_options(timeout=SOON_MS)
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
PROMPTS = f"Array.from(document.querySelectorAll('{PANEL} .jp-CodeCell .jp-InputArea-prompt'), p => p.textContent.trim())"
BEGUN = f"before => {PROMPTS}.includes('[*]:') || {PROMPTS}.join() != before"
ENDED = f"() => !{PROMPTS}.includes('[*]:') && {PROMPTS}.some(p => /[0-9]/.test(p))"
RED = "[data-mime-type='application/vnd.jupyter.stderr']"
"""What JupyterLab paints red: errors, and all that is written to stderr."""


def cells(page: Page) -> Locator:
    """The code cells of the notebook in front, those out of sight too."""
    return page.locator(f"{PANEL} .jp-CodeCell")


def menu(page: Page, *items: str) -> None:
    """`Run > Run All Cells`: click through the menu bar."""
    bar, *rest = items
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{bar}$")).click()
    for item in rest:
        entry = page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{re.escape(item)}$")).last
        entry.hover() if item != rest[-1] else entry.click()


def accept(page: Page) -> None:
    """Click the dialog's main button."""
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    expect(page.locator(".jp-Dialog")).to_have_count(0)


def ready(page: Page, book: Path) -> None:
    """Wait until this notebook is in front, with all its cells, and its kernel idle: a menu clicked before does nothing."""
    expect(page.locator(".lm-DockPanel-tabBar .lm-mod-current .lm-TabBar-tabLabel")).to_have_text(book.name, timeout=OPEN_MS)
    code = [cell for cell in json.loads(book.read_text())["cells"] if cell["cell_type"] == "code"]
    expect(cells(page)).to_have_count(len(code), timeout=OPEN_MS)
    expect(page.locator(f"{PANEL} .jp-KernelName")).to_have_text("Python 3 (ipykernel)", timeout=OPEN_MS)
    expect(page.locator(f"{PANEL} .jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle", timeout=OPEN_MS)


def follow(page: Page, book: Path) -> None:
    """Click the notebook's own link to the next one, where it has one, else open it by its path."""
    link = page.locator(f"{PANEL} .jp-MarkdownCell a[href*='{book.name}']").last
    if link.count():
        link.click()
    else:
        menu(page, "File", "Open from Path…")
        page.locator(".jp-Dialog input").fill(f"notebooks/{book.name}")
        accept(page)
    ready(page, book)


def begin(page: Page, *items: str, dialog: bool = False) -> None:
    """Start cells by the menu, and wait until one is at work, or was."""
    before = page.evaluate(f"() => {PROMPTS}.join()")
    menu(page, *items)
    if dialog:
        accept(page)
    page.wait_for_function(BEGUN, arg=before, timeout=SOON_MS)


def end(page: Page) -> None:
    """Wait until no cell is at work any more."""
    page.wait_for_function(ENDED, timeout=RUN_MS)


def run_all(page: Page) -> None:
    """Run > Run All Cells, to the end."""
    begin(page, "Run", "Run All Cells")
    end(page)


def red(page: Page) -> list[str]:
    """What is painted red in the notebook in front."""
    return [text.strip() for text in page.locator(f"{PANEL} {RED}").all_text_contents()]


def error(page: Page) -> str:
    """The one error that is to be seen."""
    shown = page.locator(f"{PANEL} {RED}")
    expect(shown).to_have_count(1)
    return str(shown.text_content()).strip()


def cell(page: Page, code: str) -> Locator:
    """The code cell with this in its source."""
    found = cells(page).filter(has=page.locator(".cm-content", has_text=code))
    expect(found).to_have_count(1)
    return found


def write(page: Page, old: str, new: str) -> None:
    """Type over a line of a code cell."""
    editor = cell(page, old).locator(".cm-content")
    lines = editor.locator(".cm-line").all_text_contents()
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("\n".join(line.replace(old, new) for line in lines))
    cell(page, new)
    page.keyboard.press("Escape")


def theme(page: Page, name: str) -> None:
    """Settings > Theme > JupyterLab Light or Dark."""
    menu(page, "Settings", "Theme", f"JupyterLab {name}")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", f"JupyterLab {name}")


PAINTED = """cell => {
    window.painted = null;
    let began = null;
    const look = () => {
        const at = performance.now();
        if (began === null && cell.querySelector('.jp-InputArea-prompt').textContent.trim() == '[*]:') began = at;
        if (began !== null && cell.querySelector('.jp-OutputArea-output table'))
            requestAnimationFrame(() => { window.painted = (performance.now() - began) / 1000; });
        else requestAnimationFrame(look);
    };
    look();
}"""
"""Looks at each frame: seconds from a cell's `[*]` to the frame after the one with a table below it."""


def seconds_to_table(page: Page, code: str) -> float:
    """Run one cell by the menu. Returns the seconds from its start until a table is painted below it."""
    chosen = cell(page, code)
    chosen.click()
    menu(page, "Edit", "Clear Cell Output")
    expect(chosen.locator(".jp-OutputArea-output")).to_have_count(0)
    chosen.evaluate(PAINTED)
    menu(page, "Run", "Run Selected Cell and Do not Advance")
    return float(page.wait_for_function("() => window.painted", timeout=SOON_MS).json_value())
