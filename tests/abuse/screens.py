"""The same on screens: a terminal and a pipe."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gpurunbook import show
from tests.abuse.outcome import Outcome
from tests.abuse.pages import page
from tests.abuse.texts import MARKUP, TERMINAL, made

TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

SCREEN = """
import json, sys
from pathlib import Path
from gpurunbook import show
from gpurunbook.cli import printing
from gpurunbook.errors import RunbookError
from gpurunbook.progress import Progress
from tests.abuse.pages import things
text = json.loads(sys.stdin.readline())
for thing in things(text):
    show.show(thing)
for state in ("going", "done", "stopped"):
    at = Progress(text, 9.0, (1, 5), state, text, (text, text), text, text)
    print(at, at.text, sep="\\n")
printing.complain(RunbookError(text, where=text, next=text))
for record in ({"kind": "intent", "changes": True, "shown": text}, {"kind": "wait", "what": text, "blocker": text + "x"},
               {"kind": "event", "line": text, "status": "FAILED"},
               {"kind": "checks", "checks": [{"state": "fail", "name": text, "evidence": text}]}):
    printing.tell(record)
printing.table(things(text)[0]); printing.checks(things(text)[4])
printing.out.print_json(json.dumps({"text": text, text: [text]}))
folder = Path(sys.argv[1])
if (folder / "journal.jsonl").exists():
    printing.outcome(folder, Path("/r"), ("next_token",), False); printing.outcome(folder, Path("/r"), ("next_token",), True)
print("the end")
"""


def attack(seed: int) -> Iterator[Outcome]:
    dice = random.Random(seed)
    texts = ["\n".join((*MARKUP, *TERMINAL)), made(dice)]
    with tempfile.TemporaryDirectory(prefix="abuse-") as top:
        for i, text in enumerate(texts):
            page(Path(top) / str(i), text)
            for name, run in (("pipe", _piped), ("terminal", _typed)):
                said = run(text, Path(top) / str(i) / "runs" / "abuse")
                left = show.CONTROL.search(TERMINAL_COLOURS.sub("", said.replace("\r\n", "\n")))
                good = not left and said.rstrip().endswith("the end") and ("8;;" not in said or "\\u001b]8;;" in said)
                yield Outcome("screens", f"{name}: {text!r:.60}", "literal" if good else "violation",
                              f"{left and ascii(left[0])} in {said[-500:]!a}")


def _argv(folder: Path) -> list[str]:
    return [sys.executable, "-c", SCREEN, str(folder)]


def _piped(text: str, folder: Path) -> str:
    done = subprocess.run(_argv(folder), input=json.dumps(text) + "\n", text=True, stdout=subprocess.PIPE, timeout=60,
                          stderr=subprocess.STDOUT, check=False, encoding="utf-8", errors="surrogateescape")
    return done.stdout


def _typed(text: str, folder: Path) -> str:
    """The same on a terminal, which rich colours; an answer of a terminal is nobody's input here."""
    master, slave = pty.openpty()
    process = subprocess.Popen(_argv(folder), stdin=subprocess.PIPE, stdout=slave, stderr=slave,
                               env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    assert process.stdin
    process.stdin.write(json.dumps(text).encode() + b"\n")
    process.stdin.close()
    said = b""
    read: Callable[[], bytes] = lambda: os.read(master, 65536)  # noqa: E731
    try:
        while chunk := read():
            said += chunk
    except OSError:  # Linux's end of a terminal
        pass
    process.wait(timeout=60)
    os.close(master)
    return said.decode("utf-8", "surrogateescape")
