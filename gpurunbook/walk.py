"""The walk: papermill over the notebooks, one after the other. There is no second implementation beside them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from gpurunbook import executed, interrupted, kernels, notebooks, stages, targets
from gpurunbook.config import load_cluster
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.files import write
from gpurunbook.journal import Journal, Record
from gpurunbook.parameters import parameters
from gpurunbook.processes import Process

LOOK = 0.1
"""Seconds between two looks at the journal while a notebook runs."""
PUT_BACK = "to put back what was shipped, and keep this one beside it: gpurunbook init . --force"


def refuse_modified(root: Path, target: str, names: Sequence[str], allowed: bool) -> None:
    """Where only shipped notebooks may run, refuse others. Raises ConfigError naming the notebook and what differs in it."""
    for stage in names if targets.get(target).only_shipped and not allowed else ():
        if modified := notebooks.code(root, stage).modified:
            name = f"notebooks/{stages.notebook(stage)}"
            raise ConfigError(f"{name} is not the shipped one: {modified}", where=str(root / name),
                              next=f"{'git diff ' + name if (root / '.git').exists() else PUT_BACK}; to run it as it is: "
                                   f"gpurunbook run --target {target} --from {names[0]} -p allow_modified=true")


def walk(root: Path, folder: Path, names: Sequence[str], values: Mapping[str, Any], *, target: str, cluster_file: str,
         tell: Callable[[Record], None]) -> None:
    """Run the notebooks of some stages into runs/ID/notebooks, in order.

    Args:
        values: checked parameters; each notebook gets those it declares. `allow_modified` is for the walk itself.
        tell: called with every journal record as it is written.

    Raises:
        ConfigError: a notebook is not the shipped one, on a target that refuses that; nothing was begun.
        RunbookError: a notebook failed; it is saved as far as it came.
    """
    allowed = bool(values.get("allow_modified"))
    refuse_modified(root, target, names, allowed)
    declared = parameters(root)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # a "python3" kernel in the user's home must not run our notebooks
    os.umask(0o077)
    journal = Journal(folder)
    out = folder / "notebooks"
    out.mkdir(mode=0o700, exist_ok=True)
    targets.get(target).hide_secrets(load_cluster(folder / "cluster.yaml", whole=False))
    for earlier in out.glob("*.ipynb"):
        _scrub(earlier)  # another papermill may have written it
    journal.append("runner", state="started", process=Process.of(os.getpid()).key, stages=list(names))
    interrupted.wait_for_others(journal)
    try:
        with _following(journal, tell), closing(kernels.one_ahead(root, names, folder / "kernels")) as ahead:
            for stage, kernel in zip(names, ahead, strict=True):
                import papermill  # noqa: F401 - a second, while the first kernel boots; no notebook's own time
                refuse_modified(root, target, [stage], allowed)  # once more: it may have been changed since the walk began
                code = notebooks.code(root, stage)
                ours = {"run_id": folder.name, "target": target, "cluster_file": cluster_file}
                given = ours | {k: v for k, v in values.items() if k in declared[stage]}
                began = time.monotonic()
                journal.append("notebook", stage=stage, state="started", parameters=given, sha256=code.sha256,
                               modified=code.modified)
                try:
                    _papermill(notebooks.path(root, stage), out / stages.notebook(stage), given, root, kernel)
                finally:
                    journal.append("notebook", stage=stage, state="ended", seconds=round(time.monotonic() - began, 2))
    finally:
        # Ctrl-C ends the kernel at once: what it had started is ended here, each with its grace.
        interrupted.close(journal)


def _papermill(source: Path, output: Path, given: Mapping[str, Any], root: Path, kernel: Any) -> None:
    import papermill
    executed.register(output)
    try:
        papermill.execute_notebook(_literal(source), _literal(output), parameters=dict(given), kernel_name="python3",
                                   progress_bar=False, log_output=False, cwd=str(root), start_timeout=60, km=kernel,
                                   shutdown_kernel="immediate")
    except papermill.PapermillExecutionError as error:
        if error.ename in ("RunbookError", "ConfigError", "CommandFailed", "AwsError", "Unreachable", "Refused"):
            raise RunbookError(error.evalue) from error  # its text already says what, where and next
        raise RunbookError(f"{error.ename}: {error.evalue}", where=str(output), next="look at the executed notebook") from error
    except OSError as error:  # none of the executed notebook's: what writes that (executed.Writer) says so itself
        named = f": {error.filename}" if error.filename else ""
        raise RunbookError(f"{source.name} could not be run{named}: {error.strerror or error}",
                           where=str(error.filename or source),
                           next="mend that, then run the same again; the traceback: gpurunbook --verbose run ...") from error
    finally:
        _scrub(output)


def _literal(path: Path) -> str:
    """A path that papermill takes as it is: it fills in {NAME}, and a folder may be called so."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _scrub(notebook: Path) -> None:
    """Our own output comes without secrets; what a library printed or raised may not."""
    text = notebook.read_text() if notebook.exists() else ""
    if (clean := executed.masked(text)) != text:
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
