"""`gpurunbook diff`: what counts as a difference between two runs, and what is only noise."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gpurunbook import cli, runs
from gpurunbook.errors import ConfigError
from gpurunbook.journal import Journal
from gpurunbook.report import diff
from tests import answer


def at(second: float) -> str:
    return f"2026-11-22T12:{int(second // 60):02d}:{second % 60:06.3f}+00:00"


def run(root: Path, name: str, *records: dict[str, Any], began: float = 0, target: str = "rehearsal", seconds: float = 4,
        state: str = "done", finished: bool = True, answered: dict[str, Any] | None = None, timed: dict[str, Any] | None = None,
        cluster: str = "a: 1") -> runs.RunInfo:
    """A run of two stages, of its commands and checks, as a journal tells it; `records` come before its end."""
    folder = root / "runs" / name
    (folder / "artifacts").mkdir(parents=True)
    (folder / "cluster.yaml").write_text(cluster)
    append = Journal(folder).append
    append("run", state="started", target=target, cluster_file="/c.yaml", time=at(began))
    append("program", name="helm", path="/x", version="4.2.4", found="PATH")
    for stage, outcome in (("taint", "done"), ("next_token", state)):
        given = {"run_id": name, "target": target, "cluster_file": "c"} | ({"prompt": "x"} if stage != "taint" else {})
        append("notebook", stage=stage, state="started", sha256="0" * 64, modified="", parameters=given)
        append("stage", stage=stage, state="started", time=at(10))
        append("intent", id=f"{stage}1", stage=stage, changes=True, why="w", argv=["kubectl"],
               shown=f"kubectl apply -f {folder}/artifacts/x.yaml --name={name} pod/dolly-57946757f6-{name[-1] * 5} "
                     f"--port={began:.0f}")
        append("result", id=f"{stage}1", code=0, seconds=1.0)
        append("checks", stage=stage, checks=[{"name": "no taint", "state": "pass", "evidence": f"seen by {name}", "fix": ""}])
        append("stage", stage=stage, state=outcome, time=at(10 + seconds))
    for record in records:
        append(**record)
    if finished:
        append("run", state="finished")
    for file, told in (("next_tokens", answered), ("latency", timed)):
        if told:
            (folder / "artifacts" / f"{file}.json").write_text(json.dumps(
                told | {"top": told["arms"][0]["top"], "run": name, "target": target}))
    found = runs.read(folder)
    assert found is not None
    return found


def differing(first: runs.RunInfo, second: runs.RunInfo) -> dict[str, list[tuple[str, str | None, str | None]]]:
    """Section -> rows that differ."""
    return {s.title: [(r.what, r.first, r.second) for r in s.rows if r.differs] for s in diff.compare(first, second) if s.differs}


def samples(median: float, count: int = 60) -> list[float]:
    return [float(x) for x in np.random.default_rng(3).normal(median, 1, count)]


def timed(median: float, *precisions: str) -> dict[str, Any]:
    told = answer.answer(*precisions)
    for arm in told["arms"]:
        arm["samples_ms"] = samples(median)
    return told


def test_two_walks_of_the_same_do_not_differ_however_long_they_took(tmp_path: Path) -> None:
    told, fast, slow = answer.answer("int8", "reference"), timed(20), timed(90)
    first = run(tmp_path, "monday-a", answered=told, timed=fast)
    second = run(tmp_path, "tuesday-b", began=60, seconds=40, answered=told, timed=slow)
    assert differing(first, second) == {}


def test_what_differs_is_named(tmp_path: Path) -> None:
    first = run(tmp_path, "monday-a")
    second = run(tmp_path, "tuesday-b", {"kind": "program", "name": "helm", "path": "/x", "version": "4.3.0", "found": "PATH"},
                 {"kind": "checks", "stage": "taint", "checks": [{"name": "no taint", "state": "warn", "evidence": "e"}]},
                 {"kind": "intent", "id": "more", "stage": "taint", "shown": "kubectl taint x", "argv": ["k"], "why": "w",
                  "changes": True},
                 {"kind": "notebook", "stage": "next_token", "state": "started", "sha256": "0" * 64,
                  "parameters": {"prompt": "y"}},
                 {"kind": "stage", "stage": "next_token", "state": "failed"},
                 began=60, target="eks", finished=False, cluster="a: 2")
    assert differing(first, second) == {
        "run": [("target", "rehearsal", "eks"), ("state", "finished", "dead"),
                ("cluster.yaml, SHA-256", *(runs_digest(f) for f in (first, second)))],
        "parameter": [("prompt", "'x'", "'y'")], "version": [("helm", "4.2.4", "4.3.0")],
        "stage": [("07 next token", "done, 4.0 s", row_of(second, "07 next token"))],
        "check": [("04 taint: no taint", "pass", "warn")], "command": [("04 taint: kubectl taint x", None, "run")]}


def runs_digest(info: runs.RunInfo) -> str:
    import hashlib
    return hashlib.sha256((info.folder / "cluster.yaml").read_bytes()).hexdigest()[:12]


def row_of(info: runs.RunInfo, what: str) -> str | None:
    return next(r.second for s in diff.compare(info, info) for r in s.rows if r.what == what)


@pytest.mark.parametrize(("factor", "same"), [(1.0, True), (1.005, True), (1.03, False)])
def test_tokens_differ_by_more_than_noise(tmp_path: Path, factor: float, same: bool) -> None:
    one, other = answer.answer(), answer.answer()
    other["arms"] = [answer.arm(ps=(0.5 / factor, 0.2, 0.1))]
    found = differing(run(tmp_path, "run-a", answered=one), run(tmp_path, "run-b", answered=other))
    assert found.keys() == (set() if same else {"tokens"})


def replaced(told: dict[str, Any], rank: int, token: int) -> dict[str, Any]:
    other = copy.deepcopy(told)
    other["arms"][0]["top"][rank]["id"] = token
    return other


def listed(*ps: float) -> dict[str, Any]:
    return answer.answer() | {"arms": [answer.arm(ps=ps)]}


def swapped(told: dict[str, Any]) -> dict[str, Any]:
    """The first two have changed their places."""
    first, second = (token["id"] for token in told["arms"][0]["top"][:2])
    return replaced(replaced(told, 0, second), 1, first)


@pytest.mark.parametrize(("told", "other", "rows"), [
    (listed(0.5, 0.2, 0.1), replaced(listed(0.5, 0.2, 0.1), 2, 999), []),  # the last place, by a hair
    (listed(0.5, 0.2, 0.1), replaced(listed(0.5, 0.2, 0.1), 1, 999), ["int8: top 3"]),
    (listed(0.5, 0.2, 0.1), listed(0.5, 0.2), []),  # a shorter list lacks what comes after it
    (listed(0.3, 0.2999), swapped(listed(0.3, 0.2999)), []),  # whichever was ahead by a hair
    (listed(0.3, 0.2), swapped(listed(0.3, 0.2)), ["int8: winner", "int8: top 2"]),
    (listed(0.3, 0.2999), replaced(listed(0.3, 0.2999), 0, 999), ["int8: winner"])])
def test_a_tie_is_no_difference(tmp_path: Path, told: dict[str, Any], other: dict[str, Any], rows: list[str]) -> None:
    found = differing(run(tmp_path, "run-a", answered=told), run(tmp_path, "run-b", answered=other))
    assert [row[0] for row in found.get("tokens", [])] == rows


@pytest.mark.parametrize(("first", "second"), [("1", "2"), ("model", "kubectl"), ("taint", "x")])
def test_a_run_whose_id_is_a_word_of_its_commands_is_no_difference(tmp_path: Path, first: str, second: str) -> None:
    def scaled(replicas: int, name: str) -> dict[str, Any]:
        shown = (f"kubectl scale deployment/model --replicas={replicas} -l gpurunbook.dev/run={name} --context=kwok-{name} "
                 f"-f {tmp_path}/runs/{name}/taint.yaml --pki={tmp_path}/runs/{name}/rehearsal/clusters/{name}/pki")
        return {"kind": "intent", "id": "z", "stage": "taint", "changes": True, "why": "w", "argv": ["k"], "shown": shown}
    one = run(tmp_path, first, scaled(1, first))
    assert differing(one, run(tmp_path, second, scaled(1, second))) == {}
    assert differing(one, run(tmp_path, f"{second}-b", scaled(2, f"{second}-b"))).keys() == {"command"}


def test_a_change_of_winner_and_a_lost_precision_are_told(tmp_path: Path) -> None:
    one, other = answer.answer("int8", "reference"), answer.answer("int8")
    top = other["arms"][0]["top"]
    top[0]["id"], top[1]["id"] = top[1]["id"], top[0]["id"]
    first, second = run(tmp_path, "run-a", answered=one), run(tmp_path, "run-b", answered=other)
    rows = {r.what: r for s in diff.compare(first, second) if s.title == "tokens" for r in s.rows}
    assert rows["precisions"].differs
    assert rows["int8: winner"].differs
    assert rows["int8: top 3"].note == "3 in both, max |Δ log p| 0.92, in another order"


def test_an_answer_or_a_ladder_that_only_one_has_is_a_difference(tmp_path: Path) -> None:
    first = run(tmp_path, "run-a", answered=answer.answer(), timed=timed(20))
    (first.folder / "artifacts" / "ladder.json").write_text(json.dumps({"findings": [], "nodes": [{"node": "n", "steps": [
        {"rung": "joined", "state": "done", "since": None, "evidence": "", "next": ""}]}]}))
    found = differing(first, run(tmp_path, "run-b"))
    assert found["tokens"] == [("answer", "there", None)]
    assert found["rung"] == [("ladder", "there", None)]
    assert [row[0] for row in found["latency"]] == ["int8: p50 / p95"]


def test_a_latency_is_told_by_the_second_over_the_first_with_its_interval_where_samples_are_enough(tmp_path: Path) -> None:
    def note(first: dict[str, Any], second: dict[str, Any], name: str) -> str:
        one, other = run(tmp_path / name, "run-a", timed=first), run(tmp_path / name, "run-b", timed=second)
        return next(r.note for s in diff.compare(one, other) if s.title == "latency" for r in s.rows)
    found = re.fullmatch(r"p50 1\.50 times \(95% interval (1\.\d\d) to (1\.\d\d)\), p95 1\.\d\d times",
                         note(timed(20), timed(30), "many"))
    assert found
    assert 1.4 < float(found[1]) <= 1.5 <= float(found[2]) < 1.6
    few = timed(20)
    few["arms"][0]["samples_ms"] = samples(20, 8)
    assert "interval" not in note(few, timed(30), "few")


@pytest.mark.parametrize(("name", "found"), [("run-a", "run-a"), ("oth", "other-c"), ("newest", "other-c"), ("newest~1", "run-b"),
                                             ("newest~2", "run-a")])
def test_a_run_is_found_by_id_beginning_and_age(tmp_path: Path, name: str, found: str) -> None:
    for i, one in enumerate(("run-a", "run-b", "other-c")):
        run(tmp_path, one, began=i * 60)
    assert diff.find(tmp_path, name).id == found


@pytest.mark.parametrize(("name", "said"), [
    ("run", "'run' begins several runs: run-a, run-b"), ("nope", "there is no run 'nope'"), ("", "there is no run ''"),
    ("newest~2", "there is no run newest~2: there are 2 runs"), ("../run-a", "there is no run '../run-a'")])
def test_a_run_that_is_not_there_is_named(tmp_path: Path, name: str, said: str) -> None:
    for i, one in enumerate(("run-a", "run-b")):
        run(tmp_path, one, began=i * 60)
    with pytest.raises(ConfigError) as caught:
        diff.find(tmp_path, name)
    assert caught.value.what == said
    assert caught.value.next


def test_drills_are_not_the_newest_walks_but_can_be_named(tmp_path: Path) -> None:
    for i, one in enumerate(("run-a", "run-b")):
        run(tmp_path, one, began=i * 60)
    drill = run(tmp_path, "drill-fern", {"kind": "drill", "seed": 1}, began=120, state="failed")
    assert [diff.find(tmp_path, name, drills=False).id for name in ("newest", "newest~1", "drill-fern")] == [
        "run-b", "run-a", "drill-fern"]
    assert diff.find(tmp_path, "newest").id == "drill-fern"
    with pytest.raises(ConfigError, match="there are 2 walks"):
        diff.find(tmp_path, "newest~2", drills=False)
    assert ("state", "finished", "torn down") in differing(diff.find(tmp_path, "run-a"), drill)["run"]


def test_a_run_of_another_folder_is_found_by_its_path_and_its_own_folder_is_no_difference(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for root, name in ((mine, "run-a"), (theirs, "run-b")):
        run(root, name, {"kind": "run", "state": "moved", "place": "x", "folder": str(root / "runs" / name)}, {
            "kind": "intent", "id": "more", "stage": "taint", "argv": ["k"], "why": "w", "changes": True,
            "shown": f"kubectl apply -f {root}/manifests/x.yaml --model={root}/.cache/gpurunbook/models/x"})
    journal = theirs / "runs" / "run-b" / "journal.jsonl"
    journal.write_text(journal.read_text().replace(str(theirs), "/home/carol/lab"))
    journal.parent.rename(tmp_path / "run-b")
    monkeypatch.chdir(mine)
    with pytest.raises(ConfigError) as caught:
        diff.find(mine, "run-b")
    assert "copy its folder into runs/, or give its path" in caught.value.next
    found = diff.find(mine, "../run-b")
    assert (found.id, found.folder) == ("run-b", tmp_path / "run-b")
    assert differing(diff.find(mine, "run-a"), found) == {}
    for name in ("../theirs", "..", "/nonexistent/run-b", "~nobody-here/run-b", "x/" * 5000, "\0/x"):
        with pytest.raises(ConfigError, match="there is no run"):
            diff.find(mine, name)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("notebooks", "manifests"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_exit_codes_are_those_of_diff(checkout: Path) -> None:
    run(checkout, "run-a")
    run(checkout, "run-b", began=60)
    run(checkout, "run-c", began=120, target="eks")
    ask = CliRunner().invoke
    same, other = ask(cli.app, ["diff", "run-a", "run-b"]), ask(cli.app, ["diff"])
    assert (same.exit_code, other.exit_code) == (0, 1)
    assert same.stdout.endswith("run-a and run-b do not differ, but for their times\n")
    assert "! target  " in other.stdout
    assert other.stdout.endswith("run-b and run-c differ in: run\n")
    run(checkout, "drill-fern", {"kind": "drill", "seed": 1}, began=180)
    assert ask(cli.app, ["diff"]).stdout == other.stdout
    assert isinstance(ask(cli.app, ["diff", "run-a", "run-x"]).exception, ConfigError)  # cli.main makes a 2 of it
    with (checkout / "runs" / "run-b" / "journal.jsonl").open("a") as journal:
        journal.write('{"kind": "result"}\n')
    torn = ask(cli.app, ["diff", "run-a", "run-b"]).exception
    assert isinstance(torn, ConfigError)
    assert "run-a and run-b cannot be compared" in torn.what


@pytest.mark.parametrize("name", ["run-b", "run-c"])
def test_a_journal_that_cannot_be_read_is_no_difference(checkout: Path, name: str) -> None:
    for one in ("run-a", "run-b", "run-c"):
        run(checkout, one)
    journal = checkout / "runs" / name / "journal.jsonl"
    journal.unlink()
    journal.mkdir()
    failed = CliRunner().invoke(cli.app, ["diff", "run-a", "run-b"]).exception
    assert isinstance(failed, ConfigError)  # cli.main makes a 2 of it
    assert "run-a and run-b cannot be compared" in failed.what


def test_json_has_every_row(checkout: Path) -> None:
    run(checkout, "run-a")
    run(checkout, "run-b", began=60, target="eks")
    said = CliRunner().invoke(cli.app, ["diff", "newest", "newest~1", "--json"])
    told = json.loads(said.stdout)
    assert (told["first"], told["second"], told["differs"], said.exit_code) == ("run-b", "run-a", True, 1)
    assert {"what": "target", "first": "eks", "second": "rehearsal", "differs": True, "note": ""} in told["sections"][0]["rows"]
    assert [s["section"] for s in told["sections"]][:4] == ["run", "parameter", "version", "stage"]


def test_the_report_of_a_run_by_name(checkout: Path) -> None:
    run(checkout, "run-a")
    run(checkout, "run-b", began=60)
    ask = CliRunner().invoke
    assert ask(cli.app, ["report", "newest~1"]).stdout == f"{checkout}/runs/run-a/report.html\n"
    assert json.loads(ask(cli.app, ["report", "--json"]).stdout)["run"] == "run-b"
    assert ask(cli.app, ["report", "--run-id", "run-x"]).exception is not None
