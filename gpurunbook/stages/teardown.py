"""09: everything that the run made is taken away again, and that is proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurunbook.plan import Check, Plan
from gpurunbook.programs.helm import Release, releases
from gpurunbook.stages import gpu_operator, model
from gpurunbook.targets import ClusterState

if TYPE_CHECKING:
    from gpurunbook.runbook import Run


@dataclass(frozen=True)
class Facts:
    """What there is to take away: the cluster, the operator's release, whether the model is deployed."""

    state: ClusterState
    release: Release | None
    deployed: bool


def observe(run: Run) -> Facts:
    state = run.target.observe(run)
    if not state.answers:
        return Facts(state, None, False)
    pinned = gpu_operator.pin(run)
    found = {r.name: r for r in releases(run.ask(run.helm.list(pinned["namespace"])).stdout)}
    return Facts(state, found.get(pinned["release"]), bool(model.pods(run, model.manifest(run))))


def plan(run: Run, facts: Facts) -> Plan:
    """Inside out: the model, the operator while its controller lives, then the cluster."""
    commands = []
    if facts.deployed:
        commands.append(run.kubectl.delete("deployment", model.manifest(run).name))
    if facts.release:
        commands.append(run.helm.uninstall(facts.release.name, gpu_operator.pin(run)["namespace"]))
    whole = run.target.delete(run, facts.state)
    commands += whole.commands
    return run.plan(commands, whole.reason, elsewhere=whole.elsewhere)


def verify(run: Run) -> list[Check]:
    checks = run.target.left(run)
    if not any(check.state == "fail" for check in checks):
        run.journal.append("run", state="finished")
    return checks
