"""The README keeps its promises: what it links to is there, what it tells people to type exists."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.findall(r"@[A-Z]+@|TODO|FIXME", TEXT)


LINKS = {os.path.relpath(page.parent / link, ROOT) for page in PAGES
         for link in re.findall(r"\]\((?!http)([^)#]+)\)|src(?:set)?=\"([^\"]+)\"", page.read_text()) for link in link if link}


@pytest.mark.parametrize("link", sorted(LINKS))
def test_links_lead_to_files_that_git_tracks(link: str) -> None:
    done = subprocess.run(["git", "ls-files", "--error-unmatch", link], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, link


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", TEXT, re.MULTILINE))))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.parametrize("command", sorted(set(re.findall(r"gpurunbook ([a-z]+)\b", TEXT)) - {"is"}))
def test_commands_exist(command: str) -> None:
    from typer.main import get_command

    from gpurunbook.cli import app
    assert command in get_command(app).commands  # type: ignore[attr-defined]
