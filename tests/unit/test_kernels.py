"""The next notebook's kernel is there before it is needed, and none outlives the walk."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import pytest

from gpurunbook import kernels
from gpurunbook.errors import RunbookError

ROOT = Path(__file__).parents[2]
SET_CHILD_SUBREAPER = 36
"""prctl(2)."""
NAMES = ("preflight", "next_token", "teardown")


@pytest.fixture(autouse=True)
def own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")


def of(process: psutil.Process) -> set[int]:
    found = set()
    for child in process.children():
        with suppress(psutil.Error):  # it may have ended, or be another test's that nobody waited for
            found |= {child.pid} if "ipykernel_launcher" in " ".join(child.cmdline()) else set()
    return found


def until(true: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def talking(kernel: Any) -> Iterator[Any]:
    from jupyter_client.blocking import BlockingKernelClient
    client = BlockingKernelClient(connection_file=kernel.connection_file)
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=30)
        yield client
    finally:
        client.stop_channels()


def said(client: Any, code: str) -> str:
    printed: list[str] = []
    client.execute_interactive(code, output_hook=lambda m: printed.append(m["content"].get("text", "")), timeout=30)
    return "".join(printed).strip()


def test_one_waits_while_one_works_and_each_notebook_has_its_own(tmp_path: Path) -> None:
    me, before = psutil.Process(), of(psutil.Process())
    with closing(kernels.one_ahead(ROOT, NAMES, tmp_path / "kernels")) as ahead:
        pids, most = [], []
        for kernel in ahead:
            pids.append(kernel.provisioner.pid)
            assert until(lambda: pids[-1] in of(me))
            most.append(len(of(me) - before))
        assert len(set(pids)) == len(NAMES)
        assert most == [2, 2, 1]  # the last has nobody after it
    assert of(me) == before


def test_the_one_that_waited_has_its_imports_and_no_names_of_its_own(tmp_path: Path) -> None:
    with closing(kernels.one_ahead(ROOT, NAMES, tmp_path / "kernels")) as ahead:
        next(ahead)
        with talking(next(ahead)) as client:
            wanted = ("gpurunbook.plots", "gpurunbook.stages.next_token", "kubernetes.client.api.core_v1_api")
            assert said(client, f"import sys, os; print([m in sys.modules for m in {wanted}], os.getcwd())") == (
                f"[True, True, True] {ROOT}")
            assert said(client, "print({'gpurunbook', 'kubernetes'} & set(globals()), len(In))") == "set() 3"


def test_one_that_was_killed_while_it_waited_is_no_loss(tmp_path: Path) -> None:
    before = of(psutil.Process())
    with closing(kernels.one_ahead(ROOT, NAMES, tmp_path / "kernels")) as ahead:
        first = next(ahead).provisioner.pid
        assert until(lambda: len(of(psutil.Process()) - before) == 2)
        (waiting,) = of(psutil.Process()) - before - {first}
        os.kill(waiting, signal.SIGKILL)
        second = next(ahead)
        assert second.provisioner.pid != waiting
        with talking(second) as client:
            assert said(client, "print(6 * 7)") == "42"
    assert of(psutil.Process()) == before


@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.4, 0.8, 2.0])
def test_none_outlives_a_walk_that_is_killed(seconds: float, tmp_path: Path) -> None:
    """Whenever that is, and also where a session's systemd adopts orphans instead of init: here a subreaper does."""
    code = ("import time; from pathlib import Path; from gpurunbook import kernels\n"
            f"ahead = kernels.one_ahead(Path({str(ROOT)!r}), {NAMES!r}, Path({str(tmp_path)!r})); next(ahead)\n"
            "print('up', flush=True); time.sleep(60)")
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as walk:
            assert walk.stdout
            assert walk.stdout.readline() == "up\n"
            children = psutil.Process(walk.pid).children()
            assert len(children) == 2
            time.sleep(seconds)
            walk.kill()
        gone, alive = psutil.wait_procs(children, timeout=15)
        assert len(gone) == 2, alive
    finally:
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_nothing_of_a_notebook_that_is_over_stays_open(tmp_path: Path) -> None:
    """Neither sockets nor threads of whoever talked to its kernel, nor the file by which it was reached."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    nbformat.write(book, tmp_path / "in.ipynb")
    counts = []
    with closing(kernels.one_ahead(ROOT, NAMES, tmp_path / "kernels")) as ahead:
        for kernel in ahead:
            papermill.execute_notebook(str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), km=kernel, kernel_name="python3",
                                       progress_bar=False)
            counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
    assert counts[0] == counts[1]  # the last has none that waits beside it
    assert not (tmp_path / "kernels").exists()


def test_the_next_ones_failure_is_no_reason_to_stop_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, tried = kernels._start, []

    def full(root: Path, reached_by: Path, modules: Sequence[str]) -> kernels.Kernel:
        tried.append(reached_by.name)
        if len(tried) in (2, 4):
            raise OSError(28, "No space left on device", "/tmp")
        return start(root, reached_by, modules)

    monkeypatch.setattr(kernels, "_start", full)
    with closing(kernels.one_ahead(ROOT, NAMES, tmp_path / "kernels")) as ahead:
        assert next(ahead).is_alive()
        assert next(ahead).is_alive()
        assert tried == ["preflight.now.json", "next_token.json", "next_token.now.json", "teardown.json"]
        tried.pop()  # the fourth again: now its turn has come
        with pytest.raises(RunbookError, match=r"no kernel could be started for 09_teardown\.ipynb: No space left"):
            next(ahead)
