"""What the command line shows while a walk is at work, told by its journal; and that no command is silent for long."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from gpurunbook import live
from gpurunbook.cli import printing
from gpurunbook.cli import progress as cli_progress

INTENT = {"kind": "intent", "id": "1", "changes": True, "shown": "helm upgrade", "why": "install", "usual": [2, 4]}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """stderr, as a pipe."""
    stream = io.StringIO()
    piped = printing._Seen(file=stream, highlight=False, soft_wrap=True, emoji=False)
    monkeypatch.setattr(printing, "console", piped)
    monkeypatch.setattr(cli_progress, "console", piped)
    yield stream
    assert live._going == []


def test_a_silent_command_of_a_walk_is_told_by_the_second(said: io.StringIO) -> None:
    with cli_progress.telling("r-1") as tell:
        tell({"kind": "notebook", "state": "started", "stage": "model"})
        tell(INTENT)
        time.sleep(cli_progress.QUIET + 0.8)
        tell({"kind": "result", "id": "1", "code": 0})
        tell({"kind": "notebook", "state": "ended", "stage": "model", "seconds": 3.9})
    assert said.getvalue().splitlines() == ["06_model", "   $ helm upgrade", "   … install: 3 s, usually 2 to 4 s", "   3.9 s"]
    assert "\x1b" not in said.getvalue()


def test_a_wait_is_one_step_however_often_its_blocker_changes(said: io.StringIO) -> None:
    with cli_progress.telling("r-1") as tell:
        for blocker in ("no pod", "pulling"):
            tell({"kind": "wait", "what": "pod ready", "blocker": blocker, "usual": None})
        assert len(live._going) == 1
        assert live._going[0].blocker == "pulling"
        tell({"kind": "event", "line": "CREATE_FAILED", "status": "FAILED"})
        assert live._going[0]._events[-1] == "CREATE_FAILED"
        tell({"kind": "wait", "what": "pod ready", "blocker": ""})
        assert live._going == []
        tell(INTENT)
    assert "… pod ready: pulling" in said.getvalue()


def test_a_walk_that_stops_in_the_middle_ends_its_steps(said: io.StringIO) -> None:
    def stop() -> None:
        with cli_progress.telling("r-1") as tell:
            tell({"kind": "notebook", "state": "started", "stage": "model"})
            tell(INTENT)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()


def test_old_records_without_a_usual_range_are_told_too(said: io.StringIO) -> None:
    with cli_progress.telling("r-1") as tell:
        tell({key: value for key, value in INTENT.items() if key != "usual"})
    assert said.getvalue() == "   $ helm upgrade\n"


def test_any_command_that_is_silent_gives_a_sign_and_one_that_speaks_does_not(said: io.StringIO) -> None:
    with cli_progress.pulse():
        for _ in range(7):
            time.sleep(0.5)
            printing.console.print("a line")
        assert "gpurunbook" not in said.getvalue()
        time.sleep(cli_progress.QUIET + 0.6)
    assert "   … gpurunbook" in said.getvalue()


def test_on_a_terminal_the_step_is_drawn_in_place_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, highlight=False)
    monkeypatch.setattr(printing, "console", console)
    monkeypatch.setattr(cli_progress, "console", console)
    with cli_progress.telling("r-1") as tell:
        tell(INTENT)
        time.sleep(1.6)
        tell({"kind": "result", "id": "1", "code": 0})
    from tests.unit.test_live import screen
    assert "go on later with: gpurunbook run --run-id r-1" in stream.getvalue()
    assert "█" in stream.getvalue()
    assert [line for line in screen(stream.getvalue()) if line.strip()] == ["   $ helm upgrade"]
