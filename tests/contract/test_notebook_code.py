"""shipped.json holds the notebooks as they are, and a change of code is found, said, and refused where that is the rule."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpurunbook import notebooks, stages, targets
from gpurunbook.errors import ConfigError
from gpurunbook.journal import Journal
from gpurunbook.report import page as report
from gpurunbook.walk import refuse_modified

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def edit(root: Path, stage: str, change: Any) -> None:
    """Apply `change` to the list of the notebook's code cells."""
    path = notebooks.path(root, stage)
    book = json.loads(path.read_text())
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    change(code)
    book["cells"] = code
    path.write_text(json.dumps(book))


@pytest.mark.parametrize("stage", [stages.START, *stages.NAMES])
def test_the_kept_hashes_are_those_of_the_notebooks(stage: str) -> None:
    assert notebooks.code(ROOT, stage).modified == "", "python -m gpurunbook.notebooks writes them again"
    cells = [cell for cell in json.loads(notebooks.path(ROOT, stage).read_text())["cells"] if cell["cell_type"] == "code"]
    literal = ["parameters" in cell["metadata"].get("tags", []) for cell in cells if notebooks.literals("".join(cell["source"]))]
    assert literal == [True], "a cell of literals counts by names and types, so only the parameters may be one"


def source(cell: dict[str, Any], text: str) -> None:
    cell["source"] = text.splitlines(keepends=True)


@pytest.mark.parametrize(("change", "said"), [
    (lambda code: source(code[2], "".join(code[2]["source"]) + "\nimport os"), "code cell 3 of 12 changed"),
    (lambda code: code.append({"cell_type": "code", "source": "print(1)", "metadata": {}}), "code cell 13 of 13 changed"),
    (lambda code: source(code[0], "".join(code[0]["source"]) + "\nimport os"), "code cell 1 of 12 changed"),
    (lambda code: source(code[0], "run_id = __import__('os').getcwd()"), "code cell 1 of 12 changed"),
    (lambda code: code.pop(3), "1 code cells are gone"),
    (lambda code: code.insert(3, code.pop(4)), "in another order"),
    (lambda code: code.append(code[6]), "in another order"),
    (lambda code: code.insert(4, {"cell_type": "code", "source": "plan = 1", "metadata": {}}), "code cell 5 of 13 changed"),
    (lambda code: code.append({"cell_type": "code", "source": "", "metadata": {}}), "code cell 13 of 13 changed"),
    (lambda code: code.insert(2, {"cell_type": "code", "source": "import os", "metadata": {"tags": ["injected-parameters"]}}),
     "code cell 3 of 13 changed"),
], ids=["a line more", "a cell more", "code in the parameters", "a call in the parameters", "a cell less", "order", "twice",
        "a literal", "an empty cell", "dressed as papermill's"])
def test_changed_code_is_found(checkout: Path, change: Any, said: str) -> None:
    edit(checkout, "taint", change)
    assert said in notebooks.code(checkout, "taint").modified
    assert notebooks.code(checkout, "taint").sha256 != notebooks.code(ROOT, "taint").sha256


@pytest.mark.parametrize("change", [
    lambda code: source(code[0], "".join(code[0]["source"]).replace('run_id = ""', 'run_id = "mine"')),
    lambda code: code.insert(1, {"cell_type": "code", "source": "top = 3", "metadata": {"tags": ["injected-parameters"]}}),
    lambda code: code[4].update(outputs=[{"output_type": "stream"}], execution_count=7),
], ids=["another value", "papermill's own cell", "outputs"])
def test_what_a_person_chooses_is_no_change_of_code(checkout: Path, change: Any) -> None:
    edit(checkout, "taint", change)
    assert notebooks.code(checkout, "taint") == notebooks.code(ROOT, "taint")


def test_only_eks_refuses_a_changed_notebook_unless_it_is_allowed(checkout: Path) -> None:
    assert {name: targets.get(name).only_shipped for name in targets.NAMES} == {
        "rehearsal": False, "eks": True, "existing": False}
    edit(checkout, "taint", lambda code: source(code[3], "found = None"))
    refuse_modified(checkout, "rehearsal", stages.NAMES, allowed=False)
    refuse_modified(checkout, "existing", stages.NAMES, allowed=False)
    refuse_modified(checkout, "eks", stages.NAMES, allowed=True)
    refuse_modified(checkout, "eks", ("preflight", "teardown"), allowed=False)
    with pytest.raises(ConfigError) as caught:
        refuse_modified(checkout, "eks", stages.NAMES, allowed=False)
    assert caught.value.what == "notebooks/04_taint.ipynb is not the shipped one: code cell 4 of 12 changed"
    assert "gpurunbook init . --force" in caught.value.next
    assert "gpurunbook run --target eks --from preflight -p allow_modified=true" in caught.value.next


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 1}', '{"cells": [{"cell_type": "code"}]}', "<<<<<<< HEAD",
                                  "[" * 10**5])
def test_a_notebook_that_is_none_is_said(checkout: Path, text: str) -> None:
    notebooks.path(checkout, "nodes").write_text(text)
    with pytest.raises(ConfigError, match=r"03_nodes\.ipynb is no notebook"):
        notebooks.code(checkout, "nodes")


@pytest.mark.parametrize("dress", [{"nbformat": 3}, {"nbformat": "4"}, {"worksheets": [{"cells": []}]}])
def test_a_notebook_of_another_format_is_none(checkout: Path, dress: dict[str, Any]) -> None:
    """Other cells than the ones that were looked at would be run."""
    path = notebooks.path(checkout, "taint")
    path.write_text(json.dumps(json.loads(path.read_text()) | dress))
    with pytest.raises(ConfigError, match="is no notebook"):
        notebooks.code(checkout, "taint")


def test_the_report_says_modified(tmp_path: Path) -> None:
    (tmp_path / "by-hand").mkdir()
    journal = Journal(tmp_path / "by-hand")
    journal.append("run", state="started", target="rehearsal", cluster_file="x")
    for stage, modified in (("nodes", ""), ("taint", "code cell 4 of 12 changed")):
        journal.append("notebook", stage=stage, state="started", modified=modified)
        journal.append("stage", stage=stage, state="started")
    journal.append("stage", stage="model", state="started")
    journal.append("cell", stage="model", state="modified", source="1 + 1")
    told = {story.name: story.modified for story in report.stories(list(journal.records()))}
    assert (told["nodes"], told["taint"]) == ("", "code cell 4 of 12 changed")
    assert told["model"] == "a cell was run that is not a shipped one"
    page = report.write(tmp_path / "by-hand").read_text()
    assert page.count("this notebook is not the shipped one: ") == 2
    assert "code cell 4 of 12 changed" in page
