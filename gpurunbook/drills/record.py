"""Which run is a drill, and which one: the journal holds the seed alone, and the name follows from it."""

from __future__ import annotations

from pathlib import Path

from gpurunbook import runs
from gpurunbook.drills import catalogue
from gpurunbook.drills.drill import Drill
from gpurunbook.errors import ConfigError
from gpurunbook.journal import Journal
from gpurunbook.runbook import Run, open_run

LIST = "gpurunbook drill lists them; begin one: gpurunbook drill start"


def find(root: Path, run_id: str = "") -> runs.RunInfo:
    """The drill's run of that id, else the newest that is not torn down. Raises ConfigError when there is none."""
    found = [info for info in runs.list_runs(root) if info.drill]
    if run_id:
        for info in found:
            if info.id == run_id:
                return info
        raise ConfigError(f"run {run_id} is no drill", where=str(root / "runs"), next=LIST)
    going = [info for info in found if info.state != "finished"]
    if not going:
        raise ConfigError("no drill is under way", where=str(root / "runs"), next=LIST)
    return going[-1]


def drill(info: runs.RunInfo) -> Drill:
    """What the run's seed gives."""
    return catalogue.pick(seed(info))


def seed(info: runs.RunInfo) -> int:
    first = Journal(info.folder).first("drill")
    assert first is not None
    return int(first["seed"])


def opened(run_id: str, target: str, cluster_file: str) -> Run:
    """The run, to look at only: nothing is written, and a cluster that is not the run's own is no error."""
    return open_run("provision", run_id=run_id, target=target, cluster_file=cluster_file, quiet=True)


def looked_at(info: runs.RunInfo) -> Run:
    return opened(info.id, info.target, info.cluster_file)


def revealed(info: runs.RunInfo) -> bool:
    return Journal(info.folder).first("reveal") is not None


def checked(info: runs.RunInfo, *, mended: bool) -> None:
    """Note a verdict for the report; of a drill that is torn down there is none."""
    if info.state != "finished":
        Journal(info.folder).append("verdict", mended=mended)


def hints_given(info: runs.RunInfo) -> int:
    return sum(record["kind"] == "hint" for record in Journal(info.folder).records())
