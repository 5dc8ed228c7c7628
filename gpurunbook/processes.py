"""Processes of ours: told apart by pid and start time, found by the run that their environment names.

Every program started for a run has GPURUNBOOK_RUN=<run folder> in its environment and passes it on, so what a
killed runner leaves behind can be found without trusting a name or a pid file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

RUN_VARIABLE = "GPURUNBOOK_RUN"
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class Process:
    """A process that no later one with the same pid can be mistaken for.

    Attributes:
        pid: the process id.
        started: creation time, seconds since the epoch (psutil).
        name: the program, or the Python module it runs.
        run: the run folder named in its environment, if any.
    """

    pid: int
    started: float
    name: str = ""
    run: Path | None = None

    @classmethod
    def of(cls, pid: int) -> Process:
        """Raises psutil.NoSuchProcess when it has ended."""
        process = psutil.Process(pid)
        return cls(pid, process.create_time())

    @property
    def key(self) -> dict[str, float]:
        """What a journal needs to find it again: `Process(**key)`."""
        return {"pid": self.pid, "started": self.started}

    @property
    def alive(self) -> bool:
        try:
            other = psutil.Process(self.pid)
            # The kernel counts in ticks of 10 ms; a pid is not used again within a second.
            return abs(other.create_time() - self.started) < 1 and other.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def of_runs(run: Path | None = None) -> list[Process]:
    """This user's processes that belong to runs, or to one run; ourselves and our parents are left out."""
    mine = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        # A process may end, or belong to somebody else, between listing and looking.
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.pid in mine or (os.getuid() != 0 and process.uids().real not in (os.getuid(), 0)):
                continue
            folder = process.environ().get(RUN_VARIABLE)
            # Root sees everybody's processes, and pods' run under other users: the run folder says whose they are.
            if folder and os.path.exists(folder) and os.stat(folder).st_uid != os.getuid():
                continue
            if folder and (run is None or Path(folder) == run):
                found.append(Process(process.pid, process.create_time(), _name(process.cmdline()), Path(folder)))
    return found


def _name(argv: list[str]) -> str:
    if "-m" in argv[1:-1]:
        return argv[argv.index("-m") + 1]
    return os.path.basename(argv[0]) if argv else ""


def end(processes: list[Process], grace: float = GRACE) -> list[Process]:
    """SIGTERM, then SIGKILL after `grace` seconds. Returns those that would not go, or that we may not end."""
    alive = []
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.alive:
                target = psutil.Process(process.pid)
                target.terminate()
                alive.append(target)
    _, stubborn = psutil.wait_procs(alive, timeout=grace)
    for target in stubborn:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            target.kill()
    psutil.wait_procs(stubborn, timeout=grace)
    return [process for process in processes if process.alive]
