"""A step that takes time is never silent for more than five seconds: in a cell, on a terminal, in a pipe. Really measured."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from gpurunbook import live, show, targets
from gpurunbook.command import Command
from gpurunbook.config import load_cluster
from gpurunbook.live import Live
from gpurunbook.progress import Progress
from gpurunbook.runbook import Run
from tests.cells import Cell, executed
from tests.unit.test_plan_show import HOSTILE, Tags, harmless

ROOT = Path(__file__).parents[2]
LONGEST = 5.0
"""Seconds that may go without a visible sign."""
QUIET = 6.5
"""Seconds for which the child says nothing: without a sign of ours the test fails."""
STEP = f"""
import sys, time
from gpurunbook import live
from gpurunbook.command import Command, environment, run
silent = Command((sys.executable, "-c", "import time; time.sleep({QUIET})"), why="install the release", limit=60, usual=(2, 4),
                 shown=("helm", "upgrade"))
print("begun", flush=True)
with live.Live(silent.why, silent.usual, interrupt=live.interrupting(silent)) as step:
    run(silent, env=environment({{}}), watch=step)
print("over", flush=True)
"""
CELLS = ("from gpurunbook import cells\ncells.begin()", STEP, f"import time\ntime.sleep({QUIET})  # a client that waits")


@dataclass(frozen=True)
class Seen:
    """When something was seen, in seconds, and all of it."""

    times: tuple[float, ...]
    text: str

    @property
    def silence(self) -> float:
        return max(b - a for a, b in pairwise(self.times))


def piped() -> Seen:
    process = subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    with process.stdout as out:
        lines = [(time.monotonic(), line) for line in out]
    assert process.wait() == 0
    return Seen(tuple(at for at, _ in lines), "".join(line for _, line in lines))


def typed(script: str = STEP, term: str = "xterm-256color") -> Seen:
    """Run where stdin, stdout and stderr are one terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", script], stdin=theirs, stdout=theirs, stderr=theirs,
                               env=os.environ | {"TERM": term, "COLUMNS": "80"})
    os.close(theirs)
    times, said = [], b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not more:
            break
        times.append(time.monotonic())
        said += more
    os.close(ours)
    assert process.wait() == 0
    return Seen(tuple(times), said.decode())


@pytest.fixture(scope="module")
def shown() -> Iterator[tuple[Seen, Seen, list[Cell]]]:
    with ThreadPoolExecutor() as pool:
        pipe, terminal, book = pool.submit(piped), pool.submit(typed), pool.submit(executed, CELLS)
        yield pipe.result(), terminal.result(), book.result()


def test_a_pipe_is_never_silent_and_gets_lines_without_colours(shown: tuple[Seen, Seen, list[Cell]]) -> None:
    seen = shown[0]
    assert seen.silence <= LONGEST
    lines = seen.text.splitlines()
    assert re.fullmatch(r"… install the release: 1 s, usually 2 to 4 s", lines[1])
    assert re.fullmatch(r"… install the release: [56] s, longer than usual, 2 to 4 s", lines[2])
    assert re.fullmatch(r"✓ install the release: 6\.\d s", lines[-2])
    assert (lines[0], lines[-1]) == ("begun", "over")
    assert len(lines) == 5
    assert "\x1b" not in seen.text


def test_a_terminal_is_never_silent_and_keeps_one_line(shown: tuple[Seen, Seen, list[Cell]]) -> None:
    seen = shown[1]
    assert seen.silence <= LONGEST
    assert "interrupting ends helm; what it has done so far stays" in seen.text
    drawn = re.findall(r"install the release: (\d) s", seen.text)
    assert sorted(set(drawn)) == sorted({*drawn, "1", "3", "5"}), "the seconds are counted"
    assert [line for line in screen(seen.text) if line] == ["begun", screen(seen.text)[1], "over"]
    assert re.fullmatch(r"✓ install the release: 6\.\d s", screen(seen.text)[1])


def screen(said: str) -> list[str]:
    """What a terminal shows at the end, for the controls that are used here: up, erase the line, carriage return."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", said):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K" or part == "\x1b[K":
            lines[row] = ""
        elif part[0] not in "\x1b\r":
            lines[row] += part
    return lines


def test_a_cell_is_never_silent_and_keeps_one_output(shown: tuple[Seen, Seen, list[Cell]]) -> None:
    _, command, waiting = shown[2]
    for cell, said in ((command, "✓ install the release: 6."), (waiting, "✓ this cell: 6.")):
        assert cell.silence <= LONGEST
        assert 3 <= cell.updates <= 10, "one a second, and the last word"
        assert len(cell.shown) == 1
        assert cell.shown[0]["text/plain"].startswith(said)
        assert "<script" not in cell.shown[0]["text/html"]


def test_a_step_of_twenty_minutes_makes_hundreds_of_updates_and_not_thousands() -> None:
    seconds, updates = 0.0, 0
    while seconds < 1200:
        seconds += live.Cell().every(seconds)
        updates += 1
        assert live.Cell().every(seconds) + 0.25 < LONGEST
    assert 100 < updates < 500
    assert live.PIPED + 0.25 < LONGEST


class Paper:
    """A surface that keeps what is drawn."""

    def __init__(self) -> None:
        self.drawn: list[str] = []

    def every(self, seconds: float) -> float:
        return 0.1

    def draw(self, progress: Progress) -> None:
        self.drawn.append(repr(progress))

    def lift(self) -> None:
        self.drawn.append("lifted")

    end = draw


def test_a_step_that_ends_at_once_says_nothing() -> None:
    paper = Paper()
    with Live("quick", on=paper):
        pass
    assert paper.drawn == []


@pytest.mark.parametrize(("said", "shown"), [
    ('{"time":"2026-11-23T13:00:00Z","level":"INFO","msg":"Cluster is starting","cluster":"x"}\n', ("Cluster is starting",)),
    ('{"level":"INFO"}', ()), ("   \n", ()), ("{not json", ("{not json",)), ("plain", ("plain",))])
def test_a_log_line_in_json_is_shown_by_its_message_alone(said: str, shown: tuple[str, ...]) -> None:
    step = live.Live("start", on=live.Lines(lambda text: None))
    step(0.0, said)
    assert step._now("going").events == shown


def test_only_the_innermost_step_is_drawn_and_blockers_become_events() -> None:
    outer, inner = Paper(), Paper()
    with Live("outer", on=outer, first=0) as first:
        time.sleep(0.6)
        first.blocker = "0 of 2 nodes"
        before = len(outer.drawn)
        with Live("inner", on=inner, first=0) as second:
            second(0.1, "pulling\x1b[2J" + "x" * 500)
            second(0.2, "")
            time.sleep(0.8)
        assert len(outer.drawn) <= before + 1
        first.blocker = "1 of 2 nodes"
        time.sleep(0.5)
    assert inner.drawn[0] == "… inner: 0 s · pulling\\u001b[2J" + "x" * (live.LONGEST - len("pulling\\u001b[2J") - 1) + "…"
    assert outer.drawn[-2] == "… outer: 2 s · 1 of 2 nodes"
    assert list(first._events) == ["0 of 2 nodes (until 1 s)"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_step_that_fails_is_stopped_and_its_thread_has_ended(error: type[BaseException]) -> None:
    paper, threads = Paper(), threading.active_count()

    def fail() -> None:
        with Live("install", on=paper, first=0) as step:
            step.blocker = "a taint"
            time.sleep(0.6)
            raise error

    with pytest.raises(error):
        fail()
    assert re.fullmatch(r"✗ install: stopped after 0\.\d s · a taint", paper.drawn[-1])
    assert threading.active_count() == threads
    assert live._going == []


class Torn(Paper):
    """A display that is gone."""

    def draw(self, progress: Progress) -> None:
        raise OSError("the terminal \x1b[2J went")


@pytest.mark.parametrize("on", [Torn(), Paper()])
def test_a_display_that_fails_says_so_once_and_takes_nothing_from_the_work(on: Paper, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise OSError("the terminal \x1b[2J went")

    with Live("x", None, broken, on=on, first=0):
        time.sleep(0.9)
    assert capsys.readouterr().err == ("progress is not shown any more, the work goes on: "
                                       "OSError: the terminal \\u001b[2J went\n")
    assert on.drawn == ["lifted"], "the cursor is there again, and nothing more is tried"


def test_where_stderr_is_gone_too_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    with Live("x", on=Torn(), first=0):
        time.sleep(0.6)


def asking(tmp_path: Path) -> Run:
    return Run(ROOT, tmp_path, targets.get("rehearsal"), load_cluster(ROOT / "cluster.yaml"), "preflight")


SLEEP = Command(("sleep", "1.6"), why="wait", limit=9, changes=False)


def test_a_command_that_came_to_its_end_is_journalled_so_though_the_display_failed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    run = asking(tmp_path)
    monkeypatch.setattr(sys, "stdout", Gone())
    assert run.ask(SLEEP).code == 0
    assert [record["code"] for record in run.journal.records() if record["kind"] == "result"] == [0]


def test_ctrl_c_after_its_end_does_not_make_its_result_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = asking(tmp_path)

    @contextmanager
    def interrupted(*_: object) -> Iterator[None]:
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(run.target, "following", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.ask(replace(SLEEP, argv=("true",)))
    assert [record["code"] for record in run.journal.records() if record["kind"] == "result"] == [0]


# One terminal, for what is drawn on stderr and what is printed on stdout

BEGIN = """
import os, sys, time
from types import SimpleNamespace
from gpurunbook import live, show
from gpurunbook.cli import commands as cli
from gpurunbook.cli import printing, progress as cli_progress, setup as cli_setup
cli_progress.QUIET = 0.3
"""
RESULT = BEGIN + """
with cli_progress.pulse():
    for n in range(3):
        time.sleep(1.2)
        printing.out.print(f"result {n}")
    time.sleep(1.2)
    show.show("shown")
    time.sleep(1.2)
    printing.out.print_json('{"a": 1}')
    printing.console.print("told")
printing.out.print("the end")
"""
SHELL = BEGIN + """
from gpurunbook import runbook
from gpurunbook.stages import model
def choose(*_):
    time.sleep(1.5)
    return SimpleNamespace(target="rehearsal", parameter="")
command = SimpleNamespace(argv=("/bin/sh", "-c", "sleep 1.5; echo taken over"), short="kubectl exec")
opened = SimpleNamespace(kubectl=SimpleNamespace(shell=lambda *_, **__: command), environment={})
cli.choose, runbook.open_run = choose, lambda *_, **__: opened
model.ready_pod, model.manifest = lambda run: SimpleNamespace(name="p"), lambda run: SimpleNamespace(container="c")
sys.argv = ["gpurunbook", "shell"]
cli.main()
"""
SETUP = BEGIN + """
import tempfile
from pathlib import Path
cli_setup.TOOLS = Path(tempfile.mkdtemp())
(cli_setup.TOOLS / "build.py").write_text("import time; time.sleep(1.5); print('taken over')")
cli_setup.targets.get = lambda name: SimpleNamespace(set_up=lambda say: time.sleep(1.5), programs=())
sys.argv = ["gpurunbook", "setup"]
cli.main()
"""


def test_a_result_has_its_own_lines_on_the_terminal_where_progress_is_drawn() -> None:
    seen = typed(RESULT)
    assert seen.text.count("… gpurunbook") >= 4, "it was drawn, again and again"
    assert [one.strip() for one in screen(seen.text) if one.strip()] == [
        "result 0", "result 1", "result 2", "shown", "{", '"a": 1', "}", "told", "the end"]


@pytest.mark.parametrize("script", [SHELL, SETUP], ids=["shell", "setup"])
def test_who_takes_over_the_terminal_has_a_cursor_and_an_empty_line(script: str) -> None:
    seen = typed(script)
    before, _, after = seen.text.rpartition("taken over")
    assert "\x1b[?25l" in before, "something was drawn"
    assert before.rindex("\x1b[?25h") > before.rindex("\x1b[?25l")
    assert "\x1b" not in after
    assert [one.strip() for one in screen(seen.text) if "gpurunbook" in one] == []


def test_a_dumb_terminal_gets_lines() -> None:
    with ThreadPoolExecutor() as pool:
        step, pulse = pool.submit(typed, STEP, "dumb"), pool.submit(typed, RESULT, "dumb")
    for said, line in ((step.result().text, "… install the release: 1 s"), (pulse.result().text, "   … gpurunbook")):
        assert line in said
        assert "\x1b[?25l" not in said
        assert "\x1b[2K" not in said


LOOKS = [
    Progress("install the release", 12, (5, 60), blocker="driver: waiting", events=("one", "two"), spent="about $0.12 so far",
             interrupt=live.LOOKS),
    Progress("install", 1500, (720, 1260)), Progress("x", 3, (5, 10)), Progress("no usual", 3), Progress("zero", 0.0, (0, 0)),
    Progress("done", 8.04, (5, 10), "done"), Progress("failed", 130.4, None, "stopped", "a taint"),
    Progress("Größe 日本語 🚀", 7, (5, 10), events=("日本語" * 60,)),
]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.phase)
def test_a_look_fits_everywhere(look: Progress) -> None:
    Tags(look._repr_html_())
    assert len(repr(look).splitlines()) == 1
    assert sum(width for width, _ in look.pieces) == pytest.approx(1 if look.usual else 0)
    assert all(width > 0 for width, _ in look.pieces)
    assert cell_len(look.text.splitlines()[0]) <= 80 or len(look.phase) > 15


def test_what_is_said_of_time() -> None:
    assert repr(LOOKS[0]) == "… install the release: 12 s, usually 5 to 60 s, about $0.12 so far · driver: waiting"
    assert repr(LOOKS[1]) == "… install: 25 min, longer than usual, 12 min to 21 min"
    assert repr(LOOKS[5]) == "✓ done: 8.0 s"
    assert repr(LOOKS[6]) == "✗ failed: stopped after 2 min 10 s · a taint"
    assert [kind for _, kind in LOOKS[1].pieces] == ["gone", "gone", "over", "ahead"]
    assert [kind for _, kind in LOOKS[2].pieces] == ["gone", "ahead", "usual", "ahead"]


@pytest.mark.parametrize("state", ["going", "done", "stopped"])
def test_hostile_text_is_shown_and_never_obeyed(state: Any) -> None:
    look = replace(LOOKS[0], phase=HOSTILE, state=state, blocker=HOSTILE, events=(HOSTILE,), spent=HOSTILE, interrupt=HOSTILE)
    page = Tags(look._repr_html_())
    assert "script" not in page.seen
    assert harmless(look._repr_html_() + repr(look) + look.text)


def test_what_interrupting_does_is_said_before_it_is_done() -> None:
    reads = Command(("/bin/kubectl", "get"), why="", limit=1, changes=False)
    writes = Command(("/opt/helm", "--kubeconfig=x"), why="", limit=1, shown=("helm", "upgrade"))
    assert live.interrupting(reads) == "safe to interrupt: it only reads"
    assert live.interrupting(writes).startswith("interrupting ends helm; what it has done so far stays")
    assert not show.in_notebook()
