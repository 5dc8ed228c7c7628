"""The walk: papermill over the notebooks, one after the other. There is no second implementation beside them."""

from __future__ import annotations

import ast
import difflib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat

from gpurunbook import stages
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal, Record
from gpurunbook.processes import Process

OURS = ("run_id", "target", "cluster_file")
"""Parameters that the command line sets by its own options."""
LONGEST, LARGEST = 10_000, 1_000_000
"""Most characters of a text parameter, and the largest number."""
LOOK = 0.1
"""Seconds between two looks at the journal while a notebook runs."""


def parameters(root: Path) -> dict[str, dict[str, Any]]:
    """Stage -> the literals of its notebook's `parameters` cell."""
    return {stage: _literals(root / "notebooks" / stages.notebook(stage)) for stage in stages.NAMES}


def _literals(path: Path) -> dict[str, Any]:
    book = nbformat.read(path, as_version=4)
    cell = next((c for c in book.cells if "parameters" in c.metadata.get("tags", [])), None)
    if cell is None:
        raise ConfigError(f"{path.name} has no cell tagged `parameters`", where=str(path), next="git checkout notebooks/")
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}


def check_parameters(root: Path, given: Sequence[str]) -> dict[str, Any]:
    """Turn NAME=VALUE texts into values of the type that the parameters cell has.

    papermill only warns about an unknown name, and executes a hostile one; so names and types are checked here.

    Raises:
        ConfigError: no such parameter, or a value of the wrong type.
    """
    known = {name: value for cell in parameters(root).values() for name, value in cell.items() if name not in OURS}
    values = {}
    for text in given:
        name, equals, raw = text.partition("=")
        if not equals or name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise ConfigError(f"unknown parameter {name!r}" if equals else f"{text!r} is not NAME=VALUE", where="-p",
                              next=f"did you mean {close[0]}?" if close else f"one of: {', '.join(sorted(known))}")
        values[name] = _typed(name, raw, known[name])
    return values


def _typed(name: str, raw: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[raw.lower()]
        value = type(default)(raw)
        if len(raw) > LONGEST or (isinstance(value, int | float) and not 0 <= value <= LARGEST):
            raise ValueError(raw)
        return value
    except (KeyError, ValueError):
        shown = raw if len(raw) < 80 else f"{raw[:60]}... ({len(raw):,} characters)"
        raise ConfigError(f"parameter {name} is {shown!r}", where="-p", next=f"give a value like {default!r} "
                          f"({type(default).__name__}); numbers up to {LARGEST:,}, text up to {LONGEST:,}") from None


def walk(root: Path, folder: Path, names: Sequence[str], values: Mapping[str, Any], *, target: str, cluster_file: str,
         tell: Callable[[Record], None]) -> None:
    """Run the notebooks of some stages into runs/ID/notebooks, in order.

    Args:
        values: checked parameters; each notebook gets those it declares.
        tell: called with every journal record as it is written.

    Raises:
        RunbookError: a notebook failed; it is saved as far as it came.
    """
    declared = parameters(root)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # a "python3" kernel in the user's home must not run our notebooks
    os.umask(0o077)
    journal = Journal(folder)
    out = folder / "notebooks"
    out.mkdir(mode=0o700, exist_ok=True)
    journal.append("runner", state="started", process=asdict(Process.current()), stages=list(names))
    with _following(journal, tell):
        for stage in names:
            ours = {"run_id": folder.name, "target": target, "cluster_file": cluster_file}
            given = ours | {k: v for k, v in values.items() if k in declared[stage]}
            began = time.monotonic()
            journal.append("notebook", stage=stage, state="started", parameters=given)
            try:
                _papermill(root / "notebooks" / stages.notebook(stage), out / stages.notebook(stage), given, root)
            finally:
                journal.append("notebook", stage=stage, state="ended", seconds=round(time.monotonic() - began, 2))


def _papermill(source: Path, output: Path, given: Mapping[str, Any], root: Path) -> None:
    import papermill
    try:
        papermill.execute_notebook(str(source), str(output), parameters=dict(given), kernel_name="python3",
                                   progress_bar=False, log_output=False, cwd=str(root), start_timeout=60,
                                   extra_arguments=["--log-level=ERROR"],
                                   # All it had to keep is synced; waiting for its farewell takes 0.4 s.
                                   shutdown_kernel="immediate")
    except papermill.PapermillExecutionError as error:
        known = error.ename in ("RunbookError", "ConfigError", "CommandFailed")
        # A RunbookError's text already says what, where and next.
        raise RunbookError(error.evalue if known else f"{error.ename}: {error.evalue}",
                           where="" if known else str(output), next=f"see the executed notebook: {output}") from error


@contextmanager
def _following(journal: Journal, tell: Callable[[Record], None]) -> Iterator[None]:
    """Hand over each record of the journal as it appears, from a thread of its own."""
    seen, over = sum(1 for _ in journal.records()), threading.Event()

    def follow() -> None:
        nonlocal seen
        size = -1
        while True:
            last = over.is_set()
            if (now := journal.path.stat().st_size) != size:
                size, records = now, list(journal.records())
                for record in records[seen:]:
                    tell(record)
                seen = len(records)
            if last:
                return
            time.sleep(LOOK)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)
