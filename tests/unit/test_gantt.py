"""The report's Gantt chart: bars and the overlap, from journal records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gpurunbook.plots import rungs
from gpurunbook.readiness.rungs import RUNGS, Ladder, NodeLadder, Step
from gpurunbook.report.gantt import Gantt, Overlap, gantt

ZERO = datetime(2026, 11, 22, 12, tzinfo=UTC)
HELM = ["/bin/helm", "upgrade", "--install", "gpu-operator", "nvidia/gpu-operator"]
ASK = ["/bin/kubectl", "exec", "pod", "--", "python", "main.py", "--prompt=x"]


def at(seconds: float) -> str:
    return (ZERO + timedelta(seconds=seconds)).isoformat()


def walk(pulling: float = 12, pulled: float = 40) -> list[dict[str, Any]]:
    """Nodes Ready at 10; operator 20 to 60; the answer 70 to 78; the notebooks 02, 05, 07."""
    def r(when: float, kind: str, **more: Any) -> dict[str, Any]:
        return {"time": at(when), "kind": kind, **more}
    return [
        r(0, "notebook", stage="provision", state="started"),
        r(10, "wait", stage="provision", what="all nodes Ready", blocker=""),
        r(11, "notebook", stage="provision", state="ended", seconds=11),
        r(18, "notebook", stage="gpu_operator", state="started"),
        r(20, "intent", stage="gpu_operator", id="h", argv=HELM, why="install"),
        r(22, "result", id="h", code=0),
        r(30, "wait", stage="gpu_operator", what="GPU nodes reach: GPU allocatable", blocker="driver"),
        r(60, "wait", stage="gpu_operator", what="GPU nodes reach: GPU allocatable", blocker=""),
        r(61, "notebook", stage="gpu_operator", state="ended", seconds=43),
        r(62, "pull", stage="model", node="ip-1.eu.internal", image="i", began=at(pulling), ended=at(pulled)),
        r(69, "notebook", stage="next_token", state="started"),
        r(70, "intent", stage="next_token", id="a", argv=ASK, why="ask"),
        r(78, "result", id="a", code=0),
        r(79, "notebook", stage="next_token", state="ended", seconds=10),
    ]


def drawn(records: list[dict[str, Any]]) -> Gantt:
    found = gantt(iter(records))  # a journal hands its records out once
    assert found is not None
    return found


def test_bars_are_in_order_of_time_and_start_at_zero() -> None:
    found = drawn(walk())
    assert [(b.label, b.kind, b.began, b.seconds) for b in found.bars] == [
        ("02 provision", "stage", 0, 11), ("image pull on ip-1", "pull", 12, 28), ("05 gpu operator", "stage", 18, 43),
        ("operator, until a GPU is allocatable", "operator", 20, 40), ("07 next token", "stage", 69, 10),
        ("model loads and answers", "answer", 70, 8)]
    assert found.seconds == 79


@pytest.mark.parametrize(("pulling", "pulled", "serial"), [(12, 40, 68 + 20), (12, 18, 68), (25, 90, 68 + 35), (70, 75, 68)])
def test_one_after_the_other_adds_what_was_done_at_once(pulling: float, pulled: float, serial: float) -> None:
    overlap = drawn(walk(pulling, pulled)).overlap
    assert overlap is not None
    assert (overlap.wall, overlap.serial) == (68, serial)
    assert overlap.ratio == 68 / serial
    assert overlap.saved == (serial > 68)
    assert not Overlap(16.0, 16.07).saved, "it would be told as a ratio of 1.00"


def test_no_overlap_without_a_pull_and_nothing_without_a_stage() -> None:
    assert drawn([r for r in walk() if r["kind"] != "pull"]).overlap is None
    assert gantt([r for r in walk() if r["kind"] != "notebook"]) is None


def test_a_failed_exec_is_no_answer() -> None:
    records = walk()
    next(r for r in records if r.get("id") == "a" and r["kind"] == "result")["code"] = 1
    assert drawn(records).overlap is None


def test_a_stage_that_ran_again_is_drawn_as_it_ran_last() -> None:
    again = [{"time": at(100), "kind": "notebook", "stage": "provision", "state": "started"},
             {"time": at(103), "kind": "notebook", "stage": "provision", "state": "ended", "seconds": 3}]
    bars = [b for b in drawn(walk() + again).bars if b.label == "02 provision"]
    assert [(b.began + 12, b.seconds) for b in bars] == [(100, 3)]  # the first bar left is the pull, at 12


def test_rungs_are_drawn_in_time_and_say_what_is_not_known(tmp_path: Path) -> None:
    steps = tuple(Step(name, "done", since and ZERO + timedelta(seconds=since)) for name, since in
                  [("joined", 1), ("ready", 3), ("initialized", None), ("driver", 130), ("allocatable", 133)])
    figure = rungs(Ladder((NodeLadder("n1", steps), NodeLadder("n0", steps[:2]))), footer="f", path=tmp_path / "r.png")
    assert figure.alt == "Time per rung: node Ready 2.0 s; driver 2 min 7 s; GPU allocatable 3.0 s."
    words = [t.get_text() for t in figure.findobj() if hasattr(t, "get_text")]
    assert "n1, the slowest of 2 GPU nodes" in words
    assert any("not timed: cloud controller done" in w for w in words)
    assert (tmp_path / "r.png").stat().st_size > 5000


def test_no_word_of_a_chart_of_rungs_is_cut_off() -> None:
    untold = tuple(Step(rung.name, "done", ZERO if rung.name in ("joined", "exec") else None) for rung in RUNGS)
    figure = rungs(Ladder((NodeLadder("n", untold),), (), (("exec", ZERO),)), footer="f")
    figure.png()
    label = figure.axes[0].xaxis.label.get_window_extent()
    assert figure.bbox.x0 < label.x0 < label.x1 < figure.bbox.x1
    [footer] = [text for text in figure.texts if text.get_text() == "f"]
    assert label.y0 > footer.get_window_extent().y1


def test_a_ladder_without_nodes_can_be_drawn() -> None:
    assert rungs(Ladder(()), footer="f").png()


def test_a_command_that_took_long_is_a_row_below_its_stage_with_what_is_usual() -> None:
    records = [r | {"usual": [3, 6]} if r.get("id") == "h" and r["kind"] == "intent" else r for r in walk()]
    next(r for r in records if r.get("id") == "h" and r["kind"] == "result")["time"] = at(30)
    bars = {b.label: b for b in drawn(records).bars}
    assert (bars["install"].kind, bars["install"].seconds, bars["install"].usual) == ("step", 10, (3, 6))
    assert bars["05 gpu operator"].usual == (3, 6), "a stage takes what its commands take"
    assert "ask" not in bars, "the answer is a row already"


def test_a_stage_without_an_end_is_drawn_to_the_journals_and_says_so() -> None:
    records = [r for r in walk() if r["time"] < at(61)]
    bars = {b.label: b for b in drawn(records).bars}
    assert (bars["05 gpu operator"].began, bars["05 gpu operator"].seconds, bars["05 gpu operator"].open) == (18, 42, True)
    assert not bars["02 provision"].open


def test_stages_that_no_papermill_ran_are_drawn_too() -> None:
    records = [r | {"kind": "stage", "state": "done" if r["state"] == "ended" else "started"} if r["kind"] == "notebook" else r
               for r in walk()]
    assert [(b.label, b.began, b.seconds) for b in drawn(records).bars if b.kind == "stage"] == [
        ("02 provision", 0, 11), ("05 gpu operator", 18, 43), ("07 next token", 69, 10)]


def test_hours_between_two_walks_are_cut_and_told() -> None:
    later = 7200
    again = [{"time": at(79 + later), "kind": "notebook", "stage": "teardown", "state": "started"},
             {"time": at(89 + later), "kind": "notebook", "stage": "teardown", "state": "ended", "seconds": 10}]
    found = drawn(walk() + again)
    assert later - 10 < found.cut < later
    assert found.seconds == pytest.approx(89 + later - found.cut)
    assert found.bars[-1].label == "09 teardown"
    assert found.bars[-1].seconds == 10
    assert found.bars[-1].began == pytest.approx(found.seconds - 10)


def moved(records: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    return [r | {key: (datetime.fromisoformat(r[key]) + timedelta(seconds=seconds)).isoformat()
                 for key in ("time", "began", "ended") if isinstance(r.get(key), str)} for r in records]


def only(records: list[dict[str, Any]], *stages: str) -> list[dict[str, Any]]:
    ids = {r.get("id") for r in records if r.get("stage") in stages} - {None}
    return [r for r in records if r.get("stage") in stages or r.get("id") in ids]


def test_no_overlap_is_told_of_parts_of_two_walks() -> None:
    again = moved(walk(), 1000)
    assert drawn(walk() + only(again, "provision")).overlap is None, "nodes walked again after the answer"
    assert drawn(walk() + only(again, "provision", "next_token")).overlap is None, "the operator is the first walk's"
    both = drawn(walk() + again).overlap
    assert both is not None
    assert both.wall == pytest.approx(68)


def test_of_several_answers_of_the_last_walk_the_first_counts() -> None:
    later = [r | {"id": "a2"} for r in moved([r for r in walk() if r.get("id") == "a"], 9)]
    overlap = drawn([*walk()[:-1], *later, moved(walk()[-1:], 9)[0]]).overlap
    assert overlap is not None
    assert overlap.wall == 68
