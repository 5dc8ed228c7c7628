"""`gpurunbook gpu`: the ladder of GPU readiness, once or followed, for people and as JSON."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gpurunbook import runs, show
from gpurunbook.cli import printing
from gpurunbook.cli.options import AnyRunId, ClusterFile, Json, TargetName, choose
from gpurunbook.cli.printing import console, out
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.masking import hide
from gpurunbook.readiness import look
from gpurunbook.readiness.diagnose import goal, settled, standing
from gpurunbook.readiness.screen import summary

if TYPE_CHECKING:
    from gpurunbook.readiness.look import Look
    from gpurunbook.runbook import Run

CODES = {"done": 0, "trouble": 1, "waiting": 3, "unknown": 4}


def gpu(target: TargetName = "", run_id: AnyRunId = "", cluster_file: ClusterFile = "",
        watch: Annotated[bool, typer.Option("--watch", "-w", help="follow it until it settles: all done, or a trouble, or "
                                                                  "nothing goes on without a person")] = False,
        timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="with --watch: at most so long")] = 1800,
        as_json: Json = False) -> None:
    """How far each GPU node has come, from joining to a pod that answers, and what holds it up. It only reads.

    Exit code 0 when every rung is done (those up to the CUDA smoke pod while no model is deployed), 1 when something
    is wrong, 3 when it is still on its way, 4 when the rest cannot be told, for want of a right.
    """
    run = _open(target, run_id, cluster_file)
    # What a kubectl prints about itself must not get between the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        found = _followed(run, timeout, quiet=as_json) if watch else _once(run)
    tell(run, found, as_json=as_json)
    if code := CODES[standing(found.ladder)]:
        raise typer.Exit(code)


def tell(run: Run, found: Look, *, as_json: bool) -> None:
    """Print the ladder and what is wrong on stdout."""
    if as_json:
        whole = {"run": run.id, "target": run.target.name, "seconds": round(found.seconds, 3), "goal": goal(found.ladder),
                 "standing": standing(found.ladder), "export": _export(run), **found.ladder.to_json()}
        typer.echo(hide(json.dumps(whole, indent=2)))  # ASCII: whatever the cluster says, no control reaches the screen
    else:
        printing.table(found.ladder.table)
        if found.ladder.findings:
            out.print(f"\nthe commands below are for a shell with:\n  {show.clean(_export(run))}")
        for box in found.ladder.boxes:
            out.print(f"\n{box!r}", style="red")


def _export(run: Run) -> str:
    """The line under which the findings' commands can be pasted; without PATH where helm or kubectl is not to be found."""
    try:
        return run.header
    except RunbookError:
        return f"export KUBECONFIG={shlex.quote(str(run.kubeconfig))}"


def _open(target: str, run_id: str, cluster_file: str) -> Run:
    """The run, opened to look. Raises ConfigError when there is none: nothing is made for a look."""
    from gpurunbook.runbook import open_run
    chosen = choose(target, cluster_file, run_id)
    given = runs.read(chosen.root / "runs" / run_id) if runs.RUN_ID.fullmatch(run_id) else None
    info = given or (None if run_id else runs.newest(chosen.root, chosen.target, chosen.path, drills=True))
    if info is None:
        said = f"there is no run {run_id}" if run_id else f"there is no unfinished run of {chosen.path.name} on {chosen.target}"
        raise ConfigError(said, where="runs/", next="gpurunbook status; gpurunbook run --until provision")
    return open_run("preflight", run_id=info.id, target=chosen.target, cluster_file=str(chosen.path), quiet=True)


def _once(run: Run) -> Look:
    with console.status("asking the cluster") if console.is_terminal else contextlib.nullcontext():
        return look.once(run)


def _followed(run: Run, timeout: float, *, quiet: bool) -> Look:
    looks = look.follow(run, timeout=timeout, over=lambda one: settled(one.ladder, goal(one.ladder)))
    if console.is_terminal and not quiet:
        return _on_a_terminal(looks)
    last = ""
    for found in looks:
        text = summary(found.ladder, goal(found.ladder))
        if text != last:
            console.print(f"{found.seconds:6.1f} s  {printing.plain(text)}")
        last = text
    return found


def _on_a_terminal(looks: Iterator[Look]) -> Look:
    """The table in one place; it is gone at the end, when it is printed once more to stay."""
    from rich.live import Live
    from rich.text import Text
    with Live(console=console, transient=True, auto_refresh=False, vertical_overflow="crop") as live:
        for found in looks:
            live.update(Text(f"{found.seconds:.0f} s, Ctrl-C ends\n{found.ladder.table!r}", no_wrap=True, overflow="ellipsis"),
                        refresh=True)
    return found
