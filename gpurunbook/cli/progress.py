"""The step at work, below the lines that the command line prints: in place on a terminal, a line in a while where it is piped.

All on stderr. What a walk is at is read from its journal, since the notebooks' kernels have no terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console

from gpurunbook import live, stages
from gpurunbook.cli import printing
from gpurunbook.cli.printing import console
from gpurunbook.journal import Record
from gpurunbook.live import Lines, Live, Screen, Surface

QUIET = 3.0
"""Seconds without a line after which a command says that it is at work."""


@cache
def surface(console: Console) -> Surface:
    """The one place for the command and its steps: drawn on a terminal; else lines, without colours."""
    if live.draws(console):
        return Screen(console, says_end=False)
    return Lines(lambda text: console.print(f"   {printing.plain(text)}", style="dim"), says_end=False)


@contextmanager
def pulse() -> Iterator[None]:
    """A sign of life for whatever command this is, when nothing else was printed for a while."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")][:1]
    with Live(" ".join(["gpurunbook", *words]), first=QUIET, on=surface(console)):
        yield


@contextmanager
def telling(run_id: str) -> Iterator[Callable[[Record], None]]:
    """`printing.tell` for a walk, and the step that it is at."""
    steps = _Steps(f"Ctrl-C ends it; go on later with: gpurunbook run --run-id {run_id}")
    try:
        yield steps.tell
    finally:
        steps.end()


class _Steps:
    """The steps that a journal says are at work, each inside the one before."""

    def __init__(self, interrupt: str) -> None:
        self._interrupt, self._surface = interrupt, surface(console)
        self._open: list[tuple[str, Live]] = []

    def tell(self, record: Record) -> None:
        kind = record["kind"]
        if kind == "result":
            self.end(record["id"])
        elif kind == "wait" and not record["blocker"]:
            self.end(record["what"])
        elif kind == "notebook":
            self.end()
        printing.tell(record)
        if kind == "notebook" and record["state"] == "started":
            self._begin(record["stage"], Live(stages.stem(record["stage"]), interrupt=self._interrupt, first=QUIET,
                                              on=self._surface))
        elif kind == "intent":
            self._begin(record["id"], self._step(record["why"], record))
        elif kind == "wait" and record["blocker"]:
            if record["what"] not in dict(self._open):
                self._begin(record["what"], self._step(record["what"], record))
            dict(self._open)[record["what"]].blocker = record["blocker"]
        elif kind == "event" and self._open:
            self._open[-1][1].event(record["line"])

    def _step(self, what: str, record: Record) -> Live:
        low, high = record.get("usual") or (0, 0)
        first = 1.0 if isinstance(self._surface, Screen) else QUIET
        return Live(what, (low, high) if high else None, interrupt=self._interrupt, first=first, on=self._surface)

    def _begin(self, key: str, step: Live) -> None:
        self._open.append((key, step))
        step.__enter__()

    def end(self, key: str = "") -> None:
        """End a step and those inside it; all of them without a key."""
        names = [name for name, _ in self._open]
        if key and key not in names:
            return
        at = names.index(key) if key else 0
        while len(self._open) > at:
            self._open.pop()[1].__exit__(None, None, None)
