"""Notebook 00: it reads a run's folder, writes nothing, and is there at once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gpurunbook import runs, stages, start
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.processes import Process

ROOT = Path(__file__).parents[2]
DEAD = {"pid": 2**22 + 1, "started": 1.0}
PAINTED = 1.0
"""Seconds from the cell's beginning to the table, imports included."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "manifests").mkdir()
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copy(ROOT / "cluster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def begin(root: Path, name: str, *done: str) -> Journal:
    """A run in which these stages are done."""
    journal = Journal(runs.resolve(root, "rehearsal", root / "cluster.yaml", name, start=True))
    for stage in done:
        journal.append("stage", stage=stage, state="started", process=DEAD)
        journal.append("stage", stage=stage, state="done")
    return journal


def states(**options: Any) -> dict[str, str]:
    return {step.stage: step.state for step in start.look(**options).steps if step.state}


def files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_before_any_run_it_says_where_to_begin_and_writes_nothing(root: Path) -> None:
    before = files(root)
    here = start.look()
    assert "no run of target rehearsal yet" in repr(here)
    assert repr(here.next).splitlines() == ["Next: 01 preflight: see what is needed, before it costs anything",
                                            "  open 01_preflight.ipynb"]
    assert "nothing that is paid for" in repr(here.cost)
    assert "none yet" in repr(start.others())
    assert "?" not in repr(start.others())
    assert all(f"href='{stages.notebook(stage)}'" in here._repr_html_() for stage in stages.NAMES)
    assert files(root) == before


def test_a_run_is_told_from_its_journal_alone(root: Path) -> None:
    journal = begin(root, "one", "preflight", "provision")
    (journal.folder / "report.html").touch()
    before = files(root)
    here = start.look()
    assert here.info is not None
    assert here.info.id == "one"
    assert states() == {"preflight": "done", "provision": "done"}
    assert here.at is not None
    assert here.at.stage == "nodes"
    assert "href='../runs/one/report.html'" in here.next._repr_html_()
    assert "2 of 9 done" in here.title
    assert "never torn down" in here.title
    assert repr(here).endswith(repr(here.next)), "one cell, so that what is next is never of another time"
    assert here._repr_html_().endswith(here.next._repr_html_())
    assert files(root) == before


def test_a_failed_stage_shows_its_three_answers_and_comes_first(root: Path) -> None:
    journal = begin(root, "one", "preflight", "provision", "nodes")
    journal.append("stage", stage="taint", state="started", process=DEAD)
    journal.append("error", stage="taint", type="RunbookError", error="what failed\n  where: there\n  next:  type this")
    journal.append("stage", stage="taint", state="failed")
    here = start.look()
    assert here.at == here.steps[3]
    assert [line.strip() for line in repr(here.next).splitlines()[:4]] == [
        "Next: 04 taint, once more: it failed", "what failed", "where: there", "next:  type this"]
    journal.append("error", stage="taint", type="KeyError", error="'precision'")
    journal.append("stage", stage="taint", state="failed")
    assert "KeyError: 'precision'" in repr(start.look().next)


def test_a_stage_that_failed_comes_before_what_is_done_after_it(root: Path) -> None:
    journal = begin(root, "one", "preflight", "provision", "nodes")
    journal.append("stage", stage="provision", state="started", process=DEAD)
    journal.append("stage", stage="provision", state="failed")
    assert start.look().at == start.look().steps[1]


def test_a_stage_that_nobody_is_at_was_stopped_and_one_with_a_live_kernel_is_open(root: Path) -> None:
    journal = begin(root, "one", "preflight")
    journal.append("stage", stage="provision", state="started", process=DEAD)
    assert states()["provision"] == "stopped"
    assert "Run All Cells" in repr(start.look().next)
    journal.append("stage", stage="provision", state="started", process=Process.of(os.getppid()).key)
    assert states()["provision"] == "open"
    assert "perhaps yours: go on there" in repr(start.look().next)


def test_after_the_teardown_it_is_over_until_something_is_begun_again(root: Path) -> None:
    journal = begin(root, "one", *stages.NAMES)
    journal.append("run", state="finished")
    assert start.look().at is None
    assert "begin another with 01" in repr(start.look().next)
    begin(root, "one", "preflight")
    assert states() == {"preflight": "done"}


def test_the_run_that_is_named_is_shown_and_one_that_is_not_there_is_said(root: Path) -> None:
    begin(root, "one", "preflight")
    begin(root, "two")
    assert states(run_id="one", target="eks") == {"preflight": "done"}
    assert start.look(run_id="one", target="eks").target == "rehearsal"
    with pytest.raises(RunbookError, match="there is no run three"):
        start.look(run_id="three")
    with pytest.raises(ConfigError):
        start.look(run_id="../x")
    with pytest.raises(ConfigError):
        start.look(target="nowhere")
    assert [row[0] for row in start.others().rows] == ["two", "one"]
    for number in range(start.MOST_RUNS):
        begin(root, f"r{number}")
    assert [row[0] for row in start.others().rows] == [f"r{number}" for number in reversed(range(start.MOST_RUNS))]
    assert "the newest 10 of 12 runs" in repr(start.others())


def test_a_drill_is_no_walk_and_is_told_only_by_its_name(root: Path) -> None:
    drill = begin(root, "drill-fern", "provision", "taint")
    drill.append("drill", seed=1)
    drill.append("run", state="kept")
    assert "no run of target rehearsal yet but a drill" in start.look().title
    assert 'run_id="drill-fern"' in start.look().title
    assert states() == {}
    here = start.look(run_id="drill-fern")
    assert here.at is None
    assert here.title == "run drill-fern · REHEARSAL · a drill, and no walk: one thing in it was broken on purpose"
    for command in ("gpu", "drill check", "drill hint", "teardown"):
        assert f"gpurunbook {command} --run-id drill-fern" in repr(here.next)
    assert "here" not in here._repr_html_().partition("</table>")[0].replace("where", "")
    begin(root, "walk", "preflight")
    assert start.look().info == runs.read(root / "runs" / "walk")
    assert [row[3] for row in start.others().rows] == ["dead", "drill"]
    drill.append("run", state="finished")
    assert "torn down" in start.look(run_id="drill-fern").title
    assert "gpurunbook drill check" not in repr(start.look(run_id="drill-fern").next)


def test_text_of_an_error_is_escaped(root: Path) -> None:
    journal = begin(root, "one")
    journal.append("stage", stage="preflight", state="started", process=DEAD)
    journal.append("error", stage="preflight", type="X", error="<script>\x1b[31m")
    journal.append("stage", stage="preflight", state="failed")
    page = start.look().next._repr_html_()
    assert "<script>" not in page
    assert "\x1b" not in page + repr(start.look().next)


def test_every_stage_is_described() -> None:
    assert tuple(start.WHAT) == stages.NAMES


def painted(folder: Path) -> float:
    """Seconds that the start page's first two cells take in a fresh kernel, to the moment its table comes."""
    from jupyter_client.manager import start_new_kernel
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(folder), extra_arguments=["--log-level=ERROR"])
    try:
        total = 0.0
        for cell in ("from gpurunbook import start", "start.look()"):
            asked, began = client.execute(cell), 0.0
            while True:
                message = client.get_iopub_msg(timeout=60)
                if message["parent_header"].get("msg_id") != asked:
                    continue
                assert message["msg_type"] != "error", message["content"]
                if message["msg_type"] == "execute_input":
                    began = time.monotonic()
                over = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
                if over or message["msg_type"] == "execute_result":
                    total += time.monotonic() - began
                    if over or "text/html" in message["content"]["data"]:
                        break
        return total
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_table_is_painted_within_a_second(root: Path) -> None:
    begin(root, "one", *stages.NAMES[:7])
    seconds = sorted(painted(root / "notebooks") for _ in range(3))
    print(f"painted after {seconds[0]:.2f} to {seconds[-1]:.2f} s")
    assert seconds[1] < PAINTED, seconds
