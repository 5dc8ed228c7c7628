"""Memory limits: quantities, and what real processes use."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpurunbook.targets.rehearsal import memory
from gpurunbook.targets.rehearsal.container import Container, Machine
from gpurunbook.targets.rehearsal.images import Image
from gpurunbook.targets.rehearsal.mounts import Mounts

MIB = 1 << 20


@pytest.mark.parametrize(("text", "number"), [
    ("12Gi", 12 << 30), ("512Mi", 512 << 20), ("1500M", 1_500_000_000), ("1.5G", 1_500_000_000), ("128974848", 128974848),
    ("1e9", 10**9), ("64k", 64_000), ("1Ki", 1024), ("2500m", 2), ("52428800Ki", 50 << 30),
    ("100000000000u", 100_000), ("3000000000n", 3)])
def test_quantities(text: str, number: int) -> None:
    assert memory.quantity(text) == number


@pytest.mark.parametrize("text", ["", "Gi", "12 Gi", "12GiB", "x", "1.2.3"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        memory.quantity(text)


def test_the_limit_of_a_container() -> None:
    assert memory.limit({}) is None
    assert memory.limit({"resources": {"limits": {"cpu": "1"}}}) is None
    assert memory.limit({"resources": {"limits": {"memory": "1Mi"}}}) == MIB


@contextmanager
def python(script: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python that has run the script, said `ready` at its end, and waits."""
    with subprocess.Popen([sys.executable, "-c", f"{script}\nprint('ready', flush=True)\ninput()"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        yield child
        child.kill()


def test_memory_of_a_mapped_file_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(100 * MIB))
    script = (f"import mmap; f = open({str(tmp_path / 'weights')!r}); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); "
              "sum(m[::4096])")
    with python(script) as mapped, python("x = b'x' * (100 << 20)") as owned:
        assert memory.anonymous(mapped.pid) < 50 * MIB
        assert 100 * MIB < memory.anonymous(owned.pid) < 150 * MIB
        assert 100 * MIB < memory.exact(owned.pid) < 150 * MIB


def test_what_a_fork_shares_counts_once_at_the_exact_look() -> None:
    script = "import os, time; x = b'x' * (100 << 20)\nif os.fork() == 0: time.sleep(60)"
    with python(script) as parent:
        family = memory.tree(parent.pid)
        assert len(family) == 2
        assert sum(map(memory.anonymous, family)) > 200 * MIB
        assert sum(map(memory.exact, family)) < 150 * MIB
        os.kill(family[1], 9)


def test_children_of_threads_are_found() -> None:
    script = ("import subprocess, threading\nstarted = threading.Event()\n"
              "def work():\n    subprocess.Popen(['sleep', '60'])\n    started.set()\n    threading.Event().wait()\n"
              "threading.Thread(target=work, daemon=True).start()\nstarted.wait()")
    with python(script) as parent:
        family = memory.tree(parent.pid)
        assert len(family) == 2
        os.kill(family[1], 9)


def test_a_process_that_has_ended_uses_nothing() -> None:
    assert memory.anonymous(2**22 + 1) == memory.exact(2**22 + 1) == 0
    assert memory.tree(2**22 + 1) == [2**22 + 1]


async def test_the_look_ends_when_the_limit_is_passed() -> None:
    with python("x = b'x' * (100 << 20)") as owned:
        await asyncio.wait_for(memory.exceeded(lambda: [owned.pid], 80 * MIB), 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(memory.exceeded(lambda: [owned.pid], 200 * MIB), 0.5)


async def test_exact_looks_become_rare_while_memory_is_shared() -> None:
    looks = []

    def exactly(pids: Sequence[int]) -> int:
        looks.append(len(pids))
        return sum(map(memory.exact, pids))

    script = "import os, time; x = b'x' * (100 << 20)\nif os.fork() == 0: time.sleep(60)"
    with python(script) as parent:
        _, child = memory.tree(parent.pid)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(memory.exceeded(lambda: [parent.pid], 150 * MIB, exactly), 1.6)
        assert looks
        assert len(looks) <= 4, "at 0, 0.4, 1.2 s: not five times a second"
        assert set(looks) == {2}
        os.kill(child, 9)


def test_a_pid_that_another_process_has_got_is_left_out(tmp_path: Path) -> None:
    def process(pid: int, parent: int, *children: int) -> None:
        (tmp_path / f"{pid}/task/{pid}").mkdir(parents=True)
        (tmp_path / f"{pid}/stat").write_text(f"{pid} (a) b) S {parent} 1 1")
        (tmp_path / f"{pid}/task/{pid}/children").write_text(" ".join(map(str, children)))

    process(10, 1, 11, 12, 13)
    process(11, 10)
    process(12, 1, 14)  # the child 12 has ended since, and its pid is another's
    process(14, 12)
    assert memory.tree(10, tmp_path) == [10, 11]
    assert [memory.parent(pid, tmp_path) for pid in (11, 12, 13)] == [10, 1, 0]


class Unjailed(Container):
    """Runs its program as it is."""

    def _jail(self, *args: object) -> Any:
        def spawn(command: list[str], *, status: int, go: int, **streams: int) -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, **streams)  # type: ignore[call-overload, no-any-return]

        (self._machine.pods / self._pod["metadata"]["uid"] / self.name).mkdir(parents=True)
        return SimpleNamespace(uid=None, spawn=spawn)


async def test_a_limit_that_cannot_be_watched_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = {"name": "main", "image": "a:1", "command": ["sleep", "0.2"], "resources": {"limits": {"memory": "much"}}}
    pod = {"metadata": {"name": "p", "namespace": "ns", "uid": "1-2"}, "spec": {"nodeName": "n", "containers": [entry]}}
    machine = Machine("", Mounts(), tmp_path, tmp_path, {"a:1": Image("/")})
    container = Unjailed(machine, pod, entry, "f", lambda: None, lambda *args, **more: None)
    await container.run({}, {}, {})
    assert "terminated" in container.state.state, "it runs on"
    assert "pod p, container main: its probes or its memory limit are watched no more" in caplog.text
    assert "not a quantity: much" in caplog.text
