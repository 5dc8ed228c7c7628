"""The filter of system calls in a process of its own, the limits of a jail, and sized folders."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpurunbook.targets.rehearsal import jail, limits, seccomp, spec
from gpurunbook.targets.rehearsal.jail import Jail
from gpurunbook.targets.rehearsal.process import Process, chunks

PROBE = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
for number in map(int, sys.argv[1:]):
    print(errno.errorcode.get(ctypes.get_errno()) if libc.syscall(number, 0, 0, 0, 0, 0) < 0 else "done")
for family in (socket.AF_UNIX, socket.AF_INET, 40, 38):
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
pair = (ctypes.c_int * 2)()
for family in (1, 40):
    done = libc.socketpair(family, 1, 0, pair)
    print("done" if done == 0 else errno.errorcode[ctypes.get_errno()])
"""


def jailed() -> Jail:
    binds = tuple(jail.Bind(path, path) for path in jail.interpreter())
    return Jail(jail.find_bwrap(), binds, {"PATH": jail.search_path()}, "/", "pod")


def output(command: list[str]) -> str:
    done = jailed().spawn(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=20)
    assert done.returncode == 0, err
    return out.decode()


def test_refused_calls_are_refused_and_others_are_not() -> None:
    numbers = {name: number for name, number in seccomp.NUMBERS[os.uname().machine].items() if name not in seccomp.BY_FAMILY}
    said = output([sys.executable, "-I", "-c", PROBE, *map(str, numbers.values())]).split()
    assert dict(zip(numbers, said, strict=False)) == {
        name: "ENOSYS" if name in seccomp.UNKNOWN else "EPERM" for name in numbers}
    assert said[len(numbers):] == ["done", "done", "EAFNOSUPPORT", "EAFNOSUPPORT", "done", "EAFNOSUPPORT"]


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    assert seccomp.program("riscv64") is None
    for machine in seccomp.NUMBERS:
        words = seccomp.program(machine)
        assert words is not None
        assert len(words) % 8 == 0


def test_a_nul_never_reaches_bubblewrap() -> None:
    with pytest.raises(OSError, match="NUL"):
        jailed().spawn(["echo", "a\0b"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.raises(OSError, match="NUL"):
        Jail("bwrap", (), {"A": "x\0--bind\0/\0/mnt"}, "/", "pod").spawn(
            ["true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def test_a_jail_is_limited_before_its_program_starts() -> None:
    process = Process.start(jailed(), ["cat", "/proc/self/oom_score_adj", "/proc/self/limits"])
    assert process.stdout is not None
    said = b"".join([data async for data in chunks(process.stdout)]).decode()
    assert (await process.wait()).code == 0
    process.close()
    assert said.splitlines()[0] == str(limits.FIRST_TO_END)
    assert next(line.split()[2:4] for line in said.splitlines() if line.startswith("Max processes")) == ["512", "512"]


async def test_a_jail_that_cannot_be_limited_runs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(pid: int, shared: bool) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(limits, "hold", refuse)
    process = Process.start(jailed(), ["echo", "ran"])
    assert process.stdout is not None
    assert [data async for data in chunks(process.stdout)] == []
    assert (await asyncio.wait_for(process.wait(), 5)).code != 0
    process.close()


@pytest.mark.parametrize(("asked", "machine", "most"), [
    (None, 32 << 30, 4 << 30), (None, 4 << 30, 3 << 30), (12 << 30, 8 << 30, 6 << 30), (1 << 20, 8 << 30, 1 << 20)])
def test_the_memory_that_a_container_gets(asked: int | None, machine: int, most: int) -> None:
    assert limits.memory(asked, machine) == most


@pytest.mark.parametrize(("volume", "size"), [({}, limits.FOLDER), ({"sizeLimit": "10Mi"}, 10 << 20),
                                              ({"sizeLimit": "30Gi"}, limits.FOLDER), ({"sizeLimit": "0"}, limits.FOLDER),
                                              ({"sizeLimit": "1m"}, limits.FOLDER)])
def test_an_empty_dirs_size(volume: dict[str, str], size: int) -> None:
    (made,) = spec.volumes({"spec": {"volumes": [{"name": "v", "emptyDir": volume}]}}, {})
    assert made.size == size


def test_many_empty_dirs_share_what_one_may_take() -> None:
    """They lie in this machine's memory."""
    made = spec.volumes({"spec": {"volumes": [{"name": str(n), "emptyDir": {}} for n in range(64)]}}, {})
    assert sum(volume.size for volume in made) <= limits.FOLDER


def test_no_file_is_mounted_where_a_pod_can_write() -> None:
    """An earlier container may have put a link there, which bubblewrap would follow out of the jail."""
    from gpurunbook.targets.rehearsal import container
    data, file = jail.Bind("/", "/data", True), jail.Bind("/etc/hostname", "/data/cfg")
    with pytest.raises(spec.NotNow, match="no file below a volume that can be written: /data/cfg"):
        container._refuse_files_below_volumes([data, file])
    container._refuse_files_below_volumes([jail.Bind("/", "/dat", True), file, jail.Bind("/etc", "/data/folder", True)])


@pytest.mark.parametrize("path", ["/data/../x", "../x", "data", "/../oldroot/tmp"])
def test_a_mount_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(spec.NotNow):
        list(spec.mounts({"volumeMounts": [{"name": "v", "mountPath": path}]}, {"v": spec.Volume("v", None)}))


SIZED = """
import os, sys
from pathlib import Path
from gpurunbook.targets.rehearsal.mounts import Mounts
mounts = Mounts.set([])
place = mounts.make(Path(sys.argv[1]) / "a b", 1 << 20)
assert mounts.make(Path(sys.argv[1]) / "a b", 1 << 20) == place
try:
    (place / "file").write_bytes(bytes(2 << 20))
except OSError as error:
    print(error.errno)
for _ in range(3000):
    os.chdir(place) if _ == 0 else None
    os.mkdir("d")
    os.chdir("d")
os.chdir("/")
mounts.drop(Path(sys.argv[1]))
print(os.listdir(Path(sys.argv[1]) / "a b"))
"""


def test_a_sized_folder_is_full_at_its_size_and_goes_as_one(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SIZED, str(tmp_path)], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split("\n")[:2] == [str(errno.ENOSPC), "[]"]
    assert list((tmp_path / "a b").iterdir()) == []
