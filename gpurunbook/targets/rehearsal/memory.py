"""Memory limits: a container that uses more than its limit is killed as a whole, as by a kernel with memory.oom.group.

Most machines give us no cgroup to write to, so the pod host looks. What counts is heap, stacks and memory shared between
processes: the model's weights are mapped from one shared file, and a kernel too drops pages of files before it kills.
(Of a file on a tmpfs each page mapped counts.) A look is taken five times a second, so a program can pass its limit for
that long; where processes share much memory, which only an exact look tells, for two seconds. Not seen is shared memory
that a program keeps without having it mapped in a page table (MADV_DONTNEED on a shared mapping).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gpurunbook.targets.rehearsal.api import Object

PAUSE, MOST_PAUSE = 0.2, 2.0  # seconds between two looks, and at most between two exact ones
PROC = Path("/proc")
RESIDENT = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", re.M)
SHARES = re.compile(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", re.M)
UNITS = {"": 1, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
         "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}


def quantity(text: str) -> int:
    """A Kubernetes quantity (12Gi, 1.5G, 1e9) as a whole number. Raises ValueError for what is none."""
    found = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([a-zA-Z]*)", text)
    if found is None or found[2] not in UNITS:
        raise ValueError(f"not a quantity: {text}")
    return int(float(found[1]) * UNITS[found[2]])


def limit(container: Object) -> int | None:
    """The bytes that a container may use, or None."""
    text = container.get("resources", {}).get("limits", {}).get("memory")
    return None if text is None else quantity(str(text))


async def exceeded(roots: Callable[[], Iterable[int]], most: int,
                   exactly: Callable[[Sequence[int]], int] | None = None) -> None:
    """Return when the processes below these use more than so many bytes together.

    Args:
        roots: asked at each look, for the processes 1 of the container's jails.
        exactly: the bytes that processes use; by itself, `exact` of each.
    """
    pause = PAUSE
    while True:
        pids = [pid for root in roots() for pid in tree(root)]
        if sum(map(anonymous, pids)) <= most:
            pause = PAUSE
        elif await asyncio.to_thread(exactly or _exactly, pids) > most:  # slow, and others wait for the loop
            return
        else:
            pause = min(2 * pause, MOST_PAUSE)
        await asyncio.sleep(pause)


def tree(pid: int, proc: Path = PROC) -> list[int]:
    """A process and all below it. Left out are those that end meanwhile, and others that got their pid."""
    found = [(pid, 0)]
    for one, above in found:
        with contextlib.suppress(OSError):
            below = [int(child) for thread in (proc / str(one) / "task").iterdir()
                     for child in (thread / "children").read_text().split()]
            if above == 0 or parent(one, proc) == above:
                found += [(child, one) for child in below]
    return [one for one, above in found if above == 0 or parent(one, proc) == above]


def parent(pid: int, proc: Path = PROC) -> int:
    """The pid of a process's parent; 0 when it has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name before these may hold spaces and brackets.
        return int((proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _exactly(pids: Sequence[int]) -> int:
    return sum(map(exact, pids))


def anonymous(pid: int) -> int:
    """Resident bytes of no file on disk. A page that a fork shares counts in each: cheap, and never too little."""
    with contextlib.suppress(OSError):
        return sum(int(found) << 10 for found in RESIDENT.findall(Path(f"/proc/{pid}/status").read_text()))
    return 0


def exact(pid: int) -> int:
    """The same with shared pages divided among those that share them: exact, and slow for a large process."""
    with contextlib.suppress(OSError):
        if found := SHARES.findall(Path(f"/proc/{pid}/smaps_rollup").read_text()):
            return sum(int(one) << 10 for one in found)
    return anonymous(pid)
