"""What a notebook's cells were given, and what becomes of them.

Their parameters are checked, whoever set them. A cell whose code is not a shipped one is noted, and one that lasts shows a
sign of life. Of an error the reader sees a few lines; a fold below them and the journal have the full traceback.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpurunbook import defects, notebooks, parameters, show, stages
from gpurunbook.errors import BRIEF, ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.live import Live

PAPERMILLS = "# Parameters\n"
"""How the cell begins in which papermill sets what it was given."""
PATHS = {"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}
"""What papermill adds with --inject-paths."""
QUIET = 3.0
"""Seconds without any sign of life after which a cell shows one by itself."""
TOLD = "_gpurunbook_told"
"""What is shown in place of an exception, in its __dict__."""


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
            raise ConfigError(f"unknown parameter {show.clean(min(other))[:80]!r}",
                              where=f"papermill -p, {stages.notebook(stage)}", next=f"one of: {', '.join(sorted(known))}")
    for name, default in known.items():
        if expected := parameters.problem(name, value := space.get(name), default):
            hint = f", such as papermill -r {name} TEXT" if isinstance(default, str) else ""
            raise ConfigError(f"parameter {name} is {show.clean(repr(value))[:80]}",
                              where=f"the parameters of {stages.notebook(stage)}", next=f"give {expected}{hint}")


@dataclass
class _Kernel:
    """What goes on in this kernel: the run that is open in it, and the sign of life of the cell at work.

    `sources` has the cell, and those inside it: %%capture and its like run a cell in a cell.
    """

    journal: Journal | None = None
    stage: str = ""
    sources: list[str] = field(default_factory=list)
    pulse: Live | None = None


_kernel = _Kernel()


def begin() -> None:
    """Called first when a notebook opens a run. From here on each cell that lasts shows a sign of life, and each error says
    what, where, next. A notebook run twice in one kernel opens its run twice: what fails from here on is not the earlier one's.
    """
    if not show.in_notebook():
        return
    shell = sys.modules["IPython"].get_ipython()
    for event, hook in (("pre_run_cell", _before), ("post_run_cell", _after)):
        if hook not in shell.events.callbacks[event]:
            shell.events.register(event, hook)
    shell.set_custom_exc((Exception, KeyboardInterrupt), _told)
    _kernel.journal = None
    if not _kernel.sources:
        _before_cell(shell.user_ns["In"][-1])


def journal_errors(journal: Journal, stage: str) -> None:
    """Keep every error of this notebook's cells from here on."""
    _kernel.journal, _kernel.stage = journal, stage


def _before(info: Any) -> None:
    _before_cell(info.raw_cell)


def _before_cell(source: str) -> None:
    """A sign of life for a cell whose work shows nothing by itself: a question to AWS, a chart, a client that tries again."""
    _kernel.sources.append(source)
    if len(_kernel.sources) == 1:
        _kernel.pulse = Live("this cell", first=QUIET, interrupt="safe to interrupt: no command is at work")
        _kernel.pulse.__enter__()


def _after(result: Any) -> None:
    if not (result.info.raw_cell or "").strip():
        return  # IPython tells of the end of an empty cell, and not of its beginning
    error = result.error_before_exec or result.error_in_exec
    if _kernel.sources:  # none: the first `begin` was called in a cell inside this one, and took that for the outermost
        _kernel.sources.pop()
    if not _kernel.sources and (pulse := _kernel.pulse) is not None:
        _kernel.pulse = None
        pulse.__exit__(type(error) if error else None, error, None)
    journal, stage = _kernel.journal, _kernel.stage
    if journal and not notebooks.is_shipped(stage, result.info.raw_cell):
        journal.append("cell", stage=stage, state="modified", source=show.clean(result.info.raw_cell)[:2_000])
    if error is None:
        return
    if journal:
        told = {key: getattr(error, key) for key in ("what", "where", "next")} if isinstance(error, RunbookError) else {}
        journal.append("error", stage=stage, error=str(error), type=type(error).__name__, pid=os.getpid(), **told,
                       traceback=defects.text(error))
        journal.append("stage", stage=stage, state="failed")
    if isinstance(error, RunbookError) or TOLD in vars(error):
        show.show(_rest(error, journal))


def _rest(error: BaseException, journal: Journal | None) -> show.Fold:
    """What the short lines leave out: a program's last words, where its output and the journal are, the traceback."""
    result = getattr(error, "result", None)
    parts = [(f"{name}, in full", text) for name in ("where", "next") if len(text := getattr(error, name, "")) > BRIEF - 9]
    parts += [(f"what {Path(result.command.argv[0]).name} printed last", result.tail)] if result and result.tail else []
    parts += [("its whole output", str(result.log))] if result and result.log else []
    parts += [("the run's journal", str(journal.path))] if journal else []
    return show.Fold("the rest: " + ", ".join(name for name, _ in [*parts, ("traceback", "")]),
                     (*parts, ("traceback", defects.text(error))))


def _told(shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: int | None = None) -> None:
    """IPython's hook for errors of cells: ours say what, where and next; a reader's own code has IPython's traceback."""
    if not isinstance(error, RunbookError) and TOLD not in vars(error):
        if isinstance(error, NameError) and not defects.ours(trace):
            if _kernel.journal and notebooks.is_shipped(_kernel.stage, "".join(_kernel.sources[-1:])):
                _shown_as(error, RunbookError(f"{error.name!r} is not there yet: a cell above this one was not run; nothing was "
                                              "changed", where=f"notebooks/{stages.notebook(_kernel.stage)}",
                                              next="run the cells above, in order (menu: Run, Run All Above Selected Cell)"))
        elif defects.ours(trace):
            _shown_as(error, defects.explained(error))
    if told := vars(error).get(TOLD):
        # The notebook keeps the text of what is handed over, beside the lines that are seen.
        shell.showtraceback((type(told), told, None), tb_offset=tb_offset)
    else:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def _shown_as(error: BaseException, told: RunbookError) -> None:
    """In place of this exception a cell shows what is told, and nothing of the exception's own text."""
    vars(told)["_render_traceback_"] = told.brief.splitlines  # without the name of a class that was not raised
    vars(error)[TOLD] = told


def shorten(error: BaseException, what: str, where: str) -> None:
    """An interrupted cell shows three lines, as any other error of ours."""
    if isinstance(error, KeyboardInterrupt):
        _shown_as(error, RunbookError(f"interrupted: {what}", where=where,
                                      next="run the notebook again from its start; what it had started was ended"))
