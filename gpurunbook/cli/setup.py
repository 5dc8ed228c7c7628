"""The commands before the first run: init makes a folder to work in, setup makes what a run needs from this machine."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from gpurunbook import live, programs, scaffold, show, targets
from gpurunbook.cli import printing
from gpurunbook.cli.options import Json, TargetName
from gpurunbook.cli.printing import console, out
from gpurunbook.config import locate
from gpurunbook.programs.locate import TOOLS


def init(folder: Annotated[str, typer.Argument(metavar="FOLDER", help="made if it is not there; . for this one")],
         name: Annotated[str, typer.Option("--name", metavar="CLUSTER", help="the cluster's name; default: the folder's")] = "",
         force: Annotated[bool, typer.Option("--force", help="in a folder that is not empty: write what is missing, and put "
                                             "notebooks and manifests back as shipped; what was there is kept")] = False,
         as_json: Json = False) -> None:
    """Make a folder with the notebooks, the manifests and a cluster.yaml to start from."""
    made = scaffold.init(locate(Path.cwd(), folder, "FOLDER"), name, force=force)
    first = min(path.relative_to(made.folder).as_posix() for path in (made.folder / "notebooks").glob("*.ipynb"))
    entering = [f"cd {shlex.quote(folder)}"] if made.folder != Path.cwd().resolve() else []
    steps = {"gpurunbook doctor": "what this machine lacks, and how to get it",
             "gpurunbook setup": "makes it: programs, the rehearsal's model (minutes, the first time)",
             "gpurunbook run": "the whole walk on this machine", f"jupyter lab {first}": "the same, cell by cell"}
    next_lines = [*entering, *steps]
    if as_json:
        out.print_json(json.dumps({"folder": str(made.folder), "cluster": made.cluster, "written": made.written,
                                   "left": made.left, "kept_in": made.kept_in, "next": next_lines}))
        return
    new = set(made.written)
    books = sum(path.startswith("notebooks/") for path in new)
    others = sum(path.startswith("manifests/") for path in new)
    cluster = f"a cluster called {made.cluster}" if "cluster.yaml" in new else "left as it was"
    for what, told in (("notebooks/", f"{books} files written"), ("manifests/", f"{others} files written"),
                       ("cluster.yaml", cluster)):
        out.print(f"{what:14} {told}")
    if made.kept_in:
        out.print(f"{made.kept_in}/ has what stood in their place")
    out.print(show.clean(f"\nin {made.folder}; next:"))
    for line in entering:
        out.print(show.clean(f"  {line}"))
    for line, why in steps.items():
        out.print(f"  {line:37} # {why}")


def _programs() -> list[str]:
    return list(programs.table())


def setup(program: Annotated[list[str] | None, typer.Argument(metavar="PROGRAM", autocompletion=_programs,
                                                              help="only these; default: all that the target needs")] = None,
          target: TargetName = "", as_json: Json = False) -> None:
    """Make what this machine lacks: programs, built from pinned Go modules, and the rehearsal's model. Then: seconds."""
    kind = targets.get(target or "rehearsal")
    if not program:
        kind.set_up(lambda line: console.print(printing.plain(line)))
    argv = [sys.executable, "-P", str(TOOLS / "build.py"), *(["--json"] if as_json else []), "--", *(program or kind.programs)]
    with live.lifted():
        sys.stdout.flush()
        os.execv(argv[0], argv)  # noqa: S606 - its progress and its exit code are ours
