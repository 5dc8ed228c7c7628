"""The kernel of the next notebook boots and imports while this one works: alone that takes longer than most cells.

One that waits has run nothing but imports of ours. It ends with the walk, also when that is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

from gpurunbook import notebooks, stages
from gpurunbook.errors import RunbookError

ASYNC = "jupyter_client.asynchronous.AsyncKernelClient"
"""The kind of client that papermill's engine talks to a kernel with."""

SET_PDEATHSIG = 1
"""prctl(2)."""


class Kernel(KernelManager):
    """A kernel, with whoever talks to it: papermill's engine parts only from kernels that it started itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._clients: list[Any] = []

    def client(self, **options: Any) -> Any:
        self._clients.append(super().client(**options))
        return self._clients[-1]

    def end(self) -> None:
        """At once: all that a kernel had to keep is synced, and waiting for its farewell takes 0.4 s."""
        while self._clients:
            self._clients.pop().stop_channels()
        if self.has_kernel:
            self.shutdown_kernel(now=True)


def tie(parent: int) -> None:
    """In a kernel: be killed when that parent dies, or now where it is dead. ipykernel looks for it only once it has booted, and
    takes whoever adopted it meanwhile (systemd of a session, a container's init) for the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def one_ahead(root: Path, names: Sequence[str], keep: Path) -> Generator[Kernel]:
    """A running kernel for the notebook of each stage in turn, in the folder `root`; the one before is ended.

    To be closed, which ends those that are there. `keep`: a folder for the files by which they are reached.

    Raises:
        RunbookError: the one whose turn it is cannot be started.
    """
    following, there = None, list[Kernel]()
    keep.mkdir(mode=0o700, exist_ok=True)
    for left in keep.glob("*.json"):  # by a walk that was killed
        left.unlink()
    try:
        for n in range(len(names)):
            current = following
            if current is None or not current.is_alive():  # one that was killed while it waited is no loss
                try:
                    there.append(current := _start(root, keep / f"{names[n]}.now.json", []))
                except OSError as error:
                    raise RunbookError(f"no kernel could be started for {stages.notebook(names[n])}: {error.strerror or error}",
                                       where=str(error.filename or keep), next="mend that, then run the same again") from error
            following = None
            with suppress(OSError):  # no reason to stop what comes before it
                if n + 1 < len(names):
                    there.append(following := _start(root, keep / f"{names[n + 1]}.json", _imports(root, names[n + 1])))
            yield current
            current.end()
    finally:
        for kernel in there:
            kernel.end()
        with suppress(OSError):
            keep.rmdir()


def _imports(root: Path, stage: str) -> list[str]:
    """Modules that the cells of a notebook import, or have imported when they first ask the cluster."""
    draws = "plots." in notebooks.path(root, stage).read_text(encoding="utf-8", errors="replace")
    return [f"gpurunbook.stages.{stage}", "kubernetes.client.api.core_v1_api", *(["gpurunbook.plots"] if draws else [])]


def _start(root: Path, reached_by: Path, modules: Sequence[str]) -> Kernel:
    kernel = Kernel(kernel_name="python3", client_class=ASYNC, connection_file=str(reached_by))
    lines = [f"__import__('gpurunbook.kernels').kernels.tie({os.getpid()});",  # expressions, which bind no name
             *(f"__import__({name!r});" for name in modules)]
    kernel.start_kernel(cwd=str(root), extra_arguments=["--log-level=ERROR", "--HistoryManager.hist_file=:memory:",
                                                        *(f"--IPKernelApp.exec_lines={line}" for line in lines)])
    return kernel
