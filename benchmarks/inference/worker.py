"""One arm in a process of its own: its threads, its memory and its imports disturb no other, and peaks are its own.

    Worker("arms int4", threads=2)     in the parent
    python -m benchmarks.inference.worker NAME     in the child: a JSON list on a line in, an answer on a line out

The child takes the time itself, so that the pipe is in no sample: `perf_counter_ns` on a CPU, CUDA events on a GPU.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inference.harness import Sample

ROOT = Path(__file__).parents[2]


class Worker:
    """The parent's end. Raises RuntimeError with the child's last words when it ends or an arm cannot be had."""

    def __init__(self, name: str, *, threads: int, python: str = sys.executable, cache: Path, **settings: Any) -> None:
        # Each thread stays on its core; the first calls of a compiled arm lift that, and its compiler runs on all.
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "close", "OMP_PLACES": "cores",
                            "HF_HUB_OFFLINE": "1", "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
                            "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
        self.name, self.log = name, cache / f"worker-{os.getpid()}-{name.replace(' ', '-')}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([python, "-m", "benchmarks.inference.worker", name], stdin=subprocess.PIPE, env=env,
                                            stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        self.imports_s: float = self.ask("imports", {"threads": threads, "cache": str(cache), **settings})

    def ask(self, *what: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        try:
            print(json.dumps(what), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError("; ".join(self.log.read_text().splitlines()[-1:]) or f"exit code {self.process.wait()}")
        return json.loads(answer)

    def load(self, ids: list[int]) -> dict[str, float]:
        """What the child says of its load, and `own_peak_bytes`; see `own_memory`."""
        with own_memory(self.process.pid) as peak:
            said: dict[str, float] = self.ask("load", ids)
        return said | {"own_peak_bytes": peak[0]}

    def timed(self, what: str) -> Callable[[], Sample]:
        """A function that calls the arm's `forward` or `step` once."""
        return lambda: Sample(*self.ask(what))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.unlink(missing_ok=True)


class Child:
    """What a worker answers. The arm has `forward(ids)`, `step(then)`, `resident_bytes`, `read_bytes`; `rewind()` where a step
    has to be undone, outside the time."""

    def imports(self, settings: dict[str, Any]) -> float:
        """Seconds that the arm's libraries take to import."""
        begun = time.perf_counter()
        kind = importlib.import_module(f"benchmarks.inference.{settings['kind']}")
        self.settings, self.kind, self.mode = settings, kind, kind.imports(NAME, settings)
        self.mode.__enter__()  # until this process ends
        return time.perf_counter() - begun

    def load(self, ids: list[int]) -> dict[str, float]:
        """Load for prompts as long as `ids`, and say what it took; memory beyond what the imports took."""
        _reset_peak()
        before, begun = _memory("VmRSS"), time.perf_counter()
        self.arm = self.kind.load(NAME, self.settings, len(ids))
        seconds, self.ids, self.then = time.perf_counter() - begun, ids, ids[-1]
        self.before = before
        return {"seconds": seconds, "peak_bytes": self.peak(), "resident_bytes": self.arm.resident_bytes,
                "read_bytes": self.arm.read_bytes}

    def peak(self) -> float:
        """Most bytes so far, beyond what the imports took."""
        return self.kind.peak_bytes() or _memory("VmHWM") - self.before

    def prompt(self, ids: list[int], then: int) -> bool:
        self.ids, self.then = ids, then
        self.arm.forward(ids)
        getattr(self.arm, "prepare", bool)()
        return True

    def forward(self) -> Sample:
        sample: Sample = self.kind.timed(lambda: self.arm.forward(self.ids))
        return sample

    def step(self) -> Sample:
        sample: Sample = self.kind.timed(lambda: self.arm.step(self.then))
        getattr(self.arm, "rewind", bool)()
        return sample

    def logits(self, prompts: list[list[int]], then: list[int] | None, file: str) -> bool:
        """Write those of each prompt, or of the step after it, as float32 of shape (prompts, vocabulary)."""
        rows = []
        for i, ids in enumerate(prompts):
            found = self.arm.forward(ids)
            if then is not None:
                getattr(self.arm, "prepare", bool)()
                found = self.arm.step(then[i])
                getattr(self.arm, "rewind", bool)()
            rows.append(np.asarray(found.float().cpu() if hasattr(found, "cpu") else found, dtype=np.float32))
        np.save(file, np.stack(rows))
        return True

    def copy(self) -> float:
        """Bytes read and written per second by a copy that no cache holds."""
        return float(self.kind.copy_bandwidth())

    def unpin(self) -> bool:
        """Let this process use all cores, as a compiler should; `pin` puts it back."""
        self.pinned = os.sched_getaffinity(0)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return True

    def pin(self) -> bool:
        os.sched_setaffinity(0, self.pinned)
        return True


def wall(work: Callable[[], Any]) -> Sample:
    cpu, begun = time.process_time_ns(), time.perf_counter_ns()
    work()
    return Sample((time.perf_counter_ns() - begun) / 1e6, (time.process_time_ns() - cpu) / 1e6)


@contextmanager
def own_memory(pid: int, every: float = 0.001) -> Iterator[list[int]]:
    """The most memory of its own that a process had meanwhile, in bytes beyond what it had before: one figure in a list.

    Own (RssAnon) is what the system cannot take back. Pages of a mapped file it can at any time, so they are no copy of the
    weights, though VmRSS and VmHWM count them. The kernel keeps no peak of it: it is looked at every millisecond.
    """
    before, peak, done = _memory("RssAnon", pid), [0], threading.Event()

    def watch() -> None:
        while True:
            ended = done.wait(every)
            try:
                peak[0] = max(peak[0], _memory("RssAnon", pid) - before)
            except (OSError, StopIteration):  # it has died: who asked it finds out
                return
            if ended:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _memory(field: str, pid: int | str = "self") -> int:
    """Bytes, of /proc/PID/status. Raises OSError or StopIteration for a process that has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) << 10


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Libraries may print: what they print goes where the errors go."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    child = Child()
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(getattr(child, what)(*arguments)), file=answers, flush=True)


NAME = sys.argv[1] if __name__ == "__main__" else ""

if __name__ == "__main__":
    main()
