"""What a jail may use of this machine: processes, files, and whom the kernel ends first when memory is short.

    processes   512, threads too: in a pod where it has a uid of its own, else in one jail (a container's program, or an
                exec) and 2048 in all pods together
    files       4096 open in a process; a file of at most the folder that it lies in
    a folder    512 MiB: what is writable in a container, and a pod's emptyDirs together; 64 MiB: /dev/shm, shared by the pod
    memory      memory.py: the container's limit, else 4 GiB, and never more than three quarters of the machine

No limit here bounds the kernel's own memory (sockets' buffers, page tables) or a share of the CPU: both need a cgroup.
What protects others is oom_score_adj: when memory is short the kernel ends pods' processes before any other, unless one
has lowered its own again, which only a root with CAP_SYS_RESOURCE can forbid it. Where the kernel is older than 5.14 an
ordinary user's processes in pods count together with all that user's others.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

MIB = 1 << 20
PROCESSES, ALL_PROCESSES, FILES = 512, 2048, 4096
FOLDER, SHM = 512 * MIB, 64 * MIB
FIRST_TO_END = 1000  # oom_score_adj
DEFAULT_MEMORY = 4 << 30
INHERITED = {resource.RLIMIT_NOFILE: FILES, resource.RLIMIT_FSIZE: 64 << 30, resource.RLIMIT_CORE: 0,
             resource.RLIMIT_MEMLOCK: 8 * MIB, resource.RLIMIT_MSGQUEUE: 0}


def inherit(shared: bool) -> None:
    """Limit this process and what it starts; call once, in the process that spawns.

    Args:
        shared: pods' processes count together with all that our user runs.
    """
    mine = sum(_threads(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()) if shared else 0
    for kind, value in {**INHERITED, resource.RLIMIT_NPROC: mine + ALL_PROCESSES if shared else PROCESSES}.items():
        _lower(0, kind, value)


def hold(pid: int, shared: bool) -> None:
    """Limit a jail through its init, before the program in it starts.

    Args:
        shared: as for `inherit`.

    Raises:
        OSError: the kernel does not let us, or the process has ended.
    """
    if shared:
        _lower(pid, resource.RLIMIT_NPROC, PROCESSES)
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(FIRST_TO_END))


def memory(asked: int | None, machine: int | None = None) -> int:
    """The bytes of memory that a container gets.

    Args:
        asked: its limit.
        machine: the memory of the machine, in bytes; by itself, this one's.
    """
    machine = machine or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(DEFAULT_MEMORY if asked is None else asked, machine * 3 // 4)


def _lower(pid: int, kind: int, value: int) -> None:
    _, hard = resource.prlimit(pid, kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(pid, kind, (value, value))


def _threads(process: Path) -> int:
    try:
        return len(list((process / "task").iterdir())) if process.stat().st_uid == os.geteuid() else 0
    except OSError:
        return 0  # it ended meanwhile
