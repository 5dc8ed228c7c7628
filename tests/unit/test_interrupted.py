"""What a killed runner left at work, with real processes: found by pid, or by its intent where the pid was not written yet."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from gpurunbook import interrupted
from gpurunbook.journal import Journal
from gpurunbook.processes import RUN_VARIABLE, Process

DEAD = {"pid": 2**22 + 1, "started": 1.0}
"""A runner that is gone: no pid is that large."""
DAEMON = "import subprocess, time; subprocess.Popen(['sleep', '60'], start_new_session=True); print(flush=True); time.sleep(9)"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    yield Journal(tmp_path)
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(RUN_VARIABLE) == str(tmp_path):
                process.kill()


def started(journal: Journal, intent: str, argv: tuple[str, ...] = ("sleep", "60")) -> subprocess.Popen[bytes]:
    """As gpurunbook.command starts it."""
    return subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE, env={
        "PATH": os.environ["PATH"], RUN_VARIABLE: str(journal.folder), interrupted.VARIABLE: intent})


def left_alone(journal: Journal) -> list[str]:
    return [record["id"] for record in journal.in_flight()]


@pytest.mark.parametrize("known", [True, False], ids=["its pid is written", "killed before the pid was written"])
def test_the_program_of_a_dead_runner_is_ended(journal: Journal, known: bool) -> None:
    with started(journal, "1") as program:
        journal.append("intent", id="1", by=DEAD, argv=["sleep", "60"], shown="sleep 60")
        if known:
            journal.append("pid", id="1", process=Process.of(program.pid).key)
        assert [intent["id"] for intent in interrupted.close(journal)] == ["1"]
        assert program.wait(timeout=5) < 0
    assert left_alone(journal) == []


def test_what_a_dead_program_left_in_its_group_is_ended(journal: Journal) -> None:
    child_and_wait = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    with started(journal, "1", (sys.executable, "-c", child_and_wait)) as program:
        journal.append("intent", id="1", by=DEAD, argv=[sys.executable], shown="python")
        journal.append("pid", id="1", process=Process.of(program.pid).key)
        while not (children := psutil.Process(program.pid).children()):
            assert program.poll() is None
        program.kill()
    interrupted.close(journal)
    assert psutil.wait_procs(children, timeout=5)[1] == []
    assert left_alone(journal) == []


def test_the_program_of_another_intent_and_a_live_runner_are_spared(journal: Journal) -> None:
    with started(journal, "2") as other:
        journal.append("intent", id="1", by=DEAD, argv=["sleep", "60"], shown="sleep 60")
        journal.append("intent", id="2", by=Process.of(os.getpid()).key, argv=["sleep", "60"], shown="sleep 60")
        interrupted.close(journal)
        assert other.poll() is None
        assert left_alone(journal) == ["2"]
        other.kill()


def test_what_the_program_left_to_itself_is_spared(journal: Journal) -> None:
    """kwokctl's etcd has its environment: ending kwokctl must not end the cluster that is already up."""
    with started(journal, "1", (sys.executable, "-c", DAEMON)) as program:
        assert program.stdout
        assert program.stdout.readline() == b"\n"
        (daemon,) = psutil.Process(program.pid).children()
        journal.append("intent", id="1", by=DEAD, argv=[sys.executable, "-c", DAEMON], shown="python")
        interrupted.close(journal)
        assert program.wait(timeout=5) < 0
        assert daemon.is_running()
        assert daemon.status() != psutil.STATUS_ZOMBIE
        daemon.kill()
