"""The process from which all lives of a lane come: `python -m tests.chaos.keeper`, told what to do by lines of JSON.

It is a subreaper: whatever a killed runner leaves behind becomes its child, whether or not it says whose it is. So at the end
it has no descendant, or something was left. Lives in one process are forked from here with all modules loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.boundary import Namer, points

SET_CHILD_SUBREAPER = 36
"""prctl(2)."""
LOOK = 0.005


def main() -> None:
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _load()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    with selectors.DefaultSelector() as ears:
        ears.register(sys.stdin, selectors.EVENT_READ)
        while True:
            _reap()
            if not ears.select(timeout=0.02):
                continue
            line = sys.stdin.readline()
            if not line:
                break
            print(json.dumps(_answer(json.loads(line))), flush=True)


def _load() -> None:
    """What a life needs, once for all of them."""
    import kubernetes  # noqa: F401
    import numpy  # noqa: F401
    import papermill  # noqa: F401

    from gpurunbook import cli, runbook, stages, walk  # noqa: F401
    from gpurunbook.readiness import look, smoke, waiting  # noqa: F401
    from gpurunbook.report import page as report  # noqa: F401
    for name in stages.NAMES:
        __import__(f"gpurunbook.stages.{name}")
    from gpurunbook.targets.rehearsal import cluster  # noqa: F401
    from tests.chaos import runner  # noqa: F401


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    if order["do"] == "left":
        return {"left": _left(float(order["patience"]))}
    if order["do"] == "holds":
        return _forked(order, _holds)
    return _real(order) if order.get("real") else _forked(order, _live)


def _forked(order: dict[str, Any], work: Callable[[dict[str, Any]], int]) -> dict[str, Any]:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            os.environ.clear()
            os.environ.update(order["environment"])
            os.chdir(order["cwd"])
            log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for output in (1, 2):
                os.dup2(log, output)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            code = work(order)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    return {"code": _wait(child, float(order["limit"]))}


def _live(order: dict[str, Any]) -> int:
    from tests.chaos.runner import Arms, Trace, call
    given = order["arms"]
    arms = Arms(**given | {"points": None if given["points"] is None else tuple(given["points"]), "done": tuple(given["done"])})
    return call(order["argv"], arms, Path(order["folder"]), Trace(Path(order["trace"])))


def _holds(order: dict[str, Any]) -> int:
    """Whether the stage that the journal calls done last is so: its failed checks go to the trace."""
    from tests.chaos.runner import Trace
    from tests.chaos.truth import failed
    Trace(Path(order["trace"])).note(failed=failed(Path(order["folder"])))
    return 0


def _real(order: dict[str, Any]) -> dict[str, Any]:
    """`gpurunbook ARGV` as a person starts it; "walker" or "kernel" is killed right after the record of that name."""
    from tests.chaos.runner import Trace
    trace = Trace(Path(order["trace"]))
    journal = Path(order["folder"]) / "journal.jsonl"
    at = journal.stat().st_size if journal.exists() else 0
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    process = subprocess.Popen([sys.executable, "-m", "gpurunbook", *order["argv"]], cwd=order["cwd"], stdin=subprocess.DEVNULL,
                               env=order["environment"], stdout=log, stderr=log, start_new_session=True)
    os.close(log)
    arms, namer, rest, hit = order["arms"], Namer(), b"", False

    def look() -> None:
        nonlocal at, rest, hit
        if not journal.exists() or (size := journal.stat().st_size) == at:
            return
        with journal.open("rb") as file:
            file.seek(at)
            new = file.read(size - at)
        at += len(new)
        *lines, rest = (rest + new).split(b"\n")
        for line in filter(None, lines):
            with contextlib.suppress(ValueError):
                name = namer.name(json.loads(line))
                trace.note(name=name, time=time.time())
                if not hit and points(name, arms["seed"])[1] in (arms["points"] or ()):
                    hit = True
                    trace.note(at=points(name, arms["seed"])[1], hit=_hit(process.pid, arms["victim"]))

    return {"code": _wait(process.pid, float(order["limit"]), look)}


def _hit(walker: int, victim: str) -> list[int]:
    if victim == "walker":
        os.kill(walker, signal.SIGKILL)
        return [walker]
    hit = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(walker).children():
            if any("ipykernel" in word for word in child.cmdline()):
                child.kill()
                hit.append(child.pid)
    return hit


def _wait(wanted: int, limit: float, look: Callable[[], None] = lambda: None) -> int | None:
    """The exit code of one child (negative for a signal), None at the limit; whoever else ends meanwhile is reaped."""
    deadline = time.monotonic() + limit
    while True:
        look()
        for pid, code in iter(_one, None):
            if pid == wanted:
                look()
                return code
        if time.monotonic() > deadline:
            os.kill(wanted, signal.SIGKILL)
            os.waitpid(wanted, 0)
            return None
        time.sleep(LOOK)


def _one() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _reap() -> None:
    while _one():
        pass


def _left(patience: float) -> list[str]:
    """Descendants that are still there after some seconds."""
    deadline = time.monotonic() + patience
    while True:
        _reap()
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline()[:4])[:160]}")
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


if __name__ == "__main__":
    main()
