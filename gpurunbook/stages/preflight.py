"""01: is everything there that the walk needs? Asked before anything is started or paid for."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from gpurunbook import gpu_facts, programs, show, targets, yaml_file
from gpurunbook.gpu_stack import Recipe, plan_stack
from gpurunbook.plan import Check, Checks, Plan, State

if TYPE_CHECKING:
    from gpurunbook.config import ClusterConfig
    from gpurunbook.runbook import Run

DISK_GIB = 2.0
"""GiB that a rehearsal run may write: cluster data, pods' files, executed notebooks."""


def observe(run: Run) -> list[programs.Found]:
    """The programs of the run's target, as they are found on this machine."""
    return _all(run.find, run.target)


def doctor(target: targets.Target) -> list[programs.Found]:
    """The same without a run."""
    return _all(programs.find, target)


def _all(find: Callable[[str], programs.Found], target: targets.Target) -> list[programs.Found]:
    with ThreadPoolExecutor() as pool:  # each program takes a while to say its version
        return list(pool.map(find, target.programs))


def table(found: Sequence[programs.Found]) -> show.Table:
    """One row for each program: found where, version, needed, how to get it."""
    lacking = any(not p.fits for p in found)
    rows = [(p.name, p.version or "-", f"{p.how}: {p.path}" if p.fits else p.how, p.needed,
             *([("" if p.fits else f"gpurunbook setup {p.name}, or {p.get}")] if lacking else [])) for p in found]
    return show.Table(("program", "version", "found", "needed", *(["how to get it"] if lacking else [])), rows,
                      states=["pass" if p.fits else "fail" for p in found])


def plan(run: Run, found: Sequence[programs.Found]) -> Plan:
    return run.plan((), "preflight only looks")


def cost(run: Run, hours: float = 0) -> show.Table | show.Box:
    """What the cluster will cost for so many hours (1 when none are given), by AWS's own prices."""
    estimate = run.target.estimate(run.cluster, hours or 1)
    if estimate is None:
        return show.Box("costs nothing", (f"a cluster on target {run.target.name} has no bill of ours",), "pass")
    table: show.Table = estimate.table
    return table


def try_account(run: Run, name: str, found: Sequence[Check], *, max_hours: float = 0, budget: float = 0) -> Plan:
    """The tutorial's first step: create a default cluster of this name, and delete it. Empty when no name is given.

    Args:
        found: what `verify` found; while one of these fails, nothing is tried.

    Raises:
        ConfigError: nobody agreed to what it costs: the name is the confirmation, hours and dollars are needed too.
    """
    failed = Checks(found).failed
    return run.target.try_account(run, name, targets.Wishes(max_hours=max_hours, budget=budget, confirm=name),
                                  blocked=f"not tried while a check fails: {failed[0].name}" if failed else "")


def verify(run: Run, found: Sequence[programs.Found], *, image: str = "") -> list[Check]:
    """Programs, cluster.yaml, disk, and what the target asks besides. `image`: see notebook 06."""
    return checks(run.root, run.target, run.cluster, found, image=image)


def checks(root: Path, target: targets.Target, cluster: ClusterConfig, found: Sequence[programs.Found], *,
           image: str = "") -> list[Check]:
    """The same without a run."""
    deployment = yaml_file.load(root / "manifests" / "model" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    missing = [p for p in found if not p.fits]
    free = shutil.disk_usage(root).free / 2**30
    return [
        Check("programs", "fail" if missing else "pass",
              ", ".join(f"{p.name} {p.how}" for p in missing) or f"all {len(found)} fit",
              " ".join(("gpurunbook setup", *(p.name for p in missing)))),
        *(_described(root, cluster) if target.ours else ()),  # another's cluster is as it is, whatever cluster.yaml says
        *[Check("cluster.yaml is current", "warn", warning, f"edit {cluster.path.name}") for warning in cluster.warnings],
        Check("disk", "pass" if free > DISK_GIB else "fail", f"{free:.0f} GiB free", f"free {DISK_GIB:g} GiB for runs/"),
        *target.machine(cluster),
        *target.checks(cluster, image or pod["containers"][0]["image"]),
    ]


def _described(root: Path, cluster: ClusterConfig) -> list[Check]:
    groups = ", ".join(f"{g.desired} {g.instance_type} ({g.name})" for g in cluster.groups)
    known = gpu_facts.facts(root / gpu_facts.FILE)
    return [Check("cluster.yaml passes eksctl's schema", "pass", f"{cluster.name}: {groups}"), _supported(cluster, known),
            _planned(cluster, planned(cluster, known, dt.date.today()))]


def _supported(cluster: ClusterConfig, known: gpu_facts.Facts) -> Check:
    """Does NVIDIA support the pinned chart on this Kubernetes?"""
    low, high = map(gpu_facts.minor, known.kubernetes)
    version = gpu_facts.minor(cluster.version)
    state: State = "unknown" if not version else "pass" if low <= version <= high else "warn"
    return Check("the GPU operator's chart supports this Kubernetes", state,
                 f"chart {known.chart}: Kubernetes {' to '.join(known.kubernetes)}; "
                 f"cluster.yaml: {cluster.version or 'unset'}", "edit metadata.version in cluster.yaml, or pin another chart in "
                 "manifests/gpu-operator/chart.yaml", "an operator that fails on a cluster already paid for")


def _planned(cluster: ClusterConfig, found: Recipe) -> Check:
    """Is there a GPU stack for the GPU group? One that nobody supports may work all the same, and is a warning."""
    state: State = "fail" if not found.values else "warn" if found.warnings else "pass"
    return Check(f"{cluster.gpu_group.name}: GPU stack", state,
                 "; ".join((f"{found.support}: {found.values or 'none'}", *found.warnings)), "gpurunbook stack",
                 "15 to 25 min, then nodes whose GPUs nobody can use")


# The GPU stack

def planned(cluster: ClusterConfig, known: gpu_facts.Facts, today: dt.date) -> Recipe:
    """The recipe for the GPU group that cluster.yaml describes."""
    group = cluster.gpu_group
    return plan_stack(group.ami_family, group.instance_type, cluster.version, known=known, today=today, managed=group.managed)


def recipe(run: Run) -> show.Table | show.Box:
    """What the GPU group's nodes get, line by line why."""
    if not run.target.ours:
        return show.Box("known after 02", ("the cluster is there already: in 05 its nodes' operating system decides",))
    return planned(run.cluster, gpu_facts.facts(run.root / gpu_facts.FILE), dt.date.today()).table


def stale(today: dt.date, cluster: ClusterConfig) -> list[Check]:
    """What doctor warns of besides: versions that were read long ago, or whose support is over or soon will be."""
    return gpu_facts.stale(gpu_facts.facts(), today, cluster.version)
