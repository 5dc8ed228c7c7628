"""Memory limits: a container that uses more than its limit is killed as a whole, as by a kernel with memory.oom.group.

Most machines give us no cgroup to write to, so the pod host looks. What counts is anonymous memory, heap and stacks:
the model's weights are mapped from one shared file, and a kernel too drops pages of files before it kills. A look is
taken five times a second, so a program can pass its limit for that long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from gpurunbook.targets.rehearsal.api import Object

PAUSE = 0.2  # seconds between two looks
PAGE = os.sysconf("SC_PAGE_SIZE")
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
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


async def exceeded(roots: Callable[[], Iterable[int]], most: int) -> None:
    """Return when the processes below these use more than so many bytes together.

    Args:
        roots: asked at each look, for the processes 1 of the container's jails.
    """
    while True:
        pids = [pid for root in roots() for pid in tree(root)]
        if sum(map(anonymous, pids)) > most and sum(map(exact, pids)) > most:
            return
        await asyncio.sleep(PAUSE)


def tree(pid: int) -> list[int]:
    """A process and all below it; those that end meanwhile are left out."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def anonymous(pid: int) -> int:
    """Resident bytes of no file. A page that a fork shares counts in each: cheap, and never too little."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        words = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(words[1]) - int(words[2])) * PAGE
    return 0


def exact(pid: int) -> int:
    """The same with shared pages divided among those that share them: exact, and slow for a large process."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^Pss_Anon:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M):
            return int(found[1]) << 10
    return anonymous(pid)
