"""Every command with every hostile word: exit code 1 or 2, or 0 where it means something; no traceback, no escape, no run.

All in one process through the real entry point, and a sample through the real program. Commands that would go on to start a
cluster are held by what they ask first: `run` by the agreement that eks needs, `drill start` by a cluster file that is not
there. `clean` and `teardown` get no word that could name a run of somebody else: this machine may have some.
"""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from gpurunbook import cli
from gpurunbook.runs import RUN_ID
from gpurunbook.show import CONTROL
from tests.abuse.inputs import checkout, texts
from tests.abuse.outcome import Outcome

FAMILY = "cli"
HERE = "HERE"
"""Where the hostile word stands."""
COMMANDS = (
    "HERE", "--HERE", "run -t eks --run-id HERE", "run -t eks -f HERE", "run -t HERE -f /nonexistent",
    "run -t eks --from HERE", "run -t eks --until HERE", "run -t eks -p HERE", "run -t eks -p prompt=HERE",
    "run -t eks --max-hours HERE", "run -t eks --budget HERE", "run -t eks --pace HERE", "run -t eks --kubeconfig HERE",
    "run -t eks --context HERE", "plan --run-id HERE", "plan -f HERE", "plan -t HERE", "shell --run-id HERE", "shell -f HERE",
    "teardown --run-id HERE", "teardown -f HERE", "teardown -t HERE", "teardown --cluster HERE --region x",
    "teardown --cluster x --region HERE", "doctor -t HERE", "preflight -t HERE", "preflight -f HERE", "gpu --run-id HERE",
    "gpu -f HERE", "gpu --timeout HERE", "stack --family HERE", "stack --type HERE", "stack --kubernetes HERE",
    "stack -f HERE", "status --run-id HERE", "report --run-id HERE", "report HERE", "diff HERE",
    "diff newest HERE", "clean --run-id HERE", "drill HERE",
    "drill start -f /nonexistent --fault HERE", "drill start -f /nonexistent --seed HERE",
    "drill start -f /nonexistent --run-id HERE", "drill start -f HERE/nonexistent", "drill start -f /dev/HERE",
    "drill check --run-id HERE",
    "drill hint --run-id HERE", "drill reveal --run-id HERE", "reap --region HERE", "reap --region x --run-id HERE",
    "ami --region x --kubernetes HERE", "ami --region HERE --kubernetes 1", "ami --region x --kubernetes 1 --family HERE",
)
BEGAN = "it began a run"
SLOW = 20.0
"""Seconds after which a command has been held up."""


def attack(seed: int) -> Iterator[Outcome]:
    dice, words = random.Random(seed), [word for word in texts(seed, 40) if len(word) != 10_001]
    with checkout() as root:
        for command in COMMANDS:
            for word in (*dice.sample(words, 12), "\0", "\x1b[31m", "\\[/x]", "../x", "zero", "\udcff", "\u202e"):
                argv = [part.replace(HERE, word) for part in command.split(" ")]
                if _would_begin(command, word):
                    continue
                yield (outcome := _judged(root, command, word, *_called(argv)))
                if outcome.evidence == BEGAN:
                    return  # all that follows would look the same
        for command in ("status --run-id HERE", "run -t eks -f HERE", "HERE"):
            for word in ("\x1b[31m", "\u202e", "../../etc/passwd", "x" * 100_000, "\udcff", "-oProxyCommand=id"):
                argv = [part.replace(HERE, word) for part in command.split(" ")]
                done = subprocess.run([sys.executable, "-m", "gpurunbook", *argv], cwd=root, capture_output=True, text=True,
                                      errors="replace", stdin=subprocess.DEVNULL, timeout=60, check=False)
                yield _judged(root, f"gpurunbook {command}", word, done.returncode, done.stdout + done.stderr, 0)


def _would_begin(command: str, word: str) -> bool:
    """Whether this is nothing hostile but a good call that acts."""
    return command.startswith(("clean", "teardown")) and (not word or bool(RUN_ID.fullmatch(word)))


def _called(argv: list[str]) -> tuple[object, str, float]:
    """(exit code or error, all that was printed, seconds)."""
    said, began = io.StringIO(), time.monotonic()
    code: object = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), mock.patch("sys.argv", ["gpurunbook", *argv]):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException as error:  # a traceback
            code = error
    return code, said.getvalue(), time.monotonic() - began


def _judged(root: Path, command: str, word: str, code: object, said: str, seconds: float) -> Outcome:
    raw = CONTROL.search(said)
    wrong = (f"{type(code).__name__}: {code}" if isinstance(code, BaseException) else
             f"exit code {code}: {said[-300:]}" if code not in (0, 1, 2) else
             "a traceback" if "Traceback (most recent call last)" in said or "a defect of gpurunbook" in said else
             f"{raw[0]!r} reached the terminal: {said[max(0, raw.start() - 60):raw.end() + 20]!r}" if raw else
             BEGAN if (root / "runs").exists() else
             f"it took {seconds:.0f} s" if seconds > SLOW else "")
    return Outcome(FAMILY, f"{command} with {word[:60]!r}", "violation" if wrong else "refused" if code else "literal", wrong)
