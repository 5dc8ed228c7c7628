"""A notebook whose code is not the shipped one is known for it, however the change is dressed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpurunbook import notebooks
from gpurunbook.errors import ConfigError

ROOT = Path(__file__).parents[2]
STAGE = "taint"
HOSTILE = "import os; os.system('id')"


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    file = notebooks.path(tmp_path, STAGE)
    book = json.loads(file.read_text())
    change(book)
    file.write_text(json.dumps(book))
    return tmp_path


def cell(source: str, *tags: str) -> dict[str, Any]:
    return {"cell_type": "code", "id": "x", "source": source, "outputs": [], "execution_count": None,
            "metadata": {"tags": list(tags)}}


def code_cells(book: dict[str, Any], tag: str = "") -> list[dict[str, Any]]:
    return [c for c in book["cells"] if c["cell_type"] == "code" and (not tag or tag in c["metadata"].get("tags", []))]


@pytest.mark.parametrize(("change", "modified"), [
    (lambda book: None, False),
    (lambda book: book["cells"].append(cell("")), True),
    (lambda book: book["cells"].insert(2, cell("prompt = 'x'", "injected-parameters")), False),
    (lambda book: book["cells"].insert(2, cell(HOSTILE, "injected-parameters")), True),
    (lambda book: book["cells"].append(cell(HOSTILE)), True),
    (lambda book: book["cells"].remove(code_cells(book)[-1]), True),
    (lambda book: book["cells"].reverse(), True),
    (lambda book: code_cells(book, "parameters")[0]["source"].append(f"\n{HOSTILE}"), True),
], ids=["none", "an empty cell", "papermill's", "dressed as papermill's", "one more", "one less", "another order", "parameters"])
def test_what_counts_as_modified(tmp_path: Path, change: Callable[[dict[str, Any]], object], modified: bool) -> None:
    assert bool(notebooks.code(changed(tmp_path, change), STAGE).modified) == modified


@pytest.mark.parametrize("dress", [{"nbformat": 3}, {"worksheets": [{"cells": [cell(HOSTILE)]}]}, {"nbformat": "4"}])
def test_a_notebook_of_another_format_is_none(tmp_path: Path, dress: dict[str, Any]) -> None:
    """Other cells than the ones that were looked at would be run."""
    with pytest.raises(ConfigError, match="is no notebook"):
        notebooks.code(changed(tmp_path, lambda book: book.update(dress)), STAGE)
