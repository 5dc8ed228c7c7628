"""What most commands take: target, run, cluster file; and what they mean together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gpurunbook import runs, scaffold, targets
from gpurunbook.cli import printing
from gpurunbook.cli.printing import console
from gpurunbook.config import load_cluster, locate
from gpurunbook.errors import ConfigError

TargetName = Annotated[str, typer.Option("--target", "-t", metavar="NAME", help="rehearsal (default), eks or existing",
                                         autocompletion=lambda: list(targets.NAMES))]


def checked(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """A run's id as it was typed. An empty one is none: a shell's variable that is not set must not come to mean every run.

    Raises:
        ConfigError: it is empty, or can be no id.
    """
    source = context.get_parameter_source(parameter.name or "")
    if not value and source and source.name == "COMMANDLINE":
        raise ConfigError("--run-id is empty", where="--run-id", next="name a run (gpurunbook status), or leave the option out")
    runs.check_id(value)
    return value




def _run_id(help: str) -> Any:
    return typer.Option("--run-id", metavar="ID", callback=checked, help=help)


RunId = Annotated[str, _run_id("a run; default: the newest unfinished walk (a drill must be named)")]
WalkId = Annotated[str, _run_id("a run; default: the newest unfinished walk, else a new one (a drill must be named)")]
AnyRunId = Annotated[str, _run_id("a run; default: the newest unfinished one, a drill too")]
EndId = Annotated[str, _run_id("a run; default: the newest unfinished one, a drill too, where one kind only is unfinished")]
EveryId = Annotated[str, _run_id("this run only; default: all runs of this folder")]
LeftId = Annotated[str, _run_id("this run, also a live one; default: this user's, dead or torn down, in every folder")]
ReportId = Annotated[str, _run_id("a run, as RUN; default: the newest, a drill too")]
ClusterFile = Annotated[str, typer.Option("--cluster-file", "-f", metavar="FILE",
                                          help="an eksctl ClusterConfig; default: cluster.yaml")]
Json = Annotated[bool, typer.Option("--json", help="print JSON on stdout")]
Parameter = Annotated[list[str] | None, typer.Option("-p", metavar="NAME=VALUE", help="a notebook's parameter; may be repeated")]


@dataclass(frozen=True)
class Chosen:
    """What the options mean: checkout, target, and the cluster file's path."""

    root: Path
    target: str
    path: Path

    @property
    def parameter(self) -> str:
        """The cluster file as the notebooks get it: from the checkout where it is in there."""
        return str(self.path.relative_to(self.root) if self.path.is_relative_to(self.root) else self.path)

    def warn(self) -> None:
        """Read the cluster file before anything else, and say what is dated in it. Raises ConfigError."""
        for warning in load_cluster(self.path).warnings:
            console.print(f"[yellow]warning:[/] {printing.plain(warning)}")


def choose(target: str, cluster_file: str, run_id: str) -> Chosen:
    """Fill in what was not given: from the run that is named, else the defaults. Raises ConfigError."""
    return _chosen(runs.find_root(), target, cluster_file, run_id)


def choose_anywhere(target: str) -> Chosen:
    """The same for what only looks: outside every folder of ours, by what the package ships."""
    return _chosen(root_or_shipped(), target, "", "")


def root_or_shipped() -> Path:
    """The folder that one stands in, else what the package ships."""
    try:
        return runs.find_root()
    except ConfigError:
        return scaffold.SOURCE


def _chosen(root: Path, target: str, cluster_file: str, run_id: str) -> Chosen:
    runs.check_id(run_id)
    info = runs.read(root / "runs" / run_id) if run_id else None
    target = target or (info.target if info else "rehearsal")
    targets.get(target)
    if cluster_file:
        here = locate(Path.cwd(), cluster_file)
        return Chosen(root, target, here if here.exists() else locate(root, cluster_file))
    return Chosen(root, target, Path(info.cluster_file) if info else root / "cluster.yaml")
