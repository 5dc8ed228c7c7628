"""A lane: a checkout of its own with one run in it, and a keeper that starts the lives of its runner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpurunbook import processes
from gpurunbook.journal import Journal, Record
from tests.chaos.runner import Arms

REPOSITORY = Path(__file__).parents[2]
RUN_ID = "chaos"
"""The same in every lane: names in the cluster are made of it."""
REPETITIONS = 2
RUN = ("run", "--run-id", RUN_ID, "--keep", "-p", f"repetitions={REPETITIONS}")
TEARDOWN = ("teardown", "--run-id", RUN_ID)
LIMIT = 150.0
"""Seconds after which a life is called hung: an undisturbed one takes 10."""
STUB = '''\
"""Answers as main.py does, without a model."""

import argparse, hashlib, json, math, pathlib, struct, sys

parser = argparse.ArgumentParser()
for name in ("prompt", "precisions", "sentinel"):
    parser.add_argument(f"--{name}", default="")
parser.add_argument("--top", type=int, default=10)
parser.add_argument("--repetitions", type=int, default=0)
parser.add_argument("--logits", type=pathlib.Path)
args = parser.parse_args()
print("main.py: importing nothing", file=sys.stderr, flush=True)
logits = [-float(i) for i in range(100)]
data, total = struct.pack("<100f", *logits), sum(math.exp(x) for x in logits)
arms = []
for precision in args.precisions.split(","):
    args.logits.with_suffix(f".{precision}{args.logits.suffix}").write_bytes(data)
    top = [{"id": i, "text": f"t{i}", "token": f"t{i}", "p": math.exp(logits[i]) / total, "logp": logits[i] - math.log(total)}
           for i in range(args.top)]
    arms.append({"precision": precision, "dtype": "float32", "top": top, "top_mass": sum(t["p"] for t in top),
                 "entropy_bits": 1.5, "linear_layers": {}, "load_seconds": 0.1, "first_seconds": 0.1, "weight_bytes": 400,
                 "peak_memory_bytes": 4000, "logits_sha256": hashlib.sha256(data).hexdigest(), "warm_up": 0,
                 "samples_ms": [1.0] * args.repetitions})
print(json.dumps({"schema": "gpurunbook/next-token/1", "prompt": args.prompt, "prompt_tokens": [{"id": 1, "text": "a",
    "token": "a"}], "model": "stub", "vocab_size": 100, "revision": "stub", "versions": {}, "device": "none", "arms": arms}),
    args.sentinel, sep="\\n", end="", flush=True)
'''
STARTUP = f"""\
import sys
sys.path.append({str(REPOSITORY)!r})
from tests.chaos import audit
audit.arm()
"""


@dataclass
class Life:
    """How one life of the runner ended.

    Attributes:
        code: its exit code, negative for a signal, None when it hung.
        at: the point where it, or the victim, was killed, "" when there was none.
        names: the boundaries it passed, in order, and when (seconds since the epoch).
        hit: pids of the victims; empty when there was none to hit.
    """

    code: int | None
    at: str = ""
    names: list[tuple[str, float]] = field(default_factory=list)
    hit: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Lane:
    """A checkout in a folder that is not there yet. To be closed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.root, self.seed = folder, seed
        folder.mkdir(parents=True)
        for name in ("notebooks", "manifests"):
            shutil.copytree(REPOSITORY / name, folder / name)
        shutil.copy(REPOSITORY / "cluster.yaml", folder)
        (folder / "manifests" / "model" / "main.py").write_text(STUB)
        startup = folder / "home" / ".ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "00-audit.py").write_text(STARTUP)
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "XDG_CACHE_HOME": cache,
                             "LANG": "C.UTF-8", "MPLCONFIGDIR": str(folder / "home")}
        self.log = folder / "lives.log"
        self._keeper = subprocess.Popen([sys.executable, "-m", "tests.chaos.keeper"], cwd=REPOSITORY, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._said()

    @property
    def folder(self) -> Path:
        return self.root / "runs" / RUN_ID

    def live(self, argv: Sequence[str], arms: Arms | None = None, *, real: bool = False) -> Life:
        """One life of the runner; `real`: with papermill and a kernel for each notebook."""
        asked = arms or Arms()
        return self._life({"do": "live", "argv": list(argv), "real": real, "arms": asdict(asked) | {"seed": self.seed}})

    def untrue(self) -> list[str]:
        """What the journal calls done and is not so."""
        life = self._life({"do": "holds"})
        return life.failed if life.code == 0 else [f"the checks could not be asked: {self.tail()}"]

    def left(self, patience: float = 5.0) -> list[str]:
        """Processes that this lane left behind."""
        found: list[str] = self._tell({"do": "left", "patience": patience})["left"]
        return found

    def tail(self, lines: int = 12) -> str:
        """The last that a life said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def records(self) -> list[Record]:
        return list(Journal(self.folder).records())

    def close(self, *, keep: bool = False) -> None:
        """End the keeper and whatever is left of the run; the checkout goes too, unless it is to be kept."""
        processes.end(processes.of_runs(self.folder), grace=1)
        assert self._keeper.stdin
        self._keeper.stdin.close()
        self._keeper.wait(timeout=30)
        if self._keeper.stdout:
            self._keeper.stdout.close()
        if not keep:
            shutil.rmtree(self.root)

    def _life(self, order: dict[str, Any]) -> Life:
        trace = self.root / "trace.jsonl"
        trace.unlink(missing_ok=True)
        answer = self._tell(order | {"cwd": str(self.root), "environment": self._environment, "log": str(self.log),
                                     "limit": LIMIT, "trace": str(trace), "folder": str(self.folder)})
        life = Life(answer["code"])
        for line in trace.read_text().splitlines() if trace.exists() else ():
            note = json.loads(line)
            life.at = note.get("at", life.at)
            life.hit += note.get("hit", [])
            life.failed += note.get("failed", [])
            if "name" in note:
                life.names.append((note["name"], note["time"]))
        return life

    def _tell(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._keeper.stdin
        self._keeper.stdin.write(json.dumps(order) + "\n")
        self._keeper.stdin.flush()
        return self._said()

    def _said(self) -> dict[str, Any]:
        assert self._keeper.stdout
        line = self._keeper.stdout.readline()
        if not line:
            raise RuntimeError(f"the keeper of {self.root} ended with {self._keeper.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found
