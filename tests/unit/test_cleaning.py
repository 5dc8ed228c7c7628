"""`gpurunbook clean` without a name: what a dead run left goes, what is up on purpose stays."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from gpurunbook import cleaning, processes
from tests.unit.test_runs import DRILL, GONE, STARTED, Event, ended, make, runner


@pytest.mark.parametrize(("events", "word"), [
    ([STARTED, DRILL, ended("kept")], "drill"), ([STARTED, ended("kept")], "kept"), ([STARTED, DRILL, runner(GONE)], ""),
    ([STARTED, runner(GONE)], "")])
def test_a_drill_that_is_up_is_spared_as_a_kept_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[Event],
                                                       word: str) -> None:
    folder = make(tmp_path, "one", *events)
    every = processes.of_runs
    # Other runs of this machine are not this test's to end, nor their sockets.
    monkeypatch.setattr(processes, "of_runs", lambda run=None: [p for p in every(run) if p.run == folder])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sleeper = subprocess.Popen(["sleep", "60"], env={**os.environ, processes.RUN_VARIABLE: str(folder)})
    try:
        gone, spared, stubborn = cleaning.clean()
        assert (len(gone), len(spared), stubborn) == ((0, 1, []) if word else (1, 0, []))
        assert not word or f"the run is {word}; end it with --run-id one" in spared[0]
    finally:
        sleeper.kill()
        sleeper.wait()
