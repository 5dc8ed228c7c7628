"""The commands about runs that there are: status, report, clean."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from gpurunbook import printing, processes, runs, show, stages
from gpurunbook.cli_options import Json, RunId
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal
from gpurunbook.printing import out
from gpurunbook.report import write as write_report


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
        printing.table(show.Table(("run", "target", "state", "processes", "stages done", "in flight"),
                          [(r["run"], r["target"], r["state"], r["processes"],
                            " ".join(s for s in stages.NAMES if r["stages"].get(s) == "done") or "none",
                            "; ".join(r["in_flight"])) for r in rows],
                          states=["pass" if r["state"] in ("finished", "kept", "running") else "warn" for r in rows]))


def report(run_id: RunId = "", as_json: Json = False) -> None:
    """Write the run's report (one HTML file) again and print where it is."""
    found = [info for info in runs.list_runs(runs.find_root()) if run_id in ("", info.id)]
    if not found:
        raise RunbookError(f"there is no run {run_id}".rstrip(), where="runs/", next="gpurunbook status")
    page = write_report(found[-1].folder)
    out.print(json.dumps({"run": found[-1].id, "report": str(page)}) if as_json else str(page))


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
