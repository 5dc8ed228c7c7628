"""What an interrupted runner left at work: its program is ended, its intent closed, and the cluster looked at afresh."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psutil

from gpurunbook import processes
from gpurunbook.command import end_group
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal, Record
from gpurunbook.processes import Process

VARIABLE = "GPURUNBOOK_INTENT"
"""In the environment of every program of ours: the id of the intent that started it."""
PATIENCE = 3.0
"""Seconds in which a notebook's kernel ends whose walk was killed: it looks for it once a second."""


def wait_for_others(journal: Journal) -> None:
    """For who has the run's lock: a kernel whose walk was killed may live for another second.

    Raises:
        RunbookError: another process is in the middle of an act all the same.
    """
    deadline = time.monotonic() + PATIENCE
    while others := [intent for intent in journal.in_flight() if intent["changes"] and intent["by"]["pid"] != os.getpid()
                     and Process(**intent["by"]).alive]:
        if time.monotonic() > deadline:
            pid = others[0]["by"]["pid"]
            raise RunbookError(f"process {pid} is at work on this run without its lock: {others[0]['shown']}",
                               where=str(journal.path), next=f"wait until it is done, or end it (kill {pid})")
        time.sleep(0.1)


def close(journal: Journal) -> list[Record]:
    """Close every intent whose runner is gone. Returns those intents, oldest first.

    A helm that outlives its kernel holds the release's lock, so it gets the same graces as at a Ctrl-C.
    """
    closed = []
    for intent in journal.in_flight():
        if Process(**intent["by"]).alive:
            continue
        if leader := _leader(journal, intent):
            end_group(leader)
        journal.append("result", id=intent["id"], code=None, error="interrupted: result unknown")
        closed.append(intent)
    return closed


def _leader(journal: Journal, intent: Record) -> int | None:
    """The pid of the intent's program while any of its session is alive. A daemon that it left has a session of its own.

    A runner may be killed before it could write the pid, and a program's children may outlive it: both are found by what
    stands in their environment.
    """
    program = Process(**intent["program"]) if "program" in intent else None
    if program and program.alive:
        return program.pid
    for process in processes.of_runs(journal.folder):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            found, session = psutil.Process(process.pid), os.getsid(process.pid)
            if found.environ().get(VARIABLE) == intent["id"] and (session == program.pid if program else
                    # A script shows its interpreter first. A daemon that the program left has another name.
                    session == process.pid and intent["argv"][0] in found.cmdline()[:3]):
                return session
    return None
