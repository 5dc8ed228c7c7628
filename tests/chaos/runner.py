"""`gpurunbook ...` in this process, notebooks included, which kills itself or another process at a boundary of the journal.

The command line, the lock, the walk and the stages are the product's. Instead of papermill and a kernel for each notebook the
cells are executed here, one after the other: a kernel takes half a second to start. Cells that only draw are left out.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from gpurunbook import kernels, processes
from gpurunbook.journal import Journal
from tests.chaos import audit
from tests.chaos.boundary import AFTER, ELDER, Namer, points

VICTIMS = {"etcd": "etcd", "api-server": "kube-apiserver", "kwok": "kwok-controller", "pod-host": "gpurunbook.targets.rehearsal"}
"""Victim -> its name in gpurunbook.processes."""
DRAWS = ("plots.", "import plots")


@dataclass(frozen=True)
class Arms:
    """Where a life ends, and whose.

    Attributes:
        points: where; None: at every point.
        done: points to pass by.
        victim: "runner" (this process), "child" (the program just started), or a key of VICTIMS.
        delay: seconds from the point to the kill of a child.
        seed: of `boundary.points`.
    """

    points: tuple[str, ...] | None = ()
    done: tuple[str, ...] = ()
    victim: str = "runner"
    delay: float = 0.0
    seed: int = 0


@dataclass
class Trace:
    """What a life leaves behind for the keeper, in a file: the names it passed, and the point where it killed."""

    path: Path
    fd: int = field(init=False)

    def __post_init__(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)

    def note(self, **what: Any) -> None:
        os.write(self.fd, (json.dumps(what) + "\n").encode())


def arm(arms: Arms, folder: Path, trace: Trace) -> None:
    """From here on each append to a journal of this process passes its points."""
    namer, write, over = Namer(), Journal._write, threading.Event()
    told = threading.Lock()
    done, wanted = set(arms.done), None if arms.points is None else set(arms.points)

    def due(point: str) -> bool:
        return not over.is_set() and point not in done and (wanted is None or point in wanted)

    def at(point: str, record: dict[str, Any]) -> None:
        trace.note(at=point, time=time.time())
        if arms.victim == "runner":
            os.kill(os.getpid(), signal.SIGKILL)
        over.set()
        strike(arms, folder, record, trace)

    def stepped(self: Journal, line: bytes) -> None:
        with told:
            record = json.loads(line)
            name = namer.name(record)
            first, last = points(name, arms.seed)
            if due(first):
                if first.startswith("torn") and arms.victim == "runner":
                    write(self, line.rstrip(b"\n")[:len(line) // 2])
                at(first, record)
            write(self, line)
            trace.note(name=name, time=time.time())
            if due(last):
                at(last, record)

    Journal._write = stepped  # type: ignore[method-assign]


def strike(arms: Arms, folder: Path, record: dict[str, Any], trace: Trace) -> None:
    """Kill the victim, now or a little later; a child that has ended by then is not hit."""
    def kill(pids: list[int]) -> None:
        hit = []
        for pid in pids:
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    continue
                os.kill(pid, signal.SIGKILL)
                hit.append(pid)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        trace.note(hit=hit)

    if arms.victim == "child":
        timer = threading.Timer(arms.delay, kill, [[record["process"]["pid"]]])
        timer.daemon = True
        timer.start()
    else:
        kill([p.pid for p in processes.of_runs(folder) if p.name == VICTIMS[arms.victim]])


def of_child(name: str) -> bool:
    """Whether a boundary is one after which a program of ours runs that writes or reads through helm or kubectl."""
    return ELDER not in name and any(f": pid {program}," in name for program in ("helm", "kubectl"))


def call(argv: list[str], arms: Arms | None, folder: Path, trace: Trace) -> int:
    """`gpurunbook ARGV` in this process. Returns its exit code, if it comes to its end."""
    import papermill

    from gpurunbook import cli
    papermill.execute_notebook, kernels.one_ahead = execute, lambda root, names, keep: (None for _ in names)
    audit.arm()
    arm(arms or Arms(), folder, trace)
    sys.argv = ["gpurunbook", *argv]
    try:
        cli.main()
    except SystemExit as end:
        return 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def execute(source: str, output: str, parameters: dict[str, Any], **_: Any) -> None:
    """Stands in for papermill: the notebook's cells in one namespace, the parameters after the cell of that name."""
    import nbformat
    from papermill import PapermillExecutionError
    book = nbformat.read(source, as_version=4)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(c for c in book.cells if c.cell_type == "code"):
        if any(word in cell.source for word in DRAWS):
            continue
        try:
            _cell(cell.source, names, f"{Path(source).name}, cell {number}")
        except Exception as error:
            traceback.print_exc()
            raise PapermillExecutionError(number, number, cell.source, type(error).__name__, str(error), []) from error
        if "parameters" in cell.metadata.get("tags", []):
            names.update(parameters)
    nbformat.write(book, output)


def _cell(text: str, names: dict[str, Any], where: str) -> None:
    body = ast.parse(text).body
    last: Callable[[], object] | None = None
    if body and isinstance(body[-1], ast.Expr):
        shown = compile(ast.Expression(body.pop().value), where, "eval")  # type: ignore[attr-defined]
        last = lambda: repr(eval(shown, names))  # noqa: E731
    exec(compile(ast.Module(body, []), where, "exec"), names)
    if last:
        last()


def after(name: str) -> str:
    """The point after a boundary."""
    return f"{AFTER} {name}"
