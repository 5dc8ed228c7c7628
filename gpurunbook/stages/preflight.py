"""01: is everything there that the walk needs? Asked before anything is started or paid for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from gpurunbook import programs, show, targets
from gpurunbook.plan import Check, Plan
from gpurunbook.stages import model

if TYPE_CHECKING:
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
             *([("" if p.fits else f"make setup, or {p.get}")] if lacking else [])) for p in found]
    return show.Table(("program", "version", "found", "needed", *(["how to get it"] if lacking else [])), rows,
                      states=["pass" if p.fits else "fail" for p in found])


def _placed(run: Run) -> Check:
    """A Deployment that selects another group than cluster.yaml's would wait for a node for ever."""
    wanted, group = model.manifest(run).selector, run.cluster.gpu_group
    return Check("the model's Deployment selects the GPU group", "pass" if wanted in ("", group.selector) else "fail",
                 f"{wanted or 'any node'}; the group is {group.name}",
                 f"edit nodeSelector in manifests/model/deployment.yaml to {group.selector}")


def plan(run: Run, found: Sequence[programs.Found]) -> Plan:
    return run.plan((), "preflight only looks")


def verify(run: Run, found: Sequence[programs.Found]) -> list[Check]:
    """Programs, cluster.yaml, disk, and what the target asks besides."""
    missing = [p for p in found if not p.fits]
    free = shutil.disk_usage(run.folder).free / 2**30
    return [
        Check("programs", "fail" if missing else "pass",
              ", ".join(f"{p.name} {p.how}" for p in missing) or f"all {len(found)} fit", "make setup"),
        Check("cluster.yaml passes eksctl's schema", "pass",
              f"{run.cluster.name}: " + ", ".join(f"{g.desired} {g.instance_type} ({g.name})" for g in run.cluster.groups)),
        _placed(run),
        *[Check("cluster.yaml is current", "warn", warning, f"edit {run.cluster.path.name}") for warning in run.cluster.warnings],
        Check("disk", "pass" if free > DISK_GIB else "fail", f"{free:.0f} GiB free", f"free {DISK_GIB:g} GiB for runs/"),
        *run.target.checks(run.cluster),
    ]
