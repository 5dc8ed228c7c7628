"""What becomes of an error in a notebook's cell: three lines for the reader, the full traceback in the journal."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

from gpurunbook import show
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal


def journal_errors(journal: Journal, stage: str) -> None:
    """Keep every error of this notebook's cells from here on."""
    if not show.in_notebook():
        return

    def after_cell(result: Any) -> None:
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
