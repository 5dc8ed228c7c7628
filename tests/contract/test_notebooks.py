"""The rules for notebooks: they read as a lesson, start clean, and hide nothing."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest

from gpurunbook import stages

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
SAME_EVERYWHERE = {"run_id": "", "target": "rehearsal", "cluster_file": "cluster.yaml"}
MAX_LINES = 5

Cell = dict[str, Any]
PAGES = (stages.START, *stages.NAMES)
CHANGES = ("provision", "taint", "gpu_operator", "model", "teardown")
"""Stages whose plans change objects in the cluster."""
BOX = ("**You will**", "**Takes**", "**Costs**", "**Simulated** on rehearsal:", "**Undo**:")
every = pytest.mark.parametrize("stage", stages.NAMES)
each = pytest.mark.parametrize("stage", PAGES)


def cells(stage: str, kind: str = "") -> list[Cell]:
    found = json.loads((FOLDER / stages.notebook(stage)).read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if kind in ("", cell["cell_type"])]


def source(cell: Cell) -> str:
    return "".join(cell["source"])


def is_parameters(cell: Cell) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def test_there_is_one_notebook_for_each_stage_and_one_before_them() -> None:
    assert sorted(p.name for p in FOLDER.iterdir() if not p.name.startswith(".") and p.name != "ONBOARDING.md") == [
        f"{number:02d}_{name}.ipynb" for number, name in enumerate(PAGES)]
    assert len(stages.NAMES) == 9
    assert stages.START not in stages.NAMES, "it is no stage: the walk does not run it"
    assert all((ROOT / "gpurunbook" / "stages" / f"{name}.py").is_file() for name in stages.NAMES)


@each
def test_the_file_is_valid_and_stripped(stage: str) -> None:
    book = nbformat.read(FOLDER / stages.notebook(stage), as_version=nbformat.NO_CONVERT)  # type: ignore[no-untyped-call]
    nbformat.validate(book)
    assert (book.nbformat, book.nbformat_minor) >= (4, 5)
    assert book.metadata.kernelspec.name == "python3"
    assert set(book.metadata) <= {"kernelspec", "language_info"}
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert set(cell.metadata) <= {"tags"}


def test_cell_ids_are_there_and_unique_over_all_notebooks() -> None:
    ids = [cell["id"] for stage in PAGES for cell in cells(stage)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", one) for one in ids)


@each
def test_it_opens_with_a_title_and_a_box(stage: str) -> None:
    """Goals, time, cost, what is simulated and how to undo it: each a paragraph of one blockquote, in this order."""
    first = cells(stage)[0]
    assert first["cell_type"] == "markdown"
    title, box = re.fullmatch(r"(# .*)\n\n((?:>.*\n?)+)(?:\n.*)*", source(first)).groups()  # type: ignore[union-attr]
    assert re.match(rf"# {PAGES.index(stage):02d} [A-Z]", title)
    paragraphs = box.strip().split("\n>\n")
    assert [next((word for word in BOX if p.startswith(f"> {word} ")), p) for p in paragraphs] == list(BOX)


@each
def test_it_is_a_lesson_without_its_outputs(stage: str) -> None:
    """Text leads to each step, and says why it matters."""
    prose = "\n".join(source(cell) for cell in cells(stage, "markdown"))
    assert len(prose.split()) > 120
    assert stage not in CHANGES or "**Why it matters**:" in prose
    in_a_row = [len(list(group)) for kind, group in groupby(cells(stage), lambda cell: cell["cell_type"]) if kind == "code"]
    assert max(in_a_row) <= 4


@each
def test_parameters_are_one_cell_of_literals_with_the_same_defaults_everywhere(stage: str) -> None:
    code = cells(stage, "code")
    assert [is_parameters(cell) for cell in code] == [True] + [False] * (len(code) - 1)
    statements = ast.parse(source(code[0])).body
    found = {}
    for statement in statements:
        assert isinstance(statement, ast.Assign)
        [name] = statement.targets
        assert isinstance(name, ast.Name)
        found[name.id] = ast.literal_eval(statement.value)
    assert SAME_EVERYWHERE.items() <= found.items()
    assert all(type(value) in (str, int, float, bool) for value in found.values())


def test_a_parameter_of_two_notebooks_has_one_default() -> None:
    seen: dict[str, set[str]] = {}
    for stage in PAGES:
        for statement in ast.parse(source(cells(stage, "code")[0])).body:
            assert isinstance(statement, ast.Assign)
            seen.setdefault(ast.unparse(statement.targets[0]), set()).add(ast.unparse(statement.value))
    assert {name: values for name, values in seen.items() if len(values) > 1} == {}


@every
def test_imports_are_one_cell_right_after_the_parameters(stage: str) -> None:
    """Only charts come later: matplotlib takes longest to import and is needed last."""
    code = cells(stage, "code")
    with_imports = [i for i, cell in enumerate(code)
                    if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(ast.parse(source(cell))))]
    assert with_imports[0] == 1
    assert all(isinstance(node, ast.ImportFrom) for node in ast.parse(source(code[1])).body)
    assert all("import plots\n" in source(code[i]) for i in with_imports[1:])
    assert len(with_imports) == (2 if stage in ("gpu_operator", "next_token", "latency") else 1)


@every
def test_it_opens_the_run_in_its_own_stage(stage: str) -> None:
    opening = source(cells(stage, "code")[2])
    assert opening.startswith(
        f'run = open_run("{stage}", run_id=run_id, target=target, cluster_file=cluster_file)')


@every
def test_it_ends_its_code_by_verifying(stage: str) -> None:
    assert source(cells(stage, "code")[-1]).startswith(
        "run.verify(checks)" if stage == "preflight" else f"run.verify({stage}.verify(run")


@each
def test_cells_are_short_plain_python(stage: str) -> None:
    for cell in cells(stage, "code"):
        text = source(cell)
        if not is_parameters(cell):
            assert len(text.splitlines()) <= MAX_LINES, text
        ast.parse(text)
        assert not re.search(r"^\s*[!%]", text, re.MULTILINE)
        assert not re.search(r"\b(input|exec|eval|sleep|system|getpass)\(", text)
        assert "subprocess" not in text


@every
def test_a_plan_is_shown_before_it_is_applied(stage: str) -> None:
    """Act, then look: the cell before `apply` shows the plan it applies."""
    code = [source(cell) for cell in cells(stage, "code")]
    for before, now in pairwise(code):
        if now.startswith("run.apply("):
            assert before.splitlines()[-1] == "plan"


@each
def test_it_ends_with_a_question_its_answer_in_a_fold_and_what_is_next(stage: str) -> None:
    last = cells(stage)[-1]
    assert last["cell_type"] == "markdown"
    found = re.fullmatch(r"\*\*Check yourself\*\*: .+?\n\n<details><summary>Answer</summary>\n\n.+?\n\n</details>\n\n"
                         r"\*\*Next\*\*: (.+)", source(last), re.DOTALL)
    assert found, source(last)
    links = re.findall(r"\[(\d\d) [^\]]+\]\(([^)]+)\)", found[1])
    following = dict(pairwise(PAGES)).get(stage)
    ahead = [(f"{PAGES.index(following):02d}", stages.notebook(following))] if following else []
    assert links == ahead + ([("00", "00_start.ipynb")] if stage != stages.START else [])


def test_the_start_page_only_looks() -> None:
    """It opens no run, calls nothing but gpurunbook.start, and its state is the first thing that it shows."""
    code = [source(cell) for cell in cells(stages.START, "code")]
    assert code[1] == "from gpurunbook import start"
    assert code[2] == "here = start.look(run_id=run_id, target=target, cluster_file=cluster_file)\nhere"
    assert all(re.fullmatch(r"here\.\w+|start\.\w+\(\)", text) for text in code[3:])
    assert "run.verify" not in "".join(code)


@each
def test_links_lead_somewhere(stage: str) -> None:
    for cell in cells(stage, "markdown"):
        for target in re.findall(r"\]\(([^)]+)\)", source(cell)):
            assert (FOLDER / target).exists() or target.startswith("https://"), target


def test_the_code_of_all_cells_passes_ruff() -> None:
    ran = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", str(FOLDER)],
                         capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_stage_asks_which_target_it_runs_on() -> None:
    """What differs between targets is behind Target."""
    for path in (ROOT / "gpurunbook" / "stages").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                assert "target.name" not in ast.unparse(node), f"{path.name}:{node.lineno}"
                assert not {"'rehearsal'", "'eks'", "'existing'"} & set(re.findall(r"'\w+'", ast.unparse(node))), path.name
