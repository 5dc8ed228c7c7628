"""Run folders: names, states, and which run a command goes on with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpurunbook import runs
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.processes import Process

TARGET, FILE = "rehearsal", Path(__file__).parents[2] / "cluster.yaml"
ALIVE = Process.of(os.getppid()).key  # not our own: a run is not alive because we look at it
ME = Process.of(os.getpid()).key
GONE = {**ALIVE, "pid": 2**22 + 1}  # above the kernel's largest pid
OTHERS = {**ALIVE, "started": ALIVE["started"] - 3600}  # our pid, as an earlier process had it

Event = tuple[str, dict[str, Any]]
STARTED: Event = ("run", {"state": "started", "target": TARGET, "cluster_file": str(FILE)})


def stage(name: str, state: str = "started", process: dict[str, Any] | None = None) -> Event:
    return "stage", {"stage": name, "state": state, **({"process": process} if process else {})}


def runner(process: dict[str, Any]) -> Event:
    return "runner", {"state": "started", "process": process}


def ended(word: str) -> Event:
    return "run", {"state": word}


def make(root: Path, name: str, *events: Event) -> Path:
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    for kind, fields in events or (STARTED,):
        Journal(folder).append(kind, **fields)
    return folder


def resolve(root: Path, run_id: str = "", *, start: bool = False, target: str = TARGET, file: Path = FILE) -> str:
    return runs.resolve(root, target, file, run_id, start=start).name


@pytest.mark.parametrize(("events", "state"), [
    ([STARTED], "dead"),
    ([STARTED, runner(ALIVE)], "running"),
    ([STARTED, runner(GONE)], "dead"),
    ([STARTED, runner(OTHERS)], "dead"),
    ([STARTED, runner(GONE), stage("nodes", process=ALIVE)], "running"),
    ([STARTED, runner(GONE), ended("kept")], "kept"),
    ([STARTED, runner(ALIVE), ended("kept")], "running"),
    ([STARTED, runner(GONE), ended("kept"), stage("nodes")], "kept"),
    ([STARTED, runner(GONE), ended("kept"), runner(GONE)], "dead"),
    ([STARTED, runner(ME)], "dead"),
    ([STARTED, runner(GONE), ended("kept"), ended("cleaned")], "dead"),
    ([STARTED, stage("teardown", process=ALIVE), ended("finished"), stage("teardown", "done")], "finished"),
    ([STARTED, ended("finished"), stage("provision", process=ALIVE)], "running"),
    ([STARTED, ended("finished"), stage("provision", process=GONE)], "dead"),
    ([STARTED, ended("finished"), stage("provision", process=GONE), ended("kept")], "kept"),
], ids=str)
def test_the_state_is_what_the_journal_and_the_processes_say(tmp_path: Path, events: list[Event], state: str) -> None:
    info = runs.read(make(tmp_path, "r", *events))
    assert info is not None
    assert info.state == state


def test_stages_are_told_with_their_last_word(tmp_path: Path) -> None:
    info = runs.read(make(tmp_path, "r", STARTED, stage("nodes"), stage("nodes", "failed"), stage("taint"),
                          stage("taint", "done")))
    assert info is not None
    assert info.stages == {"nodes": "failed", "taint": "done"}
    assert (info.id, info.target, info.cluster_file) == ("r", TARGET, str(FILE))


@pytest.mark.parametrize("text", ["", "torn {", '{"kind": "run", "state": "finished"}\n'])
def test_a_journal_without_its_beginning_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "journal.jsonl").write_text(text)
    assert runs.read(tmp_path / "runs" / "r") is None
    assert runs.list_runs(tmp_path) == []


def test_a_stray_file_or_folder_in_runs_is_no_run(tmp_path: Path) -> None:
    make(tmp_path, "a")
    (tmp_path / "runs" / "notes.txt").write_text("x")
    (tmp_path / "runs" / "empty").mkdir()
    assert [info.id for info in runs.list_runs(tmp_path)] == ["a"]


@pytest.mark.parametrize("run_id", ["..", ".", "a/b", "/etc", "A", "-a", "a-", "a b", "a\n", "a" * 41, "é", "a_b", "a.b",
                                    "--help", "$(id)", "\0", "٣"])
def test_hostile_ids_are_refused_before_anything_is_made(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(ConfigError, match="is no run id"):
        resolve(tmp_path, run_id, start=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run_id", ["a", "0", "a" * 40, "20261122-birch", "a--b"])
def test_good_ids_make_a_private_folder(tmp_path: Path, run_id: str) -> None:
    before = os.umask(0)
    try:
        assert resolve(tmp_path, run_id, start=True) == run_id
    finally:
        os.umask(before)
    for folder in (tmp_path / "runs", tmp_path / "runs" / run_id):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_drill_is_gone_on_with_only_by_its_name(tmp_path: Path) -> None:
    make(tmp_path, "walk", STARTED)
    make(tmp_path, "drill-fern", STARTED, DRILL, ended("kept"))
    assert resolve(tmp_path) == "walk"
    assert resolve(tmp_path, "drill-fern") == "drill-fern"
    newest = [runs.newest(tmp_path, TARGET, FILE, drills=drills) for drills in (False, True)]
    assert [info and (info.id, info.drill) for info in newest] == [("walk", False), ("drill-fern", True)]
    Journal(tmp_path / "runs" / "walk").append("run", state="finished")
    with pytest.raises(RunbookError, match="go on with; drill-fern is a drill, and must be named"):
        resolve(tmp_path)
    assert resolve(tmp_path, start=True) not in ("walk", "drill-fern")


def test_without_an_id_the_newest_unfinished_one_goes_on(tmp_path: Path) -> None:
    make(tmp_path, "z-older", ("run", {**STARTED[1], "time": "2026-11-21T00:00:00.000+00:00"}))
    make(tmp_path, "newest-unfinished", STARTED, ended("kept"))
    make(tmp_path, "a-finished", STARTED, ended("finished"))
    make(tmp_path, "a-other-target", ("run", {**STARTED[1], "target": "eks"}))
    make(tmp_path, "a-other-file", ("run", {**STARTED[1], "cluster_file": "/other.yaml"}))
    assert resolve(tmp_path) == resolve(tmp_path, start=True) == "newest-unfinished"
    assert resolve(tmp_path, target="eks") == "a-other-target"


def test_a_finished_run_goes_on_only_by_its_name(tmp_path: Path) -> None:
    make(tmp_path, "done", STARTED, ended("finished"))
    with pytest.raises(RunbookError, match="there is no run of target rehearsal"):
        resolve(tmp_path)
    assert resolve(tmp_path, start=True) != "done"
    assert resolve(tmp_path, "done") == "done"


@pytest.mark.parametrize(("target", "file"), [("eks", FILE), (TARGET, Path("/other.yaml"))])
def test_another_targets_run_is_not_taken_over(tmp_path: Path, target: str, file: Path) -> None:
    make(tmp_path, "mine")
    with pytest.raises(ConfigError, match=f"run mine belongs to target {TARGET} and {FILE}"):
        resolve(tmp_path, "mine", start=True, target=target, file=file)


def test_a_run_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunbookError, match="there is no run gone of target"):
        resolve(tmp_path, "gone")
    assert not (tmp_path / "runs").exists()


def test_new_runs_get_names_of_their_own_until_there_are_none(tmp_path: Path) -> None:
    made = set()
    for _ in runs.WORDS:
        made.add(name := resolve(tmp_path, start=True))
        Journal(tmp_path / "runs" / name).append("run", state="finished")
    assert len(made) == len(runs.WORDS)
    assert all(runs.RUN_ID.fullmatch(name) for name in made)
    with pytest.raises(RunbookError, match=r"all names for \d+ are taken"):
        resolve(tmp_path, start=True)


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("x")
    with pytest.raises(RunbookError, match="the run folder cannot be written"):
        resolve(tmp_path, start=True)


def test_the_root_is_found_from_any_folder_below(tmp_path: Path) -> None:
    for name in ("notebooks", "manifests", "a/b"):
        (tmp_path / name).mkdir(parents=True)
    assert runs.find_root(tmp_path / "a" / "b") == tmp_path.resolve()
    with pytest.raises(ConfigError, match="no folder with notebooks/ and manifests/"):
        runs.find_root(Path("/"))


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    child = subprocess.Popen(["sleep", "60"])
    yield psutil.Process(child.pid)
    child.kill()
    child.wait()


def test_a_runner_that_ends_makes_its_run_dead(tmp_path: Path, sleeper: psutil.Process) -> None:
    folder = make(tmp_path, "r", STARTED, runner({"pid": sleeper.pid, "started": sleeper.create_time()}))
    assert [info.state for info in runs.list_runs(tmp_path)] == ["running"]
    sleeper.kill()
    sleeper.wait()
    info = runs.read(folder)
    assert info is not None
    assert info.state == "dead"


DRILL: Event = ("drill", {"seed": 1})


@pytest.mark.parametrize(("events", "word", "mark"), [
    ([STARTED, DRILL, ended("kept")], "drill", ""),
    ([STARTED, DRILL, runner(GONE)], "dead", "warn"),
    ([STARTED, DRILL, ended("kept"), ended("finished")], "torn down", ""),
    ([STARTED, stage("next_token", "done"), ended("finished")], "finished", "pass"),
    ([STARTED, stage("next_token", "failed"), ended("finished")], "torn down", ""),
    ([STARTED, ended("finished")], "torn down", ""),
    ([STARTED, ended("kept")], "kept", "pass"),
    ([STARTED, stage("next_token", "done"), runner(GONE)], "dead", "warn"),
])
def test_only_a_run_that_came_to_its_tokens_is_called_finished(tmp_path: Path, events: list[Event], word: str, mark: str) -> None:
    info = runs.read(make(tmp_path, "one", *events))
    assert info is not None
    assert (info.word, info.mark) == (word, mark)
