"""The walk: papermill over the notebooks, one after the other. There is no second implementation beside them."""

from __future__ import annotations

import ast
import difflib
import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from gpurunbook import interrupted, stages, targets
from gpurunbook.config import load_cluster
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.files import write
from gpurunbook.journal import Journal, Record
from gpurunbook.masking import hide
from gpurunbook.processes import Process

OURS = ("run_id", "target", "cluster_file")
"""Parameters that the command line sets by its own options."""
LONGEST, LARGEST = 10_000, 1_000_000
"""Most characters of a text parameter, and the largest number."""
PRECISIONS = {"int8", "nf4", "bf16", "fp16", "fp32", "reference"}
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompt": (lambda v: bool(v) and "\0" not in v, "text, not empty"),
    "top": (lambda v: 1 <= v <= 1000, "a number from 1 to 1000"),
    "weights": (lambda v: v in ("image", "volume"), "image or volume"),
    "selector": (lambda v: not v or bool(re.fullmatch(r"([\w./-]+=[\w.-]*)(,[\w./-]+=[\w.-]*)*", v)), "KEY=VALUE"),
    "precisions": (lambda v: bool(names := v.split(",")) and set(names) <= PRECISIONS and len(set(names)) == len(names),
                   f"some of {', '.join(sorted(PRECISIONS))}, with commas, each once"),
}
"""What main.py would refuse in the pod, said before a cluster is made for it."""
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
        good, expected = RULES.get(name, (lambda v: True, ""))
        if not good(values[name]):
            raise ConfigError(f"parameter {name} is {raw[:60]!r}", where="-p", next=f"give {expected}")
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
    targets.get(target).hide_secrets(load_cluster(folder / "cluster.yaml", whole=False))
    for executed in out.glob("*.ipynb"):
        _scrub(executed)  # one that was being written when an earlier walk was killed
    journal.append("runner", state="started", process=Process.of(os.getpid()).key, stages=list(names))
    try:
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
    finally:
        # Ctrl-C ends the kernel at once: what it had started is ended here, each with its grace.
        interrupted.close(journal)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the run for one walk at a time; a killed walk lets go by itself.

    Raises:
        RunbookError: another walk holds it; its pid is in the message.
    """
    with os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunbookError(f"run {folder.name} is being walked by process {lock.read().strip()}", where=str(folder / "lock"),
                               next="wait for it, or start another: gpurunbook run --run-id OTHER") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _papermill(source: Path, output: Path, given: Mapping[str, Any], root: Path) -> None:
    import papermill
    try:
        papermill.execute_notebook(str(source), str(output), parameters=dict(given), kernel_name="python3",
                                   progress_bar=False, log_output=False, cwd=str(root), start_timeout=60,
                                   extra_arguments=["--log-level=ERROR"],
                                   # All it had to keep is synced; waiting for its farewell takes 0.4 s.
                                   shutdown_kernel="immediate")
    except papermill.PapermillExecutionError as error:
        if error.ename in ("RunbookError", "ConfigError", "CommandFailed", "AwsError"):
            raise RunbookError(error.evalue) from error  # its text already says what, where and next
        raise RunbookError(f"{error.ename}: {error.evalue}", where=str(output), next="look at the executed notebook") from error
    finally:
        _scrub(output)


def _scrub(notebook: Path) -> None:
    """Our own output comes without secrets; what a library printed or raised may not."""
    text = notebook.read_text() if notebook.exists() else ""
    if (clean := hide(text)) != text:
        write(notebook, clean)


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
