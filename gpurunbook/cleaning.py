"""`gpurunbook clean`: end what dead runs left, found by the run folder in the processes' environment."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from gpurunbook import processes, runs
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal


def clean(run_id: str = "", *, every: bool = False) -> tuple[list[str], list[str], list[str]]:
    """End the processes of dead runs of this user, whatever checkout they belong to.

    A run is live while its command line or a notebook's kernel is, and when it was kept on purpose; a live run goes
    only when it is named or with `every`.

    Returns:
        (ended, spared, stubborn): one line for each process.
    """
    by_run: dict[Path, list[processes.Process]] = {}
    for process in processes.of_runs():
        if process.run:
            by_run.setdefault(process.run, []).append(process)
    named = _named(run_id, list(by_run))
    ended, spared, stubborn = [], [], []
    for folder, found in sorted(by_run.items()):
        info = runs.read(folder)
        state = info.state if info else "dead"
        if folder != named and (run_id or (state in ("running", "kept") and not every)):
            word = info.word if info else state
            spared += [f"{_line(p)}: the run is {word}; end it with --run-id {folder.name}" for p in found if not run_id]
            continue
        left = processes.end(found)
        stubborn += [_line(p) for p in left]
        ended += [_line(p) for p in found if p not in left]
        if info and not left and state != "finished":
            Journal(folder).append("run", state="cleaned")
    _remove_sockets()
    return ended, spared, stubborn


def _named(run_id: str, folders: list[Path]) -> Path | None:
    """The run that is meant: where several checkouts have one of that name, the one of this checkout."""
    found = [folder for folder in folders if folder.name == run_id]
    if run_id and not found and not (runs.find_root() / "runs" / run_id).exists():
        raise RunbookError(f"there is no run {run_id}", where="runs/", next="gpurunbook status")
    here = [folder for folder in found if Path.cwd().is_relative_to(folder.parents[1])]
    if len(found) > 1 and len(here) != 1:
        raise ConfigError(f"several checkouts have a run {run_id}", where=", ".join(map(str, found)),
                          next="change into the checkout that is meant")
    return next(iter(here or found), None)


def _remove_sockets() -> None:
    """Remove this user's socket folders of runs that neither live nor have a process; each names its run in a file."""
    with_process = {p.run for p in processes.of_runs()}
    for folder in Path(tempfile.gettempdir()).glob(f"gpurunbook-{os.getuid()}-*"):
        # The folder lies where everybody writes: another user's, or a link, is none of ours.
        with suppress(OSError):
            run = Path((folder / "run").read_text().strip())
            info = runs.read(run)
            if (not folder.is_symlink() and folder.stat().st_uid == os.getuid() and run not in with_process
                    and not (info and info.state == "running")):
                shutil.rmtree(folder)


def _line(process: processes.Process) -> str:
    return f"{process.name} (pid {process.pid}) of run {process.run.name if process.run else '?'}"
