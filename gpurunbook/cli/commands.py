"""`gpurunbook ...`: the walk and its surroundings, on the command line.

Exit codes: 0 fine, 1 something failed or is missing, 2 a wrong argument, parameter or cluster.yaml, 130 interrupted.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gpurunbook import __version__, live, runs, show, stages, targets
from gpurunbook.cli import account, drill, gpu, history, printing, setup, stack
from gpurunbook.cli.options import (
    Chosen,
    ClusterFile,
    EndId,
    Json,
    Parameter,
    RunId,
    TargetName,
    WalkId,
    choose,
    choose_anywhere,
)
from gpurunbook.cli.printing import console, out
from gpurunbook.cli.progress import pulse, telling
from gpurunbook.config import load_cluster, locate
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.masking import revealed, spared
from gpurunbook.plan import Check, Checks
from gpurunbook.report.page import write as write_report

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=(
    "Notebooks that take a team from nothing to the ten most likely next tokens, computed on a GPU in Kubernetes. "
    "Begin with: gpurunbook init my-cluster, then in that folder: gpurunbook doctor, setup, run"))

USAGE: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises for an option or a command that there is not."""


def main() -> None:
    """Entry point: turns this library's errors into three lines and an exit code."""
    try:
        with pulse():
            sys.exit(app(standalone_mode=False))  # the code of typer.Exit; None, which is 0, where a command came to its end
    except USAGE as error:  # it repeats what was typed, or pasted
        vars(error)["message"] = show.clean(vars(error)["message"])
        getattr(error, "show")()  # noqa: B009 - which package it is from depends on the version of typer
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        console.print("interrupted; what was running here has been ended")
        sys.exit(130)
    except RunbookError as error:
        printing.complain(error)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except Exception as error:  # the machine's, or a defect of ours: in three lines all the same
        printing.complain_of(error)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"gpurunbook {__version__}")
        raise typer.Exit


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                                  help="print the version")] = False,
            verbose: Annotated[bool, typer.Option("--verbose", help="an error shows its traceback too")] = False,
            ) -> None:
    """Options before the command."""
    printing.show_tracebacks(verbose)


app.command()(setup.init)
app.command()(setup.setup)


@app.command()
def doctor(target: TargetName = "", as_json: Json = False) -> None:
    """Each program the target needs: found where, version, needed, how to get it. Exit 1 when one is lacking."""
    from gpurunbook.stages import preflight
    chosen = choose_anywhere(target)
    kind = targets.get(chosen.target)
    cluster = load_cluster(chosen.path)
    found, checks = preflight.doctor(kind), Checks([*kind.machine(cluster), *preflight.stale(dt.date.today(), cluster),
                                                    *_not_hidden()])
    if as_json:
        out.print_json(json.dumps({"target": chosen.target, "programs": [p.to_json() for p in found],
                                   "checks": checks.to_json()}))
    else:
        printing.table(preflight.table(found))
        if checks:
            out.print()
            printing.table(checks.table)
    if checks.failed or not all(p.fits for p in found):
        raise typer.Exit(1)


def _not_hidden() -> list[Check]:
    names = spared()
    return [Check("secrets", "warn", f"{', '.join(names)}: a word of ours as the value, not hidden where it stands alone",
                  fix=f"choose another value, or before a run: unset {' '.join(names)}")] if names else []


@app.command()
def preflight(target: TargetName = "", cluster_file: ClusterFile = "", as_json: Json = False,
              image: Annotated[str, typer.Option("--image", metavar="REFERENCE", help="the model's image")] = "") -> None:
    """All that notebook 01 checks, without a run: this machine, cluster.yaml, and the account. Exit 1 when a check fails."""
    from gpurunbook.stages import preflight as stage
    chosen = choose(target, cluster_file, "")
    kind = targets.get(chosen.target)
    with console.status(f"preflight for {chosen.target}"):
        checks = Checks(stage.checks(chosen.root, kind, load_cluster(chosen.path), stage.doctor(kind), image=image))
        estimate = kind.estimate(load_cluster(chosen.path), 1)
    if as_json:
        out.print_json(json.dumps({"target": chosen.target, "checks": checks.to_json(),
                                   "estimate": estimate and estimate.to_json()}))
    else:
        printing.checks(checks)
        if estimate:
            out.print()
            printing.table(estimate.table)
    if checks.failed:
        raise typer.Exit(1)


@app.command()
def run(target: TargetName = "", run_id: WalkId = "", cluster_file: ClusterFile = "",
        first: Annotated[str, typer.Option("--from", metavar="STAGE", help="begin at this stage",
                                              autocompletion=lambda: list(stages.NAMES))] = "preflight",
        last: Annotated[str, typer.Option("--until", metavar="STAGE", help="end after this stage",
                                             autocompletion=lambda: list(stages.NAMES))] = "",
        parameter: Parameter = None,
        max_hours: Annotated[float, typer.Option("--max-hours", metavar="HOURS", show_default=False,
                                                 help="eks: then only a teardown goes on")] = 0,
        budget: Annotated[float, typer.Option("--budget", metavar="DOLLARS", show_default=False,
                                              help="eks: no more is begun above this estimate")] = 0,
        kubeconfig: Annotated[str, typer.Option("--kubeconfig", metavar="FILE", help="existing: the cluster's kubeconfig")] = "",
        context: Annotated[str, typer.Option("--context", metavar="NAME", help="existing: the context in it")] = "",
        pace: Annotated[str, typer.Option("--pace", metavar="PACE", show_default=False,
                                          help="rehearsal: instant (default), real, or a factor such as 0.1")] = "",
        keep: Annotated[bool, typer.Option("--keep", help="leave the cluster up at the end")] = False,
        as_json: Json = False) -> None:
    """Run the notebooks with papermill into runs/ID/notebooks; ends in teardown unless --until or --keep."""
    from gpurunbook.parameters import check_parameters
    from gpurunbook.walk import refuse_modified
    last = last or ("latency" if keep else "teardown")
    for name in (first, last):
        if name not in stages.NAMES:
            raise ConfigError(f"unknown stage {name[:60]!r}", where="--from, --until", next=f"one of: {', '.join(stages.NAMES)}")
    names = stages.NAMES[stages.NAMES.index(first):stages.NAMES.index(last) + 1]
    if not names:
        raise ConfigError(f"--from {first} comes after --until {last}", where="--from, --until", next="swap them")
    chosen = choose(target, cluster_file, run_id)
    chosen.warn()
    kubeconfig = kubeconfig and str(locate(Path.cwd(), kubeconfig, "--kubeconfig"))
    given = {"max_hours": max_hours, "budget": budget, "kubeconfig": kubeconfig, "context": context, "pace": pace}
    options = [f"{name}={value}" for name, value in given.items() if value]
    values = check_parameters(chosen.root, [*options, *(parameter or [])])
    refuse_modified(chosen.root, chosen.target, names, bool(values.get("allow_modified")))
    before = {info.id for info in runs.list_runs(chosen.root)}
    if "provision" in names:
        _agreed(chosen, run_id, values)
    folder = runs.resolve(chosen.root, chosen.target, chosen.path, run_id, start=True)
    console.print(f"run [bold]{folder.name}[/] on {chosen.target}: {'going on with it' if folder.name in before else 'new'}; "
                  "below, ? looks and $ changes something")
    _walk(chosen, folder, names, values, as_json)


def _agreed(chosen: Chosen, run_id: str, values: Mapping[str, Any]) -> None:
    """Ask for what a target needs from a person before a run folder is made for it. Raises ConfigError."""
    info = runs.read(chosen.root / "runs" / run_id) if run_id else runs.newest(chosen.root, chosen.target, chosen.path)
    wishes = targets.Wishes(**{name: values[name] for name in targets.Wishes.__dataclass_fields__ if name in values})
    if info is None or not targets.get(chosen.target).begun(info.folder):
        targets.get(chosen.target).agree(load_cluster(chosen.path), wishes)
    if info:
        targets.get(chosen.target).keep(info.folder, wishes)


def _walk(chosen: Chosen, folder: Path, names: Sequence[str], values: Mapping[str, Any], as_json: bool) -> None:
    from gpurunbook import locks
    from gpurunbook.walk import walk
    with locks.held(folder, f"`gpurunbook {'teardown' if list(names) == ['teardown'] else 'run'}`"):
        try:
            with telling(folder.name) as tell:
                walk(chosen.root, folder, names, values, target=chosen.target, cluster_file=chosen.parameter, tell=tell)
        except KeyboardInterrupt:
            console.print(f"interrupted; what was running here has been ended. Go on with: gpurunbook run --run-id {folder.name}")
            _stopped(chosen, folder)
            raise typer.Exit(130) from None
        except Exception:
            _stopped(chosen, folder)
            raise
        if "teardown" not in names:
            Journal(folder).append("run", state="kept")
        printing.outcome(folder, write_report(folder), names, as_json)


def _stopped(chosen: Chosen, folder: Path) -> None:
    """What whoever walks away from a run that stopped should know. Why it stopped matters more, and is said after it."""
    def costs() -> None:
        spent = targets.get(chosen.target).spent(folder)
        if spent and spent.counting:
            console.print(f"[yellow]what was made still costs money:[/] {printing.plain(spent.sentence)}. "
                          f"End it: gpurunbook teardown --run-id {folder.name}")

    def report() -> None:
        console.print(printing.plain(f"report: {write_report(folder)}"))

    for what, tell in (("what it costs", costs), ("the report", report)):
        try:
            tell()
        except Exception as error:
            console.print(printing.plain(f"{what} could not be told: {type(error).__name__}: {show.line(error)[:200]}; "
                                         f"try: gpurunbook status --run-id {folder.name}"))


@app.command()
def plan(target: TargetName = "", run_id: RunId = "", cluster_file: ClusterFile = "",
         as_json: Json = False) -> None:
    """What each stage would do now. Changes nothing."""
    from gpurunbook import preview
    chosen = choose(target, cluster_file, run_id)
    chosen.warn()
    found = preview.plans(chosen.root, chosen.target, chosen.path, run_id)
    if as_json:
        out.print_json(json.dumps(found, default=str))
        return
    for row in found:
        out.print(f"{stages.stem(row['stage'])}: {show.clean(row['reason'])}")
        for line in row["shown"]:
            out.print(f"    {show.clean(line)}")


@app.command()
def shell(target: TargetName = "", run_id: RunId = "", cluster_file: ClusterFile = "") -> None:
    """A shell in the model's pod (kubectl exec -it)."""
    from gpurunbook.runbook import open_run
    from gpurunbook.stages import model
    chosen = choose(target, cluster_file, run_id)
    opened = open_run("model", run_id=run_id, target=chosen.target, cluster_file=chosen.parameter, quiet=True)
    command = opened.kubectl.shell(model.ready_pod(opened).name, container=model.manifest(opened).container)
    console.print(printing.plain(command.short))
    with live.lifted():
        os.execve(command.argv[0], command.argv, revealed(opened.environment))  # noqa: S606 - the terminal becomes kubectl's


@app.command()
def teardown(target: TargetName = "", run_id: EndId = "", cluster_file: ClusterFile = "",
             cluster: Annotated[str, typer.Option("--cluster", metavar="NAME",
                                                  help="eks, without its run folder: the cluster's name")] = "",
             region: Annotated[str, typer.Option("--region", metavar="REGION", help="the cluster's AWS region")] = "",
             as_json: Json = False) -> None:
    """End a run: take away what it made, and prove that nothing is left."""
    if cluster or region:
        folder = account.adopt(runs.find_root(), cluster, region, run_id)
        target, run_id = "eks", folder.name
    elif not run_id and not cluster_file:
        run_id = _unfinished(target)
    chosen = choose(target, cluster_file, run_id)
    _walk(chosen, runs.resolve(chosen.root, chosen.target, chosen.path, run_id, start=False), ("teardown",), {}, as_json)


def _unfinished(target: str) -> str:
    """The run that a teardown without a name means: the newest unfinished one, if that cannot be mistaken.

    Raises:
        ConfigError: runs of several targets or cluster files are unfinished, or a walk and a drill.
    """
    going = [info for info in runs.list_runs(runs.find_root()) if info.state != "finished" and target in ("", info.target)]
    kinds = {(info.target, info.cluster_file) for info in going}
    if len({(info.target, info.cluster_file, info.drill) for info in going}) > 1:
        told = "; ".join(f"--run-id {info.id} ({'drill' if info.drill else info.target}, {Path(info.cluster_file).name})"
                         for info in going)
        what = "runs of several targets or cluster files" if len(kinds) > 1 else "a walk and a drill"
        raise ConfigError(f"{what} are unfinished", where="runs/", next=f"name one: {told}")
    return going[-1].id if going else ""


for command in (gpu.gpu, stack.stack, account.ami, account.reap, history.status, history.report, history.diff,
                history.clean):
    app.command()(command)
app.add_typer(drill.app, name="drill")
