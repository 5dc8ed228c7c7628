"""The pod host ends when it is told to, whatever happens in that moment; and it signals its own processes only."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpurunbook.processes import RUN_VARIABLE
from gpurunbook.targets.rehearsal import cluster, gpu_operator, kwok, memory, pki
from gpurunbook.targets.rehearsal.api import Api, ApiError
from gpurunbook.targets.rehearsal.container import Machine
from gpurunbook.targets.rehearsal.jail import Jail
from gpurunbook.targets.rehearsal.mounts import Mounts
from gpurunbook.targets.rehearsal.pod_host import PodHost, Settings
from gpurunbook.targets.rehearsal.process import Process

JAIL = Jail("", (), {}, "/", "pod")


class Server:
    """An API server that is busy, and whose DaemonSets change, or break off, when the test says so."""

    def __init__(self, breaks: Exception | None = None) -> None:
        self.breaks, self.changed = breaks, asyncio.Event()

    async def request(self, *args: Any, **query: Any) -> dict[str, Any]:
        if self.breaks:
            return {"items": []}
        raise ApiError(429, "busy")

    get = request

    async def watch(self, path: str, **query: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        if path == gpu_operator.DAEMONSETS:
            await self.changed.wait()
            if self.breaks:
                raise self.breaks
            yield "MODIFIED", {"metadata": {"uid": "u", "resourceVersion": "1"}}
        await asyncio.Event().wait()


async def ends(task: asyncio.Task[Any], server: Server, turns: int) -> bool:
    """Whether it ends when it is cancelled so many of the loop's turns after a change."""
    await asyncio.sleep(0.06)
    server.changed.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return ended


@pytest.mark.parametrize("turns", range(8))
async def test_the_operator_ends_in_the_moment_of_a_change(turns: int) -> None:
    server = Server()
    task = asyncio.create_task(gpu_operator.run(server))  # type: ignore[arg-type]
    assert await ends(task, server, turns)


class Host(PodHost):
    """One of this test's own, on a free port, whose work is deaf to the first that tells it to end."""

    def __init__(self, folder: Path) -> None:
        (port,) = kwok.free_ports(1)
        machine = Machine("", Mounts(), folder, folder, {})
        super().__init__(Settings(folder, port, folder / "pki", folder, folder, folder), machine, end_limit=0.3)
        self.deaf: asyncio.Task[None] | None = None

    async def operate(self, api: Api) -> None:
        await self._operate(api)

    async def _work(self) -> None:
        self.deaf = asyncio.current_task()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()


@pytest.mark.parametrize("turns", range(5))
async def test_an_operator_that_fails_as_it_is_ended_is_not_started_again(turns: int, tmp_path: Path) -> None:
    server = Server(KeyError("metadata"))
    task = asyncio.create_task(Host(tmp_path).operate(server))  # type: ignore[arg-type]
    assert await ends(task, server, turns)


async def test_work_that_does_not_end_keeps_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                           programs: list[subprocess.Popen[bytes]]) -> None:
    pki.make(tmp_path / "pki")
    host, listening = Host(tmp_path), asyncio.Event()
    task = asyncio.create_task(host.run(listening))
    await asyncio.wait_for(listening.wait(), 5)
    outer, inner = family(programs)
    process = in_jail(outer, inner)
    with caplog.at_level(logging.ERROR):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(asyncio.shield(task), 5)
    assert "not all of the pod host's work ended within 0.3 s" in caplog.text
    assert process not in Process.alive
    assert host.deaf
    assert not host.deaf.done()
    host.deaf.cancel()


# Signals


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that are ended after the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for program in started:
        program.kill()
        program.wait()


def family(programs: list[subprocess.Popen[bytes]]) -> tuple[subprocess.Popen[bytes], int]:
    """A program that waits for another, as bubblewrap does for its init; and the other's pid."""
    programs.append(subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE))
    stdout = programs[-1].stdout
    assert stdout
    with stdout:
        return programs[-1], int(stdout.readline())


def in_jail(bubblewrap: subprocess.Popen[bytes], init: int | None) -> Process:
    """A Process whose bubblewrap has said which its init is."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    if init is not None:
        os.write(write, b'{"child-pid": %d}\n' % init)
        os.close(write)
    return Process(JAIL, bubblewrap, read)


async def test_the_jails_init_is_killed_and_all_ends(programs: list[subprocess.Popen[bytes]]) -> None:
    outer, inner = family(programs)
    process = in_jail(outer, inner)
    await asyncio.sleep(0.05)
    process.kill()
    await asyncio.wait_for(process.wait(), 5)
    assert memory.parent(inner) == 0


async def test_a_process_that_got_the_pid_of_an_ended_init_is_left_alone(programs: list[subprocess.Popen[bytes]]) -> None:
    outer, _ = family(programs)
    programs.append(subprocess.Popen(["sleep", "60"]))
    other = programs[-1]
    process = in_jail(outer, other.pid)
    for end in (process.terminate, process.kill):
        end()
        await asyncio.sleep(0.05)
        assert other.poll() is None
    outer.kill()
    await asyncio.wait_for(process.wait(), 5)
    process.kill()
    assert other.poll() is None


# From outside


def begin(programs: list[subprocess.Popen[bytes]], folder: Path, script: str) -> subprocess.Popen[bytes]:
    """What looks like the pod host of a run in the folder, once it says that it is ready."""
    programs.append(subprocess.Popen([sys.executable, "-c", f"{script}; print('ready', flush=True); time.sleep(60)", "-m",
                                      cluster.POD_HOST], env={RUN_VARIABLE: str(folder)}, stdout=subprocess.PIPE))
    stdout = programs[-1].stdout
    assert stdout
    with stdout:
        assert stdout.readline() == b"ready\n"
    return programs[-1]


def test_a_plan_waits_for_the_pod_host_that_it_ends(tmp_path: Path, programs: list[subprocess.Popen[bytes]]) -> None:
    slow = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), exit(7)))"
    host, run = begin(programs, tmp_path, slow), SimpleNamespace(folder=tmp_path)
    steps = cluster.Rehearsal()._end_pod_hosts(run)  # type: ignore[arg-type]
    threading.Thread(target=host.wait, daemon=True).start()  # as init does: nothing of it stays
    for step in steps:
        subprocess.run(step.argv, check=True, timeout=step.limit)
    assert host.poll() == 7, "it has ended by itself"


def test_a_pod_host_that_does_not_end_is_killed(tmp_path: Path, programs: list[subprocess.Popen[bytes]]) -> None:
    host = begin(programs, tmp_path, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    host.terminate()
    step = cluster._ended(host.pid, 1)
    subprocess.run(step.argv, check=True, timeout=step.limit)
    assert host.wait(5) == -signal.SIGKILL
