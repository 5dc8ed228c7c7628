"""`gpurunbook ...`: the walk and its surroundings, on the command line.

Exit codes: 0 fine, 1 something failed or is missing, 2 a wrong argument, parameter or cluster.yaml, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gpurunbook import __version__, processes, runs, show, stages, targets
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal, Record

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=(
    "Notebooks that take a team from nothing to the ten most likely next tokens, computed on a GPU in Kubernetes. "
    "Begin with: gpurunbook doctor, then: gpurunbook run"))
console = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True, markup=False)

TargetName = Annotated[str, typer.Option("--target", "-t", metavar="NAME", help="rehearsal, eks or existing",
                                         autocompletion=lambda: list(targets.NAMES))]
RunId = Annotated[str, typer.Option("--run-id", metavar="ID", help="a run; default: the newest unfinished one")]
ClusterFile = Annotated[str, typer.Option("--cluster-file", "-f", metavar="FILE", help="an eksctl ClusterConfig")]
Json = Annotated[bool, typer.Option("--json", help="print JSON on stdout")]
Parameter = Annotated[list[str] | None, typer.Option("-p", metavar="NAME=VALUE", help="a notebook's parameter; may be repeated")]
StageName = Annotated[str, typer.Option(metavar="STAGE", autocompletion=lambda: list(stages.NAMES))]


def main() -> None:
    """Entry point: turns this library's errors into three lines and an exit code."""
    try:
        app()
    except ConfigError as error:
        _complain(error)
        sys.exit(2)
    except RunbookError as error:
        _complain(error)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted; go on with the same command")
        sys.exit(130)


def _complain(error: RunbookError) -> None:
    console.print(f"[bold red]error:[/] {_plain(str(error))}")


def _plain(text: str) -> str:
    return "\n".join(show.clean(line) for line in text.splitlines()).replace("[", r"\[")


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"gpurunbook {__version__}")
        raise typer.Exit


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                                  help="print the version")] = False) -> None:
    """Options before the command."""


@app.command()
def doctor(target: TargetName = "rehearsal", as_json: Json = False) -> None:
    """Each program the target needs: found where, version, needed, how to get it. Exit 1 when one is lacking."""
    from gpurunbook.stages import preflight
    found = preflight.doctor(targets.get(target))
    if as_json:
        out.print_json(json.dumps({"target": target, "programs": [p.to_json() for p in found]}))
    else:
        _table(preflight.table(found))
    if not all(p.fits for p in found):
        raise typer.Exit(1)


@app.command()
def run(target: TargetName = "rehearsal", run_id: RunId = "", cluster_file: ClusterFile = "cluster.yaml",
        first: Annotated[str, typer.Option("--from", metavar="STAGE", help="begin at this stage")] = "preflight",
        last: Annotated[str, typer.Option("--until", metavar="STAGE", help="end after this stage")] = "",
        parameter: Parameter = None,
        keep: Annotated[bool, typer.Option("--keep", help="leave the cluster up at the end")] = False,
        as_json: Json = False) -> None:
    """Run the notebooks with papermill into runs/ID/notebooks; ends in teardown unless --until or --keep."""
    from gpurunbook.walk import check_parameters, walk
    last = last or ("latency" if keep else "teardown")
    for name in (first, last):
        if name not in stages.NAMES:
            raise ConfigError(f"unknown stage {name!r}", where="--from, --until", next=f"one of: {', '.join(stages.NAMES)}")
    names = stages.NAMES[stages.NAMES.index(first):stages.NAMES.index(last) + 1]
    if not names:
        raise ConfigError(f"--from {first} comes after --until {last}", where="--from, --until", next="swap them")
    root, path = _open(target, cluster_file)
    values = check_parameters(root, parameter or [])
    before = {info.id for info in runs.list_runs(root)}
    folder = runs.resolve(root, target, path, run_id, start=True)
    console.print(f"run [bold]{folder.name}[/] on {target}: {'going on with it' if folder.name in before else 'new'}")
    try:
        walk(root, folder, names, values, target=target, cluster_file=cluster_file, tell=_tell)
        if "teardown" not in names:
            Journal(folder).append("run", state="kept")
    finally:
        page = _report(folder)
    _outcome(folder, page, as_json)


@app.command()
def plan(target: TargetName = "rehearsal", run_id: RunId = "", cluster_file: ClusterFile = "cluster.yaml",
         as_json: Json = False) -> None:
    """What each stage would do now. Changes nothing."""
    from gpurunbook import preview
    root, path = _open(target, cluster_file)
    found = preview.plans(root, target, path, run_id)
    if as_json:
        out.print_json(json.dumps(found, default=str))
        return
    for row in found:
        out.print(f"{stages.notebook(row['stage'])[:-6]}: {show.clean(row['reason'])}")
        for line in row["shown"]:
            out.print(f"    {show.clean(line)}")


@app.command()
def status(run_id: RunId = "", as_json: Json = False) -> None:
    """The runs of this checkout: state, stages, what was in flight."""
    found = [info for info in runs.list_runs(runs.find_root()) if run_id in ("", info.id)]
    if run_id and not found:
        raise RunbookError(f"there is no run {run_id}", where="runs/", next="gpurunbook status")
    alive = [p.run for p in processes.of_runs()]
    rows: list[dict[str, Any]] = [
        {"run": i.id, "target": i.target, "state": i.state, "stages": i.stages, "processes": alive.count(i.folder),
         "in_flight": [r["shown"] for r in Journal(i.folder).in_flight()], "folder": str(i.folder)} for i in found]
    if as_json:
        out.print_json(json.dumps(rows))
    elif not rows:
        out.print("no runs yet: gpurunbook run")
    else:
        _table(show.Table(("run", "target", "state", "processes", "stages done", "in flight"),
                          [(r["run"], r["target"], r["state"], r["processes"],
                            " ".join(s for s in stages.NAMES if r["stages"].get(s) == "done") or "none",
                            "; ".join(r["in_flight"])) for r in rows],
                          states=["pass" if r["state"] in ("finished", "kept", "running") else "warn" for r in rows]))


@app.command()
def shell(target: TargetName = "rehearsal", run_id: RunId = "", cluster_file: ClusterFile = "cluster.yaml") -> None:
    """A shell in the model's pod (kubectl exec -it)."""
    from gpurunbook.runbook import open_run
    from gpurunbook.stages import model
    opened = open_run("model", run_id=run_id, target=target, cluster_file=cluster_file, quiet=True)
    command = opened.kubectl.shell(model.ready_pod(opened).name, container=model.manifest(opened).container)
    console.print(_plain(command.short))
    os.execve(command.argv[0], command.argv, opened.environment)  # noqa: S606 - the terminal becomes kubectl's


@app.command()
def teardown(target: TargetName = "rehearsal", run_id: RunId = "", cluster_file: ClusterFile = "cluster.yaml",
             as_json: Json = False) -> None:
    """End a run: take away what it made, and prove that nothing is left."""
    root, path = _open(target, cluster_file)
    folder = runs.resolve(root, target, path, run_id, start=False)
    run(target=target, run_id=folder.name, cluster_file=cluster_file, first="teardown", last="teardown", as_json=as_json)


@app.command()
def report(run_id: RunId = "") -> None:
    """Write the run's report (one HTML file) again and print where it is."""
    found = [info for info in runs.list_runs(runs.find_root()) if run_id in ("", info.id)]
    if not found:
        raise RunbookError(f"there is no run {run_id}".rstrip(), where="runs/", next="gpurunbook status")
    out.print(str(_report(found[-1].folder)))


@app.command()
def clean(run_id: RunId = "", every: Annotated[bool, typer.Option("--all", help="live and kept runs too")] = False,
          as_json: Json = False) -> None:
    """End the processes that dead runs of this user left, found by the run named in their environment."""
    from gpurunbook.cleaning import clean as sweep
    ended, spared, stubborn = sweep(run_id, every=every)
    if as_json:
        out.print_json(json.dumps({"ended": ended, "spared": spared, "stubborn": stubborn}))
    else:
        for row in ended:
            out.print(f"ended  {row}")
        for row in spared:
            out.print(f"spared {row}")
        for row in stubborn:
            out.print(f"STILL THERE {row}")
        if not ended and not spared and not stubborn:
            out.print("nothing to clean: no process of any run is left")
    if stubborn:
        raise typer.Exit(1)


def _open(target: str, cluster_file: str) -> tuple[Path, Path]:
    """Check target and cluster file before anything else. Returns the root and the file's path."""
    from gpurunbook.config import load_cluster
    targets.get(target)
    root = runs.find_root()
    path = (root / cluster_file).resolve()
    for warning in load_cluster(path).warnings:
        console.print(f"[yellow]warning:[/] {_plain(warning)}")
    return root, path


def _tell(record: Record) -> None:
    """One journal record as a line of progress."""
    kind = record["kind"]
    if kind == "notebook" and record["state"] == "started":
        console.print(f"[bold]{stages.notebook(record['stage'])[:-6]}[/]")
    elif kind == "notebook":
        console.print(f"   {record['seconds']:.1f} s", style="dim")
    elif kind == "intent":
        sign, style = ("$", "") if record["changes"] else ("?", "dim")
        console.print(f"   {sign} {_plain(record['shown'][:150])}", style=style)
    elif kind == "wait" and record["blocker"]:
        console.print(f"   … {_plain(record['what'])}: {_plain(record['blocker'][:150])}", style="dim")
    elif kind == "checks":
        for check in record["checks"]:
            if check["state"] != "pass":
                console.print(f"   {show.MARKS[check['state']]} {_plain(check['name'])}: {_plain(check['evidence'])}",
                              style="red" if check["state"] == "fail" else "yellow")


def _report(folder: Path) -> Path:
    from gpurunbook.report import write
    return write(folder)


def _outcome(folder: Path, page: Path, as_json: bool) -> None:
    tokens = folder / "artifacts" / "next_tokens.json"
    found: dict[str, Any] = json.loads(tokens.read_text()) if tokens.exists() else {}
    if as_json:
        out.print_json(json.dumps({"run": folder.name, "folder": str(folder), "report": str(page),
                                   "prompt": found.get("prompt"), "top": found.get("top")}))
        return
    if found:
        out.print(f"\n{show.clean(found['prompt'])!r}, the ten most likely next tokens ({found['arms'][0]['precision']}, "
                  f"{show.clean(found['model'])}):")
        for rank, token in enumerate(found["top"], 1):
            out.print(f"  {rank:2} {token['p']:7.2%}  {token['text']!r}")
    out.print(f"\nreport     {page}")
    for name, path in (("chart", folder / "artifacts" / "top10.png"), ("notebooks", folder / "notebooks")):
        if path.exists():
            out.print(f"{name:10} {path}")


def _table(table: show.Table) -> None:
    """A table on stdout: coloured marks on a terminal, plain text when piped."""
    lines = repr(table).splitlines()
    out.print(lines[0])
    colours = {"pass": "green", "warn": "yellow", "fail": "red", "unknown": ""}
    for line, state in zip(lines[1:], table.states, strict=True):
        out.print(line, style=colours[state])
