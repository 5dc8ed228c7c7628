"""The command `gpurunbook drill`: a rehearsal with a fault in it, for learners and for whoever leads them."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any

import typer

from gpurunbook import runs, show
from gpurunbook.cli import printing
from gpurunbook.cli.options import ClusterFile, Json, checked, choose
from gpurunbook.cli.printing import console, out
from gpurunbook.errors import ConfigError

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=(
    "Faults to practise on: a drill is a rehearsal with one thing broken, and you find which. Alone: all of them, in a table. "
    "Exit codes: 0 fine (check: mended), 1 something failed (check: not mended yet), 2 a wrong argument, 130 interrupted."))


def _names() -> list[str]:
    from gpurunbook.drills import catalogue
    return [drill.cause for drill in catalogue.ALL]


def _drills() -> list[str]:
    return [info.id for info in runs.list_runs(runs.find_root()) if info.drill]


RunId = Annotated[str, typer.Option("--run-id", metavar="ID", callback=checked, autocompletion=_drills,
                                    help="a drill's run; default: the newest that is not torn down")]


@app.callback()
def drill(context: typer.Context, as_json: Json = False) -> None:
    """Faults to learn from. Alone: all of them, in a table."""
    if context.invoked_subcommand is None:
        list_all(as_json)


@app.command("list")
def list_all(as_json: Json = False) -> None:
    """All drills, from the lowest rung of the ladder up: name, rung, minutes, what it teaches."""
    from gpurunbook.drills import catalogue
    rows = [{"name": one.cause, "rung": catalogue.rung(one), "minutes": one.minutes, "teaches": one.teaches}
            for one in catalogue.by_rung()]
    if as_json:
        out.print_json(json.dumps(rows))
        return
    printing.table(show.Table(("drill", "rung", "minutes", "teaches"), [tuple(row.values()) for row in rows]))
    console.print("begin one, without its name: gpurunbook drill start")


@app.command()
def start(seed: Annotated[int | None, typer.Option("--seed", metavar="N", min=0,
                                                   help="the same seed gives the same fault; default: any")] = None,
          fault: Annotated[str, typer.Option("--fault", metavar="NAME", autocompletion=_names,
                                             help="for leaders: this one, under a seed that gives it")] = "",
          run_id: Annotated[str, typer.Option("--run-id", metavar="ID", callback=checked,
                                              help="the new run's name; default: drill-WORD")] = "",
          cluster_file: ClusterFile = "", as_json: Json = False) -> None:
    """Start a rehearsal with one fault in it, its name hidden. Takes 10 to 30 seconds. Exit 1 when it did not come about."""
    from gpurunbook.drills import catalogue, look
    from gpurunbook.drills.start import start as begin
    if fault and seed is not None:
        raise ConfigError("--seed and --fault both say which drill", where="--seed, --fault", next="give one of them")
    if seed is None:
        seed = catalogue.seed_for(fault) if fault else secrets.randbelow(catalogue.MOST_SEED)
    chosen = choose("rehearsal", cluster_file, "")
    try:
        started = begin(chosen.root, chosen.parameter, seed, run_id=run_id, look=look.ladder,
                        tell=lambda line: console.print(printing.plain(line), style="dim"))
    except KeyboardInterrupt:
        console.print("interrupted; end what was begun: gpurunbook status, then gpurunbook teardown --run-id ID")
        raise typer.Exit(130) from None
    commands = {"look": "gpurunbook gpu", "check": "gpurunbook drill check", "hint": "gpurunbook drill hint",
                "reveal": "gpurunbook drill reveal", "end": "gpurunbook teardown"}
    commands = {key: f"{command} --run-id {started.run_id}" for key, command in commands.items()}
    if as_json:
        out.print_json(json.dumps({"run": started.run_id, "seed": started.seed, "told": started.told, "export": started.export,
                                   "seconds": started.seconds, "commands": commands}))
        return
    out.print(f"run {started.run_id}, seed {started.seed}, ready after {started.seconds:.1f} s\n\n"
              f"What your team was told:\n  {started.told}\n\n"
              f"In a terminal, for your own kubectl and helm:\n  {started.export}\n")
    for key, what in (("look", "the ladder, when kubectl is not enough"), ("hint", "a hint; a second call gives the second one"),
                      ("check", "is it mended?"), ("reveal", "give up, or compare"), ("end", "end it")):
        out.print(f"  {commands[key]:50} {what}")


@app.command()
def check(run_id: RunId = "", as_json: Json = False) -> None:
    """Is it mended? Exit 0: yes. Exit 1: not yet, with what still shows: rung and evidence, names only after reveal."""
    from gpurunbook.drills import catalogue, look, record
    from gpurunbook.drills.verdict import judge
    info = record.find(runs.find_root(), run_id)
    told = record.revealed(info)
    with console.status("looking at the cluster"):
        verdict = judge(look.ladder(record.looked_at(info)), catalogue.rung(record.drill(info)))
    record.checked(info, mended=verdict.mended)
    still: list[dict[str, Any]] = [{"rung": one.rung, "node": one.node, "evidence": one.evidence,
                                    **({"cause": one.cause, "next": one.next} if told else {})} for one in verdict.still]
    waits = [{"rung": step.rung, "node": node, "state": step.state, "evidence": step.evidence} for node, step in verdict.waits]
    if as_json:
        out.print_json(json.dumps({"run": info.id, "mended": verdict.mended, "still": still, "waits": waits}))
    else:
        out.print(f"run {info.id}: {'mended' if verdict.mended else 'not yet'}")
        rows = [(row["rung"], row["node"] or "the cluster", row["evidence"], *([row.get("cause", "")] if told else []))
                for row in [*still, *(wait for wait in waits if wait["rung"] not in {row["rung"] for row in still})]]
        if rows:
            printing.table(show.Table(("rung", "node", "what shows", *(["cause"] if told else [])), rows,
                                      states=["fail"] * len(rows)))
        elif not verdict.mended:
            out.print("no GPU node is there")
    if not verdict.mended:
        raise typer.Exit(1)


@app.command()
def hint(run_id: RunId = "", as_json: Json = False) -> None:
    """One hint; called again, the second, which is closer. What was given is noted in the run."""
    from gpurunbook.drills import record
    from gpurunbook.journal import Journal
    info = record.find(runs.find_root(), run_id)
    hints = record.drill(info).hints
    number = min(record.hints_given(info), len(hints) - 1)
    Journal(info.folder).append("hint", number=number + 1)
    text = hints[number].replace("{node}", "NODE")
    out.print_json(json.dumps({"run": info.id, "hint": number + 1, "of": len(hints), "text": text})) if as_json else out.print(
        f"{number + 1} of {len(hints)}: {text}")


@app.command()
def reveal(run_id: RunId = "", as_json: Json = False) -> None:
    """The fault's name, why it happens, where it was made, how to mend it, and what it teaches."""
    from gpurunbook.drills import record
    from gpurunbook.drills.telling import told
    from gpurunbook.journal import Journal
    info = record.find(runs.find_root(), run_id)
    found = told(record.drill(info), record.looked_at(info))
    Journal(info.folder).append("reveal")
    if as_json:
        out.print_json(json.dumps({"run": info.id, "seed": record.seed(info), **found.to_json()}))
        return
    out.print(show.clean(repr(found)))
