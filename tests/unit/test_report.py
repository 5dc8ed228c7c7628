"""The report of a run as its journal tells it: what a person reads first, what each stage did, and that it is safe to open."""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpurunbook import plots, stages
from gpurunbook.errors import RunbookError
from gpurunbook.processes import Process
from gpurunbook.readiness.rungs import Ladder, NodeLadder, Step
from gpurunbook.report import page as report
from gpurunbook.report import pictures, rung_times
from gpurunbook.report.story import StageStory, stories
from gpurunbook.stages import answered
from tests import answer
from tests.unit.test_plan_show import HOSTILE, Tags, harmless
from tests.unit.test_walk import hand_written


def at(second: float) -> str:
    return f"2026-11-22T12:00:{second:06.3f}+00:00"


def story(*records: dict[str, Any]) -> StageStory:
    return next(s for s in stories(list(records)) if s.name == "taint")


def stage(state: str, second: float) -> dict[str, Any]:
    return {"kind": "stage", "stage": "taint", "state": state, "time": at(second)}


def notebook(seconds: float) -> dict[str, Any]:
    return {"kind": "notebook", "stage": "taint", "state": "ended", "seconds": seconds, "time": at(59)}


@pytest.mark.parametrize(("records", "outcome", "seconds"), [
    ([], "not run", 0),
    ([stage("started", 1)], "started", 0),
    ([stage("started", 1), stage("done", 3.5)], "done", 2.5),
    ([stage("started", 1), stage("failed", 2), stage("started", 10), stage("done", 14)], "done", 4),
    ([stage("started", 1), stage("done", 3), notebook(7)], "done", 7),
    ([stage("started", 1), stage("done", 3), notebook(7), stage("started", 10), stage("done", 11), notebook(2)], "done", 2),
    ([stage("started", 1), stage("failed", 3), notebook(5)], "failed", 5),
    ([stage("started", 1), notebook(5)], "started", 5),
    ([stage("started", 1), stage("done", 3), stage("failed", 4)], "failed", 3),
])
def test_a_stages_seconds_are_those_of_its_last_walk(records: list[dict[str, Any]], outcome: str, seconds: float) -> None:
    told = story(*records)
    assert told.outcome == outcome
    assert told.seconds == pytest.approx(seconds)


def intent(name: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "intent", "id": name, "stage": "taint", "argv": ["kubectl", name], "shown": f"kubectl {name}",
            "why": "because", "changes": True} | fields


def test_a_command_is_told_with_its_result_or_without_one() -> None:
    told = story(intent("a"), intent("b"), {"kind": "result", "id": "a", "code": 0, "seconds": 1.5},
                 {"kind": "result", "id": "never-begun", "code": 0})
    assert [(c["shown"], c["code"], c["error"]) for c in told.commands] == [
        ("kubectl a", 0, None), ("kubectl b", None, "no result: interrupted")]


def text_of(page: str) -> str:
    body = page.partition("<body>")[2].partition("</body>")[0]
    return " ".join(Tags(re.sub(r"</(td|th|h\d|p|pre|li|d[dt]|caption|summary|span)>|<br>", r" \g<0>", body)).text.split())


def test_the_report_tells_the_run(tmp_path: Path) -> None:
    folder = hand_written(
        tmp_path, "by-hand",
        {"kind": "program", "name": "helm", "path": "/x", "version": "4.2.4", "found": "PATH"},
        {**stage("started", 1)}, intent("taint"), {"kind": "result", "id": "taint", "code": 0, "seconds": 0.4},
        intent("slow"), {"kind": "result", "id": "slow", "code": None, "seconds": 5.0, "error": "helm was ended"},
        intent("get", changes=False),
        {"kind": "checks", "stage": "taint", "checks": [{"name": "no taint", "state": "warn", "evidence": "one node",
                                                         "fix": "type this"}]},
        {**stage("failed", 3)}, {"kind": "error", "stage": "taint", "error": "it broke"})
    page = report.write(folder)
    text = text_of(page.read_text())
    for said in ("✗ Stopped in 04 taint", "run by-hand · target rehearsal", "This was a rehearsal.", "04 taint ✗ failed",
                 "kubectl taint because: exit 0 after 0.4 s", "because: helm was ended", "1 reading command of 04 taint",
                 "! warn no taint one node mends it: type this", "it broke", "helm 4.2.4 PATH"):
        assert said in text, said
    assert "exit None" not in text
    assert page.stat().st_mode & 0o777 == 0o600


def test_the_report_opens_without_network_or_scripts(tmp_path: Path) -> None:
    page = report.write(hand_written(tmp_path, "by-hand", stage("started", 1), stage("done", 2))).read_text()
    assert page.startswith("<!doctype html>")
    assert "script" not in Tags(page.partition("\n")[2]).seen
    assert re.findall(r"<(?:link|iframe|object|embed|form|base|audio|video)\b", page) == []
    assert all(value.startswith(("data:", "#")) for value in re.findall(r'\b(?:src|href|srcset)="([^"]*)"', page))
    assert not re.search(r"@import|url\(|javascript:|\son\w+\s*=", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {f'href="#{one}"' for one in ids} <= set(re.findall(r'href="#[^"]+"', page))


def test_hostile_text_in_a_journal_stays_text(tmp_path: Path) -> None:
    folder = hand_written(
        tmp_path, "by-hand",
        {"kind": "program", "name": HOSTILE, "path": "/x", "version": HOSTILE, "found": HOSTILE},
        stage("started", 1), intent("a", shown=HOSTILE, why=HOSTILE),
        {"kind": "result", "id": "a", "code": None, "error": HOSTILE}, intent("b", shown=HOSTILE, changes=False),
        {"kind": "checks", "stage": "taint", "checks": [{"name": HOSTILE, "state": "fail", "evidence": HOSTILE,
                                                         "fix": HOSTILE}]},
        {"kind": "error", "stage": "taint", "error": HOSTILE}, stage("failed", 2),
        {"kind": "notebook", "stage": "taint", "state": "started", "modified": HOSTILE, "time": at(1)},
        {"kind": "changed", "stage": "taint", "rows": [[HOSTILE, HOSTILE, HOSTILE]], "left_out": {HOSTILE: HOSTILE}},
        *each("done", "next_token"))
    said, name = HOSTILE.replace("\ud800", ""), "<script>alert('x')</script>&\""  # UTF-8; a name is one line of plain text
    told = saved(prompt=said, versions={name: name}, model=name, revision=name, device=name)
    for arm in told["arms"]:
        arm["top"][0] |= {"text": said, "token": said}
    rungs = ladder()
    rungs["nodes"][0]["node"] = HOSTILE
    rungs["nodes"][0]["steps"][2] |= {"evidence": HOSTILE, "next": HOSTILE}
    rungs["findings"] = [dict.fromkeys(("title", "evidence", "next"), HOSTILE)]
    with_files(folder, next_tokens__json=json.dumps(told).encode(), ladder__json=json.dumps(rungs).encode(),
               top10__png=png(said, b"iTXt"))
    assert answered.tokens(folder), "the hostile answer is one that gets onto the page"
    page = report.write(folder).read_text()
    assert harmless(page)
    assert "script" not in Tags(page.partition("\n")[2]).seen
    assert page.count("&lt;script&gt;") > 10
    body = page.partition("<body>")[2]
    for part, least in ((r'<p class="answer">.*?</p>', 4), (r'<table class="changed">.*?</table>', 5), (r' alt="[^"]*"', 1),
                        (r'<b title="[^"]*"', 1), (r'id="ladder".*?id="detail"', 6), (r'id="versions".*?</main>', 7)):
        found = re.search(part, body, re.DOTALL)
        assert found, part
        assert found[0].count("&lt;script&gt;") >= least, part


@pytest.mark.parametrize("torn", ["", '{"prompt": "a', "[]", "\0"])
def test_an_artifact_torn_by_a_kill_does_not_take_the_report_with_it(tmp_path: Path, torn: str) -> None:
    folder = hand_written(tmp_path)
    (folder / "artifacts").mkdir()
    for name in ("next_tokens", "latency"):
        (folder / "artifacts" / f"{name}.json").write_text(torn)
    assert "Left before its first stage; nothing failed" in report.write(folder).read_text()


def test_a_folder_that_is_no_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunbookError, match="is no run"):
        report.write(tmp_path)
    assert os.listdir(tmp_path) == []


# What happened, in the first lines

def each(state: str, *names: str) -> list[dict[str, Any]]:
    return [{"kind": "stage", "stage": name, "state": state, "time": at(5)} for name in names]


def top_of(folder: Path) -> str:
    """What a person sees before the contents: the header's text."""
    return text_of("<body>" + report.write(folder).read_text().partition("<header>")[2].partition("</header>")[0] + "</body>")


def gone(*states: str) -> list[dict[str, Any]]:
    """The end of a teardown whose checks ended so."""
    checks = [{"name": f"thing {i} is gone", "state": state, "evidence": f"seen {i}", "fix": f"mend {i}"}
              for i, state in enumerate(states)]
    return [{"kind": "run", "state": "finished"}, {"kind": "checks", "stage": "teardown", "checks": checks}]


@pytest.mark.parametrize(("states", "said"), [
    (("pass", "warn", "unknown"), "thing 1 is gone, thing 2 is gone"), ((), "the teardown's checks are not in the journal")])
def test_nothing_left_behind_is_said_only_where_every_check_passed(tmp_path: Path, states: tuple[str, ...], said: str) -> None:
    whole = top_of(hand_written(tmp_path / "a", "by-hand", *each("done", *stages.NAMES), *gone(*states)))
    part = top_of(hand_written(tmp_path / "b", "by-hand", *each("done", "teardown"), *gone(*states)))
    assert whole.startswith(f"! Walked to the end, torn down; not proved: {said} run by-hand")
    assert part.startswith(f"! Torn down; not proved: {said} run by-hand")
    assert ("thing 1 is gone: seen 1; mend 1" in part) == bool(states)
    assert "thing 0" not in part


DRILL = {"kind": "drill", "seed": 7}  # node-flapping
KEPT = {"kind": "run", "state": "kept"}


@pytest.mark.parametrize(("records", "said", "named"), [
    ([KEPT], "! A drill: up, and not checked yet", False),
    ([KEPT, {"kind": "verdict", "mended": False}, {"kind": "hint", "number": 1}], "! A drill: not mended yet", False),
    ([KEPT, {"kind": "verdict", "mended": False}, {"kind": "reveal"}], "! A drill: not mended yet", True),
    ([KEPT, {"kind": "verdict", "mended": True}], "✓ A drill: it was found mended", False),
    ([KEPT, {"kind": "verdict", "mended": True}, *each("done", "teardown"), *gone("pass")],
     "✓ A drill: found mended, then torn down; nothing left behind", True),
    ([KEPT, *each("done", "teardown"), *gone("pass")], "✓ A drill: torn down, not found mended; nothing left behind", True),
    ([KEPT, *each("done", "teardown"), *gone("warn")],
     "! A drill: torn down, not found mended; not proved: thing 0 is gone", True),
    ([KEPT, *each("failed", "teardown")], "✗ A drill: Stopped in 09 teardown", False)])
def test_a_drill_says_so_and_its_faults_name_only_once_it_was_told(tmp_path: Path, records: list[dict[str, Any]], said: str,
                                                                   named: bool) -> None:
    page = top_of(hand_written(tmp_path, "by-hand", *each("started", "taint"), DRILL, *records))
    assert page.startswith(said)
    assert ("the fault was node-flapping" in page) == named
    assert "gpurunbook run" not in page
    assert ("gpurunbook drill start --seed 7" in page) == ("torn down" in said)
    assert ("hints given: 1" in page) == ({"kind": "hint", "number": 1} in records)


def second_walk(*records: dict[str, Any]) -> list[dict[str, Any]]:
    """08 failed in a first walk, and then this."""
    return [{**stage("started", 1), "stage": "latency"}, {"kind": "error", "stage": "latency", "error": "the old one"},
            {**stage("failed", 2), "stage": "latency"}, *records]


NODES = [{**stage("started", 10), "stage": "nodes"}, {"kind": "error", "stage": "nodes", "error": "the new one"}]


def test_of_two_failures_the_later_in_time_is_told_and_not_the_later_in_the_walk(tmp_path: Path) -> None:
    top = top_of(hand_written(tmp_path, "by-hand", *second_walk(*NODES, {**stage("failed", 11), "stage": "nodes"})))
    assert top.startswith("✗ Stopped in 03 nodes")
    assert "What failed the new one" in top
    assert "failed before: 08 latency" in top
    assert "the old one" not in top


def test_a_walk_that_was_interrupted_after_a_failure_is_interrupted(tmp_path: Path) -> None:
    top = top_of(hand_written(tmp_path, "by-hand", *second_walk(NODES[0], intent("drain"))))
    assert top.startswith("! Interrupted in 03 nodes")
    assert "failed before: 08 latency in flight: kubectl drain" in top
    assert "the old one" not in top


def test_a_walk_under_way_is_not_told_by_what_failed_before_it(tmp_path: Path) -> None:
    runner = {"kind": "runner", "process": Process.of(os.getppid()).key, "time": at(9)}
    top = top_of(hand_written(tmp_path / "a", "by-hand", *second_walk(runner, NODES[0])))
    assert top.startswith("! Under way, in 03 nodes when this was written")
    done = {**stage("done", 11), "stage": "nodes"}
    between = top_of(hand_written(tmp_path / "b", "by-hand", *second_walk(runner, NODES[0], done)))
    assert between.startswith("! Under way, between two stages")


def test_a_notebook_that_failed_and_is_open_still_is_a_failure(tmp_path: Path) -> None:
    alive = {**stage("started", 1), "process": Process.of(os.getppid()).key}
    assert top_of(hand_written(tmp_path, "by-hand", alive, stage("failed", 2))).startswith("✗ Stopped in 04 taint")


def test_a_kept_run_that_was_killed_later_is_interrupted(tmp_path: Path) -> None:
    top = top_of(hand_written(tmp_path, "by-hand", *each("done", "preflight", "provision"), {"kind": "run", "state": "kept"},
                              stage("started", 9), intent("apply")))
    assert top.startswith("! Interrupted in 04 taint")
    assert "in flight: kubectl apply" in top


def test_a_walk_to_the_end_says_so_and_gives_nothing_to_type(tmp_path: Path) -> None:
    top = top_of(hand_written(tmp_path, "by-hand", *each("done", *stages.NAMES), *gone("pass")))
    assert top.startswith("✓ Walked to the end, nothing left behind")
    assert "9 of 9 stages" in top
    assert "Type next" not in top


def test_a_run_torn_down_half_way_does_not_say_that_it_was_walked(tmp_path: Path) -> None:
    top = top_of(hand_written(tmp_path, "by-hand", *each("done", "preflight", "teardown"), *gone("pass")))
    assert top.startswith("✓ Torn down, nothing left behind; 2 of 9 stages were walked")


def test_a_failure_tells_where_why_and_what_to_type(tmp_path: Path) -> None:
    top = top_of(hand_written(tmp_path, "by-hand", *each("done", "preflight"), stage("started", 1), stage("failed", 2), {
        "kind": "error", "stage": "taint", "error": "the node is gone\n  where: kubectl get nodes\n  next:  look",
        "what": "the node is gone", "where": "kubectl get nodes", "next": "look"}))
    assert top.startswith("✗ Stopped in 04 taint")
    assert "What failed the node is gone Next look Where to look kubectl get nodes" in top
    assert "gpurunbook run --run-id by-hand" in top
    assert "gpurunbook teardown --run-id by-hand" in top


def test_a_failure_whose_run_is_gone_does_not_offer_to_go_on_with_it(tmp_path: Path) -> None:
    over = {"kind": "run", "state": "finished"}
    top = top_of(hand_written(tmp_path, "by-hand", stage("failed", 2), *each("done", "teardown"), over))
    assert top.startswith("✗ Stopped in 04 taint; torn down since")
    assert "--run-id" not in top
    assert "gpurunbook run begins a new run" in top.replace("$ ", "")


def test_a_failure_without_an_error_is_told_by_its_check_or_its_command(tmp_path: Path) -> None:
    check = {"name": "no taint", "state": "fail", "evidence": "one", "fix": "do it"}
    checks = {"kind": "checks", "stage": "taint", "checks": [check]}
    assert "What failed no taint: one Next do it" in top_of(hand_written(tmp_path / "a", "by-hand", stage("failed", 2), checks))
    failed = [intent("x"), {"kind": "result", "id": "x", "code": 3, "seconds": 1, "tail": "boo"}, stage("failed", 2)]
    assert "What failed because: exit code 3 Where to look kubectl x" in top_of(hand_written(tmp_path / "b", "by-hand", *failed))


def test_an_interrupted_run_tells_what_was_in_flight_or_what_held_it_up(tmp_path: Path) -> None:
    top = top_of(hand_written(tmp_path, "by-hand", stage("started", 1), intent("slow"), {
        "kind": "wait", "stage": "taint", "what": "nodes Ready", "blocker": "node a: NotReady", "seconds": 1}))
    assert top.startswith("! Interrupted in 04 taint")
    assert "waiting: nodes Ready: node a: NotReady in flight: kubectl slow" in top
    assert "gpurunbook run --run-id by-hand" in top


def test_an_interrupted_run_with_nothing_in_flight_says_what_came_last(tmp_path: Path) -> None:
    top = top_of(hand_written(tmp_path, "by-hand", stage("started", 1), intent("a"),
                              {"kind": "result", "id": "a", "code": 0, "seconds": 1, "time": at(3)}))
    assert "no command was in flight; the last to end, 12:00:03 UTC: because" in top


def test_a_kept_run_says_that_its_cluster_is_up(tmp_path: Path) -> None:
    top = top_of(hand_written(tmp_path, "by-hand", *each("done", "preflight", "provision"), {"kind": "run", "state": "kept"}))
    assert top.startswith("✓ Walked up to 02 provision; the cluster was left up")
    assert "gpurunbook teardown --run-id by-hand" in top


def test_a_stage_that_was_refused_was_not_run_and_is_no_failure(tmp_path: Path) -> None:
    opened = [{"kind": "notebook", "stage": "model", "state": state, "seconds": 3, "time": at(second)}
              for state, second in (("started", 20), ("ended", 23))]
    folder = hand_written(tmp_path, "by-hand", *each("done", "preflight"), *opened)
    assert top_of(folder).startswith("! Left after 01 preflight; nothing failed")
    page = report.write(folder).read_text()
    assert "06 model ? not run" in text_of(page)
    links, ids = re.findall(r'href="#([^"]+)"', page), re.findall(r' id="([^"]+)"', page)
    assert set(links) <= set(ids)


def test_a_line_torn_by_a_crash_does_not_take_the_report_with_it(tmp_path: Path) -> None:
    folder = hand_written(tmp_path, "by-hand", stage("started", 1))
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write('{"time": "2026-11-22T12:00:09+00:00", "kind": "resu')
    assert top_of(folder).startswith("! Interrupted in 04 taint")


# What changed, and errors

def test_what_a_plan_changed_is_a_table_and_an_error_of_an_ended_stage_is_overcome(tmp_path: Path) -> None:
    error = {"kind": "error", "stage": "taint", "error": "no", "time": at(2)}
    text = text_of(report.write(hand_written(
        tmp_path, "by-hand", stage("started", 1), error, stage("failed", 2),
        stage("started", 3), {"kind": "changed", "stage": "taint", "rows": [["node a: taints", "x:NoSchedule", "none"]],
                              "left_out": {"CRDs": "no right to"}, "since": ""}, stage("done", 4))).read_text())
    assert "What changed in the cluster; not seen: CRDs (no right to) object before after" in text
    assert "node a: taints x:NoSchedule none" in text
    assert "04 taint, 12:00:02 UTC, overcome since What failed no" in text
    assert "Errors (1)" in text


def test_commands_are_on_the_page_exactly_with_what_ran_behind_them(tmp_path: Path) -> None:
    odd = "kubectl patch x -p '{\"a\": \"<b> & c\"}'"
    asked = intent("a", shown=odd, argv=["/bin/kubectl", "a b"])
    page = report.write(hand_written(tmp_path, "by-hand", stage("started", 1), asked,
                                     {"kind": "result", "id": "a", "code": 0, "seconds": 1})).read_text()
    shown = [Tags(one).text for one in re.findall(r'<pre class="typed">.*?</pre>', page, re.DOTALL)]
    assert odd in shown
    assert "/bin/kubectl 'a b'" in shown
    assert not any("# " in one or one.startswith("$") for one in shown), "what is selected is pasted"


# Charts

def png(text: str = "", kind: bytes = b"tEXt") -> bytes:
    """A PNG of one pixel with a description, as matplotlib writes it."""
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    body = {b"tEXt": lambda: text.encode("latin-1"), b"zTXt": lambda: b"\0" + zlib.compress(text.encode("latin-1")),
            b"iTXt": lambda: b"\0\0\0\0" + text.encode()}[kind]()
    return (pictures.PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)) + chunk(kind, b"Description\0" + body)
            + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b""))


def with_files(folder: Path, **files: bytes) -> Path:
    (folder / "artifacts").mkdir()
    for name, data in files.items():
        (folder / "artifacts" / name.replace("__", ".")).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_a_chart_is_described_by_what_its_file_says(tmp_path: Path, kind: bytes) -> None:
    words = "bars of ten ⏎" if kind == b"iTXt" else "bars of ten"
    page = report.write(with_files(hand_written(tmp_path), top10__png=png(words, kind))).read_text()
    assert f'alt="{words}"' in page
    assert "prefers-color-scheme: dark)\" srcset" not in page


def test_a_dark_page_gets_the_dark_chart_and_the_smaller_of_two_files(tmp_path: Path) -> None:
    small, large = b"<svg/>", png("x")
    folder = with_files(hand_written(tmp_path), latency__png=large, latency__svg=small, latency__dark__png=large)
    page = report.write(folder).read_text()
    assert '<source media="screen and (prefers-color-scheme: dark)" srcset="data:image/png;base64,' in page
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+"' in page


def test_a_chart_that_is_absent_says_why(tmp_path: Path) -> None:
    folder = with_files(hand_written(tmp_path, "by-hand", *each("done", "next_token"), *each("failed", "gpu_operator")),
                        spread__png=b"x" * (pictures.ROOM + 1))
    text = text_of(report.write(folder).read_text())
    for said in ("No chart: 07 next token left no artifacts/top10.png", "No chart: 08 latency was not run.",
                 "No chart: 05 gpu operator did not come to its end."):
        assert said in text, said
    assert folder.joinpath("report.html").stat().st_size < 100_000
    (folder / "artifacts" / "next_tokens.json").write_text(json.dumps(saved()))
    assert "No chart: spread.png has 2.0 MB" in text_of(report.write(folder).read_text())


def saved(**changes: Any) -> dict[str, Any]:
    told = answer.answer("int8", "reference", **changes)
    for arm in told["arms"]:
        for token in arm["top"]:
            token["p_in"] = {"int8": token["p"], "reference": token["p"] / 2}
    return told | {"top": told["arms"][0]["top"], "run": "by-hand", "target": "rehearsal"}


def test_the_answer_is_above_and_its_table_has_the_reference(tmp_path: Path) -> None:
    folder = with_files(hand_written(tmp_path, "by-hand", *each("done", "next_token")),
                        next_tokens__json=json.dumps(saved()).encode())
    assert 'Most likely next token after “Long long ago, in a”: " land0", 50.0 %, by SmolLM2-135M in int8' in top_of(folder)
    assert '1 " land0" 7 50.00 % -0.693 25.00 %' in text_of(report.write(folder).read_text())


def ladder(state: str = "trouble") -> dict[str, Any]:
    steps = [{"rung": "joined", "state": "done", "since": "2026-11-22T12:00:01+00:00", "evidence": "e", "next": ""},
             {"rung": "ready", "state": "done", "since": "2026-11-22T12:00:04+00:00", "evidence": "e", "next": ""},
             {"rung": "driver", "state": state, "since": None, "evidence": "CrashLoopBackOff", "next": "kubectl logs x"}]
    return {"nodes": [{"node": "n0", "steps": steps}],
            "findings": [{"title": "headers are missing", "evidence": "a log line", "next": "kubectl logs y"}]}


def test_the_ladder_is_told_with_what_each_rung_took_and_what_is_wrong(tmp_path: Path) -> None:
    text = text_of(report.write(with_files(hand_written(tmp_path), ladder__json=json.dumps(ladder()).encode())).read_text())
    assert "node Ready ✓ done 12:00:04 3.0 s 5 to 30 s e" in text
    assert "driver ✗ trouble 60 to 240 s CrashLoopBackOff next: kubectl logs x" in text
    assert "headers are missing a log line next: kubectl logs y" in text


def test_rungs_done_in_one_second_are_told_in_the_ladders_order_as_in_the_chart(tmp_path: Path) -> None:
    """The newcomer's: `release 0.0 s, one device plugin 6.0` in the table, and the other way round in the chart."""
    seconds = {"joined": 27, "ready": 27, "release": 33, "driver": 33, "device-plugin": 33, "capacity": 34, "allocatable": 34}
    node = NodeLadder("n0", tuple(Step(rung, "done", datetime.fromisoformat(at(since))) for rung, since in seconds.items()))
    for commands, release in (((), 6.0), ((("release", datetime.fromisoformat(at(32.6))),), 0.4)):
        whole = Ladder((node,), (), commands)
        folder = with_files(hand_written(tmp_path, f"of-{release}"), ladder__json=json.dumps(whole.to_json()).encode())
        found = rung_times.read(folder)
        assert found is not None
        took = {row.title: row.took for row in found.nodes[0].rows if row.took is not None}
        assert took == pytest.approx({"node Ready": 0, "operator release deployed": release, "driver": 0, "one device plugin": 0,
                                      "GPU in capacity": 1, "GPU allocatable": 0})
        plots.rungs(whole, footer="f", path=tmp_path / "rungs.png")
        drawn = json.loads((tmp_path / "rungs.chart.json").read_text())["rows"]
        assert {row["rung"]: row["seconds"] for row in drawn} == took


@pytest.mark.parametrize(("after", "told"), [(True, False), (False, True)])
def test_rungs_that_06_has_climbed_since_are_not_told_as_ahead(tmp_path: Path, after: bool, told: bool) -> None:
    def ended(name: str, second: float) -> list[dict[str, Any]]:
        return [{"kind": "stage", "stage": name, "state": "started", "time": at(second)},
                {"kind": "stage", "stage": name, "state": "done", "time": at(second + 1)}]
    whole = ladder("done")
    whole["nodes"][0]["steps"] += [
        {"rung": "scheduled", "state": "waiting", "since": None, "evidence": "the model is not deployed", "next": ""}]
    records = ended("gpu_operator", 5) + (ended("model", 8) if after else [])
    text = text_of(report.write(with_files(hand_written(tmp_path, "by-hand", *records),
                                           ladder__json=json.dumps(whole).encode())).read_text())
    assert ("the model is not deployed" in text) is told
    assert ("the rungs of the model’s pod: 06" in text) is not told


@pytest.mark.parametrize("torn", [b"{", b"[]", b'{"nodes": [{"steps": 3}], "findings": []}', b'{"nodes": [], "findings": [{}]}'])
def test_a_torn_ladder_is_none(tmp_path: Path, torn: bytes) -> None:
    text = text_of(report.write(with_files(hand_written(tmp_path), ladder__json=torn)).read_text())
    assert "No ladder: artifacts/ladder.json" in text


def test_headings_are_in_order_and_everything_is_in_a_landmark(tmp_path: Path) -> None:
    page = report.write(hand_written(tmp_path, "by-hand", stage("started", 1), intent("a"), stage("done", 2))).read_text()
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    body = page.partition("<body>")[2]
    assert re.findall(r"<(header|nav|main|footer)\b", body) == ["header", "nav", "main", "footer"]
    assert page.count("<table") == page.count("<caption")
    assert not re.search(r"<th(?! scope)[ >]", page)


def test_a_token_of_another_writing_can_be_read_and_a_control_in_it_is_seen(tmp_path: Path) -> None:
    told = saved()
    told["arms"][0]["top"][0]["text"], told["arms"][0]["top"][1]["text"] = "日本", "é\n\u202e\""
    folder = with_files(hand_written(tmp_path, "by-hand", *each("done", "next_token")),
                        next_tokens__json=json.dumps(told).encode())
    assert '”: "日本", 50.0 %' in top_of(folder)
    text = text_of(report.write(folder).read_text())
    assert '1 "日本" 7' in text
    assert r'2 "é\n\u202e\"" 8' in text


def test_the_text_goes_before_the_pictures_and_of_the_output_of_failures_only_the_last_is_shown(tmp_path: Path) -> None:
    failures = [record for i in range(600) for record in (
        intent(f"i{i}"), {"kind": "result", "id": f"i{i}", "code": 1, "seconds": 1, "tail": f"tail {i}\n" + "e" * 4000})]
    check = {"name": "n", "state": "pass", "evidence": "e" * 1_200_000}
    listed = [stage("started", 1), {"kind": "checks", "stage": "taint", "checks": [check]}]
    big = b"x" * 1_900_000
    page = report.write(with_files(hand_written(tmp_path / "a", "by-hand", stage("started", 1), *failures), top10__png=big))
    assert [i for i in range(600) if f"tail {i}\n" in page.read_text()] == [*range(580, 600)]
    assert "data:image/png" in page.read_text()
    assert page.stat().st_size < 3_000_000
    page = report.write(with_files(hand_written(tmp_path / "b", "by-hand", *listed), top10__png=big, rungs__png=png("x")))
    assert "No chart: top10.png has 1.9 MB, too much for this page" in page.read_text()
    assert page.read_text().count("data:image/png") == 1
    assert page.stat().st_size < 3_000_000
