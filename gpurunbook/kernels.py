"""The kernel of the next notebook boots and imports while this one works: alone that takes longer than most cells.

One that waits has run nothing but imports of ours. It ends with the walk, also when that is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpurunbook import notebooks

if TYPE_CHECKING:
    from jupyter_client.manager import KernelManager

ASYNC = "jupyter_client.asynchronous.AsyncKernelClient"
"""The kind of client that papermill's engine talks to a kernel with."""

SET_PDEATHSIG = 1
"""prctl(2)."""


def tie(parent: int) -> None:
    """In a kernel: be killed when that parent dies, or now where it is dead. ipykernel looks for it only once it has booted, and
    takes whoever adopted it meanwhile (systemd of a session, a container's init) for the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def one_ahead(root: Path, names: Sequence[str]) -> Generator[KernelManager]:
    """A running kernel for the notebook of each stage in turn, in the folder `root`; the one before is ended.

    To be closed, which ends those that are there.
    """
    current, following = None, None
    try:
        for n in range(len(names)):
            current = following
            if current is None or not current.is_alive():  # one that was killed while it waited is no loss
                _end(current)
                current = _start(root, [])
            following = _start(root, _imports(root, names[n + 1])) if n + 1 < len(names) else None
            yield current
            _end(current)
    finally:
        for kernel in (current, following):
            _end(kernel)


def _imports(root: Path, stage: str) -> list[str]:
    """Modules that the cells of a notebook import, or have imported when they first ask the cluster."""
    draws = "plots." in notebooks.path(root, stage).read_text(encoding="utf-8", errors="replace")
    return [f"gpurunbook.stages.{stage}", "kubernetes.client.api.core_v1_api", *(["gpurunbook.plots"] if draws else [])]


def _start(root: Path, modules: Sequence[str]) -> KernelManager:
    from jupyter_client.manager import KernelManager
    kernel = KernelManager(kernel_name="python3", client_class=ASYNC)
    lines = [f"__import__('gpurunbook.kernels').kernels.tie({os.getpid()});",  # expressions, which bind no name
             *(f"__import__({name!r});" for name in modules)]
    kernel.start_kernel(cwd=str(root), extra_arguments=["--log-level=ERROR", "--HistoryManager.hist_file=:memory:",
                                                        *(f"--IPKernelApp.exec_lines={line}" for line in lines)])
    return kernel


def _end(kernel: KernelManager | None) -> None:
    """At once: all that a kernel had to keep is synced, and waiting for its farewell takes 0.4 s."""
    if kernel is not None and kernel.has_kernel:
        kernel.shutdown_kernel(now=True)
