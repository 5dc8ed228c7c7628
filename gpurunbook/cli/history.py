"""The commands about runs that there are: status, report, diff, clean."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from gpurunbook import processes, runs, show, stages
from gpurunbook.cli import printing
from gpurunbook.cli.options import EveryId, Json, LeftId, ReportId
from gpurunbook.cli.printing import out
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.report import diff as diffs
from gpurunbook.report.page import write as write_report


def status(run_id: EveryId = "", as_json: Json = False) -> None:
    """The runs of this folder: state, stages, what was in flight."""
    found = [info for info in runs.list_runs(runs.find_root()) if run_id in ("", info.id)]
    if run_id and not found:
        raise RunbookError(f"there is no run {run_id}", where="runs/", next="gpurunbook status")
    alive = [p.run for p in processes.of_runs()]
    rows: list[dict[str, Any]] = [
        {"run": i.id, "target": i.target, "state": i.state, "drill": i.drill, "stages": i.stages,
         "processes": alive.count(i.folder), "folder": str(i.folder),
         "in_flight": [r["shown"] for r in Journal(i.folder).in_flight()]} for i in found]
    if as_json:
        out.print_json(json.dumps(rows))
    elif not rows:
        out.print("no runs yet: gpurunbook run")
    else:
        printing.table(show.Table(("run", "target", "state", "processes", "stages done", "in flight"),
                          [(r["run"], r["target"], i.word, r["processes"],
                            " ".join(s for s in stages.NAMES if r["stages"].get(s) == "done") or "none",
                            "; ".join(r["in_flight"])) for i, r in zip(found, rows, strict=True)],
                          states=[i.mark for i in found]))


def _ids() -> list[str]:
    """For a shell's completion: the newest run first; nothing outside every folder of ours."""
    try:
        return [info.id for info in reversed(runs.list_runs(runs.find_root()))]
    except (RunbookError, OSError):
        return []


NAMES = "a run's id, the beginning of one, the path of its folder, newest, or newest~1 for the one before"
WALKS = f"{NAMES}; a drill does not count as newest, and must be named"


def report(run: Annotated[str, typer.Argument(metavar="RUN", help=NAMES, autocompletion=_ids, show_default=False)] = "",
           run_id: ReportId = "", show_it: Annotated[bool, typer.Option("--open", help="show it in the browser")] = False,
           as_json: Json = False) -> None:
    """Write the run's report (one HTML file) again and print where it is. Default: the newest run."""
    root = runs.find_root()
    if run_id:
        found = runs.read(root / "runs" / run_id)
        if found is None:
            raise RunbookError(f"there is no run {run_id}", where="runs/", next="gpurunbook status")
    elif not runs.list_runs(root):
        raise RunbookError("there is no run", where="runs/", next="gpurunbook run")
    else:
        found = diffs.find(root, run or "newest")
    page = write_report(found.folder)
    out.print(json.dumps({"run": found.id, "report": str(page)}) if as_json else str(page))
    if show_it and typer.launch(str(page), wait=True):
        raise RunbookError("no browser could be started here", where=str(page), next="open that file in one")


def diff(first: Annotated[str, typer.Argument(metavar="RUN", help=WALKS, autocompletion=_ids)] = "newest~1",
         second: Annotated[str, typer.Argument(metavar="RUN", help="the other one", autocompletion=_ids)] = "newest",
         as_json: Json = False) -> None:
    """What differs between two runs, such as a rehearsal and one on eks, or yesterday's and today's.

    Times vary, and are no difference: they are shown beside each other. What counts is target, parameters, versions, how
    stages and checks ended, commands, and tokens (log p by more than 0.01). A run of another machine: by its folder's path.
    Exit code, as diff's: 0 the same, 1 differences, 2 it could not be told.
    """
    root = runs.find_root()
    try:
        one, other = (diffs.find(root, name, drills=False) for name in (first, second))
        names = (one.id, other.id) if one.id != other.id else (first, second)  # two machines may have chosen one name
        sections = diffs.compare(one, other)
    except ConfigError:
        raise
    except Exception as error:  # whatever it is, it is no difference: 1 would say so
        raise ConfigError(f"{first} and {second} cannot be compared: {error}", where=str(root / "runs"),
                          next="gpurunbook report of each tells them one by one") from error
    differing = [section.title for section in sections if section.differs]
    if as_json:
        out.print_json(json.dumps({"first": one.id, "second": other.id, "differs": bool(differing),
                                   "sections": diffs.to_json(sections)}))
    else:
        for table in filter(None, (section.table(*names) for section in sections)):
            printing.table(table)
            out.print()
        both = show.line(" and ".join(names))
        out.print(f"{both} differ in: {', '.join(differing)}" if differing else f"{both} do not differ, but for their times")
    if differing:
        raise typer.Exit(1)


def clean(run_id: LeftId = "", every: Annotated[bool, typer.Option("--all", help="live and kept runs and drills too")] = False,
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
