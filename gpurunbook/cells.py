"""What a notebook's cells were given, and what becomes of them.

Their parameters are checked, whoever set them. A cell whose code is not a shipped one is noted. Of an error the reader sees
three lines, and the journal has the full traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

from gpurunbook import notebooks, parameters, show, stages
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal

PAPERMILLS = "# Parameters\n"
"""How the cell begins in which papermill sets what it was given."""
PATHS = {"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}
"""What papermill adds with --inject-paths."""


def check_parameters(root: Path, stage: str) -> None:
    """Hold what was given to this notebook against its parameters cell, if that is what runs in this kernel.

    Raises:
        ConfigError: no such parameter, or a value of the wrong type or out of bounds.
    """
    if not show.in_notebook():
        return
    space = sys.modules["IPython"].get_ipython().user_ns
    known, ran = notebooks.declared(notebooks.path(root, stage)), space["In"]
    if not any((notebooks.literals(cell) or {}).keys() == known.keys() for cell in ran):
        return  # a notebook of somebody's own, whose names mean what they mean there
    for cell in ran:
        if cell.startswith(PAPERMILLS) and (other := (notebooks.literals(cell) or {cell: ""}).keys() - known.keys() - PATHS):
            raise ConfigError(f"unknown parameter {min(other)[:80]!r}", where=f"papermill -p, {stages.notebook(stage)}",
                              next=f"one of: {', '.join(sorted(known))}")
    for name, default in known.items():
        if expected := parameters.problem(name, value := space.get(name), default):
            hint = f", such as papermill -r {name} TEXT" if isinstance(default, str) else ""
            raise ConfigError(f"parameter {name} is {repr(value)[:80]}", where=f"the parameters of {stages.notebook(stage)}",
                              next=f"give {expected}{hint}")


def journal_errors(journal: Journal, stage: str) -> None:
    """Keep every error of this notebook's cells from here on."""
    if not show.in_notebook():
        return

    def after_cell(result: Any) -> None:
        if not notebooks.is_shipped(stage, result.info.raw_cell):
            journal.append("cell", stage=stage, state="modified", source=result.info.raw_cell[:2_000])
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            journal.append("error", stage=stage, error=str(error), type=type(error).__name__, pid=os.getpid(),
                           traceback="".join(traceback.format_exception(error))[-20_000:])
            journal.append("stage", stage=stage, state="failed")

    sys.modules["IPython"].get_ipython().events.register("post_run_cell", after_cell)


def forget() -> None:
    """A notebook run twice in one kernel opens its run twice: what fails from here on is not the earlier one's."""
    if show.in_notebook():
        events = sys.modules["IPython"].get_ipython().events
        for hook in [h for h in events.callbacks["post_run_cell"] if h.__qualname__.startswith(journal_errors.__name__)]:
            events.unregister("post_run_cell", hook)


def shorten(error: BaseException, what: str, where: str) -> None:
    """IPython's hook on this one exception: an interrupted cell shows three lines, as any other error of ours."""
    if isinstance(error, KeyboardInterrupt):
        stopped = RunbookError(f"interrupted: {what}", where=where, next="run this cell again; what it had started was ended")
        vars(error)["_render_traceback_"] = stopped._render_traceback_
