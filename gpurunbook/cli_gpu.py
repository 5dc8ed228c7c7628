"""`gpurunbook gpu`: the ladder of GPU readiness, once or followed, for people and as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpurunbook import printing, runs, targets
from gpurunbook.errors import ConfigError
from gpurunbook.masking import hide
from gpurunbook.printing import console, out
from gpurunbook.readiness import look
from gpurunbook.readiness.diagnose import goal, settled, standing
from gpurunbook.readiness.screen import summary

if TYPE_CHECKING:
    from gpurunbook.readiness.look import Look
    from gpurunbook.runbook import Run

STILL_ON_ITS_WAY = 3


def gpu(target: Annotated[str, typer.Option("--target", "-t", metavar="NAME", help="rehearsal (default), eks or existing",
                                            autocompletion=lambda: list(targets.NAMES))] = "",
        run_id: Annotated[str, typer.Option("--run-id", metavar="ID", help="a run; default: the newest unfinished one")] = "",
        cluster_file: Annotated[str, typer.Option("--cluster-file", "-f", metavar="FILE",
                                                  help="an eksctl ClusterConfig; default: cluster.yaml")] = "",
        watch: Annotated[bool, typer.Option("--watch", "-w", help="follow it until it settles: all done, or a trouble, or "
                                                                  "nothing goes on without a person")] = False,
        timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="with --watch: at most so long")] = 1800,
        as_json: Annotated[bool, typer.Option("--json", help="print JSON on stdout")] = False) -> None:
    """How far each GPU node has come, from joining to a pod that answers, and what holds it up. It only reads.

    Exit code 0 when every rung is done (those up to the CUDA smoke pod while no model is deployed), 1 when something
    is wrong, 3 when it is still on its way.
    """
    run = _open(target, run_id, cluster_file)
    # What a kubectl prints about itself must not get between the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        found = _followed(run, timeout, quiet=as_json) if watch else _once(run)
    if as_json:
        out.print_json(hide(json.dumps({"run": run.id, "target": run.target.name, "seconds": round(found.seconds, 3),
                                        "goal": goal(found.ladder), "standing": standing(found.ladder),
                                        **found.ladder.to_json()})))
    else:
        printing.table(found.ladder.table)
        for box in found.ladder.boxes:
            out.print(f"\n{box!r}", style="red")
    if code := {"done": 0, "trouble": 1}.get(standing(found.ladder), STILL_ON_ITS_WAY):
        raise typer.Exit(code)


def _open(target: str, run_id: str, cluster_file: str) -> Run:
    """The run, opened to look. Raises ConfigError when there is none: nothing is made for a look."""
    from gpurunbook.runbook import open_run
    root = runs.find_root()
    info = runs.read(root / "runs" / run_id) if runs.RUN_ID.fullmatch(run_id) else None
    target = target or (info.target if info else "rehearsal")
    path = Path(cluster_file).resolve() if cluster_file else Path(info.cluster_file) if info else root / "cluster.yaml"
    path = path if path.exists() else (root / cluster_file).resolve()
    info = info or (None if run_id else runs.newest(root, target, path))
    if info is None:
        raise ConfigError(f"there is no run {run_id}" if run_id else f"there is no unfinished run of {path.name} on {target}",
                          where="runs/", next="gpurunbook status; gpurunbook run --until provision")
    return open_run("preflight", run_id=info.id, target=target, cluster_file=str(path), quiet=True)


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
