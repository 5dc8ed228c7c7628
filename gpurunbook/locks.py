"""One at a time: who works on a run holds its lock, and whoever comes second is told who that is.

`gpurunbook run` holds it for the whole walk, and its notebooks' kernels work under it; a notebook that is open by itself holds
it while it applies a plan. The kernel of the operating system lets go of it however the holder ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from gpurunbook.errors import RunbookError

VARIABLE = "GPURUNBOOK_LOCK"
"""In the environment of those who work under a lock: who holds it."""
WAIT, LOOK = 1.0, 0.05
"""Seconds in which a holder may just be done, and between two looks."""


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold the run in a folder; under a lock that our own walk holds this does nothing.

    Args:
        what: who we are, in the words that another would be told.

    Raises:
        RunbookError: another holds it, named with its pid; or there can be no lock in the folder.
    """
    path = folder / "lock"
    try:
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    except OSError as error:
        raise RunbookError(f"run {folder.name} cannot be locked: {error.strerror}", where=str(path),
                           next="mend the permissions, or free space; nothing was begun") from error
    with lock:
        if not _taken(lock):
            who = lock.read()
            if who and os.environ.get(VARIABLE) == who:
                yield
                return
            name, pid, _ = _told(who)
            raise RunbookError(f"run {folder.name} is being worked on by {name}, process {pid}", where=str(path),
                               next=f"wait until it is done, or end it (kill {pid}); or: gpurunbook run --run-id OTHER")
        if _told(os.environ.get(VARIABLE, ""))[2] == str(folder):
            raise RunbookError(f"the walk of run {folder.name} that this notebook works for has ended", where=str(path),
                               next=f"go on with: gpurunbook run --run-id {folder.name}; nothing more was begun")
        mine = json.dumps({"what": what, "pid": os.getpid(), "since": time.time(), "folder": str(folder)})
        try:
            lock.truncate(0)
            lock.write(mine)
            lock.flush()
        except OSError as error:
            raise RunbookError(f"run {folder.name} cannot be locked: {error.strerror}", where=str(path),
                               next="free space, then run the same again; nothing was begun") from error
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = mine
        try:
            yield
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


def still(folder: Path) -> None:
    """Raises RunbookError when the walk under whose lock we work is gone: somebody else may begin at any moment."""
    who = os.environ.get(VARIABLE, "")
    if not who or _told(who)[1] == os.getpid():
        return
    with (folder / "lock").open() as lock:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            who = ""  # nobody holds it
        if not who or lock.read() != who:
            raise RunbookError(f"the walk of run {folder.name} that began this notebook is gone; nothing more was begun",
                               where=str(folder / "lock"), next="gpurunbook run, which goes on from here")


def _taken(lock: IO[str]) -> bool:
    deadline = time.monotonic() + WAIT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if os.environ.get(VARIABLE) == lock.read() != "" or time.monotonic() > deadline:
                lock.seek(0)
                return False
            lock.seek(0)
            time.sleep(LOOK)
        except OSError as error:  # a file system that has no locks
            raise RunbookError(f"there can be no lock at {lock.name}: {error.strerror}", where=lock.name,
                               next="put the checkout on a disk of this machine; nothing was begun") from error
        else:
            return True


def _told(who: str) -> tuple[str, int | str, str]:
    """Who a holder says it is, its pid, and the folder."""
    try:
        found = json.loads(who)
        return str(found["what"]), int(found["pid"]), str(found["folder"])
    except (ValueError, LookupError, TypeError):
        return "another", "unknown", ""  # it has the lock, and has not written yet who it is
