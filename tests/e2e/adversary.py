"""What an attacker tries from inside a pod: `python adversary.py FACTS` prints {attempt: whether it got in} as JSON.

FACTS is a JSON object of what the test knows of the host: `files`, `folders`, `pids`, `environ` (a text that only the
host's processes hold), `ports`, `sockets`, `abstract`. It runs on the host too, where the attempts in GUARDED must
succeed: one that could not would prove nothing. Nothing here writes to what it gets open.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

X86 = platform.machine() == "x86_64"
CALLS = {"add_key": 248, "ptrace": 101, "process_vm_readv": 310, "bpf": 321, "perf_event_open": 298, "memfd_create": 319,
         "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438, "shmget": 29, "unshare": 272, "mount": 165,
         "init_module": 175, "open_tree": 428, "setns": 308, "userfaultfd": 323} if X86 else {
         "add_key": 217, "ptrace": 117, "process_vm_readv": 270, "bpf": 280, "perf_event_open": 241, "memfd_create": 279,
         "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438, "shmget": 194, "unshare": 97, "mount": 40,
         "init_module": 105, "open_tree": 428, "setns": 268, "userfaultfd": 282}
LIBC = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNS = 0x10000000, 0x20000
ATTACH, DETACH = 16, 17
GUARDED = ("file ", "folder ", "environ ", "memory ", "root ", "signal ", "port ", "socket ", "abstract ", "call add_key",
           "call memfd_create", "call shmget", "call io_uring_setup", "ptrace ", "vsock")
"""Beginnings of the names of attempts that get in where there is no jail."""


def call(name: str, *arguments: Any) -> int:
    result: int = LIBC.syscall(CALLS[name], *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def attempts(facts: dict[str, Any]) -> Iterator[tuple[str, Callable[[], object]]]:
    """(name, an act that raises OSError or answers with something false where it is kept out)."""
    buffer = ctypes.create_string_buffer(256)
    # First, since the attempts below leave some open.
    yield "what was left open", lambda: [number for number in map(int, os.listdir("/proc/self/fd")) if number > 2
                                         and os.path.exists(f"/proc/self/fd/{number}")]
    for path in facts["files"]:
        yield f"file {path}", lambda path=path: Path(path).read_bytes()
        yield f"/oldroot{path}", lambda path=path: Path("/oldroot" + path).read_bytes()
        yield f"/proc/self/root/..{path}", lambda path=path: Path("/proc/self/root/../.." + path).read_bytes()
    for path in facts["folders"]:
        yield f"folder {path}", lambda path=path: os.listdir(path) or [path]
    for pid in facts["pids"]:
        yield f"environ {pid}", lambda pid=pid: Path(f"/proc/{pid}/environ").read_bytes()
        yield f"root {pid}", lambda pid=pid: os.listdir(f"/proc/{pid}/root/")
        yield f"memory {pid}", lambda pid=pid: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY)) is None
        yield f"signal {pid}", lambda pid=pid: os.kill(pid, 0) is None
        yield f"ptrace {pid}", lambda pid=pid: call("ptrace", ATTACH, pid, 0, 0) == 0 and detach(pid)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        yield f"a text of the host in {pid}", lambda pid=pid: facts["environ"] in Path(f"/proc/{pid}/environ").read_text()
    yield "init's root", lambda: os.listdir("/proc/1/root/")
    yield "init's variables", lambda: Path("/proc/1/environ").read_bytes()
    yield "init by ptrace", lambda: call("ptrace", ATTACH, 1, 0, 0) == 0 and detach(1)
    yield "init's files", lambda: call("pidfd_getfd", call("pidfd_open", 1, 0), 3, 0)
    yield "init's memory", lambda: call("process_vm_readv", 1, ctypes.byref(buffer), 1, ctypes.byref(buffer), 1, 0)
    for port in facts["ports"]:
        yield f"port {port}", lambda port=port: socket.create_connection(("127.0.0.1", port), 2).close() is None
    for path in facts["sockets"]:
        yield f"socket {path}", lambda path=path: connect(path)
    yield f"abstract {facts['abstract']}", lambda: connect("\0" + facts["abstract"])
    for address in ("192.0.2.1", "169.254.169.254", "10.0.0.1"):
        yield f"a packet to {address}", lambda address=address: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", (address, 9))
    yield "a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    yield "vsock", lambda: socket.socket(40, socket.SOCK_STREAM)
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/kcore",
                 "/dev/mem", "/dev/kmsg", "/dev/fuse", "/dev/vda", "/dev/sda", "/usr/bin/sh", sys.executable, "/etc/passwd",
                 "/etc/ld.so.cache"):
        yield f"write {path}", lambda path=path: os.close(os.open(path, os.O_WRONLY)) is None
    for path in ("/new", "/usr/new", "/dev/new", "/etc/new", "/proc/1/new", f"{sys.prefix}/new"):
        yield f"make {path}", lambda path=path: Path(path).touch() is None
    yield "a cgroup", lambda: os.mkdir("/sys/fs/cgroup/new") is None
    yield "a device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)) is None
    yield "setuid", lambda: os.setuid(0) is None
    yield "setgroups", lambda: os.setgroups([0]) is None
    yield "a setuid program", setuid_program
    yield "chroot twice", chroot_twice
    yield "call unshare user", lambda: call("unshare", NEWUSER) == 0
    yield "call unshare mounts", lambda: call("unshare", NEWNS) == 0
    yield "call mount", lambda: call("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, 0) == 0
    yield "call open_tree", lambda: call("open_tree", -100, b"/", 1)
    yield "call init_module", lambda: call("init_module", buffer, 256, b"") == 0
    yield "call setns", lambda: call("setns", os.open("/proc/self/ns/mnt", os.O_RDONLY), 0) == 0
    yield "call add_key", lambda: call("add_key", b"user", b"adversary", b"x", 1, -2)
    yield "call bpf", lambda: call("bpf", 0, buffer, 128)
    yield "call perf_event_open", lambda: call("perf_event_open", buffer, 0, -1, -1, 0)
    yield "call memfd_create", lambda: call("memfd_create", b"x", 0)
    yield "call shmget", lambda: call("shmget", 0, 4096, 0o600 | 0o1000) + 1
    yield "call io_uring_setup", lambda: call("io_uring_setup", 1, buffer)
    yield "call userfaultfd", lambda: call("userfaultfd", 1)


def detach(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0x40000000)  # __WALL
    call("ptrace", DETACH, pid, 0, 0)
    return True


def connect(name: str) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(name)
    return True


def setuid_program() -> bool:
    """Whether one that is root's runs as its owner."""
    found = next((path for path in map(Path, ("/usr/bin/su", "/usr/bin/passwd")) if path.exists()), None)
    if found is None or os.geteuid() == 0:
        return False
    with subprocess.Popen([found], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        uids = next(line for line in Path(f"/proc/{program.pid}/status").read_text().splitlines() if line.startswith("Uid:"))
        program.kill()
    return len(set(uids.split()[1:])) > 1


def chroot_twice() -> bool:
    """The classic way out: a new root below an open folder, then up from there."""
    os.makedirs("/tmp/inner", exist_ok=True)
    above = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/inner")
    os.fchdir(above)
    for _ in range(64):
        os.chdir("..")
    return True


def main() -> None:
    facts, found = json.loads(sys.argv[1]), {}
    for name, act in attempts(facts):
        if facts.get("only") is None or name.startswith(tuple(facts["only"])):
            try:
                found[name] = bool(act())
            except (OSError, ValueError):
                found[name] = False
    print(json.dumps(found))


if __name__ == "__main__":
    main()
