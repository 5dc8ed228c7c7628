"""A step that takes time, in one place on the screen: phase, elapsed against the usual, what blocks it, what happened last.

In a notebook one display is updated in place; on a terminal one line is; where output is piped a line is printed once in a
while. It ends with one line that stays.
"""

from __future__ import annotations

import contextvars
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from gpurunbook import show
from gpurunbook.progress import Progress, State
from gpurunbook.times import took

if TYPE_CHECKING:
    from rich.console import Console

    from gpurunbook.command import Command

FIRST = 1.0
"""Seconds of quiet before a step says anything: one that ends sooner needs no progress."""
PIPED = 4.0
"""Seconds between two lines where output is piped; no more than 5 without a sign."""
KEPT, LONGEST = 3, 160
"""Events that are shown, and characters of each."""
LOOKS = "safe to interrupt: it only looks, and what it waits for goes on"
READS = "safe to interrupt: it only reads"


def interrupting(command: Command) -> str:
    """What it would do to interrupt a command."""
    if not command.changes:
        return READS
    program = command.shown[0] if command.shown else command.argv[0].rpartition("/")[2]
    return f"interrupting ends {program}; what it has done so far stays, and this notebook, run again, goes on from there"


class Surface(Protocol):
    """Where progress is drawn. `every` seconds a drawing is due; `lift` takes it away for what is printed in its place, till
    the next drawing; `end` draws what stays.
    """

    def every(self, seconds: float) -> float: ...

    def draw(self, progress: Progress) -> None: ...

    def lift(self) -> None: ...

    def end(self, progress: Progress) -> None: ...


class Cell:
    """A notebook's cell: one display, updated in place. An executed notebook keeps one output of it, the last."""

    def __init__(self) -> None:
        self._handle: Any = None

    def every(self, seconds: float) -> float:
        """Each update is a message that papermill reads: a step of twenty minutes makes some hundreds, not thousands."""
        return 1.0 if seconds < 60 else 2.0 if seconds < 300 else 4.0

    def draw(self, progress: Progress) -> None:
        from IPython.display import display
        if self._handle is None:
            self._handle = display(progress, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(progress)

    def lift(self) -> None:
        """A cell's outputs stand one below the other."""

    end = draw


class Screen:
    """A terminal: some lines that are updated in place, and gone at the end."""

    def __init__(self, console: Console, *, says_end: bool = True) -> None:
        self._console, self._says_end = console, says_end
        self._live: Any = None

    def every(self, seconds: float) -> float:
        return 1.0

    def draw(self, progress: Progress) -> None:
        import rich.live
        from rich.text import Text
        text = Text(progress.text, no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = rich.live.Live(console=self._console, transient=True, auto_refresh=False, redirect_stdout=False,
                                        redirect_stderr=False, vertical_overflow="crop")
            self._live.start()
        self._live.update(text, refresh=True)

    def lift(self) -> None:
        if self._live is not None:
            lines, self._live = self._live, None
            lines.stop()

    def end(self, progress: Progress) -> None:
        self.lift()
        if self._says_end:
            self._console.print(progress.text, markup=False, highlight=False)


class Lines:
    """A pipe or a file: a line at a time."""

    def __init__(self, say: Callable[[str], object], *, says_end: bool = True) -> None:
        self._say, self._says_end = say, says_end

    def every(self, seconds: float) -> float:
        return PIPED

    def draw(self, progress: Progress) -> None:
        self._say(repr(progress))

    def lift(self) -> None:
        """A line that was printed stays."""

    def end(self, progress: Progress) -> None:
        if self._says_end:
            self._say(repr(progress))


def surface() -> Surface:
    """What fits where this runs; a terminal has one place, for a step and for those inside it."""
    if show.in_notebook():
        return Cell()
    if _going:
        return _going[-1].surface
    if sys.stdout.isatty():
        from rich.console import Console
        if draws(console := Console(highlight=False, emoji=False)):
            return Screen(console)
    return Lines(lambda text: print(text, flush=True))


def draws(console: Console) -> bool:
    """Whether lines can be drawn over: a dumb terminal, such as an editor's, shows none of them."""
    return console.is_terminal and not console.is_dumb_terminal


_going: list[Live] = []
"""The steps at work, each inside the one before: only the last one is drawn."""
_sign = 0.0
"""When anything was drawn last, by time.monotonic."""
_drawing = threading.RLock()
"""Held by whoever writes to the screen: a step's thread, or what prints in its place."""


class Live:
    """A step, shown as long as the `with` block lasts. It is a `command.Watcher` too: lines of a program become events.

    Args:
        usual: the usual range in seconds.
        meter: says what the run has cost so far, where it costs; quick, since it is asked once a second.
        interrupt: whether it is safe to interrupt, and what that does.
        first: seconds of quiet before it is shown at all.

    Attributes:
        phase, usual, blocker: may be set from any thread while it lasts.
    """

    def __init__(self, phase: str, usual: tuple[float, float] | None = None, meter: Callable[[], str] = str,
                 interrupt: str = "", *, first: float = FIRST, on: Surface | None = None) -> None:
        self.phase, self.usual, self._blocker = phase, usual, ""
        self._meter, self._interrupt, self._first, self.surface = meter, interrupt, first, on or surface()
        self._events: deque[str] = deque(maxlen=KEPT)
        self._began, self._shown, self._over = time.monotonic(), 0.0, threading.Event()
        self._failed = False

    def __enter__(self) -> Live:
        self._began = time.monotonic()
        # A thread, since what lasts is often a call that does not come back to say so: a list of the cluster's objects, an
        # image that is pulled, a program that prints nothing. It only draws, and ends with the block.
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._tick,), daemon=True)
        _going.append(self)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        try:
            self._thread.join(timeout=5)
        finally:  # Ctrl-C a second time
            _going.remove(self)
            if self._shown:
                self._draw(lambda: self.surface.end(self._now("stopped" if kind else "done")))

    def __call__(self, elapsed: float, said: str) -> None:
        if words := _words(said):
            self.event(words)

    def event(self, said: str) -> None:
        """Something that happened."""
        self._events.append(_cut(said))

    @property
    def blocker(self) -> str:
        return self._blocker

    @blocker.setter
    def blocker(self, blocker: str) -> None:
        if self._blocker and blocker != self._blocker:
            self.event(f"{self._blocker} (until {took(time.monotonic() - self._began, whole=True)})")
        self._blocker = blocker

    def _now(self, state: State) -> Progress:
        spent = self._meter() if state == "going" else ""
        return Progress(self.phase, time.monotonic() - self._began, self.usual, state, _cut(self.blocker), tuple(self._events),
                        spent, self._interrupt)

    def _tick(self) -> None:
        global _sign
        while not self._over.wait(0.25):
            now = time.monotonic()
            due = (now - self._shown >= self.surface.every(now - self._began) if self._shown
                   else now - max(self._began, _sign if self._first > FIRST else 0.0) >= self._first)
            if due and _going[-1:] == [self]:
                self._draw(self._look)
                self._shown = _sign = now

    def _look(self) -> None:
        if not self._over.is_set():  # what it costs took long to say: the end is drawn
            self.surface.draw(self._now("going"))

    def _draw(self, draw: Callable[[], object]) -> None:
        """Draw, unless that failed before: a display that breaks says so once, and takes nothing from what a step does."""
        if self._failed:
            return
        try:
            with _drawing:
                draw()
        except Exception as error:
            self._failed = True
            with suppress(Exception):  # stderr may be what broke, and there is no third place
                print(_cut(f"progress is not shown any more, the work goes on: {type(error).__name__}: {error}"),
                      file=sys.stderr, flush=True)
            with suppress(Exception):  # a hidden cursor comes back, where it can
                self.surface.lift()


@contextmanager
def lifted() -> Iterator[None]:
    """Nothing is drawn meanwhile, and the cursor is there: for what is printed, and for another program that takes over."""
    signed()
    with _drawing:
        for step in list(_going):
            step.surface.lift()
        yield


def signed() -> None:
    """Somebody has just seen something else: what waits for quiet waits on."""
    global _sign
    _sign = time.monotonic()


def _words(said: str) -> str:
    """A line that a program printed, for people: of a log line in JSON its message alone, "" where it has none."""
    said = said.strip()
    if not said.startswith("{"):
        return said
    try:
        record = json.loads(said)
    except (ValueError, RecursionError):
        return said
    return str(record.get("msg") or "") if isinstance(record, dict) else said


def _cut(said: str) -> str:
    """A program may print a line without an end."""
    text = show.line(said[:4000])
    return text if len(text) <= LONGEST else f"{text[:LONGEST - 1]}…"
