"""Processes of runs, with real ones: found by their environment, ended, and never mistaken; `gpurunbook clean`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from gpurunbook import processes, runs
from gpurunbook.cleaning import clean
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal
from gpurunbook.processes import RUN_VARIABLE, Process

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `sleep` for a run; whatever is left of them is ended after the test."""
    started = []

    def sleep(run: Path | None, *argv: str) -> subprocess.Popen[bytes]:
        variables = {"PATH": os.environ["PATH"]} | ({RUN_VARIABLE: str(run)} if run else {})
        started.append(subprocess.Popen(argv or ("sleep", "300"), env=variables, stdout=subprocess.PIPE))
        return started[-1]

    yield sleep
    for child in started:
        with suppress(psutil.NoSuchProcess):
            for grandchild in psutil.Process(child.pid).children(recursive=True):
                grandchild.kill()
        child.kill()
        child.wait()
        assert child.stdout
        child.stdout.close()


def deaf(start: Start, run: Path) -> subprocess.Popen[bytes]:
    """One that does not go at SIGTERM, and is ready to ignore it."""
    child = start(run, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    assert child.stdout
    assert child.stdout.readline() == b"ready\n"
    return child


def run_folder(root: Path, name: str, *words: str, process: Process | None = None) -> Path:
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    journal = Journal(folder)
    journal.append("run", state="started", target="rehearsal", cluster_file="/c.yaml")
    if process:
        journal.append("runner", state="started", process=asdict(process))
    for word in words:
        journal.append("run", state=word)
    return folder


def state(folder: Path) -> str:
    info = runs.read(folder)
    return info.state if info else "no run"


def has_ended(child: subprocess.Popen[bytes]) -> bool:
    """psutil may have reaped it before us, and kept its exit code."""
    return child.wait() is not None and not psutil.pid_exists(child.pid)


@pytest.fixture(autouse=True)
def only_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`clean` looks at every run of this user, and a test must not end what the user left elsewhere."""
    everywhere = processes.of_runs
    monkeypatch.setattr(processes, "of_runs", lambda run=None: [
        p for p in everywhere(run) if p.run and p.run.is_relative_to(tmp_path)])


# Finding and ending

def test_processes_are_found_by_the_run_in_their_environment(tmp_path: Path, start: Start) -> None:
    one, two = start(tmp_path / "one"), start(tmp_path / "two")
    start(None)
    assert [(p.pid, p.name, p.run) for p in processes.of_runs(tmp_path / "one")] == [(one.pid, "sleep", tmp_path / "one")]
    assert {one.pid, two.pid} <= {p.pid for p in processes.of_runs()}
    assert processes.of_runs(tmp_path) == []


def test_children_inherit_the_run_and_are_found(tmp_path: Path, start: Start) -> None:
    parent = start(tmp_path, "sh", "-c", "sleep 300 & echo ready; wait")
    assert parent.stdout
    parent.stdout.readline()
    found = processes.of_runs(tmp_path)
    assert len(found) == 2  # the second may still be called sh: it has been forked, and runs `sleep` next
    assert processes.end(found) == []


def test_we_and_those_above_us_are_never_among_them(tmp_path: Path) -> None:
    script = "from gpurunbook import processes; print([p.name for p in processes.of_runs()])"
    said = subprocess.run(["sh", "-c", 'sleep 300 & "$0" -c "$1"; kill $!', sys.executable, script], text=True,
                          capture_output=True, env={**os.environ, RUN_VARIABLE: str(tmp_path)}, check=True).stdout
    assert "'sleep'" in said
    assert "'sh'" not in said


def test_a_module_is_named_by_its_module(tmp_path: Path, start: Start) -> None:
    child = start(tmp_path, sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "0")
    assert [p.name for p in processes.of_runs(tmp_path)] == ["http.server"]
    assert processes.end(processes.of_runs(tmp_path)) == []
    assert has_ended(child)


def test_an_earlier_process_of_the_same_pid_is_not_alive_and_not_ended(start: Start) -> None:
    child = start(None)
    now = Process(child.pid, psutil.Process(child.pid).create_time())
    earlier = replace(now, started=now.started - 60)
    assert (now.alive, earlier.alive) == (True, False)
    assert processes.end([earlier]) == []
    assert child.poll() is None


def test_one_that_was_never_there_and_one_not_yet_reaped_are_not_alive(start: Start) -> None:
    assert not Process(2**22 + 1, 0.0).alive
    child = start(None, "true")
    zombie = Process(child.pid, psutil.Process(child.pid).create_time())
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and we have not asked how
    assert not zombie.alive
    assert processes.end([zombie]) == []


def test_what_ignores_sigterm_is_killed(tmp_path: Path, start: Start) -> None:
    child = deaf(start, tmp_path)
    assert processes.end(processes.of_runs(tmp_path), grace=0.3) == []
    assert has_ended(child)


def test_ending_nothing_is_fine() -> None:
    assert processes.end([]) == []


# gpurunbook clean

def test_clean_ends_what_dead_and_finished_runs_left(tmp_path: Path, start: Start) -> None:
    dead, finished = run_folder(tmp_path, "dead"), run_folder(tmp_path, "finished", "finished")
    children = [start(dead), start(finished)]
    ended, _, stubborn = clean()
    assert all(has_ended(child) for child in children)
    assert stubborn == []
    assert [line for line in ended if str(children[0].pid) in line] == [f"sleep (pid {children[0].pid}) of run dead"]
    assert (state(dead), state(finished)) == ("dead", "finished")


@pytest.mark.parametrize(("words", "live", "spared_as"), [((), True, "running"), (("kept",), False, "kept")])
def test_clean_spares_live_and_kept_runs_unless_told(tmp_path: Path, start: Start, words: tuple[str, ...], live: bool,
                                                     spared_as: str) -> None:
    folder = run_folder(tmp_path, "r-of-this-test", *words, process=Process.of(os.getppid()) if live else None)
    child = start(folder)
    _, spared, _ = clean()
    assert child.poll() is None
    assert f"sleep (pid {child.pid}) of run r-of-this-test: the run is {spared_as}; end it with --run-id " \
           "r-of-this-test" in spared
    with pytest.raises(RunbookError, match="there is no run another-run"):
        clean("another-run")
    assert child.poll() is None
    clean("r-of-this-test")
    assert has_ended(child)


def test_clean_ends_what_a_deleted_run_folder_left(tmp_path: Path, start: Start) -> None:
    child = start(tmp_path / "runs" / "deleted")
    clean()
    assert has_ended(child)
    assert not (tmp_path / "runs").exists()


def test_cleaning_a_kept_run_leaves_it_dead(tmp_path: Path, start: Start) -> None:
    folder = run_folder(tmp_path, "r-of-this-test", "kept")
    start(folder)
    clean("r-of-this-test")
    assert state(folder) == "dead"


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """A place for socket folders of our own; TMPDIR is read anew."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def make(name: str, run: str) -> Path:
        folder = place / f"gpurunbook-{os.getuid()}-{name}"
        folder.mkdir(mode=0o700)
        (folder / "run").write_text(f"{run}\n")
        return folder

    yield make
    shutil.rmtree(place)


def test_clean_removes_the_sockets_of_runs_without_a_process(tmp_path: Path, start: Start, sockets) -> None:  # type: ignore[no-untyped-def]
    gone = sockets("gone", str(tmp_path / "runs" / "gone"))
    kept = run_folder(tmp_path, "kept", "kept")
    used = sockets("used", str(kept))
    starting = sockets("starting", str(run_folder(tmp_path, "starting", process=Process.of(os.getppid()))))
    start(kept)
    clean()
    assert (gone.exists(), used.exists(), starting.exists()) == (False, True, True)


def test_clean_leaves_what_is_not_ours_in_the_shared_folder(tmp_path: Path, sockets) -> None:  # type: ignore[no-untyped-def]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "run").write_text("/gone\n")
    place = sockets("x", "/gone").parent
    link = place / f"gpurunbook-{os.getuid()}-link"
    link.symlink_to(precious)
    unnamed = place / f"gpurunbook-{os.getuid()}-unnamed"
    unnamed.mkdir()
    clean()
    assert (precious / "run").exists()
    assert unnamed.exists()
    assert link.is_symlink()
